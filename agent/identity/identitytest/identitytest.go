// Package identitytest is, for tests, a node of a fleet of package ledgertest: the fleet comes in,
// and the folder of a node that an operator has adopted goes out. No ledger is in it.
package identitytest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/agent/identity"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
)

// Open is a node that nobody has adopted, and the folder of its STATE.
func Open(t testing.TB) (node *identity.Node, state string) {
	t.Helper()
	state = t.TempDir()
	return ledgertest.Must[*identity.Node](t)(identity.OpenNode(filepath.Join(state, "identity"))), state
}

// Adopted is a node that is adopted since now.
func Adopted(t testing.TB, f *ledgertest.Fleet) (node *identity.Node, state string) {
	t.Helper()
	return AdoptedAt(t, f, "n1", time.Now())
}

// AdoptedAt is a node that is adopted by a name since then.
func AdoptedAt(t testing.TB, f *ledgertest.Fleet, name string, since time.Time) (node *identity.Node, state string) {
	t.Helper()
	node, state = Open(t)
	must(t, node.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: fleet.NewToken()}))
	csr, err := node.Request()
	must(t, err)
	key, _, err := fleet.RequestKey(csr)
	must(t, err)
	must(t, node.Adopt(f.SignAt(t, fleet.KindNode, name, "", key, since)))
	return node, state
}

// Sit gives the node with that STATE the key of a seat.
func Sit(t testing.TB, state string, number int) {
	t.Helper()
	seed, journal := ledgertest.Private(fmt.Sprintf("n%d", number)).Seed(), roster.ID{byte(number)}
	raw, err := document.Encode(struct {
		Version int           `json:"version"`
		Key     []byte        `json:"key"`
		Journal roster.ID     `json:"journal"`
		Sum     document.Hash `json:"sum"`
	}{1, seed, journal, document.HashOf(document.Message("kogge/seat-file/v1", seed, journal[:]))})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(state, "identity", "seat.json"), raw, 0o600))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
