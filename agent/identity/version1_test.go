package identity

import (
	"os"
	"path/filepath"
	"testing"
)

// TestVersion1 reads what the first release wrote, once: a node's folder and a
// join.yaml. They are never written again.
func TestVersion1(t *testing.T) {
	dir := t.TempDir() // the repository is read-only for a test
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "v1", "node"))); err != nil {
		t.Fatal(err)
	}
	const (
		fleetID = "c5f338aa5c19c864c684ec762caa7e582c923de90ed828c3856e104a84e60454"
		tokenID = "8936402f100e"
		key     = "cd41d29a43420a5e3b8c2f615222a7382e314c9d049c374cc9a68dd18b0df546"
	)
	if j := mustJoin(t, version1Join(t)); j.Genesis.ID() != fleetID || j.Token.ID() != tokenID {
		t.Errorf("join.yaml says fleet %s, token %s", j.Genesis.ID(), j.Token.ID())
	}
	n, err := OpenNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n.Name() != "n1" || n.Genesis().ID() != fleetID || n.Key() != key || len(n.RevokedKeys()) != 1 {
		t.Errorf("%v", n)
	}
}
