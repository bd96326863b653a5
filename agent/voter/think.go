package voter

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"maps"
	"slices"

	"kogge.example/agent/docket"
	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/voice"
	"kogge.example/update/fleet/vote"
)

// Says is what a draft says to others.
type Says = voice.Draft

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

// known are the objects on which decisions may rest.
func (v *Voter) known() [][]byte {
	all := v.config.Docket.Known()
	var opinions [][]byte
	for _, o := range v.opinions.heard {
		opinions = append(opinions, o.Bytes())
	}
	slices.SortFunc(opinions, bytes.Compare)
	return append(slices.Clip(all), opinions...)
}

// think has an opinion of each proposal, and looks what is decided next.
func (v *Voter) think() {
	known, open := v.known(), v.config.Docket.Open()
	var items []proposal.Item
	var kept []signed.Envelope
	for _, p := range open {
		items = append(items, v.item(p, known))
	}
	items = append(items, v.accusations()...)
	for i := range items {
		items[i].Vain = v.inVain(items[i])
	}
	v.turn = proposal.Queue(v.state.Roster, items, v.state.Policy.Queue)
	for _, left := range v.turn.Left {
		if left.Item.Number > 0 {
			v.config.Logf("vote: proposal %d leaves the queue: %s", left.Item.Number, left.Why)
			v.config.Docket.Drop(left.Item.ID, left.Why)
		} else {
			v.accused.drop(left.Item.ID)
		}
	}
	ids := make(map[document.Hash]bool)
	for _, w := range v.turn.Waits {
		ids[w.Item.ID] = true
	}
	v.opinions.settle(ids)
	v.opinions.forget(ids)
	for _, w := range v.turn.Waits {
		if o, ok := v.opinions.own[w.Item.ID]; ok && len(kept) < voice.MaxOpinions {
			kept = append(kept, o)
		}
	}
	for _, o := range v.opinions.left {
		if len(kept) < voice.MaxOpinions {
			kept = append(kept, o)
		}
	}
	v.say(voice.OpinionsKind, opinionsOf(kept).Encode(), len(kept) == 0)
	value := ballot.Nil
	v.next = document.Hash{}
	if next := v.turn.Next; next != nil {
		v.next = next.ID
		value = v.put(next.ID, open, known)
	}
	if value != v.machine.Item {
		v.step(vote.Item{Value: value})
	}
}

func opinionsOf(all []signed.Envelope) (o voice.Opinions) {
	for _, e := range all {
		o.Opinions = append(o.Opinions, e.Bytes())
	}
	return o
}

// item is a proposal as it stands in the queue, with this seat's own opinion of it.
func (v *Voter) item(p docket.Waiting, known [][]byte) proposal.Item {
	id := p.ID
	item := proposal.Item{ID: id, Number: p.Envelope.Sequence, Height: p.Height, Waited: p.Waited}
	if p.Height > v.state.Height {
		item.Lacks = "this node has not caught up with the ledger"
		return item
	}
	value, _, invalid := v.state.Proposed(p.Envelope)
	if invalid == nil {
		if _, _, err := v.state.Gather(p.Envelope, known); err != nil {
			item.Lacks = err.Error()
		}
	}
	v.opine(id, item, value.Kind(), invalid, known)
	item.Opinions = v.count(id)
	return item
}

// count is what seats think of a proposal, as far as this one has heard.
func (v *Voter) count(id document.Hash) proposal.Opinions {
	var said []signed.Envelope
	for _, o := range v.opinions.heard {
		said = append(said, o)
	}
	return proposal.Count(said, v.state.Fleet(), v.state.Roster, id)
}

// inVain says whether more rounds about an item have ended with nothing than a network that is whole
// needs, and nobody has said anything new about it since.
func (v *Voter) inVain(item proposal.Item) bool {
	m := v.machine
	if item.ID == v.next && m.Item != ballot.Nil && (m.Phase == vote.Resting || m.Phase == vote.Running && int(m.Round) > m.At.Liars+3) {
		if _, noted := v.vain[item.ID]; !noted {
			v.vain[item.ID] = len(item.Opinions)
		}
	}
	said, noted := v.vain[item.ID]
	if noted && len(item.Opinions) > said {
		delete(v.vain, item.ID)
		return false
	}
	return noted
}

// opine signs this seat's opinion, if it has one and said another before.
func (v *Voter) opine(id document.Hash, item proposal.Item, kind decision.Kind, invalid error, known [][]byte) {
	seat, ok := v.state.Roster.ByKey(v.config.Self)
	if !ok || !seat.Vote {
		return
	}
	c := proposal.Case{Vote: v.config.Votes(kind), Invalid: invalid, Owner: seat.Owner, Seen: item.Waited, Number: item.Number}
	if owner, err := v.state.OwnerFor(seat.Key); err == nil {
		c.Owner = owner.Name
		var answers []proposal.Answer
		for _, raw := range known {
			if bytes.HasPrefix(raw, []byte("{")) {
				if a, err := v.state.Answered(kind, raw); err == nil {
					answers = append(answers, a)
				}
			}
		}
		if a, ok := proposal.Newest(answers, id, owner.Name); ok {
			c.Answer = &a
		}
	}
	o, _, ok := proposal.Consider(c)
	if !ok {
		return
	}
	o.Proposal, o.Height = id, v.state.Height
	if was, ok := v.opinions.own[id]; ok {
		if said, err := proposal.ParseOpinion(was.Body); err == nil && said.Valid == o.Valid && said.Ready == o.Ready && slices.Equal(said.Why, o.Why) && said.Height == o.Height {
			return
		}
	}
	e, err := v.config.Opine(o)
	if err != nil {
		v.config.Logf("vote: an opinion of proposal %d: %v", item.Number, err)
		return
	}
	v.opinions.own[id] = e
	v.opinions.take(e)
}

// put makes the draft of a proposal, as this seat would put it forward.
func (v *Voter) put(id document.Hash, open []docket.Waiting, known [][]byte) document.Hash {
	for _, p := range open {
		if p.ID != id {
			continue
		}
		value, evidence, err := v.state.Gather(p.Envelope, known)
		if err != nil {
			return ballot.Nil
		}
		return v.keep(id, value, evidence)
	}
	if value, evidence, err := v.accused.of(v.state, id); err == nil {
		return v.keep(id, value, evidence)
	}
	return ballot.Nil
}

// keep keeps a draft, and says which record it is of.
func (v *Voter) keep(id document.Hash, value ledger.Value, evidence [][]byte) document.Hash {
	record, err := v.state.Next(value)
	if err != nil {
		return ballot.Nil
	}
	d := draft{says: Says{Proposal: id}, record: record, value: value, evidence: evidence}
	for _, e := range evidence {
		d.says.Evidence = append(d.says.Evidence, document.HashOf(e))
	}
	v.drafts[record.Hash()] = d
	return record.Hash()
}

// draft takes what another seat says that a record is, if all on which it rests is here.
func (v *Voter) draft(says Says) {
	for _, d := range v.drafts {
		if d.says.Proposal == says.Proposal && slices.Equal(d.says.Evidence, says.Evidence) {
			return
		}
	}
	if len(says.Evidence) == 1 {
		if value, evidence, err := v.accused.by(v.state, says.Evidence[0]); err == nil && v.state.Topic(value) == says.Proposal {
			v.keep(says.Proposal, value, evidence)
			return
		}
	}
	have := make(map[document.Hash][]byte)
	for _, raw := range v.known() {
		have[document.HashOf(raw)] = raw
	}
	for _, p := range v.config.Docket.Open() {
		have[document.HashOf(p.Envelope.Bytes())] = p.Envelope.Bytes()
		if p.ID != says.Proposal {
			continue
		}
		value, _, err := v.state.Proposed(p.Envelope)
		if err != nil {
			return
		}
		var evidence [][]byte
		for _, sum := range says.Evidence {
			if sum == document.HashOf(p.Envelope.Bytes()) {
				have[sum] = p.Envelope.Bytes()
			}
			if have[sum] == nil {
				return // it comes: the same carriers bring it
			}
			evidence = append(evidence, have[sum])
		}
		v.keep(says.Proposal, value.Resting(evidence), evidence)
		return
	}
}

// judge answers what the machine has asked, once it is known what the record is.
func (v *Voter) judge() {
	if v.wants == nil {
		return
	}
	d, ok := v.drafts[v.wants.Value]
	if !ok {
		return
	}
	valid := v.state.Judge(d.value, d.evidence, v.known()...) == nil && v.finds(d.says.Proposal)
	wants := *v.wants
	v.wants = nil
	v.step(vote.Judged{Height: wants.Height, Round: wants.Round, Value: wants.Value, Valid: valid})
}

// finds says whether this seat's own opinion is that a proposal is valid.
func (v *Voter) finds(id document.Hash) bool {
	own, ok := v.opinions.own[id]
	if !ok {
		return false
	}
	o, err := proposal.ParseOpinion(own.Body)
	return err == nil && o.Valid
}

// speak says what this seat shows of the vote.
func (v *Voter) speak() {
	m := v.machine
	if m.At.Index(m.Self) < 0 {
		return
	}
	says := voice.Ballots{Height: m.At.Number}
	wanted := map[document.Hash]bool{m.Item: m.Phase == vote.Running, m.Valid.Value: true, m.Locked.Value: true}
	for _, b := range m.Shown() {
		if len(says.Ballots) < voice.MaxBallots {
			says.Ballots = append(says.Ballots, b.Bytes())
		}
		wanted[b.Value] = true
	}
	for record, d := range v.drafts {
		if wanted[record] && len(says.Drafts) < voice.MaxDrafts {
			says.Drafts = append(says.Drafts, d.says)
		}
	}
	slices.SortFunc(says.Drafts, func(a, b Says) int {
		return bytes.Compare(document.Message("", a.Proposal[:], hashes(a.Evidence)), document.Message("", b.Proposal[:], hashes(b.Evidence)))
	})
	if m.Asking {
		says.Nonce = v.nonce
	}
	for _, raw := range v.answered {
		says.Answers = append(says.Answers, raw)
	}
	slices.SortFunc(says.Answers, bytes.Compare)
	says.Answers = says.Answers[:min(len(says.Answers), voice.MaxAnswers)]
	says.Proofs = v.accused.shown()
	nothing := len(says.Ballots)+len(says.Answers)+len(says.Proofs) == 0 && !m.Asking
	v.say(voice.BallotsKind, v.fit(says), nothing)
}

// overhead is what an envelope needs besides its body, in bytes.
const overhead = 512

// fit is what the seat shows, as far as there is room: what others have cast goes first, and of its own
// the oldest.
func (v *Voter) fit(says voice.Ballots) []byte {
	limit := v.config.Shelf.Limit(voice.BallotsKind) - overhead
	for {
		body := says.Encode()
		if len(body) <= limit || len(says.Ballots) == 0 {
			return body
		}
		out := 0
		for i, raw := range says.Ballots {
			if b, err := ballot.Parse(raw); err == nil && b.Seat != v.machine.Self {
				out = i
				break
			}
		}
		says.Ballots = slices.Delete(slices.Clone(says.Ballots), out, out+1)
	}
}

func hashes(all []document.Hash) (joined []byte) {
	for _, h := range all {
		joined = append(joined, h[:]...)
	}
	return joined
}

// say says something under a kind, if it said something else before. Of nothing that follows on
// nothing others need not hear.
func (v *Voter) say(kind string, body []byte, nothing bool) {
	if was, said := v.said[kind]; was == string(body) || !said && nothing {
		return
	}
	if err := v.config.Shelf.Say(kind, body); err != nil {
		if v.ctx.Err() == nil {
			v.config.Logf("vote: %v", err)
		}
		return
	}
	v.said[kind] = string(body)
}
