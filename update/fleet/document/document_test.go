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
		List    []struct {
			Hash  Hash   `json:"h,omitzero"`
			Bytes []byte `json:"b,omitempty"`
		} `json:"list,omitempty"`
	}
	good, err := Encode(file{Version: 1, Name: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	var f file
	if err := Decode(good, 1, &f); err != nil || f.Name != "dev" || !bytes.HasSuffix(good, []byte("}\n")) {
		t.Errorf("%q is read as %+v, %v", good, f, err)
	}
	for text, want := range map[string]string{
		"":                                     "it is empty",
		"[]":                                   "it is not a JSON object",
		"{}":                                   "field version: there is none",
		`{"version":2}`:                        "field version: its format is version 2, and this kogge reads version 1",
		`{"version":"1"}`:                      "line 1: field version: a JSON string does not belong there",
		"{\"version\":1,\n\"name\":7}":         "line 2: field name: a JSON number does not belong there",
		`{"version":1,"names":"dev"}`:          "line 1: field names: there is no such field",
		`{"version":1} {"version":1}`:          "line 1: invalid character '{' after top-level value",
		"{\"version\":1,\"name\":\"dev\"":      "line 1: field name: unexpected end of JSON input",
		"{\"version\":1,\n\"name\":\"dev":      "line 2: field name: unexpected end of JSON input",
		"{\"version\":1,\n\"name\":\"d\nev\"}": "line 2: field name: invalid character '\\n' in string literal",
		"{\"version\":1,\n?\"name\":\"dev\"}":  "line 2: behind field version: invalid character '?' looking for beginning of object key string",
		`{"version":1,"name":"dev"}} {`:        "line 1: invalid character '}' after top-level value",
		`{"version":1,"\u001b[2J":1}`:          `line 1: field "\x1b[2J": there is no such field`,
		"{\"version\":1,\"list\":[\n{},\n{\"h\":4}]}":                      "line 3: field list[1].h: a JSON number does not belong there",
		"{\"version\":1,\"list\":[\n{\"b\":\"YQ==\"},\n{\"b\":\"YQ=!\"}]}": "line 3: field list[1].b: it is no base64 from character 3 on",
		"{\"version\":1,\"list\":[{\"h\":\"a1\"}]}":                        "line 1: field list[0].h: a hash of 2 characters: 64 wanted",
		"{\"version\":1,\"list\":[{\"h\":\"\",\n\"x\":1}]}":                "line 2: field list[0].x: there is no such field",
		"{\"version\":1,\"list\":[{},\n7]}":                                "line 2: field list[1]: a JSON number does not belong there",
		`{"version":1,"list":{}}`:                                          "line 1: field list: a JSON object does not belong there",
	} {
		if err := Decode([]byte(text), 1, &f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestSpelling says in which field a document is not spelled as kogge spells it.
func TestSpelling(t *testing.T) {
	type file struct {
		Version int      `json:"version"`
		Name    string   `json:"name"`
		Round   int      `json:"round,omitempty"`
		List    []string `json:"list,omitempty"`
	}
	good, err := Encode(file{Version: 1, Name: "dev", List: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeExact[file](good, 1); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct{ from, to, want string }{
		{`"name"`, `"Name"`, "line 3: field Name: "},
		{`"b"`, `"\u0062"`, "line 6: field list[1]: "},
		{`  "name"`, "\t\"name\"", "line 3: field name: "},
		{`"list"`, "\"round\": 0,\n  \"list\"", "line 4: field round: "},
		{"]", " ]", "line 7: field list: "},
		{"}\n", "}", "line 8: "},
		{"}\n", "}\t", "line 8: "},
	} {
		text := strings.Replace(string(good), r.from, r.to, 1)
		if _, err := DecodeExact[file]([]byte(text), 1); err == nil || !strings.HasPrefix(err.Error(), r.want+"kogge would") {
			t.Errorf("%s: %v, want %q", text, err, r.want)
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
