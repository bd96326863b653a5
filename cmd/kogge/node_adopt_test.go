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

	"kogge.example/agent/workload"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
)

// TestAdoptLostSeat adopts a node that has lost the key of its seat: both keys are shown, and the
// one that it has now has to be named.
func TestAdoptLostSeat(t *testing.T) {
	w := &world{units: []workload.UnitStatus{{ID: "db", State: workload.Running}}}
	w.open(t)
	var target target
	ring, err := target.openFleet()
	must(t, err)
	nodes, err := operate.Nodes(ring)
	must(t, err)
	n1 := nodes["n1"]
	must(t, os.Remove(filepath.Join("identity", "seat.json")))
	run := func(args ...string) (string, string, error) {
		root := rootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		var h hinted
		errors.As(err, &h)
		return out.String(), h.hint, err
	}
	_, hint, err := run("node", "adopt", n1.Address)
	found := regexp.MustCompile(`--shows ([0-9a-f]{12})`).FindStringSubmatch(hint)
	if err == nil || found == nil || !strings.Contains(err.Error(), n1.Seat.ID().Short()) || !strings.Contains(err.Error(), found[1]) {
		t.Fatalf("%v, hint %q: both keys are wanted", err, hint)
	}
	if _, _, err := run("node", "adopt", n1.Address, "--shows", n1.Seat.ID().Short()); err == nil {
		t.Error("by the key that it has lost")
	}
	if after, err := operate.Nodes(ring); err != nil || after["n1"] != n1 {
		t.Errorf("%+v, %v: it was changed unasked", after, err)
	}
	if out, _, err := run("node", "adopt", n1.Address, "--shows", found[1]); err != nil || !strings.Contains(out, "node n1 is in fleet hanse") {
		t.Errorf("%q, %v", out, err)
	}
	if after, err := operate.Nodes(ring); err != nil || after["n1"].Lost != n1.Seat {
		t.Errorf("%+v, %v", after, err)
	}
	if out, _, err := run("node", "status", "n1"); err != nil || !strings.Contains(out, "node       n1") {
		t.Errorf("%q, %v", out, err)
	}
	if out, _, err := run("fleet", "status"); err != nil || !strings.Contains(out, "and its seat's is "+n1.Seat.ID().Short()) {
		t.Errorf("%q, %v: its vote does not count", out, err)
	}
}

// TestAdoptTold: an admin is shown whom a node turns away by a member's word alone, and that it forgets;
// what he says lets in those whom he names, and nobody else.
func TestAdoptTold(t *testing.T) {
	bob, eve := fleet.KeyID([]byte("bob")), fleet.KeyID([]byte("eve"))
	w := &world{
		units:    []workload.UnitStatus{{ID: "db", State: workload.Running}},
		identity: map[string]string{"told.json": `{"version": 1, "keys": ["` + bob + `", "` + eve + `"]}`, "revoked.json": "junk"},
	}
	w.open(t)
	o := typist{t}
	var target target
	ring, err := target.openFleet()
	must(t, err)
	nodes, err := operate.Nodes(ring)
	must(t, err)
	n1 := nodes["n1"].Address
	again := "kogge node adopt " + n1 + " --fleet hanse"
	_, err = ring.RevokeNode("n8", []string{fleet.KeyID([]byte("n8"))}, time.Now())
	must(t, err)
	told := "Node n1 turns away 2 keys that nobody has revoked here"
	o.warns(told, "node", "adopt", n1)
	o.warns("  "+fleet.Short(bob)+"  not known here\n", "node", "adopt", n1)
	o.warns(again+" --all-revoked\n", "node", "adopt", n1)
	o.warns("Node n1 cannot read any more who was revoked before: "+again+" --all-revoked\n", "node", "revoke", "n8")
	o.warns("Node n1 turns away 2 keys more on a member's word alone. This shows which: "+again+"\n", "node", "revoke", "n8")
	o.warns("there is nobody to let in", "node", "adopt", n1, "--let-in", strings.Repeat("0", 12))
	o.fails("of the name", "12 digits or more", "node", "adopt", n1, "--let-in", "bob")
	o.warns(told, "node", "adopt", n1, "--all-revoked")
	o.lacks("--all-revoked", "node", "adopt", n1)
	o.does("node n1 lets in key "+fleet.Short(bob)+" again", "node", "adopt", n1, "--let-in", fleet.Short(bob))
	o.warns("there is nobody to let in", "node", "adopt", n1, "--let-in", fleet.Short(bob))
	o.warns("Node n1 turns away 1 key that", "node", "adopt", n1)
	_, err = ring.RevokeNode("n7", []string{eve}, time.Now())
	must(t, err)
	o.lacks("turns away", "node", "adopt", n1)
	o.fails("revoked on this computer", "makes a new key", "node", "adopt", n1, "--let-in", "n7")
}
