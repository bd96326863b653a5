package ledger_test

import (
	"bytes"
	"errors"
	"testing"

	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
)

const digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

// TestPermit takes a permit as it was signed, and with no bit changed.
func TestPermit(t *testing.T) {
	f := ledgertest.Founded(t, 4, 1)
	s := f.Log.State()
	seat, _ := s.Roster.Seat(2)
	node := seat.Key
	p := ledger.Permit{Version: 1, Node: node, Release: digest, Arming: 3, Height: 1}
	for i, name := range []string{"owner 1", "owner 2"} {
		p.Owners = append(p.Owners, signed.Sign(i+1, ledgertest.Private(name), p.Bytes(s.Fleet())))
	}
	raw := p.Encode()
	for i := -1; i < len(raw); i++ {
		text := bytes.Clone(raw)
		if i >= 0 {
			text[i] ^= 1 << (i % 7)
		}
		got, err := ledger.ParsePermit(text)
		if err == nil {
			err = s.Permits(got, node)
		}
		if (err == nil) != (i < 0) || err != nil && !errors.Is(err, ledger.ErrPermit) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if _, err := ledger.ParsePermit(make([]byte, 1<<20)); !errors.Is(err, ledger.ErrPermit) {
		t.Errorf("1 MiB: %v", err)
	}
}

// FuzzPermit reads what somebody calls a permit.
func FuzzPermit(f *testing.F) {
	seat, _ := ledgertest.Founded(f, 4, 1).Log.State().Roster.Seat(2)
	f.Add(ledger.Permit{Version: 1, Node: seat.Key, Release: digest, Arming: 1, Owners: []signed.Signature{{By: 1, Signature: make([]byte, 64)}}}.Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if p, err := ledger.ParsePermit(raw); err == nil && !bytes.Equal(p.Encode(), raw) {
			t.Errorf("%q is read, and written as %q", raw, p.Encode())
		}
	})
}
