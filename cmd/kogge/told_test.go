package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
)

// TestToldKey has keys that a liar made up to begin like another one's let nobody in by mistake, and a name
// stand for the one key of who has it.
func TestToldKey(t *testing.T) {
	ring, err := keyring.Create("hanse", "ada", time.Now())
	must(t, err)
	must(t, ring.Save(filepath.Join(t.TempDir(), "hanse"), ""))
	signed := func(name string) string {
		key, err := fleet.NewKey()
		must(t, err)
		csr, err := fleet.NewRequest(key)
		must(t, err)
		_, err = ring.SignOperator(csr, name, fleet.RoleOperator, time.Now())
		must(t, err)
		all, err := ring.Operators()
		must(t, err)
		return all[len(all)-1].Key
	}
	carol, laptop, desktop, gone, both := signed("carol"), signed("dora"), signed("dora"), signed("gus"), signed("n1")
	_, err = ring.RevokeOperator("gus", time.Now())
	must(t, err)
	n1, n2, digits := fleet.KeyID([]byte("n1")), fleet.KeyID([]byte("n2")), fleet.KeyID([]byte("digits"))
	bob, eve := fleet.KeyID([]byte("bob")), fleet.KeyID([]byte("eve"))
	must(t, operate.ChangeNodes(ring, func(nodes map[string]operate.Node) {
		nodes["n1"], nodes["n2"], nodes[bob[:12]] = operate.Node{Key: n1}, operate.Node{Key: n2}, operate.Node{Key: digits}
	}))
	alike := bob[:12] + strings.Repeat("0", 52)
	told := []string{alike, bob, eve, carol, laptop, desktop, n1, digits}
	for typed, want := range map[string]struct{ key, err string }{
		bob: {bob, ""}, eve[:12]: {eve, ""}, strings.ToUpper(eve[:12]): {eve, ""}, bob[:16]: {bob, ""}, alike: {alike, ""},
		bob[:12]: {"", alike + ", " + bob}, strings.Repeat("f", 12): {"", ""}, bob[:11]: {"", "no operator and no node"}, "": {"", "no operator and no node"},
		"carol": {carol, ""}, "dora": {"", "is 2 keys: "}, "gus": {"", "revoked on this computer"}, gone[:12]: {"", "revoked on this computer"},
		"n1": {"", "an operator and a node"}, n1: {n1, ""}, both: {"", ""}, "n2": {"", ""}, "nobody": {"", "no operator and no node"},
	} {
		got, err := toldKey(ring, told, typed)
		if got != want.key || (err == nil) != (want.err == "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("%q: %s, %v", typed, got, err)
		}
	}
	if got := apart(told, eve); got != fleet.Short(eve) {
		t.Errorf("%s stands for itself", got)
	}
	if apart(told, bob) != bob || apart(told, alike) != alike {
		t.Error("two keys are shown alike")
	}
}
