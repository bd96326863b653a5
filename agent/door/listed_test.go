package door

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/identity"
	"kogge.example/agent/orders"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// TestListed prints who may call what at a node of a founded fleet: whom the ledger lists, with
// the role that it gives, however many certificates a CA's key may have signed.
func TestListed(t *testing.T) {
	f := ledgertest.Begun(t, 4)
	sign := func(kind fleet.PeerKind, name string, role fleet.Role) (*tls.Certificate, ledger.Operator) {
		key, err := fleet.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		c := &tls.Certificate{Certificate: [][]byte{f.Sign(t, kind, name, role, &key.PublicKey)}, PrivateKey: key}
		id, err := document.ParseHash(keyOf(t, *c))
		if err != nil {
			t.Fatal(err)
		}
		return c, ledger.Operator{Name: name, Role: role, Key: id}
	}
	ada, adasKey := sign(fleet.KindOperator, "ada", fleet.RoleAdmin)
	bob, bobsKey := sign(fleet.KindOperator, "bob", fleet.RoleAdmin)
	bobsKey.Role = fleet.RoleOperator
	cleo, cleosKey := sign(fleet.KindOperator, "cleo", fleet.RoleAdmin)
	eve, _ := sign(fleet.KindOperator, "eve", fleet.RoleAdmin)
	likeAda, _ := sign(fleet.KindOperator, "ada", fleet.RoleAdmin)
	other, _ := sign(fleet.KindNode, "n2", "")
	unlisted, _ := sign(fleet.KindNode, "n9", "")
	v := f.Founding(t)
	first := v.Founding.Operators[0]
	first.Name = "first"
	v.Founding.Operators = []ledger.Operator{adasKey, bobsKey, cleosKey, first}
	f.Take(t, f.Decided(t, v, 2))
	f.Take(t, f.Decided(t, ledger.Value{Version: 1, Operators: &ledger.Operators{Remove: []string{"cleo"}}}, 3))

	n := nodeOf(t, f)
	g := NewGuard(n, func() bool { return true })
	g.Known = f.Log.State().Known
	seen := 0
	g.Seen = func(time.Time) { seen++ }

	var table strings.Builder
	methods := []string{"FleetService/Records", "NodeService/Renew", "NodeService/Revoke", "NodeService/Status", "UpdateService/Update", "WorkloadService/Apply"}
	fmt.Fprintf(&table, "%-28s", "")
	for _, m := range methods {
		_, name, _ := strings.Cut(m, "/")
		fmt.Fprintf(&table, " %-8s", name)
	}
	table.WriteString("\n")
	for _, year := range []int{0, 3} {
		g.Now = func() time.Time { return ledgertest.Today.AddDate(year, 0, 0) }
		for _, c := range []struct {
			name        string
			certificate *tls.Certificate
			listed      bool
		}{
			{"ada, admin", ada, true}, {"bob, operator", bob, true}, {"cleo, who was removed", cleo, false},
			{"eve, whom the CA signed", eve, false}, {"somebody named ada", likeAda, false}, {"node n2", other, false}, {"node n9, of no seat", unlisted, false},
		} {
			if year > 0 {
				c.name = "over: " + c.name
			}
			fmt.Fprintf(&table, "%-28s", c.name)
			for _, m := range methods {
				seen = 0
				_, err := g.admit(nil, "/kogge.v1."+m, stateOf(t, c.certificate))
				answer := "yes"
				if err != nil {
					answer = short[connect.CodeOf(err)]
				}
				if seen > 0 && (!c.listed || year > 0) {
					t.Errorf("%s: %s: the clock's floor goes by a certificate that does not count", c.name, m)
				}
				fmt.Fprintf(&table, " %-8s", answer)
			}
			table.WriteString("\n")
		}
	}
	golden.Compare(t, "listed.txt", table.String())

	// A stream of somebody who is removed ends when he is looked at again: admit is asked.
	g.Now = func() time.Time { return ledgertest.Today }
	if _, err := g.admit(nil, "/kogge.v1.ObserveService/Events", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf(t, *cleo)}}); err == nil {
		t.Error("cleo may follow the events")
	} else {
		has(t, err, "operator cleo (admin)", "does not list the key")
	}
}

// nodeOf is an adopted node of a fleet with a ledger.
func nodeOf(t *testing.T, f *ledgertest.Fleet) *identity.Node {
	t.Helper()
	n := newNode(t, nil)
	if err := n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: fleet.NewToken()}); err != nil {
		t.Fatal(err)
	}
	csr, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := fleet.RequestKey(csr)
	if err == nil {
		err = n.Adopt(f.Sign(t, fleet.KindNode, "n1", "", key))
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// founded is a node of a founded fleet, in which seat 3 is isolated, and who calls there. A member
// holds the key of the node CA: what it has minted is a certificate like others.
func founded(t *testing.T) (*Guard, []caller) {
	f := ledgertest.Begun(t, 4)
	sign := func(kind, by fleet.PeerKind, name string, role fleet.Role) (*tls.Certificate, document.Hash) {
		key := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
		ca := f.Genesis.NodeCA
		if by == fleet.KindOperator {
			ca = f.Genesis.OperatorCA
		}
		der := ledgertest.Must[[]byte](t)(fleet.SignPeer(fleet.Peer{Kind: kind, Name: name, Role: role, Fleet: f.Genesis.ID()}, &key.PublicKey, ca, f.CA(by), ledgertest.Today))
		c := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
		return &c, ledgertest.Must[document.Hash](t)(document.ParseHash(keyOf(t, c)))
	}
	node := func(name string) *tls.Certificate {
		c, _ := sign(fleet.KindNode, fleet.KindNode, name, "")
		return c
	}
	ada, adasKey := sign(fleet.KindOperator, fleet.KindOperator, "ada", fleet.RoleAdmin)
	rita, ritasKey := sign(fleet.KindOperator, fleet.KindOperator, "rita", fleet.RoleReader)
	likeAda, _ := sign(fleet.KindOperator, fleet.KindNode, "ada", fleet.RoleAdmin)
	v := f.Founding(t)
	first := v.Founding.Operators[0]
	first.Name = "first"
	v.Founding.Operators = []ledger.Operator{{Name: "ada", Role: fleet.RoleAdmin, Key: adasKey}, first, {Name: "rita", Role: fleet.RoleReader, Key: ritasKey}}
	f.Take(t, f.Decided(t, v, 2))
	state := f.Log.State()
	third, _ := state.Roster.Seat(3)
	outcasts := orders.OutcastsOf(order.Standing{Isolated: []order.Isolated{{Seat: third, By: "ada"}}}, state.Roster, func(signed.Key) (document.Hash, bool) { return document.Hash{}, false })
	g := NewGuard(nodeOf(t, f), func() bool { return true })
	g.Now = func() time.Time { return ledgertest.Today }
	g.Known = func(who fleet.Peer) (fleet.Peer, error) { // as package part has it
		if err := outcasts.Admit(who); err != nil {
			return who, err
		}
		return state.Known(who)
	}
	return g, []caller{
		{"nobody", nil}, {"foreign CA", pointer(operator(t, newFleet(t, "other"), fleet.RoleAdmin, ledgertest.Today))},
		{"follower", node("n9")}, {"seat", node("n4")}, {"member", node("n2")}, {"isolated", node("n3")}, {"reader", rita}, {"admin", ada},
		{"minted: n8", node("n8")}, {"minted: n2", node("n2")}, {"minted: ada", likeAda},
	}
}
