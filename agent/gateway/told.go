package gateway

import (
	"bytes"
	"crypto/sha256"
	"time"

	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// sum stands for some bytes. Nobody finds other ones of the same sum.
type sum [16]byte

func sumOf(raw []byte) sum {
	all := sha256.Sum256(raw)
	return sum(all[:])
}

// lying is what lies under a key, in short.
type lying struct {
	revision int64
	lease    int64
	says     sum    // of the body of an object: the same under another number
	number   uint64 // of an object
	genuine  bool   // it counts
}

// holds says whether what a node has put lies there, or what it has said since: etcd may say so before it
// has answered.
func (l lying) holds(put lying) bool {
	return l.genuine && (l.says == put.says || l.number > put.number)
}

// stays says whether what a node has put lies there still, and a status by this gateway's lease: by no
// lease others take the node for gone, and by another one it may lie there when the node is. The caller
// holds mu.
func (g *Gateway) stays(p board.Place, l, put lying) bool {
	return l.holds(put) && (!p.Leased() || l.lease == g.lease && l.lease != 0)
}

// leasedKinds are the kinds of objects that go with the gateway's lease.
var leasedKinds = []string{notice.StatusKind}

// follower is the gateway as one whom the store tells what changes.
type follower struct{ *Gateway }

// Begin takes note that all is told anew.
func (g follower) Begin() {
	g.follow()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen, g.begun = make(map[string]bool), g.judging()
	if g.back { // what was known is of another etcd
		clear(g.index)
		g.newest = 0
	}
}

// Told takes note of what lies there, or has changed.
func (g follower) Told(items []store.Item) {
	items = g.placed(items)
	read := make([]lying, len(items))
	for i, item := range items {
		read[i] = g.read(item)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	changed := make(map[board.Topic][]wire.Item)
	for i, item := range items {
		if g.seen != nil {
			g.seen[item.Key] = true
		}
		if p, ok := board.Parse(item.Key); ok && g.note(p, item, read[i]) {
			changed[p.Topic] = append(changed[p.Topic], itemOf(item))
		}
	}
	g.tell(changed)
}

// Whole takes away what was not told.
func (g follower) Whole() {
	g.mu.Lock()
	defer g.mu.Unlock()
	changed := make(map[board.Topic][]wire.Item)
	for key := range g.index {
		if g.seen[key] {
			continue
		}
		p, ok := board.Parse(key)
		gone := store.Item{Key: key, Revision: g.newest, Gone: true}
		if ok && g.note(p, gone, lying{}) {
			changed[p.Topic] = append(changed[p.Topic], itemOf(gone))
		}
	}
	g.seen, g.judged = nil, g.begun
	g.tell(changed)
	if g.back {
		g.back = false
		for _, q := range g.queues { // revisions begin anew, so those who follow do, too
			q.forget()
		}
	}
	for _, c := range g.clients {
		for key, put := range c.put {
			p, _ := board.Parse(key)
			if l, ok := g.index[key]; !ok || !g.stays(p, l, put) {
				c.recall = true
			}
		}
		g.pump(c)
	}
	g.whole = true
	g.Advanced()
}

// Lost takes note that nobody knows what changes now.
func (g follower) Lost(why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats.Lost++
	if g.whole {
		g.whole, g.lostAt = false, time.Now()
		g.config.Logf("gateway: %v", why)
	}
	if isBack(why) {
		g.back = true
	}
}

// read judges what lies under a key.
func (g *Gateway) read(item store.Item) lying {
	l := lying{revision: item.Revision, lease: item.Lease}
	p, ok := board.Parse(item.Key)
	if !ok || item.Gone {
		return l
	}
	var why string
	switch {
	case len(item.Value) > wire.MaxValue:
		why = wire.TooLarge.String()
	case p.Topic == board.Ledger:
		why = g.readEntry(p.Height, item.Value)
		l.says = sumOf(item.Value)
	default:
		e, err := signed.Parse(item.Value)
		own, _ := board.Of(e)
		if err != nil || own != p {
			why = wire.NotOwn.String()
			break
		}
		v, err := g.config.Shelf.Put(item.Value)
		switch {
		case err != nil:
			why = err.Error()
		case v == shelf.Older && g.saysStill(e): // it was said again since, which is not written
		case !v.News() && v != shelf.Known:
			why = v.String()
		}
		l.number, l.says = e.Sequence, sumOf(e.Body)
	}
	if l.genuine = why == ""; !l.genuine {
		g.mu.Lock()
		g.stats.Ignored[why]++
		g.mu.Unlock()
	}
	return l
}

// saysStill says whether an object says what the seat's newest one does.
func (g *Gateway) saysStill(e signed.Envelope) bool {
	newest, ok := g.config.Shelf.Object(e.Kind, e.By)
	return ok && bytes.Equal(newest.Body, e.Body) && e.Verify() == nil
}

// placed are those items that lie where something may: under the key of a seat, or of a record that
// there is or will be soon. For all others nothing is kept: whoever holds a member can write as many as
// he likes.
func (g *Gateway) placed(items []store.Item) (all []store.Item) {
	g.follow()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, item := range items {
		p, ok := board.Parse(item.Key)
		if ok && (g.seats[p.Node] || p.Topic == board.Ledger && p.Height <= g.height+recent) {
			all = append(all, item)
		} else if !item.Gone {
			g.stats.Ignored["nowhere"]++
		}
	}
	return all
}

// readEntry says why an entry of the ledger that lies in etcd does not count; "": it does. Only what this
// node's ledger has counts: so nobody is told of a record by this gateway that is not proved.
func (g *Gateway) readEntry(height int64, raw []byte) (why string) {
	e, err := ledger.ParseEntry(raw, height)
	if err != nil {
		return "no entry"
	}
	switch mine := g.config.Ledger.State().Height; {
	case height > mine+1, mine == 0: // the founding comes otherwise
		return "a record ahead" // it is judged again when the ledger is there
	case height == mine+1:
		if !g.mayJudge() || g.config.Ledger.Take(height, e) != nil {
			return "a record that is not proved"
		}
		g.judgedWell()
		if g.config.Grown != nil {
			g.config.Grown()
		}
		g.Advanced()
	}
	own, err := g.config.Ledger.Entry(height)
	switch {
	case err != nil:
		return "a record that cannot be read here"
	case bytes.Equal(ledger.FormatEntry(height, own), raw):
		return ""
	case bytes.Equal(own.Record, e.Record) && g.mayJudge() && g.config.Ledger.Proved(height, e) == nil:
		return "" // by another certificate
	case bytes.Equal(own.Record, e.Record):
		return "a record that is not proved"
	case g.mayJudge():
		_ = g.config.Ledger.Take(height, e) // if it is proved, this is a fork, and the ledger stops
	}
	return "another record"
}

// mayJudge says whether the ledger may be asked about one more entry that it does not have: each is read
// and compared, and who writes them need prove nothing.
func (g *Gateway) mayJudge() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.strange.One(time.Now()) == 0
}

// judgedWell takes note that what the ledger was asked about counts: of those there are no more than
// records.
func (g *Gateway) judgedWell() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.strange.Refund()
}

// note takes note of what lies under a key, and says whether that is news to those who follow.
// The caller holds mu.
func (g *Gateway) note(p board.Place, item store.Item, l lying) (news bool) {
	g.newest = max(g.newest, item.Revision)
	old, was := g.index[item.Key]
	if was && (item.Revision < old.revision || item.Revision == old.revision && !item.Gone && (old.genuine || !l.genuine)) {
		return false // it was told already, and counts no more than it did
	}
	if item.Gone {
		if g.gone != nil {
			g.gone[item.Key] = item.Revision
		}
		delete(g.index, item.Key)
		news = was && old.genuine
	} else {
		g.index[item.Key] = l
		news = l.genuine && (!was || !old.genuine || old.says != l.says || (old.lease == 0) != (l.lease == 0))
	}
	if c := g.byID[p.Node]; c != nil && p.Topic == board.Nodes {
		if put, ok := c.put[item.Key]; ok && (item.Gone || !g.stays(p, l, put)) {
			c.recall = true
			g.pump(c)
		}
	}
	if p.Topic == board.Ledger && (item.Gone || !l.genuine) {
		g.Advanced()
	}
	return news
}

// tell queues what has changed for all who follow. The caller holds mu.
func (g *Gateway) tell(changed map[board.Topic][]wire.Item) {
	for topic, items := range changed {
		for _, frame := range framesOf(topic, items) {
			g.queues[topic].add(frame)
		}
		g.stats.Told += uint64(len(items))
		for _, c := range g.clients {
			if _, follows := c.follows[topic]; follows {
				g.pump(c)
			}
		}
	}
}

// genuine are those of some items that were listed which count. Of one that was written anew
// before the list or after it, and says the same with another lease, nobody is told: who lists it
// hears it here, or never.
func (g *Gateway) genuine(items []store.Item) (all []wire.Item) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, item := range items {
		l, ok := g.index[item.Key]
		if !ok || !l.genuine || l.revision != item.Revision && !l.same(item) {
			continue
		}
		if item.Revision < l.revision {
			item.Revision, item.Lease = l.revision, l.lease
		}
		all = append(all, itemOf(item))
	}
	return all
}

// same says whether what was listed says what lies under its key, and in its seat's name.
func (l lying) same(item store.Item) bool {
	p, _ := board.Parse(item.Key)
	e, err := signed.Parse(item.Value)
	own, ok := board.Of(e)
	return err == nil && ok && own == p && sumOf(e.Body) == l.says && (item.Lease == 0) == (l.lease == 0) && e.Verify() == nil
}

func itemOf(item store.Item) wire.Item {
	i := wire.Item{Key: item.Key, Revision: item.Revision, Value: item.Value}
	switch {
	case item.Gone:
		i.State, i.Value = wire.Gone, nil
	case item.Lease != 0:
		i.State = wire.Leased
	}
	return i
}

// framesOf are items in frames, of pumpBytes at most, or of one item.
func framesOf(topic board.Topic, items []wire.Item) (all [][]byte) {
	f := wire.Items{Topic: topic}
	size := 0
	for _, item := range items {
		if len(f.Items) > 0 && (size+item.Size() > pumpBytes/2 || len(f.Items) >= maxItems) {
			all = append(all, wire.Encode(f))
			f.Items, size = nil, 0
		}
		f.Items = append(f.Items, item)
		size += item.Size()
	}
	if len(f.Items) > 0 {
		all = append(all, wire.Encode(f))
	}
	return all
}

// maxItems is how many items are in a frame, at most; the wire takes more.
const maxItems = 128
