package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
)

// TestRestore takes the owner's leave to restore as it was signed, for one node at one height, and
// with no bit changed.
func TestRestore(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	s := f.Log.State()
	seat, _ := s.Roster.Seat(2)
	signedBy := func(r ledger.Restore, owners int) ledger.Restore {
		r.Owners = nil
		for i := 1; i <= owners; i++ {
			r.Owners = append(r.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), r.Bytes(s.Fleet())))
		}
		return r
	}
	r := ledger.Restore{Version: 1, Node: seat.Key, Snapshot: document.HashOf([]byte("db")), Generation: 3, Height: 2}
	raw := signedBy(r, 2).Encode()
	for i := -1; i < len(raw); i++ {
		text := bytes.Clone(raw)
		if i >= 0 {
			text[i] ^= 1 << (i % 7)
		}
		got, err := ledger.ParseRestore(text)
		if err == nil {
			err = s.PermitsRestore(got, seat.Key)
		}
		if (err == nil) != (i < 0) || err != nil && !errors.Is(err, ledger.ErrPermit) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	before, other := r, r
	before.Height, other.Node = 1, ledgertest.Key(t, "n3")
	for what, bad := range map[string]ledger.Restore{
		"one owner key of two": signedBy(r, 1), "nobody": r, "before the newest record": signedBy(before, 2), "another node": signedBy(other, 2),
	} {
		if err := s.PermitsRestore(bad, seat.Key); !errors.Is(err, ledger.ErrPermit) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := ledger.ParseRestore(make([]byte, 1<<20)); !errors.Is(err, ledger.ErrPermit) {
		t.Errorf("1 MiB: %v", err)
	}
}

// FuzzRestore reads what somebody calls a leave to restore.
func FuzzRestore(f *testing.F) {
	seat, _ := ledgertest.Founded(f, 4, 1).Log.State().Roster.Seat(2)
	f.Add(ledger.Restore{Version: 1, Node: seat.Key, Owners: []signed.Signature{{By: 1, Signature: make([]byte, 64)}}}.Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := ledger.ParseRestore(raw); err == nil && !bytes.Equal(r.Encode(), raw) {
			t.Errorf("%q is read, and written as %q", raw, r.Encode())
		}
	})
}
