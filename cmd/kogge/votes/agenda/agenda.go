// Package agenda is what a fleet has on its agenda, in words: the proposals that wait, what each of
// them would change, what owners and seats have said, and what is awaited.
//
// In come the ledger's state, verified from the genesis on, and signed objects from anybody; out go
// items in the order in which they would be decided. Each object counts only if the state says so, and
// none is believed because of who brought it. What is decided next is update/fleet/proposal's to say,
// and what a decision lacks the ledger's; the package reads no clock, so it knows no deadline.
package agenda

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Agenda is what waits.
type Agenda struct {
	State ledger.State
	Items []Item // as they would be decided
	// Opinions says that seats have said something of any of them: else nobody was asked that knows.
	Opinions bool
	Refused  int // objects that count for nothing here

	known [][]byte // answers, requests and opinions
}

// Item is a proposal that waits. Its words may be a stranger's.
type Item struct {
	Number   uint64 // as people call it
	ID       document.Hash
	Kind     decision.Kind
	By       string // the operator
	Why      string // as he says
	Height   int64  // of the ledger when it was made
	Value    ledger.Value
	Envelope signed.Envelope

	Changes []string // what it would change
	// Wrong says why it cannot be decided as the ledger is now; "": it can.
	Wrong string
	// Lacks is what it needs besides votes, and has not got; "": nothing.
	Lacks string
	Early bool // it goes before others
	// Owners are those to whom votes belong, and who get other keys, by name.
	Owners []Owner
	Seats  []Seat // that have a vote, by number
	Valid  int    // so many of them call it valid
	Bad    int    // so many invalid
	Ready  int    // so many are ready
	// Awaits is what stands between it and its decision, Next what happens then.
	Awaits, Next string
}

// Owner is what an owner says to a proposal.
type Owner struct {
	Name   string
	Votes  int
	Answer *proposal.Answer // the newest by the keys that are his; nil: he has not answered
	// New says whether the proposal gives him keys, and Has that they have said yes.
	New, Has bool
}

// Seat is what a seat says to a proposal.
type Seat struct {
	Number      int
	Node, Owner string
	Says        Says
	Why         []string // its own reasons
	Awaits      string   // why it says nothing, as far as that is known
}

// Says is a seat's opinion.
type Says string

// The opinions of seats.
const (
	Nothing  Says = "nothing"
	Valid    Says = "valid"     // and ready
	NotReady Says = "not ready" // and valid
	Invalid  Says = "invalid"
)

// Read reads what nodes have. Objects may come in any order, and several times.
func Read(s ledger.State, objects [][]byte) Agenda {
	a := Agenda{State: s}
	set, opinions := docket.New(), make(map[document.Hash]signed.Envelope)
	var later [][]byte
	for _, raw := range objects {
		switch kindOf(raw) {
		case proposal.Kind:
			if _, err := set.Put(raw, s); err != nil {
				a.Refused++
			}
		case proposal.OpinionKind:
			a.hear(opinions, raw)
		default: // what others are about is there by now
			later = append(later, raw)
		}
	}
	for _, raw := range later {
		if _, err := set.Put(raw, s); err != nil {
			a.Refused++
		}
	}
	said := slices.SortedFunc(maps.Values(opinions), func(x, y signed.Envelope) int { return bytes.Compare(x.Bytes(), y.Bytes()) })
	a.known = set.Known()
	for _, o := range said {
		a.known = append(a.known, o.Bytes())
	}
	a.Opinions = len(said) > 0
	waiting := make(map[document.Hash]Item)
	var queue []proposal.Item
	for _, p := range set.Proposals() {
		one, of := a.item(p, said, set)
		waiting[one.ID], queue = one, append(queue, of)
	}
	// How long they have waited each seat counts for itself, and so here nothing is late.
	turn := proposal.Queue(s.Roster, queue, s.Policy.Queue)
	for _, w := range turn.Waits {
		one := waiting[w.Item.ID]
		one.Awaits = w.Why
		one.foresee(s)
		one.asks(s)
		a.Items = append(a.Items, one)
	}
	for _, l := range turn.Left {
		one := waiting[l.Item.ID]
		one.Next = "it leaves the queue, and nothing comes of it: " + l.Why
		a.Items = append(a.Items, one)
	}
	return a
}

// kindOf is the kind of an envelope; "": it is none.
func kindOf(raw []byte) string {
	e, err := signed.Parse(raw)
	if err != nil {
		return ""
	}
	return e.Kind
}

// hear takes what a seat thinks.
func (a *Agenda) hear(all map[document.Hash]signed.Envelope, raw []byte) {
	e, err := signed.Open(raw)
	if err == nil {
		_, _, err = proposal.OpenOpinion(e, a.State.Fleet(), a.State.Roster)
	}
	if err != nil {
		a.Refused++
		return
	}
	all[document.HashOf(raw)] = e
}

// item is a proposal as it is shown, and as the queue has it.
func (a *Agenda) item(p docket.Open, said []signed.Envelope, set *docket.Set) (Item, proposal.Item) {
	s := a.State
	one := Item{
		Number: p.Number, ID: p.ID, Kind: p.Value.Kind(), By: p.Operator.Name, Height: p.Height, Value: p.Value, Envelope: p.Envelope,
		Changes: Changes(s, p.Value),
	}
	row, _ := decision.Of(one.Kind)
	one.Early = row.Early()
	if said, _, err := proposal.Open(p.Envelope, s.Fleet()); err == nil {
		one.Why = said.Why
	}
	if _, _, err := s.Proposed(p.Envelope); err != nil {
		one.Wrong = Plain(err)
	} else if _, _, err := s.Gather(p.Envelope, a.known); err != nil {
		one.Lacks = Plain(err)
	}
	opinions := proposal.Count(said, s.Fleet(), s.Roster, p.ID)
	one.Owners = a.owners(p)
	one.seats(s, opinions, set)
	return one, proposal.Item{ID: p.ID, Number: one.Number, Height: p.Height, First: one.Early, Lacks: one.Lacks, Opinions: opinions}
}

// owners are who has to be asked about a proposal, and what they have said.
func (a *Agenda) owners(p docket.Open) (all []Owner) {
	s := a.State
	var answers []proposal.Answer
	has := make(map[string]bool)
	for _, raw := range a.known {
		if !bytes.HasPrefix(raw, []byte("{")) {
			continue
		}
		answer, _, fresh, err := s.Consents(p.Value, raw)
		switch {
		case err != nil || answer.Proposal != p.ID:
		case fresh:
			has[answer.Owner] = answer.Yes
		default:
			answers = append(answers, answer)
		}
	}
	gets := make(map[string]bool)
	for _, o := range newOwners(p.Value) {
		gets[o.Name] = true
	}
	names := slices.Collect(maps.Keys(gets))
	for _, o := range s.Roster.Owners {
		if !gets[o.Name] {
			names = append(names, o.Name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		one := Owner{Name: name, Votes: s.Roster.VotesOf(func(of string) bool { return of == name }), New: gets[name], Has: has[name]}
		if newest, ok := proposal.Newest(answers, p.ID, name); ok {
			one.Answer = &newest
		}
		if one.Votes > 0 || one.New || one.Answer != nil || name == s.Genesis.Name && p.Value.Isolate != nil {
			all = append(all, one)
		}
	}
	return all
}

// newOwners are those to whom a value gives keys.
func newOwners(v ledger.Value) []roster.Owner {
	switch {
	case v.Owners != nil:
		return []roster.Owner{v.Owners.Owner}
	case v.Seat != nil:
		return v.Seat.Owners
	}
	return nil
}

// seats notes what each seat with a vote says, or what it may wait for.
func (i *Item) seats(s ledger.State, opinions proposal.Opinions, set *docket.Set) {
	for _, seat := range s.Roster.Seats {
		if !seat.Vote {
			continue
		}
		one := Seat{Number: seat.Number, Node: seat.Name, Owner: seat.Owner, Says: Nothing}
		o, has := opinions[seat.Number]
		switch {
		case has && !o.Valid:
			one.Says, one.Why = Invalid, o.Why
			i.Bad++
		case has && !o.Ready:
			one.Says, one.Why = NotReady, o.Why
			i.Valid++
		case has:
			one.Says = Valid
			i.Valid++
			i.Ready++
		default:
			own, _ := set.Votes(seat.Key)
			one.Awaits = awaits(proposal.VoteOn(i.Kind, own.Votes), i.answer(seat.Owner), i.Number, seat.Owner)
		}
		i.Seats = append(i.Seats, one)
	}
}

// answer is what an owner has answered; nil: nothing.
func (i *Item) answer(owner string) *proposal.Answer {
	for _, o := range i.Owners {
		if o.Name == owner {
			return o.Answer
		}
	}
	return nil
}

// awaits is why a seat may say nothing, by how its node votes: as its owner has set it with a signature, else by the
// table. What its seed says is its own, and not known here.
func awaits(vote decision.Vote, answer *proposal.Answer, number uint64, owner string) string {
	ask := "owner " + owner + ": kogge vote yes " + strconv.FormatUint(number, 10)
	switch {
	case vote.Way == decision.Never:
		return "nothing: the node's vote is " + vote.String()
	case answer != nil, vote.Way == decision.Auto:
		return "the node's word"
	case vote.Way == decision.After:
		return vote.After.String() + " of running time, or " + ask
	}
	return ask
}

// foresee says what happens next.
func (i *Item) foresee(s ledger.State) {
	n, q := s.Roster.Votes(), s.Roster.Quorum()
	switch {
	case i.Wrong != "":
		i.Awaits = ""
		i.Next = "the seats call it invalid, and it leaves the queue: " + i.Wrong
	case i.Awaits == "":
		i.Next = fmt.Sprintf("the seats vote on it: it is decided when %d of %d have, as record %d", q, n, s.Height+1)
	case i.Lacks != "" && i.Lacks != i.Awaits:
		i.Next = "it still lacks this: " + i.Lacks
	default:
		i.Next = fmt.Sprintf("it is voted on when that is there; without, it leaves the queue after %s", s.Policy.Queue)
	}
}

// asks says of whom an answer is awaited, where votes are: by the table, as how nodes vote is their own.
func (i *Item) asks(s ledger.State) {
	row, _ := decision.Of(i.Kind)
	if i.Wrong != "" || i.Valid >= s.Roster.Quorum() || row.Vote.Way != decision.Ask {
		return
	}
	var silent []string
	for _, o := range i.Owners {
		if o.Votes > 0 && o.Answer == nil {
			silent = append(silent, "owner "+o.Name)
		}
	}
	if len(silent) > 0 {
		i.Awaits = fmt.Sprintf("%s: kogge vote yes %d; %s", strings.Join(silent, ", "), i.Number, i.Awaits)
	}
}

// Plain is an error about a value or a proposal without the words in front that say which of them it is.
func Plain(err error) string {
	text := err.Error()
	for _, of := range []error{proposal.ErrProposal, ledger.ErrValue} {
		text = strings.TrimPrefix(text, of.Error()+": ")
	}
	return text
}

// Number is the lowest number above those of all proposals that wait, and of those on which the ledger's records
// rest.
func (a Agenda) Number(entries []ledger.Entry) uint64 {
	most := uint64(0)
	for _, one := range a.Items {
		most = max(most, one.Number)
	}
	for _, e := range entries {
		c, err := ledger.ParseCertificate(e.Certificate)
		if err != nil {
			continue
		}
		for _, raw := range c.Evidence {
			if e, err := signed.Parse(raw); err == nil && e.Kind == proposal.Kind {
				most = max(most, e.Sequence)
			}
		}
	}
	return most + 1
}

// Lacking is what a proposal needs besides votes that it has not got, with more objects beside those that
// are known; nil: nothing. The error is that of [ledger.State.Gather].
func (a Agenda) Lacking(e signed.Envelope, more ...[]byte) error {
	_, _, err := a.State.Gather(e, append(slices.Clone(a.known), more...))
	return err
}

// minDigits is how many digits of an id tell a proposal, at least.
const minDigits = 12

// Find is the item that people call by a number, or by the first digits of its id.
func (a Agenda) Find(name string) (Item, error) {
	var found []Item
	number, err := strconv.ParseUint(name, 10, 64)
	for _, one := range a.Items {
		if err == nil && one.Number == number || len(name) >= minDigits && strings.HasPrefix(one.ID.String(), name) {
			found = append(found, one)
		}
	}
	switch len(found) {
	case 0:
		return Item{}, fmt.Errorf("no proposal %.64q waits", name)
	case 1:
		return found[0], nil
	}
	slices.SortFunc(found, func(x, y Item) int { return cmp.Compare(x.ID.String(), y.ID.String()) })
	var ids []string
	for _, one := range found {
		ids = append(ids, fmt.Sprintf("%s by %s", one.ID.Short(), one.By))
	}
	return Item{}, fmt.Errorf("%d proposals have number %s: %s", len(found), name, strings.Join(ids, ", "))
}
