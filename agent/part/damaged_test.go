package part

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/enrol"
	"kogge.example/agent/identity"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/token"
)

// TestForgets: a node that cannot read which keys are revoked knows of operators the first one
// alone, who repairs it, and signs for nobody.
func TestForgets(t *testing.T) {
	f := ledgertest.Founded(t, 3, 2)
	p := adopted(t, f)
	taken, err := p.Ledger()
	must(t, err)
	for i, e := range f.Entries {
		must(t, taken.Take(int64(i+1), e))
	}
	must(t, os.WriteFile(filepath.Join(p.state, "identity", "revoked.json"), []byte("junk"), 0o600))
	node, err := identity.OpenNode(filepath.Join(p.state, "identity"))
	must(t, err)
	p = New(node, p.state, p.run, func() {})
	first, listed := f.Genesis.FirstOperatorID(), ledgertest.Operator(t, "d2", fleet.RoleAdmin).Key.String()
	for _, o := range f.Log.State().Operators {
		if o.Key.String() != first {
			listed = o.Key.String()
		}
	}
	knows := func(key string) bool {
		_, err := p.Known(fleet.Peer{Kind: fleet.KindOperator, Name: "somebody", Role: fleet.RoleAdmin, Key: key})
		if err != nil && !errors.Is(err, errForgets) {
			t.Errorf("%v", err)
		}
		return err == nil
	}
	if knows(listed) || !knows(first) && firstListed(f) {
		t.Errorf("it knows %v and not the first operator", listed)
	}
	s := &session{part: p, taken: taken, talk: &Talk{part: p, clock: clock{func() bool { return true }, func() time.Time { return ledgertest.Today }}}}
	if _, _, err := s.nodeCA(); !errors.Is(err, enrol.ErrCannotSign) || !strings.Contains(err.Error(), "which keys are revoked") {
		t.Errorf("it signs: %v", err)
	}
	must(t, node.Revoke())
	if !node.Forgets() {
		t.Error("it knows who is revoked because nobody has told it of anybody")
	}
	must(t, node.RevokeAll())
	if node.Forgets() || node.Problem() != nil {
		t.Errorf("repaired, it says %v", node.Problem())
	}
}

func firstListed(f *ledgertest.Fleet) bool {
	for _, o := range f.Log.State().Operators {
		if o.Key.String() == f.Genesis.FirstOperatorID() {
			return true
		}
	}
	return false
}

// TestSeatUnread: a node that came by a token and whose seat's key cannot be read says that, and not
// that nobody has accepted it.
func TestSeatUnread(t *testing.T) {
	v := live(t, 3)
	v.hand(t, 1)
	seed := fleet.NewToken()
	n := v.comer(t, seed, v.issue(t, seed, func(*token.Record) {}), "n9", 1)
	if _, ok := n.Step(t.Context(), 0); !ok {
		t.Fatal("it does not come in")
	}
	must(t, os.WriteFile(filepath.Join(n.part.state, "identity", "seat.json"), nil, 0o600))
	p := New(n.part.node, n.part.state, n.part.run, func() {})
	err := p.mayServe(apiv1connect.WorkloadServiceApplyProcedure)
	if err == nil || errors.Is(err, errNew) || !strings.Contains(err.Error(), "seat.json") || !strings.Contains(p.Problem().Error(), "seat.json") {
		t.Errorf("%v; %v", err, p.Problem())
	}
}
