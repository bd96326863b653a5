package voter

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/voice"
)

// accused are the double votes that this seat can prove. Whoever holds a proof puts it to the vote: no
// operator has to propose that.
type accused struct {
	proofs map[document.Hash]accusation // by the hash of the proof
}

// accusation is one of them.
type accusation struct {
	proof []byte
	since time.Time
	topic document.Hash // of the decision; zero: it leads to none
	over  bool          // it left the queue
}

// Bounds of what is kept: two ballots are enough, and a liar may sign any number.
const (
	maxAccusations = 64
	maxOfSeat      = 4
)

// take keeps a proof whose ballots were verified.
func (a *accused) take(proof []byte) {
	p, err := ballot.ParseProof(proof)
	sum := document.HashOf(proof)
	if _, here := a.proofs[sum]; err != nil || here || len(a.proofs) >= maxAccusations {
		return
	}
	of := 0
	for _, other := range a.proofs {
		if q, err := ballot.ParseProof(other.proof); err == nil && q.One.Seat == p.One.Seat {
			of++
		}
	}
	if of < maxOfSeat {
		a.proofs[sum] = accusation{proof: proof, since: time.Now()}
	}
}

// sorted are the proofs, by their hashes.
func (a *accused) sorted() (all []document.Hash) {
	return slices.SortedFunc(maps.Keys(a.proofs), func(x, y document.Hash) int { return bytes.Compare(x[:], y[:]) })
}

// drop has what left the queue be no item any more.
func (a *accused) drop(topic document.Hash) {
	for sum, one := range a.proofs {
		if one.topic == topic {
			one.over = true
			a.proofs[sum] = one
		}
	}
}

// of is the decision that an accusation leads to.
func (a *accused) of(s ledger.State, topic document.Hash) (ledger.Value, [][]byte, error) {
	for _, sum := range a.sorted() {
		if a.proofs[sum].topic == topic {
			return s.Accuse(a.proofs[sum].proof)
		}
	}
	return ledger.Value{}, nil, ledger.ErrValue
}

// by is the decision that a proof leads to, by its hash.
func (a *accused) by(s ledger.State, sum document.Hash) (ledger.Value, [][]byte, error) {
	if one, here := a.proofs[sum]; here {
		return s.Accuse(one.proof)
	}
	return ledger.Value{}, nil, ledger.ErrValue
}

// shown are the proofs that others are to have.
func (a *accused) shown() (all [][]byte) {
	of := make(map[document.Hash]bool)
	for _, sum := range a.sorted() {
		if one := a.proofs[sum]; !one.over && !one.topic.IsZero() && !of[one.topic] && len(all) < voice.MaxProofs {
			of[one.topic] = true
			all = append(all, one.proof)
		}
	}
	return all
}

// hearProof takes a proof that another seat shows.
func (v *Voter) hearProof(raw []byte) {
	if _, here := v.accused.proofs[document.HashOf(raw)]; here {
		return
	}
	p, err := ballot.ParseProof(raw)
	if err != nil {
		return
	}
	if _, err := p.Check(v.state.Fleet(), v.state.Roster); err == nil {
		v.accused.take(raw)
	}
}

// accusations are the items that no operator has proposed. Of one seat there is one, however often it
// has voted twice; a seat that has no vote any more is accused of nothing.
func (v *Voter) accusations() (items []proposal.Item) {
	known := make(map[document.Hash]bool)
	for _, sum := range v.accused.sorted() {
		one := v.accused.proofs[sum]
		value, _, err := v.state.Accuse(one.proof)
		if err != nil {
			one.topic = document.Hash{}
			v.accused.proofs[sum] = one
			continue
		}
		one.topic = v.state.Topic(value)
		v.accused.proofs[sum] = one
		if one.over || known[one.topic] {
			continue
		}
		known[one.topic] = true
		item := proposal.Item{ID: one.topic, Height: v.state.Height, First: true, Waited: document.Duration(time.Since(one.since))}
		v.opine(one.topic, item, value.Kind(), nil, nil)
		item.Opinions = v.count(one.topic)
		items = append(items, item)
	}
	return items
}
