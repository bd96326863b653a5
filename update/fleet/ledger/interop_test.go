package ledger_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"testing/fstest"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet/checkpoint"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// TestC2SPClient has a client of C2SP logs, which knows nothing of fleets, check a ledger as it
// checks any log: the checkpoint by two of three seats' keys, then each record by the tiles,
// which lie on a plain web server.
func TestC2SPClient(t *testing.T) {
	const records = 600 // two full tiles, and the beginning of the third
	w := ledgertest.Founded(t, 4, records)
	served := fstest.MapFS{}
	err := w.Log.Tiles(
		func(height int64) ([]byte, error) { return w.Entries[height-1].Record, nil },
		func(path string, data []byte) error { served[path] = &fstest.MapFile{Data: data}; return nil })
	if err != nil {
		t.Fatal(err)
	}
	c := w.Log.State().Checkpoint()
	first := ledgertest.Must[[]byte](t)(c.Sign(1, ledgertest.Private("n1")))
	second := ledgertest.Must[[]byte](t)(c.Sign(3, ledgertest.Private("n3")))
	both := append(first, second[len(c.Text())+1:]...)

	var seats []torchwood.Policy
	for seat, name := range map[int]string{1: "n1", 2: "n2", 3: "n3"} {
		key := ledgertest.Must[string](t)(note.NewEd25519VerifierKey(checkpoint.SeatName(c.Fleet, seat), ledgertest.Private(name).Public().(ed25519.PublicKey)))
		seats = append(seats, torchwood.SingleVerifierPolicy(ledgertest.Must[note.Verifier](t)(note.NewVerifier(key))))
	}
	origin := torchwood.OriginPolicy("kogge/" + c.Fleet.String())
	policy := func(seatsAtLeast int) torchwood.Policy {
		return torchwood.ThresholdPolicy(2, origin, torchwood.ThresholdPolicy(seatsAtLeast, seats...))
	}
	if _, _, err := torchwood.VerifyCheckpoint(both, policy(3)); !errors.As(err, new(*note.UnverifiedNoteError)) {
		t.Errorf("two signatures where three are asked for: %v", err)
	}
	seen, _, err := torchwood.VerifyCheckpoint(both, policy(2))
	if err != nil {
		t.Fatal(err)
	}
	if seen.N != records || seen.Hash != tlog.Hash(c.Root) {
		t.Fatalf("it reads %d records of root %s", seen.N, seen.Hash)
	}

	read := func(files fstest.MapFS) (n int64, err error) {
		client := ledgertest.Must[*torchwood.Client](t)(torchwood.NewClient(ledgertest.Must[*torchwood.TileFS](t)(torchwood.NewTileFS(files))))
		for i, entry := range client.AllEntries(t.Context(), seen.Tree, 0) {
			if i != n || !bytes.Equal(entry, w.Entries[i].Record) {
				t.Errorf("entry %d is another", i)
			}
			n++
		}
		return n, client.Err()
	}
	if n, err := read(served); n != records || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
	// Whoever serves them can change nothing.
	for path, file := range served {
		changed := fstest.MapFS{}
		for other, same := range served {
			changed[other] = same
		}
		data := bytes.Clone(file.Data)
		data[len(data)/2] ^= 1
		changed[path] = &fstest.MapFile{Data: data}
		if n, err := read(changed); err == nil {
			t.Errorf("%s with a byte changed: %d entries are taken", path, n)
		}
	}
}
