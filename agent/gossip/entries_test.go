package gossip

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/gossip/wire"
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

// decide has the fleet decide once more, about so many operators: the entry of two hundred has
// some 90 KiB, of which two thirds are their proposal.
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
			for _, operators := range []int{1, 200} {
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
				if f, err := wire.Decode(raw); err == nil {
					if _, ok := f.(wire.Piece); ok {
						if pieces++; pieces > 1 {
							return nil
						}
					}
				}
				return [][]byte{raw}
			}
		}, false},
		"it sends wrong pieces": {func(n *network, _ *ledgertest.Fleet) {
			n.bends[3] = func(raw []byte) [][]byte {
				if f, err := wire.Decode(raw); err == nil {
					if p, ok := f.(wire.Piece); ok {
						p.Data = append([]byte{}, p.Data...)
						p.Data[0] ^= 1
						return [][]byte{wire.Encode(p)}
					}
				}
				return [][]byte{raw}
			}
		}, true},
		"it sends short pieces": {func(n *network, _ *ledgertest.Fleet) {
			n.bends[3] = func(raw []byte) [][]byte {
				if f, err := wire.Decode(raw); err == nil {
					if p, ok := f.(wire.Piece); ok {
						p.Data = p.Data[:len(p.Data)/2]
						return [][]byte{wire.Encode(p)}
					}
				}
				return [][]byte{raw}
			}
		}, true},
		"it offers ten megabytes": {func(n *network, _ *ledgertest.Fleet) {
			n.bends[3] = func(raw []byte) [][]byte {
				if f, err := wire.Decode(raw); err == nil {
					if o, ok := f.(wire.Offer); ok {
						for i := range o.Sizes {
							o.Sizes[i] = ledger.MaxEntry
						}
						return [][]byte{wire.Encode(o)}
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
			e := decide(t, f, 200)
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
		liar.begins = func(_ context.Context, s Session) { _ = send(s, wire.Head{Height: 1, Record: document.Hash{1}}) }
		liar.heard = func(s Session, f wire.Frame) {
			if w, ok := f.(wire.WantEntry); ok {
				_ = send(s, wire.Entry{Height: w.Height, Parts: [wire.Parts][]byte{[]byte("{}"), []byte("{}"), []byte("{}")}})
			}
		}
		forked := &puppet{node: n.nodes[1], dials: true}
		began := time.Now()
		forked.begins = func(_ context.Context, s Session) {
			time.Sleep(10*time.Minute - time.Since(began))
			_ = send(s, wire.Head{Height: 1, Record: record.Hash()})
		}
		forked.heard = func(s Session, f wire.Frame) {
			if w, ok := f.(wire.WantEntry); ok {
				_ = send(s, wire.Entry{Height: w.Height, Parts: [wire.Parts][]byte{other.Record, other.Value, other.Certificate}})
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

// offered is what a peer offers that has an entry, and its pieces.
func offered(height int64, one ledger.Entry) (o wire.Offer, pieces map[document.Hash][]byte) {
	all := slices.Concat(one.Record, one.Value, one.Certificate)
	o = wire.Offer{Height: height, Sizes: [wire.Parts]int{len(one.Record), len(one.Value), len(one.Certificate)}}
	pieces = make(map[document.Hash][]byte)
	for some := range slices.Chunk(all, wire.PieceSize) {
		sum := document.HashOf(some)
		o.Sums = append(o.Sums, sum)
		pieces[sum] = some
	}
	return o, pieces
}

// decided is the last entry that a fleet has decided.
type decided struct {
	mu     sync.Mutex // guards what follows
	height int64
	record document.Hash
	entry  ledger.Entry
}

func (d *decided) get() (int64, document.Hash, ledger.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.height, d.record, d.entry
}

// TestWithheld has a peer that hears first of each record keep a node from it. It does so once:
// then each of them comes at once, from another one.
func TestWithheld(t *testing.T) {
	for _, c := range []struct {
		what  string
		limit time.Duration // of the first record
		slow  int           // records that may take long: each of the two that fetch may be taken in once
		play  func(p *puppet, d *decided)
	}{
		{"it sends a wrong piece, and then none", 15 * time.Second, 2, func(p *puppet, d *decided) {
			var sent atomic.Int64
			p.heard = func(s Session, f wire.Frame) {
				height, _, one := d.get()
				o, pieces := offered(height, one)
				switch f := f.(type) {
				case wire.WantEntry:
					_ = send(s, o)
				case wire.WantPiece:
					if sent.Add(1) == 1 {
						data := slices.Clone(pieces[f.Sum])
						data[0] ^= 1
						_ = send(s, wire.Piece{Sum: f.Sum, Data: data})
					}
				}
			}
		}},
		{"it sends pieces of another one, slowly", 2 * time.Minute, 2, func(p *puppet, d *decided) {
			one := ledger.Entry{Record: make([]byte, 1<<10), Value: make([]byte, 1<<20)}
			for i := range one.Value {
				one.Value[i] = byte(i >> 12)
			}
			p.heard = func(s Session, f wire.Frame) {
				height, _, _ := d.get()
				o, pieces := offered(height, one)
				switch f := f.(type) {
				case wire.WantEntry:
					_ = send(s, o)
				case wire.WantPiece:
					p.net.running.Go(func() {
						time.Sleep(9 * time.Second)
						_ = send(s, wire.Piece{Sum: f.Sum, Data: pieces[f.Sum]})
					})
				}
			}
		}},
		{"it says nothing, and comes again and again", 15 * time.Second, 2, func(p *puppet, d *decided) { p.dials = true }},
		{"it says that a record before was another one", 5 * time.Second, 0, func(p *puppet, d *decided) {
			p.dials = true
			p.begins = func(ctx context.Context, s Session) {
				for before, _, _ := d.get(); ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
					if height, _, _ := d.get(); height > before {
						before = height
						_ = send(s, wire.Head{Height: 1, Record: document.Hash{byte(height)}})
					}
				}
			}
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, n := founded(t)
				ctx, stop := context.WithCancel(context.Background())
				n.stop = stop
				var d decided
				p := &puppet{node: n.nodes[6]}
				p.begins = func(ctx context.Context, s Session) {
					for said := int64(0); ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
						if height, record, _ := d.get(); height > said {
							if said = height; send(s, wire.Head{Height: height, Record: record}) != nil {
								return
							}
						}
					}
				}
				c.play(p, &d)
				n.nodes = n.nodes[:3]
				p.play(ctx)
				n.run(func() {
					time.Sleep(time.Minute)
					slow := 0
					for range 6 {
						began, one := time.Now(), decide(t, f, 200)
						d.mu.Lock()
						d.height, d.record, d.entry = f.Log.State().Height, f.Log.State().Record, one
						height := d.height
						d.mu.Unlock()
						time.Sleep(500 * time.Millisecond) // it is asked by now
						n.nodes[2].given(height, one)
						n.within(c.limit, fmt.Sprintf("%s: record %d", c.what, height), n.at(height))
						if took := time.Since(began); took > 5*time.Second {
							slow++
							t.Logf("%s: record %d after %s", c.what, height, took)
						}
						time.Sleep(time.Minute)
					}
					if slow > c.slow {
						t.Errorf("%s: %d records take long", c.what, slow)
					}
					for _, one := range n.nodes {
						for _, name := range one.away() {
							if name != "n7" {
								t.Errorf("%s: %s keeps away %s", c.what, one.name, name)
							}
						}
					}
				})
			})
		})
	}
}

// parted are two histories of a fleet that are the same up to a height, and of so many records
// each.
func parted(t *testing.T, f *ledgertest.Fleet, same, a, b int64) (one, other *ledgertest.Fleet) {
	grow := func(g *ledgertest.Fleet, height int64, name string) {
		for g.Log.State().Height < height {
			g.Take(t, g.Decided(t, g.Operators(t, fmt.Sprintf("%s%d", name, g.Log.State().Height)), g.Log.State().Roster.Quorum()))
		}
	}
	copied := *f
	if same == 0 {
		copied.Log, copied.Entries = ledger.New(f.Genesis), nil
		copied.Take(t, f.Again(t))
	} else {
		grow(f, same, "s")
		copied.Log, copied.Entries = f.Log.Clone(), slices.Clone(f.Entries)
	}
	grow(f, a, "a")
	grow(&copied, b, "b")
	return f, &copied
}

// TestParted has nodes of two histories meet, however far each of them is beyond the height at
// which they part: all of them see both, and stop. None of them is taken for a liar.
func TestParted(t *testing.T) {
	for what, c := range map[string][3]int64{
		"both at the first height that differs": {4, 5, 5}, "one is behind": {4, 5, 6}, "both are further": {4, 6, 6},
		"much further": {4, 9, 20}, "its peers know one history alone": {4, 6, 6}, "two foundings, and decisions": {0, 3, 2}, "one has parted where the other stands": {4, 4, 6},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := parted(t, ledgertest.Founded(t, 7, 1), c[0], c[1], c[2])
				dir := t.TempDir()
				n := newNetwork(t, a.Log.State(), func(i int) Ledger {
					history := []*ledgertest.Fleet{a, b}[i%2]
					l := pinned.Open(filepath.Join(dir, fmt.Sprint(i)), a.Genesis)
					for i, e := range history.Entries {
						if err := l.Take(int64(i+1), e); err != nil {
							t.Fatal(err)
						}
					}
					return l
				})
				if what == "its peers know one history alone" { // n1 reaches n3, n5 and n7
					n.apart = func(a, b int) bool { return a == 1 && b%2 == 0 || b == 1 && a%2 == 0 }
				}
				n.run(func() {
					if c[1] == c[0] { // it is no fork yet: those who are behind take what is decided
						n.within(time.Minute, what+": they agree", n.at(c[2]))
						return
					}
					took := n.within(10*time.Minute, what+": the fork is seen", func() bool {
						for _, one := range n.nodes {
							if !errors.Is(one.ledger.(*pinned.Ledger).Problem(), pinned.ErrFork) {
								return false
							}
						}
						return true
					})
					t.Logf("%s: all have stopped after %s", what, took)
					for _, one := range n.nodes {
						if away := one.away(); len(away) > 0 {
							t.Errorf("%s: %s keeps away %v: %v", what, one.name, away, one.engine.Stats().Dropped)
						}
					}
				})
			})
		})
	}
}

// TestPartedLie has a peer with a history that nobody has decided: it is sent away, and nobody
// stops.
func TestPartedLie(t *testing.T) {
	for what, bend := range map[string]func(height int64, e *ledger.Entry){
		"nobody has signed it": func(height int64, e *ledger.Entry) {
			if height > 4 {
				e.Certificate = ledger.Certificate{Version: 1}.Encode()
			}
		},
		"its records do not follow on each other": func(height int64, e *ledger.Entry) {
			if height == 5 {
				*e = ledger.Entry{}
			}
		},
		"it is of no ledger": func(height int64, e *ledger.Entry) { e.Record = []byte("{}") },
	} {
		for _, far := range []int64{5, 9} {
			t.Run(fmt.Sprintf("%s, %d", what, far), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := parted(t, ledgertest.Founded(t, 7, 1), 4, 7, 9)
					dir := t.TempDir()
					n := newNetwork(t, a.Log.State(), func(i int) Ledger {
						l := pinned.Open(filepath.Join(dir, fmt.Sprint(i)), a.Genesis)
						for i, e := range a.Entries {
							if err := l.Take(int64(i+1), e); err != nil {
								t.Fatal(err)
							}
						}
						return l
					})
					ctx, stop := context.WithCancel(context.Background())
					n.stop = stop
					liar := &puppet{node: n.nodes[6], dials: true}
					record, err := b.Log.Record(far)
					if err != nil {
						t.Fatal(err)
					}
					liar.begins = func(_ context.Context, s Session) { _ = send(s, wire.Head{Height: far, Record: record}) }
					liar.heard = func(s Session, f wire.Frame) {
						if w, ok := f.(wire.WantEntry); ok {
							e := b.Entries[w.Height-1]
							if bend(w.Height, &e); e.Record == nil {
								e = a.Entries[w.Height-1]
							}
							_ = send(s, wire.Entry{Height: w.Height, Parts: [wire.Parts][]byte{e.Record, e.Value, e.Certificate}})
						}
					}
					n.nodes = n.nodes[:3]
					liar.play(ctx)
					n.run(func() {
						n.within(5*time.Minute, fmt.Sprintf("%s, %d: it is sent away", what, far), func() bool {
							for _, one := range n.nodes {
								if away := one.away(); len(away) != 1 || away[0] != "n7" {
									return false
								}
							}
							return true
						})
						for _, one := range n.nodes {
							if err := one.ledger.(*pinned.Ledger).Problem(); err != nil {
								t.Errorf("%s, %d: %s stops: %v", what, far, one.name, err)
							}
						}
					})
				})
			})
		}
	}
}
