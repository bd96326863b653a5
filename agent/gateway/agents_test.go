package gateway_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"kogge.example/agent/etcd/etcdtest"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// Many agents over three members are for who wants figures, and for make bench:
//
//	go test -run TestAgents -v -agents 10000 ./agent/gateway
var (
	agentsFlag  = flag.Int("agents", 0, "how many agents TestAgents has; 0: it does not run")
	crowdsFlag  = flag.Int("crowds", 10, "in how many processes they are")
	agentsIdle  = flag.Duration("agents-idle", time.Minute, "how long they are left alone")
	changesFlag = flag.Int("changes", 5, "how many changes they are told of")
)

// figures are what one process of a test says of itself, once a second.
type figures struct {
	Connected, Put int
	Height         int64       // the lowest of all agents
	Told           int64       // Unix nanoseconds at which the last of them came there
	With           map[int]int // agents by the seats of their gateways
}

// process is a part of the test that is a process of its own.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	last  chan figures // what it said last
}

// start runs a part, and listens to it.
func startPart(t *testing.T, s partSetup) *process {
	t.Helper()
	file := t.TempDir() + "/part"
	raw, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(file, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(os.Args[0]), last: make(chan figures, 1)}
	p.cmd.Env = append(os.Environ(), partEnv+"="+file)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var f figures
			if json.Unmarshal(lines.Bytes(), &f) != nil {
				continue
			}
			select {
			case <-p.last:
			default:
			}
			p.last <- f
		}
		close(p.last)
	}()
	t.Cleanup(p.end)
	return p
}

func (p *process) end() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// all waits until what the processes say together holds.
func all(t *testing.T, limit time.Duration, what string, parts []*process, holds func([]figures) bool) {
	t.Helper()
	said := make([]figures, len(parts))
	for deadline := time.Now().Add(limit); ; {
		for i, p := range parts {
			f, ok := <-p.last
			if !ok {
				t.Fatalf("%s: process %d has ended", what, i)
			}
			said[i] = f
		}
		if holds(said) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %+v", what, limit, said)
		}
	}
}

func sum(all []figures, of func(figures) int) (n int) {
	for _, f := range all {
		n += of(f)
	}
	return n
}

// TestAgents measures what many agents cost three members: real clients, TLS 1.3, signatures
// checked. A line "figure:" is for make bench.
func TestAgents(t *testing.T) {
	if *agentsFlag == 0 {
		t.Skip("takes -agents")
	}
	agents, crowds := *agentsFlag, min(*crowdsFlag, *agentsFlag)
	f := ledgertest.Founded(t, 4, 2+*changesFlag)
	e := etcdtest.New(t, 3)
	where := make(map[int]netip.AddrPort)
	for seat := 1; seat <= 3; seat++ {
		l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
		if err != nil {
			t.Fatal(err)
		}
		where[seat] = l.Addr().(*net.TCPAddr).AddrPort()
		l.Close()
	}
	setup := partSetup{Genesis: f.Genesis.Bytes(), Seats: agents + firstAgent - 1, Where: where, Idle: 24 * time.Hour}
	for height, entry := range f.Entries {
		setup.Entries = append(setup.Entries, ledger.FormatEntry(int64(height+1), entry))
	}
	var gateways, people []*process
	for seat := 1; seat <= 3; seat++ {
		s := setup
		s.Gateway, s.Socket = seat, e.Socket(seat)
		gateways = append(gateways, startPart(t, s))
	}
	began := time.Now()
	for i := range crowds {
		s := setup
		s.From, s.To = firstAgent+agents*i/crowds, firstAgent+agents*(i+1)/crowds
		people = append(people, startPart(t, s))
	}
	report := func(what, unit string, value float64) { t.Logf("figure: %s|%s|%.3f", what, unit, value) }
	name := fmt.Sprintf("%d agents over three members: ", agents)
	all(t, 10*time.Minute, "all are there", people, func(said []figures) bool {
		return sum(said, func(f figures) int { return f.Connected }) == agents && sum(said, func(f figures) int { return f.Put }) == 2*agents
	})
	report(name+"all have joined and put what they say", "s", time.Since(began).Seconds())

	costs := func(of func(pid int) float64) (all []float64) {
		for i, g := range gateways {
			all = append(all, of(g.cmd.Process.Pid)+of(e.Process(i+1)))
		}
		return all
	}
	clients := func() (n float64) {
		for _, p := range people {
			n += cpuOf(t, p.cmd.Process.Pid)
		}
		return n
	}
	time.Sleep(*agentsIdle / 4) // what the beginning does is over
	before, theirs, at := costs(func(pid int) float64 { return cpuOf(t, pid) }), clients(), time.Now()
	time.Sleep(*agentsIdle)
	took := time.Since(at).Seconds()
	after := costs(func(pid int) float64 { return cpuOf(t, pid) })
	memory := costs(func(pid int) float64 { return memoryOf(t, pid) })
	for i := range before {
		report(fmt.Sprintf("%sCPU idle, etcd and gateway of member %d", name, i+1), "%", (after[i]-before[i])/took*100)
		report(fmt.Sprintf("%sRSS, etcd and gateway of member %d", name, i+1), "MiB", memory[i])
		report(name+"RSS, the gateway alone", "MiB", memoryOf(t, gateways[i].cmd.Process.Pid))
	}
	report(name+"CPU idle of all clients", "%", (clients()-theirs)/took*100)

	for height := int64(3); height <= int64(len(f.Entries)); height++ {
		theirs, began := clients(), time.Now()
		fmt.Fprintf(gateways[0].stdin, "take %d\n", height)
		var last int64
		all(t, 2*time.Minute, "all are told", people, func(said []figures) bool {
			last = 0
			for _, f := range said {
				if f.Height < height {
					return false
				}
				last = max(last, f.Told)
			}
			return true
		})
		report(name+"last one told of a change", "s", float64(last-began.UnixNano())/1e9)
		report(name+"clients' CPU for that", "s", clients()-theirs)
	}

	began = time.Now()
	e.Kill(3)
	gateways[2].end()
	all(t, 5*time.Minute, "all are with other members", people, func(said []figures) bool {
		return sum(said, func(f figures) int { return f.With[1] + f.With[2] }) == agents
	})
	report(name+"a member is lost, all are with others after", "s", time.Since(began).Seconds())
}

// cpuOf is what a process has used, in seconds.
func cpuOf(t *testing.T, pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var user, system int64
	fmt.Sscan(fields[11], &user)
	fmt.Sscan(fields[12], &system)
	return float64(user+system) / 100
}

// memoryOf is what a process has in memory, in MiB.
func memoryOf(t *testing.T, pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kib float64
			fmt.Sscan(rest, &kib)
			return kib / 1024
		}
	}
	return 0
}
