package board

import (
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// TestKeys has the key of each kind of place, and what is none: releases to come read the same
// keys.
func TestKeys(t *testing.T) {
	var b strings.Builder
	node := document.HashOf([]byte("key"))
	for _, p := range []Place{
		{Topic: Nodes, Node: node, Kind: notice.NodeKind}, {Topic: Nodes, Node: node, Kind: notice.StatusKind},
		Entry(1), Entry(9_999_999_999),
		Entry(0), Entry(-1), Entry(10_000_000_000), {Topic: Nodes, Node: node, Kind: notice.TLSKeyKind}, {Topic: Nodes, Node: node},
		{Topic: Nodes, Node: node, Kind: notice.NodeKind, Height: 1}, {Topic: Ledger, Height: 1, Kind: notice.NodeKind}, {Topic: "specs"}, {},
	} {
		key := p.Key()
		fmt.Fprintf(&b, "%s %s %d leased=%v: %q\n", p.Topic, p.Kind, p.Height, p.Leased(), key)
		if got, ok := Parse(key); ok != (key != "") || ok && got != p {
			t.Errorf("%q is read as %+v, %v", key, got, ok)
		}
	}
	golden.Compare(t, "keys.txt", b.String())
	for _, key := range []string{
		"", Root, "/kogge/v1/nodes", "/kogge/v1/nodes/", "/kogge/v1/nodes/x/record", "/kogge/v1/ledger/1", "/kogge/v1/ledger/", "/kogge/v1/ledger/00000000000",
		"/kogge/v1/ledger/0000000000", "/kogge/v1/ledger/-000000001", "/kogge/v1/ledger/+000000001", "/kogge/v2/ledger/0000000001", "kogge/v1/ledger/0000000001",
		"/kogge/v1/nodes/" + node.String(), "/kogge/v1/nodes/" + node.String() + "/", "/kogge/v1/nodes/" + node.String() + "/record/", "/kogge/v1/nodes/" + node.String() + "/secret",
		"/kogge/v1/nodes/" + strings.ToUpper(node.String()) + "/record",
	} {
		if p, ok := Parse(key); ok {
			t.Errorf("%q is %+v", key, p)
		}
	}
}

// TestOf finds the place of an object by its key and kind, not by what it says.
func TestOf(t *testing.T) {
	seal := func(kind string) signed.Envelope {
		return ledgertest.Must[signed.Envelope](t)(signed.Seal(kind, document.HashOf(nil), ledgertest.Private("n1"), 1, nil))
	}
	want := Place{Topic: Nodes, Node: ledgertest.Key(t, "n1").ID(), Kind: notice.StatusKind}
	if p, ok := Of(seal(notice.StatusKind)); !ok || p != want {
		t.Errorf("%+v, %v", p, ok)
	}
	for _, kind := range []string{notice.TLSKeyKind, "kogge/other/v1"} {
		if p, ok := Of(seal(kind)); ok {
			t.Errorf("%s lies at %+v", kind, p)
		}
	}
}

// FuzzParse has keys that a hostile member made up: each that is taken is the one key of its place.
func FuzzParse(f *testing.F) {
	f.Add("/kogge/v1/ledger/0000000001")
	f.Add("/kogge/v1/nodes/" + strings.Repeat("0", 64) + "/status")
	f.Add("/kogge/v1/nodes//record")
	f.Fuzz(func(t *testing.T, key string) {
		p, ok := Parse(key)
		if ok && p.Key() != key {
			t.Errorf("%q is %+v, whose key is %q", key, p, p.Key())
		}
		if !ok && p != (Place{}) {
			t.Errorf("%q is none, and %+v", key, p)
		}
	})
}
