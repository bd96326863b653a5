package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/serve"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
)

// agedNode serves a node that was adopted months ago, into a fleet of that day which is
// this computer's only one, and returns both.
func agedNode(t *testing.T, months int) (*keyring.Keyring, *identity.Node) {
	t.Helper()
	root, state, then := t.TempDir(), t.TempDir(), time.Now().AddDate(0, -months, 0)
	t.Setenv("KOGGE_CONFIG", root)
	f, err := keyring.Create("hanse", "ada", then)
	if err == nil {
		err = f.Save(filepath.Join(root, "hanse"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	node, err := identity.OpenNode(filepath.Join(state, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := f.NewToken(keyring.Terms{}, then)
	if err == nil {
		err = node.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token})
	}
	if err != nil {
		t.Fatal(err)
	}
	csr, err := node.Request()
	if err != nil {
		t.Fatal(err)
	}
	der, err := f.SignNode(csr, "n1", then)
	if err == nil {
		err = node.Adopt(der)
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
	if err := operate.RememberNode(f, "n1", operate.Node{Address: server.Address().String(), Adopted: then}); err != nil {
		t.Fatal(err)
	}
	return f, node
}

// TestNodeRenews asks nodes that were adopted long ago how they are.
func TestNodeRenews(t *testing.T) {
	for _, c := range []struct {
		name    string
		months  int
		renewed bool
	}{{"half a year", 6, false}, {"nine months", 9, true}, {"three years", 36, true}} {
		t.Run(c.name, func(t *testing.T) {
			f, node := agedNode(t, c.months)
			var out strings.Builder
			cmd := nodeCommand()
			cmd.SetOut(&out)
			if err := kogge(t, cmd, "status"); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), "node       n1") {
				t.Errorf("status says %q", out.String())
			}
			until := node.Certificate().Leaf.NotAfter
			if renewed := until.After(time.Now().AddDate(0, 11, 0)); renewed != c.renewed {
				t.Errorf("renewed %v: good until %s", renewed, until)
			}
			out.Reset()
			if err := kogge(t, cmd, "list"); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), until.Local().Format(time.DateOnly)) {
				t.Errorf("want %s in\n%s", until, out.String())
			}
			if _, err := f.Genesis.VerifyPeer(node.Certificate().Leaf, nil, time.Now(), true, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNodeRenewAll renews what can be reached, and names what cannot.
func TestNodeRenewAll(t *testing.T) {
	f, node := agedNode(t, 20)
	if err := operate.RememberNode(f, "n2", operate.Node{Address: "127.0.0.1:1", Adopted: time.Now()}); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := nodeCommand()
	cmd.SetOut(&out)
	err := kogge(t, cmd, "renew", "--all")
	if err == nil || !strings.Contains(err.Error(), "1 of 2 nodes not renewed") {
		t.Error(err)
	}
	until := node.Certificate().Leaf.NotAfter
	if want := "n1  good until " + until.Local().Format(time.DateOnly); !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "n2  not renewed: ") {
		t.Errorf("says %q, want %q", out.String(), want)
	}
	if until.Before(time.Now().AddDate(0, 11, 0)) {
		t.Errorf("good until %s", until)
	}
}

// TestNodeRenewElsewhere has an operator without the node CA's key meet a node whose
// certificate is over: he is told who can do something about it.
func TestNodeRenewElsewhere(t *testing.T) {
	f, node := agedNode(t, 20)
	if err := os.Rename(filepath.Join(f.Dir, "node-ca.key"), filepath.Join(t.TempDir(), "node-ca.key")); err != nil {
		t.Fatal(err)
	}
	before := node.Certificate().Leaf
	for _, c := range []struct{ verb, says, hint string }{
		{"status", "not valid now", "kogge node renew n1"}, {"renew", "only an admin who has the node CA's key", "where the fleet was created"},
	} {
		err := kogge(t, quietly(nodeCommand()), c.verb, "n1")
		var h hinted
		if !errors.As(err, &h) || !strings.Contains(err.Error(), c.says) || !strings.Contains(h.hint, c.hint) {
			t.Errorf("%s: %v; hint: %s", c.verb, err, h.hint)
		}
	}
	if !node.Certificate().Leaf.Equal(before) {
		t.Error("it was renewed")
	}
}
