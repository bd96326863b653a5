package gossip

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/pinned"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// founded is a fleet of seven whose nodes have the ledgers that a node has, up to record 1.
func founded(t *testing.T) (*ledgertest.Fleet, *network) {
	f := ledgertest.Founded(t, 7, 1)
	dir := t.TempDir()
	n := newNetwork(t, f.Log.State(), func(i int) Ledger {
		l := pinned.Open(filepath.Join(dir, fmt.Sprint(i)), f.Genesis)
		if err := l.Take(1, f.Entries[0]); err != nil {
			t.Fatal(err)
		}
		return l
	})
	return f, n
}

// decide has the fleet decide once more, about so many operators: the entry of a thousand has
// some 150 KiB.
func decide(t *testing.T, f *ledgertest.Fleet, operators int) ledger.Entry {
	o := &ledger.Operators{}
	for i := range operators {
		name := fmt.Sprintf("r%d-%03d", f.Log.State().Height, i)
		o.Set = append(o.Set, ledger.Operator{Name: name, Role: fleet.RoleReader, Key: document.HashOf([]byte(name))})
	}
	for _, old := range f.Log.State().Operators {
		if old.Role == fleet.RoleReader {
			o.Remove = append(o.Remove, old.Name)
		}
	}
	e := f.Decided(t, ledger.Value{Version: 1, Operators: o}, f.Log.State().Roster.Quorum())
	f.Take(t, e)
	return e
}

// at is whether all nodes that run are at a height.
func (n *network) at(height int64) func() bool {
	return func() bool {
		for _, one := range n.alive() {
			if one.engine.Stats().Height != height {
				return false
			}
		}
		return true
	}
}

// given has a node take an entry from elsewhere, as from its API.
func (n *node) given(height int64, e ledger.Entry) {
	if err := n.ledger.Take(height, e); err != nil {
		n.net.t.Error(n.name, err)
	}
	n.engine.Advanced()
}

// TestEntries brings a new record to all, small or large, and many to one that was away.
func TestEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, n := founded(t)
		n.run(func() {
			time.Sleep(time.Minute)
			height := int64(1)
			for _, operators := range []int{1, 900} {
				height++
				e := decide(t, f, operators)
				n.nodes[2].given(height, e)
				took := n.within(5*time.Second, "the record", n.at(height))
				t.Logf("a record of %d bytes to all of 7 after %s", len(e.Record)+len(e.Value)+len(e.Certificate), took)
			}
			n.nodes[5].end()
			for range 12 {
				height++
				n.nodes[2].given(height, decide(t, f, 1))
			}
			n.within(5*time.Second, "twelve records", n.at(height))
			n.nodes[5].start()
			took := n.within(10*time.Second, "the records that it missed", n.at(height))
			t.Logf("twelve records that one missed after %s", took)
			for _, one := range n.nodes {
				if one.ledger.State().Tree != f.Log.State().Tree || len(one.away()) > 0 {
					t.Errorf("%s: height %d, keeps away %v", one.name, one.ledger.State().Height, one.away())
				}
			}
		})
	})
}

// TestPieces gets a large entry though one of those who have it stops in the middle, one sends
// wrong pieces, and one offers a forged one.
func TestPieces(t *testing.T) {
	for what, c := range map[string]struct {
		bend func(*network, *ledgertest.Fleet)
		away bool
	}{
		"it stops in the middle": {func(n *network, _ *ledgertest.Fleet) {
			pieces := 0
			n.bends[3] = func(raw []byte) [][]byte {
				if raw[0] == (piece{}).kind() {
					if pieces++; pieces > 1 {
						return nil
					}
				}
				return [][]byte{raw}
			}
		}, false},
		"it sends wrong pieces": {func(n *network, _ *ledgertest.Fleet) {
			n.bends[3] = func(raw []byte) [][]byte {
				if f, err := decode(raw); err == nil {
					if p, ok := f.(piece); ok {
						p.data = append([]byte{}, p.data...)
						p.data[0] ^= 1
						return [][]byte{encode(p)}
					}
				}
				return [][]byte{raw}
			}
		}, true},
		"it sends short pieces": {func(n *network, _ *ledgertest.Fleet) {
			n.bends[3] = func(raw []byte) [][]byte {
				if f, err := decode(raw); err == nil {
					if p, ok := f.(piece); ok {
						p.data = p.data[:len(p.data)/2]
						return [][]byte{encode(p)}
					}
				}
				return [][]byte{raw}
			}
		}, true},
		"it offers ten megabytes": {func(n *network, _ *ledgertest.Fleet) {
			n.bends[3] = func(raw []byte) [][]byte {
				if f, err := decode(raw); err == nil {
					if o, ok := f.(offer); ok {
						for i := range o.parts {
							o.parts[i].size = maxPart
						}
						return [][]byte{encode(o)}
					}
				}
				return [][]byte{raw}
			}
		}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			f, n := founded(t)
			c.bend(n, f)
			for i, one := range n.nodes {
				if i > 0 && i != 2 && i != 4 {
					n.byKey[one.key].behind = true
				}
			}
			e := decide(t, f, 900)
			for _, i := range []int{2, 4} { // seats 3, which is hostile, and 5
				if err := n.nodes[i].ledger.Take(2, e); err != nil {
					t.Fatal(err)
				}
			}
			n.nodes = []*node{n.nodes[0], n.nodes[2], n.nodes[4]}
			n.run(func() {
				took := n.within(time.Minute, what, n.at(2))
				t.Logf("%s: the record after %s", what, took)
				if me := n.nodes[0]; me.ledger.State().Tree != f.Log.State().Tree {
					t.Errorf("%s: height %d", what, me.ledger.State().Height)
				}
				for _, name := range n.nodes[0].away() {
					if name != "n3" {
						t.Errorf("%s: %s is kept away, which is honest", what, name)
					}
				}
			})
		})
	}
}

// TestFork hears of a second founding by a peer that has taken it: the node has both in hand,
// and stops. A peer that only says so is sent away.
func TestFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, n := founded(t)
		other := f.Again(t)
		ctx, stop := context.WithCancel(context.Background())
		n.stop = stop
		record, err := ledger.ParseRecord(other.Record)
		if err != nil {
			t.Fatal(err)
		}
		liar := &puppet{node: n.nodes[0], dials: true}
		liar.begins = func(_ context.Context, s Session) { _ = send(s, head{1, document.Hash{1}}) }
		liar.heard = func(s Session, f frame) {
			if w, ok := f.(wantEntry); ok {
				_ = send(s, entry{w.height, [parts][]byte{[]byte("{}"), []byte("{}"), []byte("{}")}})
			}
		}
		forked := &puppet{node: n.nodes[1], dials: true}
		began := time.Now()
		forked.begins = func(_ context.Context, s Session) {
			time.Sleep(10*time.Minute - time.Since(began))
			_ = send(s, head{1, record.Hash()})
		}
		forked.heard = func(s Session, f frame) {
			if w, ok := f.(wantEntry); ok {
				_ = send(s, entry{w.height, [parts][]byte{other.Record, other.Value, other.Certificate}})
			}
		}
		n.nodes = n.nodes[2:]
		liar.play(ctx)
		forked.play(ctx)
		n.run(func() {
			n.within(5*time.Minute, "the liar is sent away", func() bool {
				for _, one := range n.nodes {
					if away := one.away(); len(away) != 1 || away[0] != "n1" {
						return false
					}
				}
				return true
			})
			for _, one := range n.nodes {
				if err := one.ledger.(*pinned.Ledger).Problem(); err != nil {
					t.Errorf("%s stops for a lie: %v", one.name, err)
				}
			}
			n.within(30*time.Minute, "the fork is seen", func() bool {
				for _, one := range n.nodes {
					if !errors.Is(one.ledger.(*pinned.Ledger).Problem(), pinned.ErrFork) {
						return false
					}
				}
				return true
			})
		})
	})
}
