package etcd

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// idle is for who wants figures: go test -run TestIdle -v -idle 5m
var idle = flag.Duration("idle", 0, "how long TestIdle looks on; 0: it does not")

// TestIdle measures what three members cost while nothing happens, and what a write of the kind
// that a node's status is adds to that.
func TestIdle(t *testing.T) {
	if *idle == 0 {
		t.Skip("takes -idle")
	}
	f := newTestFleet(t, 3, 0, 3)
	memory, err := os.MkdirTemp("/dev/shm", "etcd") // what the tests have them write is none of it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(memory)
	for seat, s := range f.setups {
		s.Quota, s.Status = 0, fmt.Sprintf("%s/%d", memory, seat)
	}
	f.world.Facts.Grace = 5 * time.Minute
	f.tell()
	f.start(1, 2, 3)
	f.whole(1, 2, 3)
	time.Sleep(10 * time.Second) // what a start does is over
	report := func(what string, per float64, do func()) {
		before := make(map[int][3]int64)
		for seat := range f.running {
			before[seat] = f.cost(seat)
		}
		began := time.Now()
		do()
		took := time.Since(began)
		for seat := 1; seat <= 3; seat++ {
			now := f.cost(seat)
			cpu := float64(now[1]-before[seat][1]) * 10 / float64(took.Milliseconds()) * 100
			t.Logf("%s: seat %d (leads: %v): %.1f KiB written %s, CPU %.1f %% of a core, memory %d MiB", what, seat, f.status(seat).Leader == seat,
				float64(now[0]-before[seat][0])/1024/per, map[bool]string{true: "each", false: "an hour"}[what != "idle"], cpu, now[2]>>10)
		}
	}
	report("idle", idle.Hours(), func() { time.Sleep(*idle) })
	value := strings.Repeat("x", 1500)
	report("write", 100, func() {
		for n := range 100 {
			f.put(1, fmt.Sprintf("/kogge/v1/nodes/%d/status", n), value)
			time.Sleep(300 * time.Millisecond) // each is a commit of its own
		}
	})
}

// cost is what a member has written to disk in bytes, its CPU time in hundredths of a second, and
// its memory in KiB.
func (f *testFleet) cost(seat int) (c [3]int64) {
	pid := f.running[seat].Process.Pid
	read := func(name, field string, into *int64) {
		file, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			f.t.Fatal(err)
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if rest, ok := strings.CutPrefix(lines.Text(), field); ok {
				fmt.Sscan(rest, into)
			}
		}
	}
	read("io", "write_bytes:", &c[0])
	read("smaps_rollup", "Rss:", &c[2])
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		f.t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system int64
	fmt.Sscan(fields[11], &user)
	fmt.Sscan(fields[12], &system)
	c[1] = user + system
	return c
}
