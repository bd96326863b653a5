package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"kogge.example/agent/identity"
	"kogge.example/agent/pinned"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
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
	must(t, p.node.Adopt(f.SignAt(t, fleet.KindNode, "n1", "", key, time.Now())))
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
