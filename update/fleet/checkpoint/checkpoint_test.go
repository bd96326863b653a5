package checkpoint_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet/checkpoint"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// TestCheckpoint signs one and reads it, with our reader and with that of package note, which
// knows nothing of seats.
func TestCheckpoint(t *testing.T) {
	w := ledgertest.Founded(t, 4, 5)
	s := w.Log.State()
	c := s.Checkpoint()
	text := ledgertest.Must[[]byte](t)(c.Sign(2, ledgertest.Private("n2")))
	got, signers, err := checkpoint.Open(text, c.Fleet, s.Roster)
	if err != nil || got != c || fmt.Sprint(signers) != "[2]" {
		t.Fatalf("%+v, %v, %v", got, signers, err)
	}
	key := ledgertest.Must[string](t)(note.NewEd25519VerifierKey(checkpoint.SeatName(c.Fleet, 2), ledgertest.Private("n2").Public().(ed25519.PublicKey)))
	n := ledgertest.Must[*note.Note](t)(note.Open(text, note.VerifierList(ledgertest.Must[note.Verifier](t)(note.NewVerifier(key)))))
	if want := fmt.Sprintf("kogge/%s\n5\n%s\n", c.Fleet, tlog.Hash(c.Root)); n.Text != want || len(n.Sigs) != 1 {
		t.Errorf("%q, want %q", n.Text, want)
	}
	foreign := c
	foreign.Fleet[0] ^= 1
	sign := func(text string, seat int, key string) []byte {
		return ledgertest.Must[[]byte](t)(note.Sign(&note.Note{Text: text}, checkpoint.SeatSigner(checkpoint.SeatName(c.Fleet, seat), ledgertest.Private(key))))
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "no signature": []byte(c.Text()), "another fleet": ledgertest.Must[[]byte](t)(foreign.Sign(2, ledgertest.Private("n2"))),
		"a seat with another's key": sign(c.Text(), 1, "n2"), "nobody's seat": sign(c.Text(), 9, "n2"), "seat 02": bytes.ReplaceAll(text, []byte("/seat/2"), []byte("/seat/02")),
		"a line more": sign(c.Text()+"more\n", 2, "n2"), "a height with zeros": sign(strings.Replace(c.Text(), "\n5\n", "\n05\n", 1), 2, "n2"),
		"a height below zero": sign(strings.Replace(c.Text(), "\n5\n", "\n-5\n", 1), 2, "n2"), "too large": make([]byte, checkpoint.MaxCheckpoint+1),
	} {
		if got, signers, err := checkpoint.Open(text, c.Fleet, s.Roster); !errors.Is(err, checkpoint.ErrCheckpoint) {
			t.Errorf("%s: %+v, %v, %v", name, got, signers, err)
		}
	}
}

// TestCheckpointOfMany is signed by as many seats as vote in the largest fleet, and by some
// that nobody knows.
func TestCheckpointOfMany(t *testing.T) {
	s := ledgertest.Founded(t, 4, 1).Log.State()
	c := s.Checkpoint()
	for i := 5; i <= roster.MaxVotes; i++ {
		name := fmt.Sprintf("n%d", i)
		key := ledgertest.Must[signed.Key](t)(signed.KeyOf(ledgertest.Private(name).Public().(ed25519.PublicKey)))
		s.Roster.Seats = append(s.Roster.Seats, roster.Seat{Number: i, Name: name, Key: key, Journal: roster.ID{byte(i), byte(i >> 8)}, Owner: "hanse", Vote: true})
	}
	text, err := c.Sign(1, ledgertest.Private("n1"))
	if err != nil {
		t.Fatal(err)
	}
	add := func(seat int, key string) {
		t.Helper()
		one, err := c.Sign(seat, ledgertest.Private(key))
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, one[len(c.Text())+1:]...)
	}
	for i := 2; i <= roster.MaxVotes; i++ {
		add(i, fmt.Sprintf("n%d", i))
		if i == 100 || i == 101 || i == roster.MaxVotes {
			if got, signers, err := checkpoint.Open(text, c.Fleet, s.Roster); err != nil || got != c || len(signers) != i || signers[i-1] != i {
				t.Errorf("%d signatures: %d signers, %v", i, len(signers), err)
			}
		}
	}
	for i := range 150 {
		add(roster.MaxVotes+1+i, "nobody")
	}
	add(7, "n7") // once more
	if _, signers, err := checkpoint.Open(text, c.Fleet, s.Roster); err != nil || len(signers) != roster.MaxVotes {
		t.Errorf("with others: %d signers, %v", len(signers), err)
	}
	text[len(text)-8] ^= 1
	if _, _, err := checkpoint.Open(text, c.Fleet, s.Roster); err == nil {
		t.Error("a signature that does not fit is taken")
	}
}

// FuzzCheckpoint reads what somebody calls a checkpoint.
func FuzzCheckpoint(f *testing.F) {
	w := ledgertest.Founded(f, 4, 2)
	s := w.Log.State()
	f.Add(ledgertest.Must[[]byte](f)(s.Checkpoint().Sign(2, ledgertest.Private("n2"))))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, signers, err := checkpoint.Open(text, s.Checkpoint().Fleet, s.Roster); err == nil && (len(signers) == 0 || c.Height < 0) {
			t.Errorf("%+v, signed by %v", c, signers)
		}
	})
}
