package door

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

// TestMethods prints who may call what: each method of the contract against each
// kind of caller. A method without a role would be missing here, and a new one
// changes the table.
func TestMethods(t *testing.T) {
	f, foreign := newFleet(t, "hanse"), newFleet(t, "other")
	adopted, joined, lone := newNode(t, f), newNode(t, f), newNode(t, nil)
	adoptNode(t, f, adopted, "n1")
	foreignNode := newNode(t, foreign)
	adoptNode(t, foreign, foreignNode, "n1")
	old := now.AddDate(-3, 0, 0)
	callers := []caller{
		{"nobody", nil},
		{"foreign CA", pointer(operator(t, foreign, fleet.RoleAdmin, now))},
		{"foreign node", pointer(foreignNode.Certificate())},
		{"node", pointer(adopted.Certificate())},
		{"self-signed", pointer(joined.Certificate())},
		{"expired", pointer(operator(t, f, fleet.RoleAdmin, old))},
		{"reader", pointer(operator(t, f, fleet.RoleReader, now))},
		{"operator", pointer(operator(t, f, fleet.RoleOperator, now))},
		{"admin", pointer(operator(t, f, fleet.RoleAdmin, now))},
	}
	revoked := operator(t, f, fleet.RoleAdmin, now)
	if err := adopted.Revoke(keyOf(t, revoked)); err != nil {
		t.Fatal(err)
	}
	callers = append(callers, caller{"revoked", &revoked})

	var table strings.Builder
	for _, node := range []struct {
		name string
		node *identity.Node
		sure bool
	}{{"a node of the fleet", adopted, true}, {"its clock is not sure", adopted, false}, {"not adopted yet", joined, true}, {"without a join.yaml", lone, true}} {
		mayCall(t, &table, node.name, NewGuard(node.node, func() bool { return node.sure }), callers)
	}
	g, callers := founded(t)
	mayCall(t, &table, "a node of a founded fleet", g, callers)
	golden.Compare(t, "methods.txt", table.String())
}

// caller is who calls.
type caller struct {
	name        string
	certificate *tls.Certificate
}

// mayCall prints which of some callers may call what.
func mayCall(t *testing.T, table *strings.Builder, node string, g *Guard, callers []caller) {
	fmt.Fprintf(table, "%s\n%-34s", node, "")
	for _, c := range callers {
		fmt.Fprintf(table, " %-12s", c.name)
	}
	table.WriteString("\n")
	for _, path := range append(slices.Sorted(maps.Keys(g.methods)), "/kogge.v1.NodeService/Nonsense") {
		fmt.Fprintf(table, "%-34s", strings.TrimPrefix(path, "/kogge.v1."))
		for _, c := range callers {
			_, err := g.admit(nil, path, stateOf(t, c.certificate))
			answer := "yes"
			if err != nil {
				answer = short[connect.CodeOf(err)]
			}
			if api.ReasonOf(err) == apiv1.Reason_REASON_ISOLATED {
				answer = "isolated"
			}
			fmt.Fprintf(table, " %-12s", answer)
		}
		table.WriteString("\n")
	}
	table.WriteString("\n")
}

// short names the codes in the table.
var short = map[connect.Code]string{
	connect.CodeUnauthenticated: "who?", connect.CodePermissionDenied: "denied",
	connect.CodeFailedPrecondition: "not yet", connect.CodeUnimplemented: "none",
}

// TestEveryMethodHasARole counts: methods leaves out what names no role.
func TestEveryMethodHasARole(t *testing.T) {
	all := 1 // metrics are none of the contract's
	for _, file := range files {
		for i := range file.Services().Len() {
			all += file.Services().Get(i).Methods().Len()
		}
	}
	if got := len(Methods()); got != all || all == 1 {
		t.Errorf("%d of %d methods say who may call them", got, all)
	}
}

func pointer[V any](v V) *V { return &v }

func leaf(t *testing.T, c tls.Certificate) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func keyOf(t *testing.T, c tls.Certificate) string {
	return fleet.KeyID(leaf(t, c).RawSubjectPublicKeyInfo)
}

func stateOf(t *testing.T, c *tls.Certificate) *tls.ConnectionState {
	state := &tls.ConnectionState{}
	if c != nil {
		state.PeerCertificates = []*x509.Certificate{leaf(t, *c)}
	}
	return state
}

// TestGuardClock: a node whose clock started in 1970 refuses nobody by a date.
func TestGuardClock(t *testing.T) {
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	adoptNode(t, f, n, "n1")
	g := NewGuard(n, func() bool { return false })
	g.Now = func() time.Time { return time.Unix(0, 0) }
	admin := operator(t, f, fleet.RoleAdmin, now)
	if _, err := g.admit(nil, "/kogge.v1.NodeService/Status", stateOf(t, &admin)); err != nil {
		t.Error(err)
	}
	g.clockSure = func() bool { return true }
	_, err := g.admit(nil, "/kogge.v1.NodeService/Status", stateOf(t, &admin))
	has(t, err, "not valid now")
}

// TestRevokedNode: a node whose key was revoked is told so by other nodes, whatever it asks.
func TestRevokedNode(t *testing.T) {
	f := newFleet(t, "hanse")
	n, stolen := newNode(t, f), newNode(t, f)
	adoptNode(t, f, n, "n1")
	adoptNode(t, f, stolen, "n2")
	if err := n.Revoke(stolen.Key()); err != nil {
		t.Fatal(err)
	}
	g := NewGuard(n, func() bool { return false })
	certificate := stolen.Certificate()
	for path := range g.methods {
		_, err := g.admit(nil, path, stateOf(t, &certificate))
		has(t, err, "unauthenticated", "certificate is revoked")
	}
}
