package machine

import (
	"errors"
	"net/netip"
	"testing"

	apiv1 "kogge.example/agent/api/kogge/v1"
	"kogge.example/init/control"
)

// TestLinkProblem: what is wrong with a link stands among what does not work, too.
func TestLinkProblem(t *testing.T) {
	dir := t.TempDir()
	const why = "192.0.2.7 is not used: 02:00:00:00:00:99 has it"
	const unmatched = `no link matches "eth9" of node.yaml`
	n := control.Network{Problem: unmatched, Interfaces: []control.Interface{
		{Name: "eth0", Carrier: true, Problem: why},
		{Name: "eth1", Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.7/24")}},
	}}
	if err := n.Write(dir); err != nil {
		t.Fatal(err)
	}
	var s apiv1.StatusResponse
	if err := (Machine{Run: dir}).links(&s); err != nil {
		t.Fatal(err)
	}
	if len(s.Links) != 2 || s.Links[0].State != "up, "+why || s.Links[1].State != "no carrier" {
		t.Errorf("links: %v", s.Links)
	}
	if len(s.Degraded) != 2 || s.Degraded[0].What != "network" || s.Degraded[0].Why != unmatched || s.Degraded[1].What != "link eth0" || s.Degraded[1].Why != why {
		t.Errorf("degraded: %v", s.Degraded)
	}
}

// TestOthersWord: what other parts of the node find wrong is degraded while they say so.
func TestOthersWord(t *testing.T) {
	var twin, names, ledger error
	m := Machine{Run: t.TempDir(), Control: t.TempDir(), State: t.TempDir(), Twin: func() error { return twin }, Names: func() error { return names }, Ledger: func() error { return ledger }}
	said := func() string {
		text := ""
		for _, d := range m.Status(t.Context()).Degraded {
			if d.What == "identity" || d.What == "names" || d.What == "ledger" {
				text += d.What + ": " + d.Why + "\n"
			}
		}
		return text
	}
	if got := said(); got != "" {
		t.Errorf("nothing is wrong: %s", got)
	}
	twin, names, ledger = errors.New("there are two"), errors.New("port 53 is in use"), errors.New("it is damaged")
	if got := said(); got != "identity: there are two\nnames: port 53 is in use\nledger: it is damaged\n" {
		t.Errorf("%s", got)
	}
}
