package part

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"kogge.example/agent/events"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/pinned"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/memory"
)

// opened is a node that nobody has adopted.
func opened(t *testing.T) *Part {
	t.Helper()
	node, state := identitytest.Open(t)
	return New(node, state, t.TempDir(), func() {})
}

// adopted is a node of a fleet.
func adopted(t *testing.T, f *ledgertest.Fleet) *Part {
	t.Helper()
	node, state := identitytest.Adopted(t, f)
	return New(node, state, t.TempDir(), func() {})
}

// nobody hears what becomes of seats.
func nobody(...events.Event) {}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPart: a node tells that its fleet has two histories for as long as it knows of them, and
// knows callers by the ledger. For neither it makes the key of a seat.
func TestPart(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	p := adopted(t, f)
	eve := fleet.Peer{Kind: fleet.KindOperator, Name: "eve", Role: fleet.RoleAdmin, Key: ledgertest.Operator(t, "eve", fleet.RoleAdmin).Key.String()}
	ask := func(when string, problem, caller error) {
		t.Helper()
		if err := p.Problem(); !errors.Is(err, problem) {
			t.Errorf("%s: its problem: %v", when, err)
		}
		if who, err := p.Known(eve); !errors.Is(err, caller) || err == nil && who != eve {
			t.Errorf("%s: a caller is %s: %v", when, who, err)
		}
	}
	told := func(want string) {
		t.Helper()
		p.Tell()
		place, err := control.ReadFleet(p.run)
		must(t, err)
		if got := regexp.MustCompile(`\(\w+\)|key \w+`).ReplaceAllStringFunc(place.String(), func(s string) string { return s[:1] }); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	ask("before the founding", nil, nil)
	told("hanse (, not founded")
	dir := filepath.Join(p.state, "kogge", "ledger")
	if _, err := os.Stat(dir); err == nil {
		t.Error("a ledger without a record has a folder")
	}
	taken, err := p.Ledger()
	must(t, err)
	must(t, taken.Take(1, f.Entries[0]))
	ask("founded", nil, ledger.ErrUnlisted)
	if _, err := os.Stat(filepath.Join(p.state, "identity", "seat.json")); err == nil {
		t.Error("the seat's key was made unasked")
	}
	told("hanse (, no seat, k, 1 record, 3 of 4 votes decide")
	if err := taken.Take(1, f.Again(t)); !errors.Is(err, pinned.ErrFork) {
		t.Fatal(err)
	}
	ask("with two histories", pinned.ErrFork, ledger.ErrUnlisted)
	p = New(p.node, p.state, p.run, func() {})
	ask("after a reboot", pinned.ErrFork, ledger.ErrUnlisted)
	told("hanse (, no seat, k, 1 record, 3 of 4 votes decide: " + p.Problem().Error())
	if _, _, err := p.Whole(); err != nil {
		t.Error(err)
	}
	p = opened(t)
	p.Tell()
	if _, err := control.ReadFleet(p.run); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a node of no fleet tells of one: %v", err)
	}
	ask("of no fleet", nil, nil)
	if _, err := p.Ledger(); err == nil {
		t.Error("a node of no fleet has a ledger")
	}
}

// TestVotes: PID 1 knows how many votes decide before the node has taken the record that says so.
// Where that cannot be, no record is taken; and where the ledger cannot be read, what it knew stays.
func TestVotes(t *testing.T) {
	f, alone := ledgertest.Founded(t, 4, 2), ledgertest.Founded(t, 1, 1)
	is := func(p *Part, what string, want memory.Votes) {
		t.Helper()
		if votes, err := memory.ReadVotes(p.memory()); err != nil || votes != want {
			t.Errorf("%s: %d votes, %v", what, votes, err)
		}
	}
	again := func(p *Part) *Part { return New(p.node, p.state, p.run, func() {}) }
	p := adopted(t, f)
	must(t, p.SettleVotes())
	is(p, "not founded", 1)
	taken, err := p.Ledger()
	must(t, err)
	folder := filepath.Join(p.state, "kogge", "update")
	must(t, os.MkdirAll(filepath.Dir(folder), 0o700))
	must(t, os.RemoveAll(folder))
	must(t, os.WriteFile(folder, nil, 0o600)) // a disk that takes nothing there
	if err := taken.Take(1, f.Entries[0]); err == nil || taken.State().Height != 0 || taken.Problem() != nil {
		t.Errorf("it is taken without PID 1 knowing: height %d, %v, %v", taken.State().Height, err, taken.Problem())
	}
	must(t, os.Remove(folder))
	must(t, taken.Take(1, f.Entries[0]))
	is(p, "founded", 4)
	must(t, os.WriteFile(filepath.Join(folder, "votes.json"), []byte("\x00"), 0o600))
	must(t, taken.Take(2, f.Entries[1]))
	is(p, "damaged, and a record came", 4)
	must(t, os.WriteFile(filepath.Join(folder, "votes.json"), []byte("\x00"), 0o600))
	must(t, again(p).SettleVotes())
	is(p, "damaged, and the agent started anew", 4)
	must(t, os.WriteFile(filepath.Join(p.state, "kogge", "ledger", "1"), []byte("x"), 0o600))
	must(t, again(p).SettleVotes())
	is(p, "the ledger is damaged", 4)

	p = adopted(t, f)
	taken, err = p.Ledger()
	must(t, err)
	must(t, taken.Take(1, f.Entries[0]))
	if err := taken.Take(1, f.Again(t)); !errors.Is(err, pinned.ErrFork) {
		t.Fatal(err)
	}
	for was, want := range map[memory.Votes]memory.Votes{1: 4, 9: 9} {
		must(t, was.Write(p.memory()))
		must(t, again(p).SettleVotes())
		is(p, "with two histories", want)
	}

	p = adopted(t, alone)
	must(t, memory.Votes(9).Write(p.memory()))
	taken, err = p.Ledger()
	must(t, err)
	must(t, taken.Take(1, alone.Entries[0]))
	is(p, "one vote, after more", 9)
	must(t, again(p).SettleVotes())
	is(p, "one vote", 1)
}
