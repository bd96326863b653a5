package document

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
)

// TestDecode shows what is said of each way in which a file can be wrong.
func TestDecode(t *testing.T) {
	type file struct {
		Version int    `json:"version"`
		Name    string `json:"name"`
	}
	good, err := Encode(file{1, "dev"})
	if err != nil {
		t.Fatal(err)
	}
	var f file
	if err := Decode(good, 1, &f); err != nil || f.Name != "dev" || !bytes.HasSuffix(good, []byte("}\n")) {
		t.Errorf("%q is read as %+v, %v", good, f, err)
	}
	for text, want := range map[string]string{
		"":                              "unexpected end of JSON input",
		"[]":                            "it is a JSON array, not an object",
		"{}":                            "it has no version",
		`{"version":2}`:                 "its format is version 2, and this kogge reads version 1",
		`{"version":"1"}`:               `field "version" has the wrong type: string`,
		`{"version":1,"name":7}`:        `field "name" has the wrong type: number`,
		`{"version":1,"names":"dev"}`:   `unknown field "names"`,
		`{"version":1} {"version":1}`:   "after top-level value",
		`{"version":1,"name":"dev"`:     "unexpected end of JSON input",
		`{"version":1,"name":"dev"}} {`: "after top-level value",
	} {
		if err := Decode([]byte(text), 1, &f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestMessage wants that no two lists of fields make the same bytes.
func TestMessage(t *testing.T) {
	seen := make(map[string]int)
	for i, fields := range [][]string{{"a"}, {"a", ""}, {"a", "b"}, {"ab"}, {"ab", ""}, {"", "ab"}, {"", "a", "b"}, {"a", "b", ""}} {
		var rest [][]byte
		for _, f := range fields[1:] {
			rest = append(rest, []byte(f))
		}
		m := string(Message(fields[0], rest...))
		if before, ok := seen[m]; ok {
			t.Errorf("lists %d and %d are both %q", before, i, m)
		}
		seen[m] = i
	}
}

// TestKeys writes keys of both kinds, and reads each as its own kind only.
func TestKeys(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecText, err := EncodeKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	edText, err := EncodeKey(ed)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := DecodeKey[*ecdsa.PrivateKey](ecText); err != nil || !key.Equal(ec) {
		t.Error(err)
	}
	if key, err := DecodeKey[ed25519.PrivateKey](edText); err != nil || !key.Equal(ed) {
		t.Error(err)
	}
	if _, err := DecodeKey[ed25519.PrivateKey](ecText); err == nil {
		t.Error("an ECDSA key is read as an Ed25519 key")
	}
	for _, text := range [][]byte{nil, ecText[:len(ecText)/2], append(bytes.Clone(ecText), edText...), EncodePEM(CertificateBlock, []byte("x")), EncodePEM(keyBlock, []byte("x"))} {
		if _, err := DecodeKey[*ecdsa.PrivateKey](text); err == nil {
			t.Errorf("%q is read as a key", text)
		}
	}
}
