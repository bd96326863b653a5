package roster

import (
	"crypto/ed25519"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// TestRequest takes the answer to the question that was asked, by the node's own key.
func TestRequest(t *testing.T) {
	seed, id, nonce := document.HashOf([]byte("n1")), document.HashOf([]byte("fleet")), []byte("nonce")
	private := ed25519.NewKeyFromSeed(seed[:])
	seal := func(kind string, fleet document.Hash, edit func(*Request)) []byte {
		r := Request{Version: 1, Nonce: nonce, Name: "n1", Journal: ID{1}, TLSKey: document.HashOf([]byte("tls")), Arch: "arm64"}
		edit(&r)
		e, err := signed.Seal(kind, fleet, private, 1, r.Encode())
		if err != nil {
			t.Fatal(err)
		}
		return e.Bytes()
	}
	good := seal(RequestKind, id, func(*Request) {})
	key, r, err := OpenRequest(good, id, nonce)
	if err != nil || r.Name != "n1" || key == "" || !MayBeMember(r.Arch) || MayBeMember("arm") {
		t.Errorf("%+v, %v", r, err)
	}
	for name, raw := range map[string][]byte{
		"nothing": nil, "another kind": seal("kogge/status/v1", id, func(*Request) {}), "another fleet": seal(RequestKind, document.HashOf(nil), func(*Request) {}),
		"an old answer": seal(RequestKind, id, func(r *Request) { r.Nonce = []byte("before") }), "no journal": seal(RequestKind, id, func(r *Request) { r.Journal = ID{} }),
		"a name of escapes": seal(RequestKind, id, func(r *Request) { r.Name = "\x1b[2J" }), "version 2": seal(RequestKind, id, func(r *Request) { r.Version = 2 }),
		"a head without a record": seal(RequestKind, id, func(r *Request) { r.Head = id }), "a record without a head": seal(RequestKind, id, func(r *Request) { r.Height = 1 }),
		"below no record":         seal(RequestKind, id, func(r *Request) { r.Height, r.Head = -1, id }),
		"too many words":          seal(RequestKind, id, func(r *Request) { r.Problem = strings.Repeat("x", MaxProblem+1) }),
		"an address of each node": seal(RequestKind, id, func(r *Request) { r.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")} }),
		"an address twice": seal(RequestKind, id, func(r *Request) {
			r.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.1")}
		}),
		"no address":      seal(RequestKind, id, func(r *Request) { r.Addresses = []netip.Addr{{}} }),
		"no architecture": seal(RequestKind, id, func(r *Request) { r.Arch = "" }), "cut": good[:len(good)-1],
	} {
		if _, r, err := OpenRequest(raw, id, nonce); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}
