package supervise

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ramLog is a log without a pipe.
func ramLog(size int) *serviceLog {
	return &serviceLog{out: -1, size: size, ended: make(chan struct{})}
}

// TestRing compares the ring with one long text, for readers that come late.
func TestRing(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		l := ramLog(1 + r.IntN(300))
		var all []byte
		var from, seen, lost int64
		for i := range 200 {
			var b []byte
			for range 1 + r.IntN(4) {
				b = fmt.Appendf(b, "%d %s\n", i, strings.Repeat("x", r.IntN(40)))
			}
			all = append(all, b...)
			l.add(b)
			if tail := r.IntN(5); tail > 0 {
				c := l.after(l.tail(tail))
				kept := bytes.Split(bytes.TrimSuffix(all[max(0, len(all)-l.size):], []byte("\n")), []byte("\n"))
				if len(kept) > tail {
					kept = kept[len(kept)-tail:]
					if want := append(bytes.Join(kept, []byte("\n")), '\n'); !bytes.Equal(c.lines, want) {
						t.Fatalf("seed %d: tail %d is %q, want %q", seed, tail, c.lines, want)
					}
				}
			}
			if r.IntN(3) > 0 {
				continue // this reader is slow
			}
			for {
				c := l.after(from)
				if c.next != from+c.lost+int64(len(c.lines)) || !bytes.Equal(c.lines, all[from+c.lost:c.next]) {
					t.Fatalf("seed %d: after %d: %+v", seed, from, c)
				}
				if len(c.lines) > 0 && (c.lines[len(c.lines)-1] != '\n' || c.next-int64(len(c.lines)) > 0 && all[c.next-int64(len(c.lines))-1] != '\n') {
					t.Fatalf("seed %d: not whole lines: %q", seed, c.lines)
				}
				from, seen, lost = c.next, seen+int64(len(c.lines)), lost+c.lost
				if c.news != nil {
					break
				}
			}
			if seen+lost != int64(len(all)) {
				t.Fatalf("seed %d: seen %d, lost %d of %d", seed, seen, lost, len(all))
			}
		}
		if len(l.ring) > l.size {
			t.Fatalf("ring of %d has %d bytes", l.size, len(l.ring))
		}
	}
}

func TestStampLines(t *testing.T) {
	long := strings.Repeat("y", maxLine+10)
	for _, c := range []struct {
		in         string
		last       bool
		want, rest string
	}{
		{"", false, "", ""},
		{"a\nb", false, ">a\n", "b"},
		{"a\nb", true, ">a\n>b\n", ""},
		{"\n\n", false, ">\n>\n", ""},
		{long, false, ">" + long[:maxLine] + "\n", "yyyyyyyyyy"},
		{long + "\nz", true, ">" + long[:maxLine] + "\n>yyyyyyyyyy\n>z\n", ""},
	} {
		out, rest := stampLines(nil, []byte(c.in), []byte(">"), c.last)
		if string(out) != c.want || string(rest) != c.rest {
			t.Errorf("%.20q: %.40q rest %q, want %.40q rest %q", c.in, out, rest, c.want, c.rest)
		}
	}
}

// TestSpool fills log files far beyond their size.
func TestSpool(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log") // made by the spool
	s := newSpool(dir, "web")
	s.full = 1000
	line := strings.Repeat("z", 99) + "\n"
	for range 57 {
		if _, err := s.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	must(s.Close())
	for name, want := range map[string]int64{"web.log": 700, "web.log.1": 1000} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() != want {
			t.Errorf("%s: %v, %v, want %d bytes", name, info, err, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v %v", entries, err)
	}
}

// TestSpoolPowerCut goes on from every state that a cut can leave: a file torn at
// any byte, a rename that has or has not happened, a new file that is or is not there.
func TestSpoolPowerCut(t *testing.T) {
	const full = 100
	line := "2026-11-22T02:00:00.000Z something\n"
	for size := range full + len(line) {
		for _, old := range []int{-1, 0, full} {
			for _, current := range []bool{true, false} {
				dir := t.TempDir()
				path := filepath.Join(dir, "web.log")
				if current {
					must(os.WriteFile(path, bytes.Repeat([]byte("c"), size), 0o600))
				}
				if old >= 0 {
					must(os.WriteFile(path+".1", bytes.Repeat([]byte("o"), old), 0o600))
				}
				s := newSpool(dir, "web")
				s.full = full
				if _, err := s.Write([]byte(line)); err != nil {
					t.Fatalf("size=%d old=%d current=%v: %v", size, old, current, err)
				}
				must(s.Close())
				b, err := os.ReadFile(path)
				if err != nil || !strings.HasSuffix(string(b), line) || len(b) > full+len(line) {
					t.Fatalf("size=%d old=%d current=%v: %q %v", size, old, current, b, err)
				}
			}
		}
	}
}

// TestSpoolBroken survives a folder that cannot be written to, until it can.
func TestSpoolBroken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	must(os.WriteFile(dir, nil, 0o600)) // a file where the folder should be
	s := newSpool(dir, "web")
	for range 2 {
		if _, err := s.Write([]byte("lost\n")); err == nil {
			t.Fatal("written into nothing")
		}
	}
	must(os.Remove(dir))
	if _, err := s.Write([]byte("kept\n")); err != nil {
		t.Fatal(err)
	}
	must(s.Close())
}

// sink is a log file that counts.
type sink struct {
	bytes.Buffer
	closed bool
}

func (s *sink) Close() error { s.closed = true; return nil }

// TestKeepRate writes no more to the disk than its share, and says so.
func TestKeepRate(t *testing.T) {
	l := ramLog(4 << 20)
	line := append(bytes.Repeat([]byte("f"), 999), '\n')
	l.add(bytes.Repeat(line, 2<<10))
	l.add([]byte("last\n"))
	l.finish()
	var s sink
	l.keep(&s)
	if s.Len() > spoolBurst+maxRead || s.Len() < spoolBurst/2 || !s.closed {
		t.Errorf("%d bytes kept, closed %v", s.Len(), s.closed)
	}
	if !bytes.HasSuffix(s.Bytes(), []byte("last\n")) || !bytes.Contains(s.Bytes(), []byte(" bytes left out\n")) {
		t.Errorf("end of the file: %q", s.Bytes()[max(0, s.Len()-200):])
	}
}

// TestLogFiles runs a service with log files and finds its last words in one.
func TestLogFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	n := run(t, func(c *Config) { c.LogDir = dir }, service("good"))
	n.until("first line", func() bool { return strings.Contains(n.log("good"), "good: begins") })
	n.end()
	b, err := os.ReadFile(filepath.Join(dir, "good.log"))
	if err != nil || !strings.Contains(string(b), "good: begins\n") || !strings.Contains(string(b), "good: ends\n") {
		t.Errorf("good.log: %q, %v", b, err)
	}
}

// TestMailbox has a listener that is slower than what happens.
func TestMailbox(t *testing.T) {
	m := newMailbox(3)
	for i := range 10 {
		m.put(fmt.Sprint(i))
	}
	<-m.lines
	<-m.lines
	m.put("later")
	m.close()
	m.put("too late")
	var got []string
	m.deliver(func(line string) { got = append(got, line) })
	if s := strings.Join(got, ","); s != "2,7 lines left out,later" {
		t.Errorf("delivered %s", s)
	}
}
