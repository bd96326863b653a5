package fleet

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"kogge.example/update/fleet/document"
	"kogge.example/update/golden"
)

// TestGenesis wants that bytes and id belong together.
func TestGenesis(t *testing.T) {
	f := found(t, "dev")
	g, err := ParseGenesis(f.Genesis.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if g.ID() != f.Genesis.ID() || !IsHash(g.ID()) || !bytes.Equal(g.Bytes(), f.Genesis.Bytes()) || len(Short(g.ID())) != 12 {
		t.Errorf("id %s, was %s", g.ID(), f.Genesis.ID())
	}
	if len(g.Owners) != 3 || g.Threshold != 2 || g.Name != "dev" || !g.FirstOperator.Equal(f.admin.PublicKey) {
		t.Errorf("%+v", g)
	}
	if twin := found(t, "dev"); twin.Genesis.ID() == g.ID() {
		t.Error("two fleets have one id")
	}
	if strings.Contains(string(g.Bytes()), "PRIVATE") {
		t.Error("there is a secret in it")
	}
}

// TestGenesisRefused shows what is said to each way a genesis can be wrong.
func TestGenesisRefused(t *testing.T) {
	f, twin := found(t, "dev"), found(t, "twin")
	good := f.Genesis.Bytes()
	edited := func(edit func(*genesisFile)) []byte {
		var g genesisFile
		if err := json.Unmarshal(good, &g); err != nil {
			t.Fatal(err)
		}
		edit(&g)
		raw, err := document.Encode(g)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	replaced := func(from, to string) []byte {
		return bytes.Replace(good, []byte(from), []byte(to), 1)
	}
	node := f.node(t, "n1", today)
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
		{"the next version", replaced(`"version": 2`, `"version": 3`)},
		{"a version in words", replaced(`"version": 2`, `"version": "one"`)},
		{"another field", replaced(`"name"`, "\"seats\": {},\n  \"name\"")},
		{"a field in capitals", replaced(`"name"`, `"NAME"`)},
		{"a field twice", replaced(`"name"`, "\"name\": \"dev\",\n  \"name\"")},
		{"compact", func() []byte { var b bytes.Buffer; _ = json.Compact(&b, good); return b.Bytes() }()},
		{"too large", bytes.Repeat([]byte(" "), MaxGenesis+1)},
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
		{"version 1 with a policy", edited(func(g *genesisFile) { g.Version = 1 })},
		{"no policy", edited(func(g *genesisFile) { g.Policy = nil })},
		{"a policy without a canary", edited(func(g *genesisFile) { g.Policy.Canaries = 0 })},
		{"an owner's key of small order", edited(func(g *genesisFile) { g.Owners[0] = make([]byte, 32) })},
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

// FuzzGenesis reads what somebody calls a genesis.
func FuzzGenesis(f *testing.F) {
	f.Add(found(f, "dev").Genesis.Bytes())
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if g, err := ParseGenesis(raw); err == nil && (!bytes.Equal(g.Bytes(), raw) || !IsHash(g.ID())) {
			t.Errorf("%q has id %s", raw, g.ID())
		}
	})
}
