package ledger_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"kogge.example/update/fleet/ledger"
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
	got, signers, err := ledger.OpenCheckpoint(text, c.Fleet, s.Roster)
	if err != nil || got != c || fmt.Sprint(signers) != "[2]" {
		t.Fatalf("%+v, %v, %v", got, signers, err)
	}
	key := ledgertest.Must[string](t)(note.NewEd25519VerifierKey(ledger.SeatName(c.Fleet, 2), ledgertest.Private("n2").Public().(ed25519.PublicKey)))
	n := ledgertest.Must[*note.Note](t)(note.Open(text, note.VerifierList(ledgertest.Must[note.Verifier](t)(note.NewVerifier(key)))))
	if want := fmt.Sprintf("kogge/%s\n5\n%s\n", c.Fleet, tlog.Hash(c.Root)); n.Text != want || len(n.Sigs) != 1 {
		t.Errorf("%q, want %q", n.Text, want)
	}
	foreign := c
	foreign.Fleet[0] ^= 1
	sign := func(text string, seat int, key string) []byte {
		return ledgertest.Must[[]byte](t)(note.Sign(&note.Note{Text: text}, ledger.SeatSigner(ledger.SeatName(c.Fleet, seat), ledgertest.Private(key))))
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "no signature": []byte(c.Text()), "another fleet": ledgertest.Must[[]byte](t)(foreign.Sign(2, ledgertest.Private("n2"))),
		"a seat with another's key": sign(c.Text(), 1, "n2"), "nobody's seat": sign(c.Text(), 9, "n2"), "seat 02": bytes.ReplaceAll(text, []byte("/seat/2"), []byte("/seat/02")),
		"a line more": sign(c.Text()+"more\n", 2, "n2"), "a height with zeros": sign(strings.Replace(c.Text(), "\n5\n", "\n05\n", 1), 2, "n2"),
		"a height below zero": sign(strings.Replace(c.Text(), "\n5\n", "\n-5\n", 1), 2, "n2"), "too large": make([]byte, ledger.MaxCheckpoint+1),
	} {
		if got, signers, err := ledger.OpenCheckpoint(text, c.Fleet, s.Roster); !errors.Is(err, ledger.ErrCheckpoint) {
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
			if got, signers, err := ledger.OpenCheckpoint(text, c.Fleet, s.Roster); err != nil || got != c || len(signers) != i || signers[i-1] != i {
				t.Errorf("%d signatures: %d signers, %v", i, len(signers), err)
			}
		}
	}
	for i := range 150 {
		add(roster.MaxVotes+1+i, "nobody")
	}
	add(7, "n7") // once more
	if _, signers, err := ledger.OpenCheckpoint(text, c.Fleet, s.Roster); err != nil || len(signers) != roster.MaxVotes {
		t.Errorf("with others: %d signers, %v", len(signers), err)
	}
	text[len(text)-8] ^= 1
	if _, _, err := ledger.OpenCheckpoint(text, c.Fleet, s.Roster); err == nil {
		t.Error("a signature that does not fit is taken")
	}
}

// TestTiles reads a record out of the tiles of a log, as a client does that has the root and
// no more.
func TestTiles(t *testing.T) {
	const records = 260 // a full tile, and the beginning of the next
	w := ledgertest.Founded(t, 1, records)
	files := map[string][]byte{}
	err := w.Log.Tiles(
		func(height int64) ([]byte, error) { return w.Entries[height-1].Record, nil },
		func(path string, data []byte) error { files[path] = data; return nil })
	if err != nil {
		t.Fatal(err)
	}
	for path, size := range map[string]int{"tile/0/000": 256 * 32, "tile/0/001.p/4": 4 * 32, "tile/1/000.p/1": 32} {
		if len(files[path]) != size {
			t.Errorf("%s has %d bytes", path, len(files[path]))
		}
	}
	tree := tlog.Tree{N: records, Hash: tlog.Hash(w.Log.State().Tree)}
	reader := tlog.TileHashReader(tree, client(files))
	for _, k := range []int64{1, 256, 257, 260} {
		proof := ledgertest.Must[tlog.RecordProof](t)(tlog.ProveRecord(records, k-1, reader))
		if err := tlog.CheckRecord(proof, records, tree.Hash, k-1, tlog.RecordHash(w.Entries[k-1].Record)); err != nil {
			t.Errorf("record %d: %v", k, err)
		}
	}
	rest, n := files["tile/entries/001.p/4"], 257
	for len(rest) > 0 {
		size := int(binary.BigEndian.Uint16(rest))
		if !bytes.Equal(rest[2:2+size], w.Entries[n-1].Record) {
			t.Errorf("entry %d is another", n)
		}
		rest, n = rest[2+size:], n+1
	}
	if n != records+1 {
		t.Errorf("entries up to %d", n-1)
	}
}

// client reads tiles from files.
type client map[string][]byte

func (c client) Height() int { return ledger.TileHeight }

func (c client) ReadTiles(tiles []tlog.Tile) (data [][]byte, err error) {
	for _, t := range tiles {
		d, ok := c[strings.Replace(t.Path(), "tile/8/", "tile/", 1)]
		if !ok {
			return nil, fmt.Errorf("no tile %s", t.Path())
		}
		data = append(data, d)
	}
	return data, nil
}

func (c client) SaveTiles([]tlog.Tile, [][]byte) {}

// FuzzCheckpoint reads what somebody calls a checkpoint.
func FuzzCheckpoint(f *testing.F) {
	w := ledgertest.Founded(f, 4, 2)
	s := w.Log.State()
	f.Add(ledgertest.Must[[]byte](f)(s.Checkpoint().Sign(2, ledgertest.Private("n2"))))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, signers, err := ledger.OpenCheckpoint(text, s.Checkpoint().Fleet, s.Roster); err == nil && (len(signers) == 0 || c.Height < 0) {
			t.Errorf("%+v, signed by %v", c, signers)
		}
	})
}
