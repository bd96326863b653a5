package gateway

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// Whoever holds a member can write keys until etcd is full. Each gateway looks through all of them, some at
// a time, and takes away what is nobody's: for as long as that one is a member it may be faster, but what it
// leaves does not stay.
const (
	// tidyEvery is how often a page of keys is looked through, of which what is junk goes in one write.
	tidyEvery = 20 * time.Second
	// tidyAfter is how long something has to have lain there: by then this node's ledger lists who was
	// seated since, and who was faster than the watch has been told of.
	tidyAfter = 10 * time.Minute
	// mostUnknown is how many keys there may be that this release does not know, by one signer.
	mostUnknown = 16
	// longKey is how long a key is that no release has, in bytes.
	longKey = 512
	// tidySays is how often it is said that something was taken away.
	tidySays = time.Hour
)

// law says which keys may lie in etcd, by what the ledger says.
type law struct {
	fleet   document.Hash
	height  int64
	seats   map[document.Hash]bool // fingerprints of their keys
	signers map[document.Hash]bool // those, and of the operators' keys
}

func lawOf(state ledger.State) law {
	l := law{state.Fleet(), state.Height, make(map[document.Hash]bool), make(map[document.Hash]bool)}
	for _, seat := range state.Roster.Seats {
		l.seats[seat.Key.ID()], l.signers[seat.Key.ID()] = true, true
	}
	for _, o := range state.Operators {
		l.signers[o.Key] = true
	}
	return l
}

// ofKey says why a key is junk, whatever lies there; "": it may not be. look: that depends on what does,
// see [law.ofValue].
//
// A release to come may have places that this one does not know: other topics, other leaves of a node, other
// versions of the prefix. They are told from junk by who has signed what lies there: it is an envelope of
// this fleet, by a seat or an operator of the ledger, in no place of this release's, and one of few by its
// signer. A release that wants to put anything else into etcd does so only when no member runs a release of
// this rule any more.
func (l law) ofKey(key string) (why string, look bool) {
	p, known := board.Parse(key)
	switch {
	case len(key) >= longKey:
		return "a key of no place", false
	case !known:
		if !versioned(key) {
			return "a key of no place", false
		}
		return "", true
	case p.Topic == board.Nodes && !l.seats[p.Node]:
		return "of no seat", false
	case p.Topic == board.Ledger && p.Height > l.height+recent:
		return "a record far ahead", false
	}
	return "", true
}

// versioned says whether a key begins as those of some release do.
func versioned(key string) bool {
	rest, ok := strings.CutPrefix(key, "/kogge/v")
	digits, _, more := strings.Cut(rest, "/")
	version, err := strconv.ParseUint(digits, 10, 16)
	return ok && more && err == nil && version > 0 && strconv.FormatUint(version, 10) == digits
}

// ofValue says why what lies under a key, by a lease or none (0), is junk; "": it may stay. of is who has
// signed it, where that counts: of one signer there are mostUnknown such keys. What lies in a place of this
// release may be wrong: who has the place writes it anew.
func (l law) ofValue(key string, value []byte, lease int64) (why string, of document.Hash) {
	if p, known := board.Parse(key); known {
		switch {
		case p.Leased() && lease == 0:
			return "a status by no lease", of
		case len(value) > wire.MaxValue:
			return wire.TooLarge.String(), of
		}
		return "", of
	}
	e, err := signed.Parse(value)
	_, placed := board.Of(e)
	switch {
	case err != nil:
		return "no envelope", of
	case e.Fleet != l.fleet:
		return "of another fleet", of
	case !l.signers[e.By.ID()]:
		return "by nobody of the ledger", of
	case placed && strings.HasPrefix(key, board.Root):
		return "it has another place", of
	case e.Verify() != nil:
		return "with a wrong signature", of
	}
	return "", e.By.ID()
}

// tidying is how far a gateway is in looking through all keys.
type tidying struct {
	after   string                // the last key that was looked at; "": it begins anew
	unknown map[document.Hash]int // keys that this release does not know, of this round, by signer
	old     age                   // what is not newer has lain there for long enough; zero: nothing has
	next    age                   // what old will be
	removed int
	said    time.Time
}

// age is which revision of an etcd was the newest when.
type age struct {
	at       time.Time
	cluster  uint64
	revision int64
}

// ages takes note of the newest revision, whoever has written what. Where that went back it is another
// etcd's.
func (t *tidying) ages(now time.Time, p store.Page) {
	newest := age{now, p.Cluster, p.Revision}
	switch {
	case t.next.at.IsZero() || p.Cluster != t.next.cluster || p.Revision < t.next.revision:
		t.old, t.next = age{}, newest
	case now.Sub(t.next.at) >= tidyAfter:
		t.old, t.next = t.next, newest
	}
}

// tidy takes away what is nobody's, some at a time.
func (g *Gateway) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	var t tidying
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			g.tidySome(ctx, &t, now)
		}
	}
}

// tidySome looks through a page of keys. Where it cannot be read it is the next one again; what cannot be
// taken away, as somebody else was faster with one of them, waits for the next round.
func (g *Gateway) tidySome(ctx context.Context, t *tidying, now time.Time) {
	state := g.config.Ledger.State()
	g.mu.Lock()
	whole := g.whole
	g.mu.Unlock()
	if !whole || state.Height == 0 {
		return
	}
	page, err := g.store.Keys(ctx, t.after)
	if err != nil {
		return
	}
	if t.ages(now, page); t.old.revision == 0 || g.behind(ctx, state.Height) {
		return
	}
	if t.after == "" {
		t.unknown = make(map[document.Hash]int)
	}
	var all []store.Write
	l := lawOf(state)
	for _, item := range page.Keys {
		t.after = item.Key
		if item.Revision > t.old.revision || !g.isJunk(ctx, l, t, item) {
			continue
		}
		w := store.Write{Key: item.Key, Was: item.Revision, Delete: true}
		if len(item.Key) >= longKey { // it may be longer than etcd takes
			w = store.Write{Key: item.Key[:longKey], Under: true, Delete: true}
		}
		all = append(all, w)
	}
	if !page.More {
		t.after = ""
	}
	all = slices.CompactFunc(all, func(a, b store.Write) bool { return a.Key == b.Key })
	if len(all) == 0 {
		return
	}
	if _, done, err := g.store.Write(ctx, all); err != nil || !done {
		return
	}
	t.removed += len(all)
	g.mu.Lock()
	g.stats.Removed += uint64(len(all))
	g.mu.Unlock()
	if now.Sub(t.said) >= tidySays {
		g.config.Logf("gateway: %d keys that are nobody's were taken out of etcd", t.removed)
		t.said, t.removed = now, 0
	}
}

// behind says whether the fleet has decided more than this node's ledger says, as when it has stopped, or a
// later release has decided what this one cannot read: then what those have there who were seated since is
// not for this node to take away. An entry that follows counts for that if it is proved: else one that
// somebody has made up would keep all junk there for ever.
func (g *Gateway) behind(ctx context.Context, height int64) bool {
	if g.config.Ledger.Problem() != nil {
		return true
	}
	item, err := g.store.Get(ctx, board.Entry(height+1).Key())
	if err != nil {
		return true
	}
	if item.Revision == 0 {
		return false
	}
	e, err := ledger.ParseEntry(item.Value, height+1)
	if err != nil {
		return false
	}
	switch err := g.config.Ledger.Take(height+1, e); {
	case err == nil: // it was not asked when that was written: too much was
		if g.config.Grown != nil {
			g.config.Grown()
		}
		g.Advanced()
	case errors.Is(err, ledger.ErrValue):
		return errors.Is(err, document.ErrNewer) // that is read last of all
	case errors.Is(err, ledger.ErrRecord), errors.Is(err, ledger.ErrCertificate):
		return false
	}
	return true // it is proved, and the disk may not take it
}

// isJunk says whether a key that has lain there for long enough is to go.
func (g *Gateway) isJunk(ctx context.Context, l law, t *tidying, key store.Found) bool {
	why, look := l.ofKey(key.Key)
	if !look {
		return why != ""
	}
	g.mu.Lock()
	is := g.index[key.Key]
	g.mu.Unlock()
	if p, _ := board.Parse(key.Key); is.genuine && is.revision == key.Revision && (!p.Leased() || is.lease != 0) {
		return false
	}
	now, err := g.store.Get(ctx, key.Key)
	if err != nil || now.Revision != key.Revision {
		return false
	}
	why, of := l.ofValue(key.Key, now.Value, now.Lease)
	if why == "" && !of.IsZero() {
		t.unknown[of]++
		return t.unknown[of] > mostUnknown
	}
	return why != ""
}
