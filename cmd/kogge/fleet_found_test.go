package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/identity"
	"kogge.example/agent/workload"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// TestFoundElsewhere: an operator whom the ledger does not list, on a computer that has none, is
// told by the nodes that the fleet is founded, and founds nothing.
func TestFoundElsewhere(t *testing.T) {
	w := &world{units: []workload.UnitStatus{{ID: "db", State: workload.Running}}}
	w.open(t)
	run := func(args ...string) error {
		root := rootCommand()
		root.SetOut(new(bytes.Buffer))
		root.SetArgs(args)
		return root.ExecuteContext(t.Context())
	}
	wants := func(err error, text, hint string) {
		t.Helper()
		var h hinted
		if err == nil || !strings.Contains(err.Error(), text) || !errors.As(err, &h) || !strings.Contains(h.hint, hint) {
			t.Errorf("%v, hint %q: want %q, hint %q", err, h.hint, text, hint)
		}
	}
	var target target
	ring, err := target.openFleet()
	must(t, err)
	config := filepath.Join(t.TempDir(), "config")
	must(t, os.CopyFS(filepath.Join(config, "hanse"), os.DirFS(ring.Dir)))
	t.Setenv("KOGGE_CONFIG", config)
	dir := filepath.Join(config, "hanse")
	sheet := filepath.Join(dir, filepath.Base(ring.Sheets()[0]))

	// A seat whose node this computer does not know.
	nodes := filepath.Join(dir, "nodes.json")
	must(t, os.Rename(nodes, nodes+".away"))
	wants(run("fleet", "found", "--all-adopted"), "1 of 1 node have not taken the first record: n1", "kogge node adopt ADDRESS")
	must(t, os.Rename(nodes+".away", nodes))

	// Bob was signed after the founding.
	key, err := fleet.NewKey()
	must(t, err)
	csr, err := fleet.NewRequest(key)
	must(t, err)
	der, err := ring.SignOperator(csr, "bob", fleet.RoleAdmin, time.Now())
	must(t, err)
	text, err := document.EncodeKey(key)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "operator.key"), text, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "operator.crt"), keyring.EncodeCertificate(der), 0o600))
	for _, name := range []string{"ledger.txt", "firsts.json"} {
		must(t, os.Remove(filepath.Join(dir, name)))
	}
	for _, args := range [][]string{{"n1"}, {"--all-adopted", "--sign-with", "draft.txt"}} {
		wants(run(append([]string{"fleet", "found", "--sheet", sheet}, args...)...), "fleet hanse is founded already: node n1: ", "this release cannot add one")
	}
	if _, err := os.Stat("draft.txt"); err == nil {
		t.Error("a founding was drafted")
	}
	bob, err := keyring.Load(dir)
	must(t, err)
	if first, err := bob.First(); err != nil || !first.Record.IsZero() {
		t.Errorf("it was signed: %+v, %v", first, err)
	}
	if l, _, err := operate.Ledger(bob); err != nil || l.State().Height != 0 {
		t.Errorf("it was founded: %v", err)
	}
}

// TestFoundSheet: whoever types the name of a sheet without its folder is told where it lies.
func TestFoundSheet(t *testing.T) {
	w := &world{}
	w.open(t)
	root := rootCommand()
	root.SetOut(new(bytes.Buffer))
	root.SetArgs([]string{"fleet", "found", "n1", "--sheet", "recovery-2.txt"})
	var h hinted
	if err := root.ExecuteContext(t.Context()); !errors.As(err, &h) || !strings.Contains(h.hint, filepath.Join("config", "hanse", "recovery-2.txt")) {
		t.Errorf("%v, hint %q", err, h.hint)
	}
}

// TestFoundHands: a founding by a person gives the node CA's key to those that are to hold it, at
// once, and so does its repetition, though a node that this computer knows is off.
func TestFoundHands(t *testing.T) {
	w := &world{}
	w.open(t)
	o := typist{t}
	var target target
	ring, err := target.openFleet()
	must(t, err)
	must(t, operate.RememberNode(ring, "n2", operate.Node{Address: "127.0.0.1:1"}))
	found := []string{"fleet", "found", "n1", "--sheet", ring.Sheets()[0]}
	out, _ := o.run(found...) // there is no terminal to ask
	record := regexp.MustCompile(`[0-9a-f]{64}`).FindString(out)
	for i, want := range []string{"Fleet hanse is founded.\n", "Fleet hanse is founded already"} {
		out, err := o.run(append(found, "--record", record)...)
		if err == nil || !strings.Contains(err.Error(), "1 of 2 nodes have not taken the first record: n2") {
			t.Errorf("%d: n2 is off: %v", i, err)
		}
		if !strings.Contains(out, want) || !strings.Contains(out, "The node CA's key is with n1: ") || strings.Count(out, "SEAT") != 1 {
			t.Errorf("%d: %s", i, out)
		}
		l, _, err := operate.Ledger(ring)
		must(t, err)
		seat, err := identity.OpenSeat("identity")
		must(t, err)
		held, err := identity.OpenCustody("identity", l.State().Fleet(), seat.Key)
		if err != nil || held.CA(ring.Genesis.NodeCA) == nil {
			t.Errorf("%d: n1 does not hold the node CA's key: %v", i, err)
		}
		o.lacks("the node CA's key", "fleet", "status")
		must(t, os.Remove(filepath.Join("identity", "ca.json"))) // and it is given again
		o.does("n1: it does not hold the node CA's key", "fleet", "status")
	}
}
