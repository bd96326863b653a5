package ledger_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

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
