package change

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

// TestTable prints what every state makes of every event; the diff of that table is
// the review.
func TestTable(t *testing.T) {
	var b strings.Builder
	for _, s := range []State{Kept, Trying, Tried} {
		for _, e := range []Event{SetSame, SetOther, Up, Confirm, Undo, Timer} {
			next, action := s.Step(e)
			said := string(action)
			if action == Refuse {
				said += ": " + s.refusal(e).Error()
				if next != s {
					t.Errorf("%s, %s: refused, and yet %s", s, e, next)
				}
			}
			fmt.Fprintf(&b, "%-7s %-10s → %-7s %s\n", s, e, next, said)
		}
		b.WriteString("\n")
	}
	golden.Compare(t, "table.txt", b.String())
}

// TestEveryPart fails for a part of node.yaml of which nobody said who reads it.
func TestEveryPart(t *testing.T) {
	all := reflect.TypeFor[nodeconfig.Config]()
	for i := range all.NumField() {
		if _, known := readers[all.Field(i).Name]; !known {
			t.Errorf("node.yaml's %s is not in readers: which services start anew when it changes?", all.Field(i).Name)
		}
	}
	for part := range readers {
		if _, there := all.FieldByName(part); !there {
			t.Errorf("readers has %s, which node.yaml has not", part)
		}
	}
}

// TestRestarts shows which services start anew for which change.
func TestRestarts(t *testing.T) {
	const web = "workloads:\n  services:\n    web: {image: example.org/web:1}\n"
	var b strings.Builder
	for _, c := range []struct{ from, to string }{
		{"", "# a comment\n"},
		{"", "network: [{match: wired}]\n"},
		{"", "network: [{match: wired, mtu: 1400}]\n"},
		{"network: [{match: eth0, addresses: [192.0.2.7/24]}]\n", "network: [{match: eth0, addresses: [192.0.2.7/24], ipv6: auto}]\n"},
		{"network: [{match: eth0, addresses: [192.0.2.7/24]}]\n", "network: [{match: eth0, addresses: [192.0.2.8/24]}]\n"},
		{"hostname: a\n", "hostname: b\n"},
		{"", "time: {servers: [192.0.2.1]}\n"},
		{"", "state: {onCorrupt: reformat}\n"},
		{"", "labels: {shop: one}\n"},
		{"", "containers: {pool: [10.99.0.0/16]}\n"},
		{"", "network: [{match: wired, forward: true}]\n"},
		{"", web},
		{web, "labels: {}\n\n" + web},
		{web, strings.Replace(web, ":1", ":2", 1)},
		{"hostname: a\n", "time: {servers: [192.0.2.1]}\n" + web},
	} {
		from, to := parsed(t, c.from), parsed(t, c.to)
		fmt.Fprintf(&b, "%q\n%q\n  %v %s\n", c.from, c.to, restarts(from, to), strings.Join(warnings(from, to), "; "))
	}
	golden.Compare(t, "restarts.txt", b.String())
}

func parsed(t *testing.T, text string) nodeconfig.Config {
	t.Helper()
	c, err := nodeconfig.Parse("node.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bench is a keeper with its files and what it ordered.
type bench struct {
	*Keeper
	t             *testing.T
	running, copy string

	mu       sync.Mutex // guards what follows
	restarts []string
	names    []string
	starts   int
}

const (
	before = "hostname: n07\n"
	same   = "hostname: n08\n"
	other  = "network: [{match: wired, addresses: [192.0.2.7/24]}]\n"
)

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{t: t, running: filepath.Join(dir, "running"), copy: filepath.Join(dir, "copy"), starts: 1}
	for _, path := range []string{b.running, b.copy} {
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.Keeper = New(Options{
		Running: b.running, Copy: b.copy, Say: func(line string) { t.Log(line) }, pause: time.Millisecond,
		Rename: func(name string) error {
			b.names = append(b.names, name)
			return nil
		},
		Restart: func(service string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.restarts = append(b.restarts, service)
		},
	}, []byte(before), parsed(t, before))
	b.network("running")
	return b
}

// network says how the network service is.
func (b *bench) network(state string) {
	b.Observe(control.Status{Services: []control.Service{{Name: "clock", Starts: 9, State: "running"}, {Name: "network", State: state, Starts: b.starts}}})
}

// started waits until the network service was told to start anew, and does.
func (b *bench) started() {
	b.t.Helper()
	b.ordered("network")
	b.starts++
	b.network("starting")
	b.is(Trying)
	b.network("running")
}

// ordered waits for an order.
func (b *bench) ordered(service string) {
	b.t.Helper()
	until(b.t, service+" to start anew", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		i := slices.Index(b.restarts, service)
		if i < 0 {
			return false
		}
		b.restarts = slices.Delete(b.restarts, i, i+1)
		return true
	})
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (b *bench) set(text string) *control.Config {
	b.t.Helper()
	s, err := b.Set(control.Request{}, []byte(text))
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// is fails unless the keeper's state is want.
func (b *bench) is(want State) {
	b.t.Helper()
	if s := b.Status(); s.State != string(want) {
		b.t.Errorf("state %s (%s), want %s", s.State, s.Last, want)
	}
}

// files fails unless the two files are these.
func (b *bench) files(running, copied string) {
	b.t.Helper()
	for path, want := range map[string]string{b.running: running, b.copy: copied} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			b.t.Errorf("%s: %q, %v, want %q", filepath.Base(path), got, err, want)
		}
	}
}

// refused fails unless err says want.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q in it", err, want)
	}
}

// TestKeptAtOnce: what cannot cut the node off needs nobody's word.
func TestKeptAtOnce(t *testing.T) {
	b := newBench(t)
	s, err := b.Set(control.Request{Check: true}, []byte(same))
	if err != nil || s.State != "kept" || !slices.Equal(s.Restarts, []string{"agent", "network"}) {
		t.Errorf("check: %+v, %v", s, err)
	}
	b.files(before, before)
	b.set(same)
	b.files(same, same)
	b.is(Kept)
	b.ordered("network")
	b.ordered("agent")
	if !slices.Equal(b.names, []string{"n08"}) {
		t.Errorf("renamed to %q", b.names)
	}
	_, err = b.Confirm("")
	refused(t, err, "nothing to confirm")
	_, err = b.Undo()
	refused(t, err, "nothing to undo")
}

// TestConfirm: another network runs, and is saved once somebody reached the node.
func TestConfirm(t *testing.T) {
	b := newBench(t)
	s := b.set(other)
	if s.State != "trying" || s.UndoSeconds != 120 {
		t.Errorf("set: %+v", s)
	}
	b.files(other, before)
	_, err := b.Confirm("")
	refused(t, err, "too early to confirm")
	_, err = b.Set(control.Request{}, []byte(same))
	refused(t, err, "are being tried")
	b.network("running") // as it was: it has not started anew
	b.is(Trying)
	b.started()
	b.is(Tried)
	_, err = b.Confirm(strings.Repeat("0", 64))
	refused(t, err, "is not in use here")
	if s, err := b.Confirm(s.Running); err != nil || s.State != "kept" || s.Kept != s.Running {
		t.Errorf("confirm: %+v, %v", s, err)
	}
	b.files(other, other)
	if b.timer.Stop() {
		t.Error("the undo was still to come")
	}
}

// TestTimer: nobody comes, and the node goes back.
func TestTimer(t *testing.T) {
	b := newBench(t)
	b.set(other)
	b.started()
	b.mu.Lock()
	b.restarts = nil
	b.mu.Unlock()
	b.Keeper.over() // too early: a timer of a change before
	b.is(Tried)
	b.Keeper.mu.Lock()
	b.undoAt = time.Now()
	b.Keeper.mu.Unlock()
	b.Keeper.over()
	b.is(Kept)
	b.files(before, before)
	b.ordered("network")
	if last := b.Status().Last; !strings.Contains(last, "nobody confirmed") {
		t.Errorf("last: %q", last)
	}
	if !slices.Equal(b.names, []string{"", "n07"}) {
		t.Errorf("renamed to %q", b.names)
	}
	// And another try is possible.
	b.set(other)
	if s, err := b.Undo(); err != nil || s.State != "kept" {
		t.Errorf("undo: %+v, %v", s, err)
	}
	b.files(before, before)
}

// TestSaveFails: a text that cannot be kept is no change, and no end of a try.
func TestSaveFails(t *testing.T) {
	b := newBench(t)
	lost := filepath.Join(t.TempDir(), "gone", "copy")
	kept := b.o.Copy
	b.o.Copy = lost
	_, err := b.Set(control.Request{}, []byte(same))
	refused(t, err, "no such file")
	b.files(before, before)
	b.set(other)
	b.started()
	_, err = b.Confirm("")
	refused(t, err, "no such file")
	b.is(Tried)
	b.o.Copy = kept
	if _, err := b.Confirm(""); err != nil {
		t.Error(err)
	}
	b.files(other, other)
}

// TestRunFails: a text that the node cannot run with is not what its next boot runs with.
func TestRunFails(t *testing.T) {
	b := newBench(t)
	running := b.o.Running
	b.o.Running = filepath.Join(t.TempDir(), "gone", "running")
	_, err := b.Set(control.Request{}, []byte(same))
	refused(t, err, "no such file")
	b.files(before, before)
	b.o.Running = running
	b.set(same)
	b.files(same, same)
}

// TestRefusals: what changes nothing.
func TestRefusals(t *testing.T) {
	b := newBench(t)
	for text, want := range map[string]string{
		"":                  "the file is empty",
		" \n":               "the file is empty",
		"hostnam: n07\n":    `node.yaml:1:1: unknown key "hostnam"`,
		"hostname: N07\n":   "node.yaml:1:11",
		"hostname: n07\x00": "NUL",
	} {
		_, err := b.Set(control.Request{}, []byte(text))
		refused(t, err, want)
	}
	_, err := b.Set(control.Request{Base: strings.Repeat("0", 64)}, []byte(same))
	refused(t, err, "was changed since you read it")
	_, err = b.Set(control.Request{UndoSeconds: 5}, []byte(other))
	refused(t, err, "at least 10s")
	_, err = b.Set(control.Request{UndoSeconds: 5000}, []byte(other))
	refused(t, err, "at most 1h0m0s")
	b.o.Copy = ""
	_, err = b.Set(control.Request{}, []byte(same))
	refused(t, err, "STATE is not on the disk")
	b.files(before, before)
	b.is(Kept)
}

// TestReadFile: the file of a request has a plain name and the bytes that were meant.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "new"), []byte(same), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(same))
	hash := hex.EncodeToString(sum[:])
	if got, err := ReadFile(dir, control.Request{File: "new", SHA256: hash}); err != nil || string(got) != same {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"", ".", "..", "../" + filepath.Base(dir) + "/new", "/etc/passwd", "a\x00b"} {
		_, err := ReadFile(dir, control.Request{File: name, SHA256: hash})
		refused(t, err, "is not the name of a file")
	}
	_, err := ReadFile(dir, control.Request{File: "new", SHA256: "00"})
	refused(t, err, "the request says 00")
	if _, err := ReadFile(dir, control.Request{File: "gone", SHA256: hash}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
