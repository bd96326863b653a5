package operate

import (
	"context"
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/fleet/ledger"
)

// TestImpostor: whoever has a key of the node CA can answer in a node's name, and in a founded
// fleet is not called, whether this computer has called the node before or not; nor does he get
// another certificate.
func TestImpostor(t *testing.T) {
	k, stop := adopted(t, 2)
	// He makes himself n1 and n2, with keys of his own, in a folder where he can sign.
	thief := *k
	thief.Dir = t.TempDir()
	serveNodes(t, &thief, 2, nil)
	tell := func(n Notice) { t.Errorf("%+v", n) }
	applicants, err := Applicants(t.Context(), k, []string{"n1", "n2"}, tell)
	if err != nil {
		t.Fatal(err)
	}
	operators, err := Operators(k)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Plan(k.Genesis, operators, applicants, Wish{})
	if err != nil {
		t.Fatal(err)
	}
	owner, err := k.OwnerKeys(nil, sheets(t, k)[0])
	if err != nil {
		t.Fatal(err)
	}
	e, err := foundBy(k, v, owner)
	if err != nil {
		t.Fatal(err)
	}
	if told, err := Give(t.Context(), k, []string{"n1"}, []ledger.Entry{e}, tell); err != nil || told[0].Err != nil {
		t.Fatal(told, err) // n1 was called since, and n2 was not
	}
	true1, err := Nodes(k)
	if err != nil {
		t.Fatal(err)
	}
	false1, err := Nodes(&thief)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"n1", "n2"} {
		at := func(address string) error {
			sent := false
			err := Remote{Keys: k, Name: name, Address: address, Tell: func(Notice) {}}.Call(t.Context(), func(ctx context.Context, c *api.Client) error {
				_, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
				sent = err == nil
				return err
			})
			if err != nil && sent {
				t.Errorf("%s: the call went out", name)
			}
			return err
		}
		if err := at(false1[name].Address); !errors.Is(err, ErrNotTheSeat) && !errors.Is(err, api.ErrOtherKey) {
			t.Errorf("%s: the impostor is called: %v", name, err)
		}
		if err := at(true1[name].Address); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := at(false1[name].Address); !errors.Is(err, api.ErrOtherKey) {
			t.Errorf("%s: the impostor is called after the node: %v", name, err)
		}
		if _, err := (Remote{Keys: k, Name: name, Address: false1[name].Address}).Renew(t.Context()); !errors.Is(err, ErrNotTheSeat) {
			t.Errorf("%s: the impostor's certificate is renewed: %v", name, err)
		}
	}
	// The folder that takes him for the node, as after a mistake in adopting, sees him in doubt.
	if err := ChangeNodes(k, func(nodes map[string]Node) {
		n := nodes["n2"]
		n.Address = false1["n2"].Address
		nodes["n2"] = n
	}); err != nil {
		t.Fatal(err)
	}
	s, seen, err := Survey(t.Context(), k, tell)
	if err != nil {
		t.Fatal(err)
	}
	h := Judge(s, seen)
	if h.Answering != 1 || h.Nodes[1].Standing != StandingDoubt {
		t.Errorf("%+v", h)
	}
	for _, p := range h.Problems {
		if p.Node == "n2" && !strings.Contains(p.Do, "somebody else answers in its name") {
			t.Errorf("%+v", p)
		}
	}
	for _, s := range stop {
		s()
	}
}
