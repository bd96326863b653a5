package signed

import (
	"bytes"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/fleet/document"
)

var fleetID = document.HashOf([]byte("fleet"))

// private is a key pair of its own for each name.
func private(name string) ed25519.PrivateKey {
	seed := document.HashOf([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func seal(t testing.TB, body []byte) Envelope {
	t.Helper()
	e, err := Seal("kogge/test/v1", fleetID, private("n1"), 7, body)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestOpen gives back what was sealed, and refuses it with any byte changed, cut off or added.
func TestOpen(t *testing.T) {
	e := seal(t, []byte("body"))
	got, err := Open(e.Bytes())
	if err != nil || got.Kind != e.Kind || got.Fleet != fleetID || got.By != e.By || got.Sequence != 7 || string(got.Body) != "body" {
		t.Fatalf("%+v, %v", got, err)
	}
	raw := e.Bytes()
	for i := range raw {
		for _, bit := range []byte{1, 0x80} {
			bad := bytes.Clone(raw)
			bad[i] ^= bit
			if _, err := Open(bad); err == nil {
				t.Errorf("byte %d changed by %#x: taken", i, bit)
			}
		}
		if _, err := Open(raw[:i]); !errors.Is(err, ErrEnvelope) {
			t.Errorf("cut at byte %d: %v", i, err)
		}
	}
	if _, err := Open(append(bytes.Clone(raw), 0)); !errors.Is(err, ErrEnvelope) {
		t.Errorf("a byte more: %v", err)
	}
}

// TestAgain makes of an object the one with the next number, which only its signer's word makes
// good.
func TestAgain(t *testing.T) {
	e := seal(t, []byte("body"))
	next, err := Seal(e.Kind, fleetID, private("n1"), 8, e.Body)
	if err != nil {
		t.Fatal(err)
	}
	again := e.Again(8, next.Signature())
	if err := again.Verify(); err != nil || !bytes.Equal(again.Bytes(), next.Bytes()) || e.Sequence != 7 {
		t.Errorf("%v, number %d", err, again.Sequence)
	}
	for _, bad := range [][]byte{e.Signature(), nil, append(bytes.Clone(next.Signature()), 0)} {
		if err := e.Again(8, bad).Verify(); !errors.Is(err, ErrSignature) {
			t.Errorf("signature of %d bytes: %v", len(bad), err)
		}
	}
	if err := (Envelope{}).Verify(); !errors.Is(err, ErrSignature) {
		t.Errorf("no envelope: %v", err)
	}
}

// TestSizes seals up to 64 KiB, and no more.
func TestSizes(t *testing.T) {
	room := MaxEnvelope - len(seal(t, nil).Bytes())
	if _, err := Open(seal(t, make([]byte, room)).Bytes()); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		kind string
		body int
	}{{"kogge/test/v1", room + 1}, {"", 1}, {strings.Repeat("k", maxKind+1), 1}} {
		if _, err := Seal(c.kind, fleetID, private("n1"), 1, make([]byte, c.body)); !errors.Is(err, ErrEnvelope) {
			t.Errorf("kind of %d bytes, body of %d: %v", len(c.kind), c.body, err)
		}
	}
	if _, err := Open(make([]byte, 10<<20)); !errors.Is(err, ErrEnvelope) {
		t.Errorf("10 MiB: %v", err)
	}
}

// TestKeys refuses what could stand for two keys, or sign for everybody.
func TestKeys(t *testing.T) {
	little := func(bigEndian []byte, sign byte) []byte {
		b := bytes.Clone(bigEndian)
		slices.Reverse(b)
		b[31] |= sign << 7
		return append([]byte{algorithm}, b...)
	}
	bad := map[string][]byte{
		"empty": {}, "without an algorithm": []byte(seal(t, nil).By)[1:], "a byte more": append([]byte(seal(t, nil).By), 0),
		"algorithm 2": append([]byte{2}, make([]byte, 32)...),
		"the prime":   little(prime, 0), "the prime, sign": little(prime, 1),
		"the prime + 1 (order 1, spelled otherwise)": little(unhex("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffee"), 0),
		"all ones": little(bytes.Repeat([]byte{0xff}, 32), 1),
	}
	for i, y := range smallOrder {
		for sign := range byte(2) {
			bad["small order "+string('0'+rune(i))+" sign "+string('0'+rune(sign))] = little(y, sign)
		}
	}
	for name, raw := range bad {
		if k, err := ParseKey(raw); !errors.Is(err, ErrKey) {
			t.Errorf("%s: key %x, %v", name, k, err)
		}
	}
	for _, text := range []string{`""`, `"AQ=="`, `"!"`, `7`} {
		var k Key
		if err := json.Unmarshal([]byte(text), &k); err == nil {
			t.Errorf("%s is a key", text)
		}
	}
	if (Key("")).Verify(nil, nil) {
		t.Error("no key verifies")
	}
}

// TestSmallOrder shows why: each of these points, as a key, takes one signature for message
// after message.
func TestSmallOrder(t *testing.T) {
	for i, y := range smallOrder {
		public := bytes.Clone(y)
		slices.Reverse(public)
		fits := 0
		for n := range 64 {
			// R = the neutral point, S = 0: it holds wherever the hash times the key is neutral.
			signature := make([]byte, ed25519.SignatureSize)
			signature[0] = 1
			if ed25519.Verify(public, []byte{byte(n)}, signature) {
				fits++
			}
		}
		if fits == 0 {
			t.Errorf("point %d takes no signature of all: is it of small order?", i)
		}
	}
}

// TestSignatures refuses the second spelling of a good signature: S + L for S.
func TestSignatures(t *testing.T) {
	e := seal(t, []byte("body"))
	raw := bytes.Clone(e.Bytes())
	order := unhex("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed")
	slices.Reverse(order)
	s := raw[len(raw)-32:]
	carry := 0
	for i := range s {
		carry += int(s[i]) + int(order[i])
		s[i], carry = byte(carry), carry>>8
	}
	if _, err := Open(raw); !errors.Is(err, ErrSignature) {
		t.Errorf("%v", err)
	}
}

// FuzzOpen has bytes of strangers: what is taken makes the same bytes again.
func FuzzOpen(f *testing.F) {
	f.Add(seal(f, []byte("body")).Bytes())
	f.Add([]byte{})
	if byOperator, err := SealByOperator("kogge/test/v1", fleetID, operator(f, elliptic.P256()), 7, nil); err == nil {
		f.Add(byOperator.Bytes())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, message, err := parse(raw)
		if err != nil {
			return
		}
		if again := e.message(); !bytes.Equal(again, message) {
			t.Errorf("%x is read, and written as %x", message, again)
		}
		_, _ = Open(raw)
	})
}
