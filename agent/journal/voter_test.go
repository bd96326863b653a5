package journal

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"testing"

	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/vote"
)

// disk is STATE on a disk that loses power, and one call of which fails.
type disk struct {
	*crashdisk.Files
	left  int // calls until one fails; below 0: none does
	fault error
	// clean are the files whose sync has failed: what was written is in memory, can be read, and
	// no sync brings it to the disk any more.
	clean map[string]bool
}

func onDisk(files map[string][]byte, writes int) *disk {
	return &disk{Files: crashdisk.NewFiles(files, crashdisk.NewPower(writes)), left: -1, clean: map[string]bool{}}
}

// fails says whether this call does.
func (d *disk) fails() bool { d.left--; return d.left == -1 && d.fault != nil }

func (d *disk) Read(name string) ([]byte, error) {
	if d.fails() {
		return nil, d.fault
	}
	return d.ReadFile(name)
}

func (d *disk) Create(name string, data []byte, mode fs.FileMode) error {
	delete(d.clean, name)
	if d.fails() {
		return errors.Join(d.fault, d.Files.Create(name, data[:len(data)/2], mode))
	}
	return d.Files.Create(name, data, mode)
}

func (d *disk) Rename(from, to string) error {
	if d.fails() {
		return d.fault
	}
	if d.clean[to] = d.clean[from]; !d.clean[to] {
		delete(d.clean, to)
	}
	return d.Files.Rename(from, to)
}

func (d *disk) Sync(name string) error {
	if d.fails() {
		_, err := d.ReadFile(name)
		d.clean[name] = err == nil
		return d.fault
	}
	if d.clean[name] {
		return nil
	}
	return d.Files.Sync(name)
}

func (d *disk) Replace(name string, data []byte) error {
	return durable.ReplaceIn(d, name, data, 0o600)
}

func (d *disk) Append(name string, size int64, data []byte) error {
	if raw, err := d.ReadFile(name); err != nil || int64(len(raw)) != size {
		return fmt.Errorf("%s has %d bytes, not %d: %w", name, len(raw), size, err)
	}
	if d.fails() {
		return errors.Join(d.fault, d.Files.Append(name, data[:len(data)/2]))
	}
	if err := d.Files.Append(name, data); err != nil {
		return err
	}
	return d.Sync(name)
}

func (d *disk) Keep(name string) error {
	raw, err := d.ReadFile(name)
	if err != nil {
		return err
	}
	aside := durable.AsideName(name, 1)
	if there, err := d.ReadFile(aside); err == nil && slices.Equal(there, raw) {
		return nil
	}
	return errors.Join(d.Create(aside, raw, 0o600), d.Sync(aside), d.Sync(folderName))
}

// private and title are of the seat.
var private = ledgertest.Private("n1")

func titled(t testing.TB) journal.Title {
	return journal.Title{
		ID: roster.ID{1}, Fleet: document.HashOf([]byte("fleet")),
		Key: ledgertest.Must[signed.Key](t)(signed.KeyOf(private.Public().(ed25519.PublicKey))),
	}
}

// history is what must not be forgotten: what the fleet has decided, and what its only voter has signed.
type history struct {
	ledger []document.Hash
	signed map[string]document.Hash // by kind, height and round
}

func begun() *history {
	return &history{[]document.Hash{document.HashOf([]byte("founded"))}, map[string]document.Hash{}}
}

func (h *history) clone() *history { return &history{slices.Clone(h.ledger), maps.Clone(h.signed)} }

// height is the one that follows.
func (h *history) height(t testing.TB) ballot.Height {
	title := titled(t)
	return ballot.Height{
		Fleet: title.Fleet, Number: int64(len(h.ledger)) + 1, Record: h.ledger[len(h.ledger)-1], Tree: document.HashOf(fmt.Append(nil, len(h.ledger))),
		Voters: []roster.Seat{{Number: 1, Key: title.Key}}, Quorum: 1,
	}
}

// votes has the only voter of a fleet boot, and decide until so many records are decided. item is what
// the queue has: each boot brings something else. The error is the disk's.
func votes(t testing.TB, d *disk, h *history, item string, records int) (*Journal, error) {
	t.Helper()
	j, m, err := open(d, titled(t))
	if err != nil {
		return nil, err
	}
	j.shortest = 6 * block
	if m.Damage != "" || m.Behind {
		t.Fatalf("the journal has taken harm: %+v", m)
	}
	s, effects := vote.New(1, m)
	events := []vote.Event{vote.Begin{Height: h.height(t)}}
	for stuck := 0; ; {
		for _, e := range effects {
			switch e := e.(type) {
			case vote.Persist:
				if err := j.Append(e.Record); err != nil {
					return j, err
				}
			case vote.Send:
				b := e.Ballot
				key := fmt.Sprint(b.Kind, b.Height, b.Round)
				if was, ok := h.signed[key]; ok && was != b.Value {
					t.Fatalf("the seat has signed %s and %s: %s", was.Short(), b.Value.Short(), key)
				}
				h.signed[key] = b.Value
				events = append(events, vote.Received{Ballot: b.Sign(private)})
			case vote.Judge:
				events = append(events, vote.Judged{Height: e.Height, Round: e.Round, Value: e.Value, Valid: true})
			case vote.Decide:
				h.ledger = append(h.ledger, e.Value)
				events = append(events, vote.Begin{Height: h.height(t)})
			case vote.Timer:
			default:
				t.Fatalf("%#v", e)
			}
		}
		if len(events) == 0 {
			if len(h.ledger) >= records {
				return j, nil
			}
			if stuck++; stuck > records {
				t.Fatalf("the seat takes no step: %+v", s)
			}
			events = append(events, vote.Item{Value: document.HashOf(fmt.Append(nil, item, len(h.ledger)))})
		}
		s, effects = vote.Step(s, events[0])
		events = events[1:]
	}
}
