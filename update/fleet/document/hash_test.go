package document

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestHash writes hashes and reads them; one has one spelling.
func TestHash(t *testing.T) {
	h := HashOf([]byte("abc"))
	const text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-2, B.1
	if h.String() != text || h.Short() != text[:12] || (Hash{}).Short() != "none" {
		t.Errorf("%s, %s", h, h.Short())
	}
	for _, h := range []Hash{h, {}} {
		raw, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var again Hash
		if err := json.Unmarshal(raw, &again); err != nil || again != h {
			t.Errorf("%s is read as %s, %v", raw, again, err)
		}
	}
	for _, bad := range []string{"", "0", text[:63], text + "0", strings.ToUpper(text), "g" + text[1:], text[:63] + " ", strings.Repeat("é", 32)} {
		if _, err := ParseHash(bad); err == nil {
			t.Errorf("%q is a hash", bad)
		}
	}
}

// TestDecodeExact takes a value in its one spelling, and no other.
func TestDecodeExact(t *testing.T) {
	type file struct {
		Version int      `json:"version"`
		Names   []string `json:"names,omitempty"`
	}
	raw, err := Encode(file{1, []string{"a", "<b>"}})
	if err != nil {
		t.Fatal(err)
	}
	if f, err := DecodeExact[file](raw, 1); err != nil || len(f.Names) != 2 {
		t.Errorf("%v, %v", f, err)
	}
	for _, other := range []string{
		string(raw) + "\n", strings.TrimSpace(string(raw)), strings.ReplaceAll(string(raw), "  ", "\t"),
		strings.Replace(string(raw), `"version": 1`, `"version": 1, "version": 1`, 1), strings.Replace(string(raw), `"names"`, `"Names"`, 1),
		strings.Replace(string(raw), `"a"`, `"\u0061"`, 1), "{\n  \"version\": 1,\n  \"names\": []\n}\n",
	} {
		if _, err := DecodeExact[file]([]byte(other), 1); err == nil {
			t.Errorf("%s is another spelling, and is taken", other)
		}
	}
}
