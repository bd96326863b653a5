package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/golden"
)

// TestKnown prints what the fleet makes of callers at each height: a CA's signature alone gives
// no rights once the fleet is founded, and a right that was taken away is gone.
func TestKnown(t *testing.T) {
	f := ledgertest.Begun(t, 4)
	founding := f.Founding(t)
	bob, eve := ledgertest.Operator(t, "bob", fleet.RoleOperator), ledgertest.Operator(t, "eve", fleet.RoleAdmin)
	ada := founding.Founding.Operators[0]
	peer := func(kind fleet.PeerKind, name string, role fleet.Role, o ledger.Operator) fleet.Peer {
		return fleet.Peer{Kind: kind, Name: name, Role: role, Fleet: f.Genesis.ID(), Key: o.Key.String()}
	}
	callers := []struct {
		name string
		peer fleet.Peer
	}{
		{"ada, as listed", peer(fleet.KindOperator, "ada", fleet.RoleAdmin, ada)},
		{"ada, with a lower certificate", peer(fleet.KindOperator, "ada", fleet.RoleReader, ada)},
		{"ada, under another name", peer(fleet.KindOperator, "root", fleet.RoleAdmin, ada)},
		{"bob, with a higher certificate", peer(fleet.KindOperator, "bob", fleet.RoleAdmin, bob)},
		{"eve, whom the CA signed", peer(fleet.KindOperator, "eve", fleet.RoleAdmin, eve)},
		{"eve, under ada's name", peer(fleet.KindOperator, "ada", fleet.RoleAdmin, eve)},
		{"a key that is none", fleet.Peer{Kind: fleet.KindOperator, Name: "ada", Role: fleet.RoleAdmin, Key: "x"}},
		{"a node", peer(fleet.KindNode, "n1", "", eve)},
	}
	var out strings.Builder
	tell := func(what string) {
		fmt.Fprintln(&out, what)
		for _, c := range callers {
			p, err := f.Log.State().Known(c.peer)
			answer := p.String()
			if err != nil {
				if answer = "unlisted"; !errors.Is(err, ledger.ErrUnlisted) {
					t.Error(err)
				}
			}
			fmt.Fprintf(&out, "  %-31s %s\n", c.name, answer)
		}
	}
	tell("not founded")
	f.Take(t, f.Decided(t, founding, 2))
	tell("founded with ada")
	for _, o := range []ledger.Operators{{Set: []ledger.Operator{bob}}, {Remove: []string{"bob"}}} {
		f.Take(t, f.Decided(t, ledger.Value{Version: 1, Operators: &o}, 3))
		tell(fmt.Sprintf("height %d", f.Log.State().Height))
	}
	golden.Compare(t, "known.txt", out.String())
}
