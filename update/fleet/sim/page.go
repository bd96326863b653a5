package sim

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// page is a ledger up to a height. Machines that have the same one share it: what it says of a proposal is
// computed once.
type page struct {
	before *page
	log    *ledger.Log
	state  ledger.State
	at     ballot.Height // the next one
	item   *item         // that the last record has decided; nil: none
	kind   string        // of the last decision
	entry  ledger.Entry

	next     map[document.Hash]*page
	proposed map[*item]error
	drafts   map[string]*drafted
	judged   map[document.Hash]error
}

// drafted is what a chair can make of an item, or what is lacking.
type drafted struct {
	*draft
	lacks error
}

// draft is a record that could be decided, with the evidence on which it rests.
type draft struct {
	item     *item
	value    ledger.Value
	evidence [][]byte
	record   ledger.Record
	hash     document.Hash
	object   *object
}

// item is something that an operator has proposed, and what owners and nodes say to it.
type item struct {
	number   uint64
	kind     string
	height   int64 // of the ledger when it was proposed
	envelope signed.Envelope
	id       document.Hash
	value    ledger.Value
	early    bool
	said     [][]byte // answers of owners, requests of nodes
	at       time.Duration
	object   *object
	// minority says that a quorum never calls it valid.
	minority bool
	flips    map[string]time.Duration // when a machine changes its mind
	against  map[string]bool          // who calls it invalid from the beginning
}

// contested says that honest seats do not agree about it: rounds may be in vain.
func (it *item) contested() bool { return it.minority || len(it.flips)+len(it.against) > 0 }

// opinion is that of a seat about an item.
type opinion struct {
	item     *item
	seat     int
	opinion  proposal.Opinion
	envelope signed.Envelope
	object   *object
}

func newPage(before *page, log *ledger.Log) *page {
	p := &page{before: before, log: log, state: log.State(), next: make(map[document.Hash]*page), proposed: make(map[*item]error), drafts: make(map[string]*drafted), judged: make(map[document.Hash]error)}
	p.at = p.state.Ballots()
	return p
}

func (p *page) index(seat int) int { return p.at.Index(seat) }

// fleet is the page with all secrets of its fleet.
func (p *page) fleet() *ledgertest.Fleet {
	return &ledgertest.Fleet{Genesis: p.state.Genesis, Log: p.log, Ada: beginning.ada}
}

// seatOf is the number of the seat of a key; 0: it has none.
func (p *page) seatOf(key signed.Key) int {
	s, _ := p.state.Roster.ByKey(key)
	return s.Number
}

// valid says why an item cannot be decided on this page.
func (p *page) valid(it *item) error {
	err, known := p.proposed[it]
	if !known {
		_, _, err = p.state.Proposed(it.envelope)
		p.proposed[it] = err
	}
	return err
}

// has says whether an item is decided.
func (p *page) has(it *item) bool {
	for ; p != nil; p = p.before {
		if p.item == it {
			return true
		}
	}
	return false
}

// draft is what a chair makes of an item that is valid, with the opinions that it knows.
func (w *world) draft(p *page, it *item, known map[int]*opinion) *drafted {
	all, key := slices.Clone(it.said), fmt.Sprint(it.number)
	for _, n := range p.state.Awaited {
		if o := known[n]; o != nil && o.opinion.Height >= p.state.Seated {
			all, key = append(all, o.envelope.Bytes()), key+fmt.Sprint(" ", n, "-", o.object.id)
		}
	}
	if d, there := p.drafts[key]; there {
		return d
	}
	d := &drafted{draft: &draft{item: it}}
	p.drafts[key] = d
	if d.value, d.evidence, d.lacks = p.state.Gather(it.envelope, all); d.lacks != nil {
		return d
	}
	if d.record, d.lacks = p.state.Next(d.value); d.lacks != nil {
		return d
	}
	d.hash = d.record.Hash()
	if was := w.drafts[d.hash]; was != nil { // the decision needs none of the opinions that are new
		d.draft = was
		return d
	}
	d.object = w.object(object{draft: d.draft})
	w.drafts[d.hash] = d.draft
	return d
}

// judge says why a draft cannot be decided on a page.
func (p *page) judge(d *draft) error {
	err, known := p.judged[d.hash]
	if !known {
		if err = p.state.Judge(d.value, d.evidence); err == nil {
			var r ledger.Record
			if r, err = p.state.Next(d.value); err == nil && r.Hash() != d.hash {
				err = fmt.Errorf("the record is %s, and the draft says %s", r.Hash().Short(), d.hash.Short())
			}
		}
		p.judged[d.hash] = err
	}
	return err
}

// follows is the page after a decision. The first certificate of a record is verified as the ledger does it.
// Of others the signatures are compared with those of ballots that were verified.
func (w *world) follows(p *page, d *draft, c ledger.Certificate) (*page, error) {
	c.Evidence = d.evidence
	next, there := p.next[d.hash]
	if there && !w.Each {
		return next, w.compare(p, d, c)
	}
	log := p.log.Clone()
	e := ledger.Entry{Record: d.record.Encode(), Value: d.value.Encode(), Certificate: c.Encode()}
	if err := log.Append(e); err != nil || there {
		return next, err
	}
	next = newPage(p, log)
	next.item, next.entry, next.kind = d.item, e, string(d.value.Kind())
	p.next[d.hash] = next
	return next, nil
}

func (w *world) compare(p *page, d *draft, c ledger.Certificate) error {
	if len(c.Seats) < p.at.Quorum {
		return fmt.Errorf("%d votes, and %d decide", len(c.Seats), p.at.Quorum)
	}
	for i, s := range c.Seats {
		o := w.casts[cast{p.at.Words(ballot.Precommit, c.Round, d.hash, ballot.Fresh), s.By}]
		if o == nil || !slices.Equal(o.ballot.Signature, s.Signature) || i > 0 && c.Seats[i-1].By >= s.By || p.index(s.By) < 0 {
			return fmt.Errorf("the signature of seat %d is nobody's", s.By)
		}
	}
	return nil
}

// beginning is the fleet with which all runs begin: its genesis once, with the policy of Brief and without.
var beginning = fleetOfRuns{pages: make(map[[2]int]*page)}

type fleetOfRuns struct {
	sync.Mutex
	ada   *ecdsa.PrivateKey
	first [2]*fleet.Genesis
	pages map[[2]int]*page
}

// brief is how long items wait in a plan that says so: longer than a height that is open when the network
// becomes whole.
const brief = 4 * time.Minute

// founded is the page after the founding of a fleet of n. Each run has one of its own.
func founded(t testing.TB, n int, short bool) *page {
	beginning.Lock()
	defer beginning.Unlock()
	which := 0
	if short {
		which = 1
	}
	if beginning.ada == nil {
		beginning.begin(t)
	}
	p, there := beginning.pages[[2]int{n, which}]
	if !there {
		f := &ledgertest.Fleet{Genesis: beginning.first[which], Ada: beginning.ada}
		f.Log = ledger.New(f.Genesis)
		v := founding(t, f.Genesis, n)
		f.Take(t, f.Proved(ledgertest.Must[ledger.Record](t)(f.Log.State().Next(v)), v, 2))
		p = newPage(nil, f.Log)
		beginning.pages[[2]int{n, which}] = p
	}
	own := *p
	own.next, own.proposed, own.drafts, own.judged = make(map[document.Hash]*page), make(map[*item]error), make(map[string]*drafted), make(map[document.Hash]error)
	return &own
}

func (b *fleetOfRuns) begin(t testing.TB) {
	b.ada = ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	for which := range b.first {
		o := fleet.Founding{Name: "hanse", Threshold: 2, First: &b.ada.PublicKey, Policy: fleet.DefaultPolicy()}
		o.Policy.Votes, o.Policy.Trial = 1000, true
		o.Policy.BreakGlass = document.Duration(10 * time.Minute)
		if which == 1 {
			o.Policy.Queue = document.Duration(brief)
		}
		for i := range 3 {
			o.Owners = append(o.Owners, ledgertest.Private(fmt.Sprintf("owner %d", i+1)).Public().(ed25519.PublicKey))
		}
		for kind, ca := range map[fleet.PeerKind]*[]byte{fleet.KindOperator: &o.OperatorCA, fleet.KindNode: &o.NodeCA} {
			der, _, err := fleet.NewCA("hanse", kind, ledgertest.Today)
			if err != nil {
				t.Fatal(err)
			}
			*ca = der
		}
		b.first[which] = ledgertest.Must[*fleet.Genesis](t)(fleet.NewGenesis(o))
	}
}

// founding seats n nodes with a vote, of which the first runs etcd.
func founding(t testing.TB, g *fleet.Genesis, n int) ledger.Value {
	r := roster.Roster{Version: 1, Rule: roster.RuleFor(n), Given: n}
	r.Owners = []roster.Owner{ledgertest.Must[roster.Owner](t)(ledger.OwnerOf(g))}
	first := ledgertest.Must[document.Hash](t)(document.ParseHash(g.FirstOperatorID()))
	for i := range n {
		s := newSeat(t, i+1, fmt.Sprintf("n%d", i+1))
		s.Member = i == 0
		r.Seats = append(r.Seats, s)
	}
	return ledger.Value{Version: 1, Founding: &ledger.Founding{
		Roster: r, Operators: []ledger.Operator{{Name: "ada", Role: fleet.RoleAdmin, Key: first}},
		Cluster: []ledger.Address{{Seat: 1, Address: netip.MustParseAddrPort("192.0.2.1:7444")}},
	}}
}

func newSeat(t testing.TB, number int, name string) roster.Seat {
	return roster.Seat{Number: number, Name: name, Key: publicKey(t, keyOf(name)), Journal: roster.ID{byte(number), byte(number >> 8)}, Owner: "hanse", Vote: true}
}

// early says whether a kind of decision goes before others.
func early(v ledger.Value) bool {
	row, _ := decision.Of(v.Kind())
	return row.Early()
}
