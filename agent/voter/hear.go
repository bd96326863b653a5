package voter

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"maps"
	"slices"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/voice"
	"kogge.example/update/fleet/vote"
)

// opinions are what seats think.
type opinions struct {
	own   map[document.Hash]signed.Envelope // by proposal
	heard map[document.Hash]signed.Envelope // verified, by the hash of their bytes
	of    map[topicOf][]document.Hash       // those of a seat about a proposal: two at most
	last  map[signed.Key]uint64             // the number of what of a seat was read
	left  []signed.Envelope                 // own ones of what does not wait here any more, the newest first
}

// topicOf is what opinions of a seat are about.
type topicOf struct {
	by       signed.Key
	proposal document.Hash
}

func newOpinions() opinions {
	return opinions{own: make(map[document.Hash]signed.Envelope), heard: make(map[document.Hash]signed.Envelope), of: make(map[topicOf][]document.Hash), last: make(map[signed.Key]uint64)}
}

// maxLeft is of how many proposals that left the queue the seat still says what it thinks: where they
// wait still, others count on it.
const maxLeft = voice.MaxOpinions / 2

// settle takes what the seat thinks of what does not wait any more from what it thinks of the rest.
func (o *opinions) settle(waits map[document.Hash]bool) {
	for _, id := range slices.SortedFunc(maps.Keys(o.own), func(a, b document.Hash) int { return bytes.Compare(a[:], b[:]) }) {
		if !waits[id] {
			o.left = slices.Insert(o.left, 0, o.own[id])
			delete(o.own, id)
		}
	}
	o.left = o.left[:min(len(o.left), maxLeft)]
}

// hear takes what other seats say that was not read yet.
func (v *Voter) hear() {
	for _, e := range v.config.Shelf.Objects(voice.OpinionsKind) {
		v.hearOpinions(e)
	}
	again := v.machine.Round != v.offeredIn
	if v.offeredIn = v.machine.Round; again { // the machine keeps none of a round far ahead
		for _, b := range v.offered {
			v.step(vote.Received{Ballot: b})
		}
	}
	asked := make(map[document.Hash]bool)
	for _, e := range v.config.Shelf.Objects(voice.BallotsKind) {
		if e.By == v.config.Self {
			continue
		}
		if says := v.read(e); says != nil {
			v.hearBallots(e.By, *says)
			asked[says.Nonce] = true
		}
	}
	for nonce := range v.answered {
		if !asked[nonce] {
			delete(v.answered, nonce)
		}
	}
}

// read is what a seat shows; nil: a later release says it. It is read once.
func (v *Voter) read(e signed.Envelope) *voice.Ballots {
	if was, ok := v.words[e.By]; ok && was.number == e.Sequence {
		return was.says
	}
	is := word{number: e.Sequence}
	if says, err := voice.ParseBallots(e.Body); err == nil {
		is.says = &says
	}
	v.words[e.By] = is
	return is.says
}

// word is what a seat has said under a number.
type word struct {
	number uint64
	says   *voice.Ballots
}

func (v *Voter) hearOpinions(e signed.Envelope) {
	if v.opinions.last[e.By] == e.Sequence {
		return
	}
	v.opinions.last[e.By] = e.Sequence
	says, err := voice.ParseOpinions(e.Body)
	if err != nil {
		return // of a later release
	}
	for _, raw := range says.Opinions {
		o, err := signed.Parse(raw)
		if err != nil || o.By != e.By || o.Kind != proposal.OpinionKind || o.Verify() != nil {
			return // an honest seat says no such thing, and each costs a signature
		}
		v.opinions.take(o)
	}
}

// take keeps an opinion, in the place of an older one of the seat about the same. The last but one stays,
// too: somebody's draft may rest on it.
func (o *opinions) take(e signed.Envelope) {
	said, err := proposal.ParseOpinion(e.Body)
	if err != nil {
		return
	}
	at := topicOf{e.By, said.Proposal}
	sum := document.HashOf(e.Bytes())
	if _, here := o.heard[sum]; here {
		return
	}
	o.heard[sum] = e
	o.of[at] = append(o.of[at], sum)
	if all := o.of[at]; len(all) > 2 {
		oldest := slices.MinFunc(all, func(a, b document.Hash) int { return cmp.Compare(o.heard[a].Sequence, o.heard[b].Sequence) })
		delete(o.heard, oldest)
		o.of[at] = slices.DeleteFunc(all, func(h document.Hash) bool { return h == oldest })
	}
}

// forget lets opinions go of what does not wait.
func (o *opinions) forget(waits map[document.Hash]bool) {
	for at, all := range o.of {
		if waits[at.proposal] {
			continue
		}
		for _, sum := range all {
			delete(o.heard, sum)
		}
		delete(o.of, at)
	}
}

// hearBallots takes a seat's ballots, the drafts that they are about, its question and its answers.
func (v *Voter) hearBallots(by signed.Key, says voice.Ballots) {
	for _, raw := range says.Ballots {
		sum := document.HashOf(raw)
		if v.offered[sum] != nil {
			continue
		}
		b, err := ballot.Open(raw, v.machine.At)
		if errors.Is(err, ballot.ErrSignature) {
			return // an honest seat passes on no such ballot, and each costs a signature
		}
		if err != nil || b.Height < v.machine.At.Number || !v.room(b) {
			continue
		}
		v.offered[sum] = b
		v.step(vote.Received{Ballot: b})
		v.news(by, b)
	}
	for _, raw := range says.Proofs {
		v.hearProof(raw)
	}
	for _, d := range says.Drafts {
		if says.Height == v.machine.At.Number {
			v.draft(d)
		}
	}
	for _, raw := range says.Answers {
		if !v.machine.Asking {
			break
		}
		a, err := ballot.OpenAnswer(raw, v.machine.At, v.question())
		if err == nil {
			v.step(vote.Answered{Answer: a})
		}
	}
	if seat, ok := v.state.Roster.ByKey(by); ok && !says.Nonce.IsZero() {
		v.answer(ballot.Question{Nonce: says.Nonce, Seat: seat.Number})
	}
}

// maxOffered is how many ballots of a seat are kept to be offered to the machine again. An honest seat
// casts three in a round.
const maxOffered = 1024

// room says whether one more ballot of a seat is kept; those of rounds that are over make room.
func (v *Voter) room(b *ballot.Ballot) bool {
	of := 0
	for _, o := range v.offered {
		if o.Seat == b.Seat {
			of++
		}
	}
	if of < maxOffered {
		return true
	}
	for sum, o := range v.offered {
		if o.Seat == b.Seat && o.Round < v.machine.Round-1 {
			delete(v.offered, sum)
			of--
		}
	}
	return of < maxOffered
}

// maxNews is how often a seat ends the rest of fruitless rounds at a height, by saying something: one
// that comes back, and not a liar for ever.
const maxNews = 3

// news ends the rest of fruitless rounds once a seat votes that did not.
func (v *Voter) news(by signed.Key, b *ballot.Ballot) {
	if seat, ok := v.state.Roster.ByKey(by); ok && seat.Number == b.Seat && v.machine.Phase == vote.Resting && v.woken[by] < maxNews {
		v.woken[by]++
		v.step(vote.News{})
	}
}

// answer answers the question of another seat, once.
func (v *Voter) answer(q ballot.Question) {
	if v.answered[q.Nonce] == nil && v.machine.At.Index(q.Seat) >= 0 && v.machine.At.Index(v.machine.Self) >= 0 {
		v.answered[q.Nonce] = v.config.SignAnswer(v.machine.Answer(q)).Bytes()
	}
}

// ask asks the others for the newest ballots of this seat that they have seen.
func (v *Voter) ask() { _, _ = rand.Read(v.nonce[:]) }

func (v *Voter) question() ballot.Question {
	return ballot.Question{Nonce: v.nonce, Seat: v.machine.Self}
}
