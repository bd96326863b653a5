package operate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/agent/api"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet/ledger"
)

// TestGather founds a fleet on one computer and reads its ledger on another, with the same
// folder from before the founding. That one gives out the same record, and makes no second.
func TestGather(t *testing.T) {
	k, stop := adopted(t, 4)
	tell := func(n Notice) { t.Errorf("%+v", n) }
	other, third := *k, *k
	for _, copied := range []*keyring.Keyring{&other, &third} {
		copied.Dir = t.TempDir()
		if err := os.CopyFS(copied.Dir, os.DirFS(k.Dir)); err != nil {
			t.Fatal(err)
		}
	}
	found := func(k *keyring.Keyring, names ...string) (ledger.Entry, error) {
		applicants, err := Applicants(t.Context(), k, names, tell)
		if err != nil {
			t.Fatal(err)
		}
		operators, err := Operators(k)
		if err != nil {
			t.Fatal(err)
		}
		v, err := Plan(k.Genesis, operators, applicants, Wish{})
		if err != nil {
			return ledger.Entry{}, err
		}
		owner, err := k.OwnerKeys(nil, sheets(t, k)[0])
		if err != nil {
			t.Fatal(err)
		}
		return foundBy(k, v, owner)
	}
	gather := func(k *keyring.Keyring, names ...string) error {
		t.Helper()
		told, err := Gather(t.Context(), k, names, tell)
		for _, n := range told {
			if (n.Err != nil) != (n.Node == "n3" || n.Node == "n9") {
				t.Errorf("%+v", n)
			}
		}
		return err
	}
	height := func(k *keyring.Keyring) int64 {
		l, _, err := Ledger(k)
		if err != nil {
			t.Fatal(err)
		}
		return l.State().Height
	}
	stop[2]() // n3 is off
	if err := gather(k, "n1", "n2", "n3", "n4", "n9"); err != nil || height(k) != 0 {
		t.Errorf("before the founding: %v, height %d", err, height(k))
	}
	e, err := found(k, "n1", "n2")
	if err != nil {
		t.Fatal(err)
	}
	if told, err := Give(t.Context(), k, []string{"n1"}, []ledger.Entry{e}, tell); err != nil || told[0].Err != nil {
		t.Fatal(told, err)
	}
	if _, err := found(&other, "n1", "n2", "n4"); !errors.Is(err, ErrFounding) {
		t.Errorf("n1 says that it is founded: %v", err)
	}
	if err := gather(&other, "n4", "n2"); err != nil || height(&other) != 0 {
		t.Errorf("those who do not have it: %v, height %d", err, height(&other))
	}
	if err := gather(&other, "n1", "n2", "n3", "n4"); err != nil || height(&other) != 1 {
		t.Fatalf("one who has it: %v, height %d", err, height(&other))
	}
	if _, entries, err := Ledger(&other); err != nil || string(entries[0].Record) != string(e.Record) {
		t.Errorf("another record: %v", err)
	}
	// A third computer has founded it anew meanwhile, with nodes that had not heard of it.
	again, err := found(&third, "n2", "n4")
	if err != nil {
		t.Fatal(err)
	}
	if told, err := Give(t.Context(), k, []string{"n4"}, []ledger.Entry{again}, tell); err != nil || told[0].Err != nil {
		t.Fatal(told, err)
	}
	for name, k := range map[string]*keyring.Keyring{"founder": k, "third": &third} {
		before, _ := os.ReadFile(filepath.Join(k.Dir, ledgerFile))
		if err := gather(k, "n1", "n2", "n4"); !errors.Is(err, ErrFork) {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := os.ReadFile(filepath.Join(k.Dir, ledgerFile)); string(after) != string(before) {
			t.Errorf("%s: its own ledger is another one", name)
		}
	}
	l, _, err := Ledger(&third)
	if err != nil {
		t.Fatal(err)
	}
	// n1 sees both, and stops. Who knows of no founding is told nothing of it, and leaves it to
	// the node; who does is told why.
	if told, err := Give(t.Context(), k, []string{"n1"}, []ledger.Entry{again}, tell); err != nil || told[0].Err == nil {
		t.Fatal(told, err)
	}
	unknowing := *k
	unknowing.Dir = t.TempDir()
	nodes, err := Nodes(k)
	if err != nil {
		t.Fatal(err)
	}
	err = Remote{Keys: k, Name: "n1", Address: nodes["n1"].Address, Tell: tell}.Call(t.Context(), func(ctx context.Context, c *api.Client) error {
		if l, _, err := Level(ctx, &unknowing, c, "n1"); err != nil || l.State().Height != 0 {
			t.Errorf("who knows of no founding: %v", err)
		}
		if _, _, err := Level(ctx, k, c, "n1"); !errors.Is(err, ErrUnsound) || !strings.Contains(err.Error(), "two records for one height") {
			t.Errorf("who does: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Agrees(k, "ledger.txt", l); !errors.Is(err, ErrFork) {
		t.Errorf("compared: %v", err)
	}
	if err := Agrees(&third, "ledger.txt", l); err != nil {
		t.Errorf("compared with itself: %v", err)
	}
}
