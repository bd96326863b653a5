package gossip

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/token"
)

// pile is papers that nobody has signed: what counts is how they travel.
type pile struct {
	mu      sync.Mutex // guards what follows
	all     map[token.Short][]byte
	changed func()
}

func idOf(raw []byte) token.Short { h := document.HashOf(raw); return token.Short(h[:]) }

func (p *pile) Sum() (sum document.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, raw := range p.all {
		for i, b := range document.HashOf(raw) {
			sum[i] ^= b
		}
	}
	return sum
}

func (p *pile) IDs() (ids []token.Short) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.all {
		ids = append(ids, id)
	}
	return ids
}

func (p *pile) Lacking(has []token.Short, most int) (lacks [][]byte) {
	there := make(map[token.Short]bool)
	for _, id := range has {
		there[id] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, raw := range p.all {
		if there[id] {
			continue
		}
		if most -= len(raw); most >= 0 {
			lacks = append(lacks, raw)
		}
	}
	return lacks
}

func (p *pile) Take(raw []byte) (bool, error) {
	p.mu.Lock()
	_, known := p.all[idOf(raw)]
	p.all[idOf(raw)] = bytes.Clone(raw)
	p.mu.Unlock()
	if !known {
		go p.changed()
	}
	return !known, nil
}

// TestPapers has papers travel to all of ten nodes, one at once and many after a while; and to one
// that was off.
func TestPapers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 10)
		n := newNetwork(t, state, func(int) Ledger { return still{state} })
		piles := make(map[*node]*pile)
		for _, one := range n.nodes {
			p := &pile{all: make(map[token.Short][]byte)}
			p.changed = func() { one.engine.Papered() }
			piles[one] = p
			one.config = func(c *Config) { c.Papers = p }
		}
		same := func() bool {
			for _, p := range piles {
				if p.Sum() != piles[n.nodes[0]].Sum() {
					return false
				}
			}
			return true
		}
		n.run(func() {
			for _, one := range n.nodes {
				one.sayAll()
			}
			time.Sleep(10 * time.Minute)
			_, _ = piles[n.nodes[3]].Take([]byte("one"))
			took := n.within(10*time.Second, "one paper to all", same)
			_, _ = piles[n.nodes[5]].Take(bytes.Repeat([]byte("large "), 10000)) // as a proposal may be
			n.within(time.Minute, "a large one to all", same)
			var sent uint64
			for i := range 120 { // of the size of a use, more than go into one frame
				_, _ = piles[n.nodes[i%2]].Take(bytes.Repeat([]byte(fmt.Sprintf("paper %d ", i)), 100))
			}
			many := n.within(2*time.Minute, "120 papers to all", same)
			for _, one := range n.nodes {
				sent += one.engine.Stats().Sent
				if s := one.engine.Stats(); s.Away > 0 || len(piles[one].all) != 122 {
					t.Errorf("%s: %+v, %d papers", one.name, s, len(piles[one].all))
				}
			}
			t.Logf("one paper to all after %s, 120 after %s; %d bytes were sent", took, many, sent)
		})
	})
}
