package operate

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/serve"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// served is a node that waits to be adopted by a fleet which was founded months ago, the
// fleet's keyring, and where the node answers. before are done in the node's folder.
func served(t *testing.T, months int, before ...func(dir string) error) (*keyring.Keyring, *identity.Node, string) {
	t.Helper()
	state, then := t.TempDir(), time.Now().AddDate(0, -months, 0)
	k, err := keyring.Create("hanse", "ada", then)
	if err == nil {
		err = k.Save(filepath.Join(t.TempDir(), "hanse"), "")
	}
	if err == nil {
		err = k.RenewOperator(time.Now()) // hers is not the one to be renewed here
	}
	if err != nil {
		t.Fatal(err)
	}
	token, err := k.NewToken(keyring.Terms{Node: "n1", Life: 10 * 365 * 24 * time.Hour}, then)
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range before {
		if err := do(filepath.Join(state, "identity")); err != nil {
			t.Fatal(err)
		}
	}
	node, err := identity.OpenNode(filepath.Join(state, "identity"))
	if err == nil {
		err = node.Join(&fleet.JoinFile{Genesis: k.Genesis, Token: token.Token})
	}
	if err != nil {
		t.Fatal(err)
	}
	server, err := serve.Listen("127.0.0.1:0", serve.Config{
		Node: node, Machine: machine.Machine{Run: state, State: state}, ClockSure: func() bool { return true }, LogDir: state,
		Containers: func() serve.Containers { return nil }, Projects: func() serve.Projects { return nil }, Images: func() serve.Images { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return k, node, server.Address().String()
}

// aged is served, adopted those months ago and known as n1.
func aged(t *testing.T, months int) (*keyring.Keyring, *identity.Node, string) {
	t.Helper()
	k, node, address := served(t, months)
	csr, err := node.Request()
	if err != nil {
		t.Fatal(err)
	}
	then := time.Now().AddDate(0, -months, 0)
	der, err := k.SignNode(csr, "n1", then)
	if err == nil {
		err = node.Adopt(der)
	}
	if err == nil {
		err = RememberNode(k, "n1", Node{Address: address, Adopted: then, Until: node.Certificate().Leaf.NotAfter})
	}
	if err != nil {
		t.Fatal(err)
	}
	return k, node, address
}

// TestCall calls nodes that were adopted long ago: the certificate is renewed before the
// call, once, and the caller hears of it.
func TestCall(t *testing.T) {
	for name, c := range map[string]struct {
		months        int
		keyHere       bool
		renewed, over bool
		err           error
	}{
		"half a year":                       {6, true, false, false, nil},
		"nine months":                       {9, true, true, false, nil},
		"nine months, without the CA's key": {9, false, false, false, nil},
		"three years":                       {36, true, true, true, nil},
		"three years, without the CA's key": {36, false, false, false, fleet.ErrExpired},
	} {
		t.Run(name, func(t *testing.T) {
			k, node, address := aged(t, c.months)
			before := node.Certificate().Leaf.NotAfter
			if !c.keyHere {
				if err := os.Rename(filepath.Join(k.Dir, "node-ca.key"), filepath.Join(t.TempDir(), "node-ca.key")); err != nil {
					t.Fatal(err)
				}
			}
			var heard []Notice
			for i := range 2 {
				called := false
				err := Remote{Keys: k, Name: "n1", Address: address, Tell: func(n Notice) { heard = append(heard, n) }}.Call(t.Context(), func(ctx context.Context, client *api.Client) error {
					if now := node.Certificate().Leaf.NotAfter; now.After(before) != c.renewed {
						t.Errorf("call %d comes when the certificate is good until %s, before that %s", i, now, before)
					}
					called = true
					_, err := client.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
					return err
				})
				if !called || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
					t.Errorf("called %v: %v", called, err)
				}
			}
			until := node.Certificate().Leaf.NotAfter
			switch {
			case !c.renewed && len(heard) > 0:
				t.Errorf("heard %+v", heard)
			case c.renewed && (len(heard) != 1 || heard[0].Err != nil || heard[0].Over != c.over || !heard[0].Until.Equal(until)):
				t.Errorf("heard %+v; it is good until %s", heard, until)
			}
			if nodes, err := Nodes(k); err != nil || !nodes["n1"].Until.Equal(until) {
				t.Errorf("%+v, %v; it is good until %s", nodes, err, until)
			}
		})
	}
}

// TestCallRenewalFails: a certificate that is still good does for the call.
func TestCallRenewalFails(t *testing.T) {
	k, node, address := aged(t, 9)
	before := node.Certificate().Leaf
	// A node that revoked its admin's key renews nothing, and answers nothing.
	if err := node.Revoke(k.Operator().Key); err != nil {
		t.Fatal(err)
	}
	var heard []Notice
	called := false
	err := Remote{Keys: k, Name: "n1", Address: address, Tell: func(n Notice) { heard = append(heard, n) }}.Call(t.Context(), func(context.Context, *api.Client) error {
		called = true
		return nil
	})
	if err != nil || !called || len(heard) != 1 || heard[0].Err == nil || !heard[0].Until.Equal(before.NotAfter) || !node.Certificate().Leaf.Equal(before) {
		t.Errorf("called %v: %v; heard %+v", called, err, heard)
	}
}

// TestAdopt takes a node into the fleet twice, and is told what is wrong with other ways.
func TestAdopt(t *testing.T) {
	k, node, address := served(t, 1)
	tell := func(n Notice) { t.Errorf("heard %+v", n) }
	if _, err := Adopt(t.Context(), k, address, "n2", tell); !errors.Is(err, keyring.ErrTokenNode) || node.Adopted() {
		t.Errorf("by another name than its token's: %v", err)
	}
	for _, want := range []Adopted{{Name: "n1"}, {Name: "n1", Before: true}} {
		got, err := Adopt(t.Context(), k, address, "", tell)
		if err != nil || got != want || node.Name() != "n1" {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		nodes, err := Nodes(k)
		if n := nodes["n1"]; err != nil || len(nodes) != 1 || n.Address != address || !n.Until.Equal(node.Certificate().Leaf.NotAfter) || time.Since(n.Adopted).Abs() > 48*time.Hour {
			t.Errorf("remembered %+v, %v", nodes, err)
		}
	}
	if got, err := Adopt(t.Context(), k, address, "n2", tell); !errors.Is(err, api.ErrAdopted) || got.Name != "n1" {
		t.Errorf("by another name: %+v, %v", got, err)
	}
	other, err := keyring.Create("other", "bob", time.Now())
	if err == nil {
		err = other.Save(filepath.Join(t.TempDir(), "other"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(t.Context(), other, address, "", tell); err == nil {
		t.Error("another fleet adopts it")
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent.Close()
	if _, err := Adopt(t.Context(), k, silent.Addr().String(), "", tell); !errors.As(err, new(Unanswered)) {
		t.Errorf("where nobody answers: %v", err)
	}
}

// TestRevoke revokes an operator, and tells the node that can be reached.
func TestRevoke(t *testing.T) {
	k, node, _ := aged(t, 1)
	if err := RememberNode(k, "n2", Node{Address: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Revoke(k, "bob", time.Now()); !errors.Is(err, keyring.ErrNoOperator) {
		t.Errorf("nobody: %v", err)
	}
	if _, err := k.Invite("bob", fleet.RoleReader, 0, time.Now()); err != nil {
		t.Fatal(err)
	}
	if r, err := Revoke(k, "bob", time.Now()); err != nil || r != (Revocation{Withdrawn: 1}) {
		t.Errorf("who was only invited: %+v, %v", r, err)
	}
	key, err := fleet.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := fleet.NewRequest(key)
	if err == nil {
		_, err = k.SignOperator(csr, "bob", fleet.RoleReader, time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Revoke(k, "bob", time.Now()); err != nil || r != (Revocation{Keys: 1}) {
		t.Errorf("who was signed: %+v, %v", r, err)
	}
	told, err := TellRevoked(t.Context(), k, func(n Notice) { t.Errorf("heard %+v", n) })
	if err != nil || len(told) != 2 || told[0].Node != "n1" || told[0].Err != nil || told[1].Node != "n2" || told[1].Err == nil {
		t.Fatalf("%+v, %v", told, err)
	}
	keys, err := k.RevokedKeys()
	if err != nil || len(keys) != 1 || !node.Revoked(keys[0]) {
		t.Errorf("%v, %v", keys, err)
	}
	if err := os.Rename(filepath.Join(k.Dir, "operator-ca.key"), filepath.Join(t.TempDir(), "operator-ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Revoke(k, "bob", time.Now()); !errors.Is(err, keyring.ErrNoKey) {
		t.Errorf("where nobody is signed: %v", err)
	}
}

// TestFollow follows a node that has arrived, and one that never answers.
func TestFollow(t *testing.T) {
	k, _, address := aged(t, 1)
	none := func(n Notice) { t.Errorf("heard %+v", n) }
	trip := Journey{From: &apiv1.ListSlotsResponse{BootId: "before"}, Armed: &apiv1.UpdateStep{Slot: "B", Version: "1.1"}}
	steps := 0
	err := Remote{Keys: k, Name: "n2", Address: "127.0.0.1:1", Tell: none}.Follow(t.Context(), trip, 10*time.Millisecond, func(s *apiv1.UpdateStep, _ time.Duration) error {
		if steps++; s.Step != "following" || s.Text != "it reboots" {
			t.Errorf("step %v", s)
		}
		return nil
	})
	if !errors.Is(err, ErrNoAssessment) || steps == 0 || !strings.Contains(err.Error(), "no boot assessment of slot B after 10ms") {
		t.Errorf("%d steps: %v", steps, err)
	}
	n1 := Remote{Keys: k, Name: "n1", Address: address, Tell: none}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n1.Follow(over, trip, time.Minute, func(*apiv1.UpdateStep, time.Duration) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("after Ctrl-C: %v", err)
	}
	broken := errors.New("broken pipe")
	if err := n1.Follow(t.Context(), trip, time.Minute, func(*apiv1.UpdateStep, time.Duration) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("whom nobody reads: %v", err)
	}
}
