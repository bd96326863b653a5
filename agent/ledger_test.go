package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"kogge.example/agent/identity"
	"kogge.example/agent/pinned"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/memory"
)

// adopted is a node of a fleet: what it is there, and its folder of STATE.
func adopted(t *testing.T, f *ledgertest.Fleet) *part {
	t.Helper()
	p := &part{state: t.TempDir(), run: t.TempDir(), show: func() {}}
	var err error
	p.node, err = identity.OpenNode(filepath.Join(p.state, "identity"))
	must(t, err)
	must(t, p.node.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: fleet.NewToken()}))
	csr, err := p.node.Request()
	must(t, err)
	key, _, err := fleet.RequestKey(csr)
	must(t, err)
	must(t, p.node.Adopt(f.Sign(t, fleet.KindNode, "n1", "", key)))
	return p
}

// TestPart: a node tells that its fleet has two histories for as long as it knows of them, and
// knows callers by the ledger. For neither it makes the key of a seat.
func TestPart(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	p := adopted(t, f)
	eve := fleet.Peer{Kind: fleet.KindOperator, Name: "eve", Role: fleet.RoleAdmin, Key: ledgertest.Operator(t, "eve", fleet.RoleAdmin).Key.String()}
	ask := func(when string, problem, caller error) {
		t.Helper()
		if err := p.problem(); !errors.Is(err, problem) {
			t.Errorf("%s: its problem: %v", when, err)
		}
		if who, err := p.known(eve); !errors.Is(err, caller) || err == nil && who != eve {
			t.Errorf("%s: a caller is %s: %v", when, who, err)
		}
	}
	told := func(want string) {
		t.Helper()
		p.tell()
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
	taken, err := p.ledger()
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
	p = &part{node: p.node, state: p.state, run: p.run, show: func() {}}
	ask("after a reboot", pinned.ErrFork, ledger.ErrUnlisted)
	told("hanse (, no seat, k, 1 record, 3 of 4 votes decide: " + p.problem().Error())
	if _, _, err := p.whole(); err != nil {
		t.Error(err)
	}
	lone, err := identity.OpenNode(filepath.Join(t.TempDir(), "identity"))
	must(t, err)
	p = &part{node: lone, state: t.TempDir(), run: t.TempDir(), show: func() {}}
	p.tell()
	if _, err := control.ReadFleet(p.run); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a node of no fleet tells of one: %v", err)
	}
	ask("of no fleet", nil, nil)
	if _, err := p.ledger(); err == nil {
		t.Error("a node of no fleet has a ledger")
	}
}

// TestVotes: PID 1 knows how many votes decide before the node has taken the record that says so.
// Where that cannot be, no record is taken; and where the ledger cannot be read, what it knew stays.
func TestVotes(t *testing.T) {
	f, alone := ledgertest.Founded(t, 4, 2), ledgertest.Founded(t, 1, 1)
	is := func(p *part, what string, want memory.Votes) {
		t.Helper()
		if votes, err := memory.ReadVotes(p.memory()); err != nil || votes != want {
			t.Errorf("%s: %d votes, %v", what, votes, err)
		}
	}
	again := func(p *part) *part { return &part{node: p.node, state: p.state, run: p.run, show: func() {}} }
	p := adopted(t, f)
	must(t, p.settleVotes())
	is(p, "not founded", 1)
	taken, err := p.ledger()
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
	must(t, again(p).settleVotes())
	is(p, "damaged, and the agent started anew", 4)
	must(t, os.WriteFile(filepath.Join(p.state, "kogge", "ledger", "1"), []byte("x"), 0o600))
	must(t, again(p).settleVotes())
	is(p, "the ledger is damaged", 4)

	p = adopted(t, f)
	taken, err = p.ledger()
	must(t, err)
	must(t, taken.Take(1, f.Entries[0]))
	if err := taken.Take(1, f.Again(t)); !errors.Is(err, pinned.ErrFork) {
		t.Fatal(err)
	}
	for was, want := range map[memory.Votes]memory.Votes{1: 4, 9: 9} {
		must(t, was.Write(p.memory()))
		must(t, again(p).settleVotes())
		is(p, "with two histories", want)
	}

	p = adopted(t, alone)
	must(t, memory.Votes(9).Write(p.memory()))
	taken, err = p.ledger()
	must(t, err)
	must(t, taken.Take(1, alone.Entries[0]))
	is(p, "one vote, after more", 9)
	must(t, again(p).settleVotes())
	is(p, "one vote", 1)
}

// TestSeatless: what the installer asks of a node that has lost the key of its seat.
func TestSeatless(t *testing.T) {
	f := ledgertest.Founded(t, 1, 1)
	var now parts
	slots := installer(paths{}, &now)
	if _, err := slots.Ledger(); err == nil {
		t.Error("a node that knows nothing of itself has a ledger")
	}
	p := adopted(t, f)
	now.part.Store(p)
	taken, err := p.ledger()
	must(t, err)
	must(t, taken.Take(1, f.Entries[0]))
	must(t, os.WriteFile(filepath.Join(p.state, "identity", "seat.json"), []byte("{}"), 0o600))
	if s, err := slots.Ledger(); err != nil || s.Height != 1 || s.Roster.Votes() != 1 {
		t.Errorf("height %d, %v", s.Height, err)
	}
	if key, err := slots.Seat(); err == nil {
		t.Errorf("its seat has key %s", key)
	}
}
