package identity

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
)

// successors are a fleet of version 1 and two that follow on it, each with what shows that.
func successors(t *testing.T) (old *ledgertest.Fleet, next [2]*ledgertest.Fleet, proof [2][]byte) {
	t.Helper()
	must := ledgertest.Must[*fleet.Genesis](t)
	base := ledgertest.Begun(t, 3)
	v1 := *base
	v1.Genesis = ledgertest.Version1(t, base.Genesis)
	g := v1.Genesis
	for i := range next {
		follows := *base
		follows.Genesis = must(fleet.NewGenesis(fleet.Founding{
			Name: g.Name, Owners: g.Owners, Threshold: g.Threshold, OperatorCA: g.OperatorCA.Raw, NodeCA: g.NodeCA.Raw, First: g.FirstOperator,
			Policy: fleet.DefaultPolicy(), Predecessor: ledgertest.Must[document.Hash](t)(document.ParseHash(g.ID())),
		}))
		s := fleet.Succession{Version: 1, Genesis: follows.Genesis.Bytes()}
		for by := 1; by <= 2; by++ {
			s.Owners = append(s.Owners, signed.Sign(by, ledgertest.Private(fmt.Sprintf("owner %d", by)), g.SuccessionBytes(follows.Genesis)))
		}
		next[i], proof[i] = &follows, ledgertest.Must[[]byte](t)(s.Encode())
	}
	return &v1, next, proof
}

// of is the certificate of a node in a fleet.
func of(t *testing.T, f *ledgertest.Fleet, n *Node, name string) []byte {
	t.Helper()
	csr, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := fleet.RequestKey(csr)
	if err != nil {
		t.Fatal(err)
	}
	return f.Sign(t, fleet.KindNode, name, "", key)
}

// TestSucceed follows a fleet to what it has become, once, with the same name and key.
func TestSucceed(t *testing.T) {
	old, next, proof := successors(t)
	files := &memoryFiles{disk: make(map[string]string), left: 1000}
	n, err := openNode(files)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Succeed(proof[0], of(t, next[0], n, "n1")); !errors.Is(err, ErrNoJoin) {
		t.Errorf("a node of no fleet: %v", err)
	}
	if err := n.Join(&fleet.JoinFile{Genesis: old.Genesis, Token: fleet.NewToken()}); err != nil {
		t.Fatal(err)
	}
	if err := n.Succeed(proof[0], of(t, next[0], n, "n1")); !errors.Is(err, ErrNoJoin) {
		t.Errorf("a node that nobody has adopted: %v", err)
	}
	if err := n.Adopt(of(t, old, n, "n1")); err != nil {
		t.Fatal(err)
	}
	before := n.String()
	other, err := openNode(&memoryFiles{disk: make(map[string]string), left: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ proof, certificate []byte }{
		"another name":                     {proof[0], of(t, next[0], n, "n2")},
		"a certificate of the old fleet":   {proof[0], of(t, old, n, "n1")},
		"a certificate of another one":     {proof[0], of(t, next[1], n, "n1")},
		"a certificate for another key":    {proof[0], of(t, next[0], other, "n1")},
		"no certificate":                   {proof[0], nil},
		"a genesis that nobody has signed": {next[0].Genesis.Bytes(), of(t, next[0], n, "n1")},
	} {
		if err := n.Succeed(c.proof, c.certificate); err == nil || n.String() != before {
			t.Errorf("%s: %v; it is %s", name, err, n)
		}
	}
	if err := n.Succeed(proof[0], of(t, next[0], n, "n1")); err != nil {
		t.Fatal(err)
	}
	if g := n.Genesis(); g.ID() != next[0].Genesis.ID() || n.Name() != "n1" || !strings.HasSuffix(n.String(), before[strings.LastIndex(before, "key"):]) {
		t.Errorf("was %s, is %s", before, n)
	}
	// The same again is taken, also if its certificate was made anew, and writes nothing.
	disk, shown := maps.Clone(files.disk), n.Certificate()
	restarted, err := openNode(&memoryFiles{disk: maps.Clone(files.disk), left: 0})
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*Node{"now": n, "after a restart": restarted} {
		if err := n.Succeed(proof[0], of(t, next[0], n, "n1")); err != nil || !bytes.Equal(n.Certificate().Certificate[0], shown.Certificate[0]) {
			t.Errorf("%s, once more: %v", name, err)
		}
	}
	for name, certificate := range map[string][]byte{"another name": of(t, next[0], n, "n2"), "the old fleet": of(t, old, n, "n1"), "another key": of(t, next[0], other, "n1"), "nobody": nil} {
		if err := n.Succeed(proof[0], certificate); err == nil {
			t.Errorf("once more, with the certificate of %s", name)
		}
	}
	// Another one is another fleet, and the error says which two.
	err = n.Succeed(proof[1], of(t, next[1], n, "n1"))
	for i := range next {
		if id := fleet.Short(next[i].Genesis.ID()); !errors.Is(err, ErrOtherFleet) || errors.Is(err, fleet.ErrSuccession) || !strings.Contains(err.Error(), id) {
			t.Errorf("it goes on to another one, or does not name %s: %v", id, err)
		}
	}
	if err := n.Succeed([]byte("x"), of(t, next[0], n, "n1")); !errors.Is(err, fleet.ErrSuccession) {
		t.Errorf("what is no succession: %v", err)
	}
	if !maps.Equal(files.disk, disk) || n.Genesis().ID() != next[0].Genesis.ID() {
		t.Errorf("it is %s", n)
	}
}

// TestSucceedPowerCut cuts the power at each write: the node is of the old fleet or the new
// one, with a certificate of that one, and goes on to the new one.
func TestSucceedPowerCut(t *testing.T) {
	old, next, proof := successors(t)
	start := &memoryFiles{disk: make(map[string]string), left: 1000}
	n, err := openNode(start)
	if err == nil {
		err = n.Join(&fleet.JoinFile{Genesis: old.Genesis, Token: fleet.NewToken()})
	}
	if err == nil {
		err = n.Adopt(of(t, old, n, "n1"))
	}
	if err == nil {
		err = n.Revoke(fleet.KeyID([]byte("eve")))
	}
	if err != nil {
		t.Fatal(err)
	}
	for writes := 0; ; writes++ {
		done := false
		for _, lands := range []bool{false, true} {
			m := &memoryFiles{disk: maps.Clone(start.disk), left: writes, lands: lands}
			n, err := openNode(m)
			if err == nil {
				err = n.Succeed(proof[0], of(t, next[0], n, "n1"))
			}
			if err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			done = err == nil
			n, err = openNode(&memoryFiles{disk: maps.Clone(m.disk), left: 1000})
			if err != nil || !n.Adopted() || n.Name() != "n1" || !n.Revoked(fleet.KeyID([]byte("eve"))) {
				t.Fatalf("writes=%d lands=%v: %v, %v", writes, lands, n, err)
			}
			if n.Genesis().ID() == old.Genesis.ID() {
				if done {
					t.Fatalf("writes=%d: it is of the old fleet after Succeed returned", writes)
				}
				if err := n.Succeed(proof[0], of(t, next[0], n, "n1")); err != nil {
					t.Fatalf("writes=%d lands=%v: again: %v", writes, lands, err)
				}
			}
			if n.Genesis().ID() != next[0].Genesis.ID() {
				t.Fatalf("writes=%d lands=%v: it is %s", writes, lands, n)
			}
		}
		if done {
			return
		}
	}
}
