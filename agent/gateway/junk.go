package gateway

import (
	"cmp"
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
	// mostUnknown is how many keys there may be that this release does not know, of one kind by one signer,
	// and mostKinds of how many kinds.
	mostUnknown, mostKinds = 16, 16
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
// versions of the prefix. What lies there may stay if
//
//   - the key is under /kogge/vN/, and shorter than longKey,
//   - its value is an envelope of this fleet, of no kind that has a place of this release's under this prefix,
//   - a seat or an operator of the ledger has signed it, and
//   - it is one of the newest of its kind by its signer, see [strangers].
//
// Ballots of a release that votes may so lie under any key, of each voter the newest ones. A release that
// wants to put anything else into etcd, or more, does so only when no member runs a release of this rule any
// more. What this release gets to know as a place of its own is judged here by its topic, and a kind of
// which there may be more has its figure in [strangers.take].
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

// ofValue says why what lies under a key, by a lease or none (0), is junk; "": it may stay. What this release
// has no place for is what is found there, which [strangers] judge further, and else the zero one. What lies
// in a place of this release may be wrong: who has the place writes it anew.
func (l law) ofValue(key string, value []byte, lease int64) (why string, found signed.Envelope) {
	if p, known := board.Parse(key); known {
		switch {
		case p.Leased() && lease == 0:
			return "a status by no lease", found
		case len(value) > wire.MaxValue:
			return wire.TooLarge.String(), found
		}
		return "", found
	}
	e, err := signed.Parse(value)
	_, placed := board.Of(e)
	switch {
	case err != nil:
		return "no envelope", found
	case e.Fleet != l.fleet:
		return "of another fleet", found
	case !l.signers[e.By.ID()]:
		return "by nobody of the ledger", found
	case placed && strings.HasPrefix(key, board.Root):
		return "it has another place", found
	case e.Verify() != nil:
		return "with a wrong signature", found
	}
	return "", e
}

// strangers are the keys of a round that this release does not know and that may stay, by who has signed
// what lies there, and its kind. Whoever holds a member can write what a seat has signed once more under as
// many keys as he likes, and delete what the seat has put: so of one object the key that was written last
// stays, as its seat's gateway puts it again, and of several the newest ones, as the seat goes on saying some.
type strangers map[document.Hash]map[string][]stranger

// stranger is one of them.
type stranger struct {
	key    store.Found
	number uint64 // of the object
	says   sum    // of the object, whatever its signature
}

// take judges one more key, and returns the one that has to go for it, which may be itself; false: none has.
func (all strangers) take(key store.Found, e signed.Envelope) (junk store.Found, is bool) {
	by, one := e.By.ID(), stranger{key, e.Sequence, sumOf(e.Message())}
	kinds := all[by]
	if kinds == nil {
		kinds = make(map[string][]stranger)
		all[by] = kinds
	}
	list, known := kinds[e.Kind]
	if !known && len(kinds) >= mostKinds {
		return key, true
	}
	at := slices.IndexFunc(list, func(s stranger) bool { return s.says == one.says })
	if at < 0 && len(list) < mostUnknown {
		kinds[e.Kind] = append(list, one)
		return junk, false
	}
	if at < 0 {
		oldest := slices.MinFunc(list, stranger.compare)
		at = slices.Index(list, oldest)
	}
	if one.compare(list[at]) < 0 {
		return key, true
	}
	junk, list[at] = list[at].key, one
	return junk, true
}

// compare has the one that may stay behind the other one.
func (s stranger) compare(other stranger) int {
	return cmp.Or(cmp.Compare(s.number, other.number), cmp.Compare(s.key.Revision, other.key.Revision), strings.Compare(s.key.Key, other.key.Key))
}

// tidying is how far a gateway is in looking through all keys.
type tidying struct {
	after   string    // the last key that was looked at; "": it begins anew
	unknown strangers // of this round
	old     age       // what is not newer has lain there for long enough; zero: nothing has
	next    age       // what old will be
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
		t.unknown = make(strangers)
	}
	var all []store.Write
	l := lawOf(state)
	for _, item := range page.Keys {
		t.after = item.Key
		if item.Revision > t.old.revision {
			continue
		}
		item, junk := g.junk(ctx, l, t, item)
		if !junk {
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

// junk says which key is to go now that one is looked at that has lain there for long enough; false: none.
func (g *Gateway) junk(ctx context.Context, l law, t *tidying, key store.Found) (store.Found, bool) {
	why, look := l.ofKey(key.Key)
	if !look {
		return key, why != ""
	}
	g.mu.Lock()
	is := g.index[key.Key]
	g.mu.Unlock()
	p, known := board.Parse(key.Key)
	if is.genuine && is.revision == key.Revision && (!p.Leased() || is.lease != 0) {
		return key, false
	}
	now, err := g.store.Get(ctx, key.Key)
	if err != nil || now.Revision != key.Revision {
		return key, false
	}
	why, found := l.ofValue(key.Key, now.Value, now.Lease)
	if known || why != "" {
		return key, why != ""
	}
	return t.unknown.take(key, found)
}
