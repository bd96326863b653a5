package voter

import (
	"bytes"
	"slices"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/voice"
	"kogge.example/update/fleet/vote"
)

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
	slices.SortFunc(says.Drafts, func(a, b voice.Draft) int {
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
