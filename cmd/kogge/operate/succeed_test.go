package operate

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// version1 makes a new fleet's folder one of a fleet of version 1, as the releases before the
// ledger left it.
func version1(t *testing.T, k *keyring.Keyring) *keyring.Keyring {
	t.Helper()
	old := *k
	old.Genesis = ledgertest.Version1(t, k.Genesis)
	csr, err := fleet.NewRequest(k.Certificate().PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	der, err := old.SignOperator(csr, "ada", fleet.RoleAdmin, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"genesis.json": old.Genesis.Bytes(), "operator.crt": keyring.EncodeCertificate(der)} {
		if err := os.WriteFile(filepath.Join(k.Dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loaded, err := keyring.Load(k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// TestSucceed takes three nodes of a fleet of version 1 into the one that it becomes, one of
// them at the second try, and founds that.
func TestSucceed(t *testing.T) {
	created, err := keyring.Create("hanse", "ada", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := created.Save(filepath.Join(t.TempDir(), "hanse"), ""); err != nil {
		t.Fatal(err)
	}
	old := version1(t, created)
	refuse := errors.New("the other slot has a release that knows no ledger")
	ready := []error{nil, refuse, nil}
	nodes := serveNodes(t, old, 3, func(i int) error { return ready[i] })
	names := []string{"n1", "n2", "n3"}
	tell := func(n Notice) { t.Errorf("%+v", n) }

	owner, err := old.OwnerKeys(nil, sheets(t, old)[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "hanse2")
	if _, err := old.Succeed(dir, fleet.DefaultPolicy(), owner, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Succeed(dir, fleet.DefaultPolicy(), owner, time.Now()); !errors.Is(err, keyring.ErrExists) {
		t.Errorf("over an existing folder: %v", err)
	}
	next, err := keyring.Load(dir)
	if err != nil || next.Operator().Name != "ada" || next.Genesis.Predecessor.String() != old.Genesis.ID() {
		t.Fatalf("the new folder: %v, %v", next, err)
	}
	if _, err := next.Succeed(filepath.Join(t.TempDir(), "hanse3"), fleet.DefaultPolicy(), owner, time.Now()); err == nil {
		t.Error("a fleet of version 2 has a successor")
	}
	for try := range 2 {
		told, err := Succeed(t.Context(), old, next, names, tell)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range told {
			if failed := try == 0 && i == 1; (n.Err != nil) != failed || failed && !strings.Contains(n.Err.Error(), refuse.Error()) {
				t.Errorf("try %d: node %s: %v", try, n.Node, n.Err)
			}
		}
		ready[1] = nil
	}
	known, err := Nodes(next)
	if err != nil || len(known) != 3 {
		t.Fatal(known, err)
	}
	for i, name := range names {
		call := func(k *keyring.Keyring) error {
			return Remote{Keys: k, Name: name, Address: known[name].Address, Tell: tell}.Call(t.Context(), func(ctx context.Context, c *api.Client) error {
				_, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
				return err
			})
		}
		if err := call(next); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := call(old); !errors.Is(err, fleet.ErrForeign) {
			t.Errorf("%s is of the old fleet, too: %v", name, err)
		}
		if nodes[i].Genesis().ID() != next.Genesis.ID() {
			t.Errorf("%s is %s", name, nodes[i])
		}
	}
	// Whose answer was lost asks again: the node is told that it is so, whatever its slots have.
	ready[0] = refuse
	proof, err := next.Succession()
	if err != nil {
		t.Fatal(err)
	}
	err = Remote{Keys: next, Name: "n1", Address: known["n1"].Address, Tell: tell}.Call(t.Context(), func(ctx context.Context, c *api.Client) error {
		answer, err := c.Succeed(ctx, connect.NewRequest(&apiv1.SucceedRequest{Succession: proof, Certificate: nodes[0].Certificate().Certificate[0]}))
		if err == nil && answer.Msg.Fleet != next.Genesis.ID() {
			t.Errorf("it is of fleet %s", answer.Msg.Fleet)
		}
		return err
	})
	if err != nil {
		t.Errorf("once more: %v", err)
	}
	applicants, err := Applicants(t.Context(), next, names, tell)
	if err != nil {
		t.Fatal(err)
	}
	operators, err := Operators(next)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Plan(next.Genesis, operators, applicants, Wish{})
	if err != nil {
		t.Fatal(err)
	}
	// The sheets of the old fleet are the new one's.
	if owner, err = next.OwnerKeys(nil, sheets(t, old)[1]); err != nil {
		t.Fatal(err)
	}
	e, err := foundBy(next, v, owner)
	if err != nil {
		t.Fatal(err)
	}
	told, err := Give(t.Context(), next, names, []ledger.Entry{e}, tell)
	for _, n := range told {
		if err != nil || n.Err != nil {
			t.Errorf("%v, %v", n, err)
		}
	}
}
