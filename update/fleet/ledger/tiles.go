package ledger

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// tileHeight of C2SP's tiles: 256 hashes in a full one.
const tileHeight = 8

// Tiles gives the files of the ledger as a static web server offers a log: hashes in
// tile/LEVEL/N, records in tile/entries/N, the last of each level as N.p/WIDTH. entry is asked
// for the bytes of a record by its height. Any C2SP client reads them, with the checkpoint
// beside them.
//
// Source: c2sp.org/tlog-tiles.
func (l *Log) Tiles(record func(height int64) ([]byte, error), write func(path string, data []byte) error) error {
	for _, t := range tlog.NewTiles(tileHeight, 0, l.state.Height) {
		data, err := tlog.ReadTileData(t, l.hashes)
		if err != nil {
			return err
		}
		path := strings.Replace(t.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
		if err := write(path, data); err != nil {
			return err
		}
		if t.L > 0 {
			continue
		}
		if data, err = entries(t, record); err != nil {
			return err
		}
		if err := write(strings.Replace(path, "tile/0/", "tile/entries/", 1), data); err != nil {
			return err
		}
	}
	return nil
}

// entries are the records of a tile, each behind its length in two bytes.
func entries(t tlog.Tile, record func(height int64) ([]byte, error)) (data []byte, err error) {
	for i := range t.W {
		raw, err := record(t.N<<tileHeight + int64(i) + 1)
		if err != nil {
			return nil, err
		}
		data = binary.BigEndian.AppendUint16(data, uint16(len(raw))) // maxRecord is far below
		data = append(data, raw...)
	}
	return data, nil
}
