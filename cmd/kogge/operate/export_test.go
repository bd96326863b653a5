package operate

import (
	"path/filepath"
	"testing"
	"time"

	"kogge.example/agent/serve"
	"kogge.example/cmd/kogge/keyring"
)

// ServeTwo is, for the tests of other packages, a fleet of two nodes that answer: n1 runs etcd once
// it is founded, n2 does not.
func ServeTwo(t *testing.T, more ...func(i int, c *serve.Config)) (k *keyring.Keyring, found func()) {
	t.Helper()
	k, err := keyring.Create("hanse", "ada", time.Now())
	if err == nil {
		err = k.Save(filepath.Join(t.TempDir(), "hanse"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	s := serving(t, k, 2, nil, more...)
	return k, func() { s.found(t, k, 2) }
}
