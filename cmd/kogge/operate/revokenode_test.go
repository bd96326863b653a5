package operate

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// TestRevokeNode has a thief answer at a node's address with its key, which was revoked:
// nobody calls it, nothing is signed for it, and other nodes turn it away. The machine comes
// back with a key of its own.
func TestRevokeNode(t *testing.T) {
	k, node, address := aged(t, 9) // whose certificate is due to be renewed
	if _, err := RevokeNode(t.Context(), k, "n9", time.Now()); !errors.Is(err, keyring.ErrNoNode) {
		t.Errorf("nobody: %v", err)
	}
	var heard []Notice
	thief := Remote{Keys: k, Name: "n1", Address: address, Tell: func(n Notice) { heard = append(heard, n) }}
	status := func(ctx context.Context, c *api.Client) error {
		_, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
		return err
	}
	before := node.Certificate().Leaf
	if n, err := RevokeNode(t.Context(), k, "n1", time.Now()); n != 1 || err != nil {
		t.Fatalf("%d keys, %v", n, err)
	}
	if n, err := RevokeNode(t.Context(), k, "n1", time.Now()); n != 1 || err != nil {
		t.Errorf("again: %d keys, %v", n, err)
	}
	if nodes, err := Nodes(k); err != nil || len(nodes) != 0 {
		t.Errorf("still known: %v, %v", nodes, err)
	}
	if err := thief.Call(t.Context(), status); !errors.Is(err, api.ErrNodeRevoked) || !errors.Is(err, fleet.ErrRevoked) {
		t.Errorf("a call: %v", err)
	}
	if _, err := thief.Renew(t.Context()); !errors.Is(err, fleet.ErrRevoked) {
		t.Errorf("a renewal: %v", err)
	}
	if node.Certificate().Leaf != before {
		t.Error("the thief has a new certificate")
	}
	for _, n := range heard {
		if n.Err == nil {
			t.Errorf("heard %+v", n)
		}
	}
	if _, err := Adopt(t.Context(), k, address, "", func(Notice) {}); !errors.Is(err, api.ErrNodeRevoked) {
		t.Errorf("its address is recorded: %v", err)
	}
	csr, err := node.Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignNode(csr, "n2", time.Now()); !errors.Is(err, fleet.ErrRevoked) {
		t.Errorf("another name for the same key: %v", err)
	}
	if keys, err := k.RevokedKeys(); err != nil || len(keys) != 1 || keys[0] != node.Key() {
		t.Errorf("told: %v, %v", keys, err)
	}
	again, err := identity.OpenNode(filepath.Join(t.TempDir(), "identity"))
	if err == nil {
		csr, err = again.Request()
	}
	if err == nil {
		_, err = k.SignNode(csr, "n1", time.Now())
	}
	if err != nil {
		t.Errorf("a new key for the name: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(k.Dir, "revoked-nodes.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(k.Dir, "revoked-nodes.json"), text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := thief.Call(t.Context(), status); err == nil || !strings.Contains(err.Error(), "revoked-nodes.json") {
		t.Errorf("with a list that cannot be read: %v", err)
	}
}

// TestRevokeNodeByToken knows a node's key by the token that let it in, though it answers no
// more, and tells a node that is adopted later.
func TestRevokeNodeByToken(t *testing.T) {
	k, node, address := served(t, 0)
	if _, err := Adopt(t.Context(), k, address, "", func(Notice) {}); err != nil {
		t.Fatal(err)
	}
	nodes, err := Nodes(k)
	if err != nil || nodes["n1"].Key != node.Key() {
		t.Errorf("%+v, %v", nodes, err)
	}
	if err := ChangeNodes(k, func(nodes map[string]Node) { clear(nodes) }); err != nil {
		t.Fatal(err)
	}
	if n, err := RevokeNode(t.Context(), k, "n1", time.Now()); n != 1 || err != nil {
		t.Fatalf("%d keys, %v", n, err)
	}
	keys, err := k.RevokedKeys()
	if err != nil || len(keys) != 1 || keys[0] != node.Key() {
		t.Errorf("%v, %v", keys, err)
	}
}

// TestAdoptTells tells a node that is in the fleet already who was revoked: it may have come in by a
// member that has left somebody out.
func TestAdoptTells(t *testing.T) {
	k, node, address := aged(t, 0)
	lost := strings.Repeat("07", 32)
	if _, err := k.RevokeNode("n7", []string{lost}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if a, err := Adopt(t.Context(), k, address, "", func(n Notice) { t.Errorf("%+v", n) }); err != nil || !a.Before || !node.Revoked(lost) {
		t.Errorf("%+v, %v; it has %v as revoked", a, err, node.RevokedKeys())
	}
}

// TestAdoptHears: who adopts a node is told whom it turns away by a member's word alone, the first time, too.
// An operator who may not ask that adopts it all the same, and it is said that he may not.
func TestAdoptHears(t *testing.T) {
	liar := strings.Repeat("07", 32)
	k, node, address := served(t, 1, func(dir string) error {
		return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "told.json"), []byte(`{"version": 1, "keys": ["`+liar+`"]}`), 0o600))
	})
	quiet := func(n Notice) { t.Errorf("heard %+v", n) }
	for _, before := range []bool{false, true} {
		if a, err := Adopt(t.Context(), k, address, "", quiet); err != nil || a.Before != before || !slices.Equal(a.Other.GetTold(), []string{liar}) || a.Denied {
			t.Errorf("%+v, %v", a, err)
		}
	}
	invitation, err := k.Invite("bob", fleet.RoleOperator, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	n, err := keyring.Accept(root, "hanse", invitation, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	der, err := k.SignRequest(n.Request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	bob, err := keyring.InstallOperator(root, cert, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if a, err := Adopt(t.Context(), bob, address, "", quiet); err != nil || a.Name != "n1" || !a.Denied || a.Other != nil {
		t.Errorf("bob: %+v, %v", a, err)
	}
	if err := node.LetIn(liar); err != nil {
		t.Fatal(err)
	}
	if a, err := Adopt(t.Context(), k, address, "", quiet); err != nil || a != (Adopted{Name: "n1", Before: true}) {
		t.Errorf("it turns nobody away: %+v, %v", a, err)
	}
}

// TestTellUnknown names a node that has a seat, and that this computer does not know, as one that was not
// told; one that is revoked itself is none.
func TestTellUnknown(t *testing.T) {
	k, err := keyring.Create("hanse", "ada", time.Now())
	if err == nil {
		err = k.Save(filepath.Join(t.TempDir(), "hanse"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	serving(t, k, 3, nil).found(t, k, 3)
	if _, err := k.RevokeNode("n3", []string{strings.Repeat("07", 32)}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := ChangeNodes(k, func(nodes map[string]Node) { delete(nodes, "n2"); delete(nodes, "n3") }); err != nil {
		t.Fatal(err)
	}
	told, err := TellRevoked(t.Context(), k, func(n Notice) { t.Errorf("%+v", n) })
	if err != nil || len(told) != 2 || told[0].Node != "n1" || told[0].Err != nil || told[1].Node != "n2" || !errors.Is(told[1].Err, keyring.ErrNoNode) {
		t.Errorf("%+v, %v", told, err)
	}
}
