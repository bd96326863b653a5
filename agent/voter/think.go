package voter

import (
	"bytes"
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
	d := draft{says: voice.Draft{Proposal: id}, record: record, value: value, evidence: evidence}
	for _, e := range evidence {
		d.says.Evidence = append(d.says.Evidence, document.HashOf(e))
	}
	v.drafts[record.Hash()] = d
	return record.Hash()
}

// draft takes what another seat says that a record is, if all on which it rests is here.
func (v *Voter) draft(says voice.Draft) {
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
