package identity

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/update/golden"
)

// TestGenesis wants that bytes and id belong together.
func TestGenesis(t *testing.T) {
	f := newFleet(t, "dev")
	g, err := ParseGenesis(f.Genesis.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if g.ID() != f.Genesis.ID() || !isHash(g.ID()) || !bytes.Equal(g.Bytes(), f.Genesis.Bytes()) || len(Short(g.ID())) != 12 {
		t.Errorf("id %s, was %s", g.ID(), f.Genesis.ID())
	}
	if len(g.Owners) != 3 || g.Threshold != 2 || g.Name != "dev" || !g.FirstOperator.Equal(f.me.Leaf.PublicKey) {
		t.Errorf("%+v", g)
	}
	if twin := newFleet(t, "dev"); twin.Genesis.ID() == g.ID() {
		t.Error("two fleets have one id")
	}
	if strings.Contains(string(g.Bytes()), "PRIVATE") {
		t.Error("there is a secret in it")
	}
}

// TestGenesisRefused shows what is said to each way a genesis can be wrong.
func TestGenesisRefused(t *testing.T) {
	f, twin := newFleet(t, "dev"), newFleet(t, "twin")
	good := f.Genesis.Bytes()
	edited := func(edit func(*genesisFile)) []byte {
		var g genesisFile
		if err := json.Unmarshal(good, &g); err != nil {
			t.Fatal(err)
		}
		edit(&g)
		raw, err := encodeJSON(g)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	replaced := func(from, to string) []byte {
		return bytes.Replace(good, []byte(from), []byte(to), 1)
	}
	node := f.testNode(t, "n1", today)
	rows := []struct {
		title string
		raw   []byte
	}{
		{"nothing", nil},
		{"half of it", good[:len(good)/2]},
		{"without its last newline", good[:len(good)-1]},
		{"something behind it", append(bytes.Clone(good), "{}\n"...)},
		{"a list", []byte("[]")},
		{"no version", []byte("{}")},
		{"the next version", replaced(`"version": 1`, `"version": 2`)},
		{"a version in words", replaced(`"version": 1`, `"version": "one"`)},
		{"another field", replaced(`"name"`, "\"policy\": {},\n  \"name\"")},
		{"a field in capitals", replaced(`"name"`, `"NAME"`)},
		{"a field twice", replaced(`"name"`, "\"name\": \"dev\",\n  \"name\"")},
		{"compact", func() []byte { var b bytes.Buffer; _ = json.Compact(&b, good); return b.Bytes() }()},
		{"too large", bytes.Repeat([]byte(" "), maxGenesis+1)},
		{"a bad name", edited(func(g *genesisFile) { g.Name = "../dev" })},
		{"little randomness", edited(func(g *genesisFile) { g.Random = g.Random[:8] })},
		{"no owners", edited(func(g *genesisFile) { g.Owners = nil })},
		{"a short owner key", edited(func(g *genesisFile) { g.Owners[1] = g.Owners[1][:31] })},
		{"one owner twice", edited(func(g *genesisFile) { g.Owners[2] = g.Owners[0] })},
		{"nobody decides", edited(func(g *genesisFile) { g.Threshold = 0 })},
		{"nobody can decide", edited(func(g *genesisFile) { g.Threshold = 4 })},
		{"no operator CA", edited(func(g *genesisFile) { g.OperatorCA = nil })},
		{"a node for a CA", edited(func(g *genesisFile) { g.NodeCA = node.Raw })},
		{"a CA that somebody else signed", edited(func(g *genesisFile) { g.NodeCA[len(g.NodeCA)-1] ^= 1 })},
		{"one CA for both", edited(func(g *genesisFile) { g.NodeCA = g.OperatorCA })},
		{"no first operator", edited(func(g *genesisFile) { g.FirstOperator = nil })},
		{"an owner as first operator", edited(func(g *genesisFile) { g.FirstOperator = ed25519SPKI })},
	}
	var b strings.Builder
	for _, r := range rows {
		_, err := ParseGenesis(r.raw)
		if err == nil {
			t.Errorf("%s: accepted", r.title)
			continue
		}
		b.WriteString(r.title + "\n    " + err.Error() + "\n")
	}
	golden.Compare(t, "genesis-errors.txt", b.String())
	if _, err := ParseGenesis(edited(func(g *genesisFile) { g.NodeCA = twin.Genesis.NodeCA.Raw })); err != nil {
		t.Errorf("the test's own edits are refused: %v", err)
	}
}

// ed25519SPKI is RFC 8410's example of a public key.
var ed25519SPKI = []byte{
	0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, 0x19, 0xbf, 0x44, 0x09, 0x69, 0x84, 0xcd, 0xfe, 0x85, 0x41,
	0xba, 0xc1, 0x67, 0xdc, 0x3b, 0x96, 0xc8, 0x50, 0x86, 0xaa, 0x30, 0xb6, 0xb6, 0xcb, 0x0c, 0x5c, 0x38, 0xad, 0x70, 0x31, 0x66, 0xe1,
}

// TestVersion1 reads what the first release wrote: a fleet's folder and a node's. They
// are written once and never again; -update makes them only where they are missing.
func TestVersion1(t *testing.T) {
	const passphrase = "correct horse battery staple"
	fleetDir, nodeDir := filepath.Join("testdata", "v1", "fleet"), filepath.Join("testdata", "v1", "node")
	if _, err := os.Stat(fleetDir); err != nil && golden.Updating() {
		writeVersion1(t, fleetDir, nodeDir, passphrase)
	}
	copied := t.TempDir() // the repository is read-only for a test
	for _, dir := range []string{fleetDir, nodeDir} {
		if err := os.CopyFS(filepath.Join(copied, filepath.Base(dir)), os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := LoadFleet(filepath.Join(copied, "fleet"))
	if err != nil {
		t.Fatal(err)
	}
	const id = "c5f338aa5c19c864c684ec762caa7e582c923de90ed828c3856e104a84e60454"
	if f.Genesis.ID() != id {
		t.Errorf("fleet id is %s", f.Genesis.ID())
	}
	if err := f.Unlock(passphrase); err != nil {
		t.Error(err)
	}
	if _, err := f.OwnerKey(1, passphrase); err != nil {
		t.Error(err)
	}
	for i, sheet := range f.Sheets() {
		text, err := os.ReadFile(sheet)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := f.Recover(text, "", true); err != nil || n != i+2 {
			t.Errorf("%s: key %d, %v", sheet, n, err)
		}
	}
	tokens, err := f.Tokens()
	if err != nil || len(tokens) != 2 || len(tokens[0].Used) != 1 || tokens[1].Node != "n2" {
		t.Errorf("%+v, %v", tokens, err)
	}
	operators, err := f.Operators()
	if err != nil || len(operators) != 1 || operators[0].Key != f.Operator().Key {
		t.Errorf("%+v, %v", operators, err)
	}
	text, err := os.ReadFile(filepath.Join("testdata", "v1", JoinName))
	if err != nil {
		t.Fatal(err)
	}
	if j, err := ParseJoin(JoinName, text); err != nil || j.Genesis.ID() != id || j.Token.ID() != tokens[1].ID {
		t.Errorf("%+v, %v", j, err)
	}
	n, err := OpenNode(filepath.Join(copied, "node"))
	if err != nil {
		t.Fatal(err)
	}
	if n.Name() != "n1" || n.Genesis().ID() != id || n.Key() != tokens[0].Used[0].Key || len(n.RevokedKeys()) != 1 {
		t.Errorf("%v", n)
	}
}

func writeVersion1(t *testing.T, fleetDir, nodeDir, passphrase string) {
	t.Helper()
	f := newFleet(t, "dev")
	if err := f.Save(fleetDir, passphrase); err != nil {
		t.Fatal(err)
	}
	n, err := OpenNode(nodeDir)
	if err != nil {
		t.Fatal(err)
	}
	adopted(t, f, n, "n1")
	if err := n.Revoke(KeyID([]byte("somebody"))); err != nil {
		t.Fatal(err)
	}
	open, err := f.NewToken(Terms{Node: "n2"}, today)
	if err != nil {
		t.Fatal(err)
	}
	text := MarshalJoin(&Join{Genesis: f.Genesis, Token: open.Token})
	if err := os.WriteFile(filepath.Join("testdata", "v1", JoinName), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// FuzzGenesis reads what somebody calls a genesis.
func FuzzGenesis(f *testing.F) {
	f.Add(newFleet(f, "dev").Genesis.Bytes())
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if g, err := ParseGenesis(raw); err == nil && (!bytes.Equal(g.Bytes(), raw) || !isHash(g.ID())) {
			t.Errorf("%q has id %s", raw, g.ID())
		}
	})
}
