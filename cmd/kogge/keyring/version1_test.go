package keyring

import (
	"os"
	"path/filepath"
	"testing"
)

// TestVersion1 reads the folder that the first release wrote, once: it is never written
// again.
func TestVersion1(t *testing.T) {
	dir := t.TempDir() // the repository is read-only for a test
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "v1", "fleet"))); err != nil {
		t.Fatal(err)
	}
	k, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	const id = "c5f338aa5c19c864c684ec762caa7e582c923de90ed828c3856e104a84e60454"
	if k.Genesis.ID() != id {
		t.Errorf("fleet id is %s", k.Genesis.ID())
	}
	if err := k.Unlock(passphrase); err != nil {
		t.Error(err)
	}
	if _, err := k.ownerKey(1, passphrase); err != nil {
		t.Error(err)
	}
	for i, sheet := range k.Sheets() {
		text, err := os.ReadFile(sheet)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := k.Recover(text, "", true); err != nil || n != i+2 {
			t.Errorf("%s: key %d, %v", sheet, n, err)
		}
	}
	tokens, err := k.Tokens()
	if err != nil || len(tokens) != 2 || len(tokens[0].Used) != 1 || tokens[1].Node != "n2" {
		t.Errorf("%+v, %v", tokens, err)
	}
	operators, err := k.Operators()
	if err != nil || len(operators) != 1 || operators[0].Key != k.Operator().Key {
		t.Errorf("%+v, %v", operators, err)
	}
}
