package ballot_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/golden"
)

// height is one that the four seats of a fleet decide, with the same names in each run.
func height(t testing.TB) ballot.Height {
	h := ledgertest.Founded(t, 4, 1).Log.State().Ballots()
	h.Fleet, h.Record, h.Tree = document.HashOf([]byte("fleet")), document.HashOf([]byte("record 1")), document.HashOf([]byte("tree 1"))
	return h
}

func cast(h ballot.Height, k ballot.Kind, round int32, value document.Hash, seat int) *ballot.Ballot {
	return ballot.Ballot{Words: h.Words(k, round, value, ballot.Fresh), Seat: seat}.Sign(ledgertest.Private(fmt.Sprintf("n%d", seat)))
}

// TestBytes has ballots, a proof and an answer as they travel: what one release writes, the next one reads.
func TestBytes(t *testing.T) {
	h := height(t)
	value := document.HashOf([]byte("a record"))
	proposal := ballot.Ballot{Words: h.Words(ballot.Proposal, 3, value, 1), Seat: 2}.Sign(ledgertest.Private("n2"))
	prevote, other := cast(h, ballot.Prevote, 3, value, 1), cast(h, ballot.Prevote, 3, ballot.Nil, 1)
	question := ballot.Question{Nonce: [32]byte{1, 2, 3}, Seat: 1}
	answer := ballot.Answer{Question: question, Fleet: h.Fleet, By: 3, At: h.Number, Ballot: prevote}.Sign(ledgertest.Private("n3"))
	var b strings.Builder
	for _, one := range []struct {
		what  string
		bytes []byte
	}{
		{"proposal", proposal.Bytes()}, {"prevote", prevote.Bytes()}, {"prevote of nil", other.Bytes()},
		{"precommit", cast(h, ballot.Precommit, 3, value, 4).Bytes()}, {"proof", ballot.Proof{prevote, other}.Bytes()}, {"answer", answer.Bytes()},
	} {
		fmt.Fprintf(&b, "%s\n%s\n", one.what, hex.EncodeToString(one.bytes))
	}
	golden.Compare(t, "v1.txt", b.String())
	for _, c := range []*ballot.Ballot{proposal, prevote, other} {
		if got, err := ballot.Open(c.Bytes(), h); err != nil || got.Words != c.Words || got.Seat != c.Seat {
			t.Errorf("%v is read as %v: %v", c, got, err)
		}
	}
	if got, err := ballot.OpenAnswer(answer.Bytes(), h, question); err != nil || got.Ballot == nil || got.Ballot.Words != prevote.Words || got.By != 3 {
		t.Errorf("%v: %v", got, err)
	}
}

// TestRefused is what is taken for no ballot of a fleet's voters, and why.
func TestRefused(t *testing.T) {
	h := height(t)
	value := document.HashOf([]byte("a record"))
	good := cast(h, ballot.Prevote, 3, value, 1)
	with := func(change func(*ballot.Words)) []byte {
		b := *good
		change(&b.Words)
		return b.Sign(ledgertest.Private("n1")).Bytes()
	}
	raw := good.Bytes()
	flipped := bytes.Clone(raw)
	flipped[len(flipped)-1] ^= 1
	other := good.Bytes()
	other[len(other)-64-1] = 2 // the seat's number
	var b strings.Builder
	for _, c := range []struct {
		what string
		raw  []byte
	}{
		{"whole", raw}, {"nothing", nil}, {"a byte less", raw[:len(raw)-1]}, {"a byte more", append(bytes.Clone(raw), 0)},
		{"another signature", flipped}, {"another seat's", other},
		{"another fleet", with(func(w *ballot.Words) { w.Fleet = value })}, {"height 0", with(func(w *ballot.Words) { w.Height = 0 })},
		{"a round beyond all", with(func(w *ballot.Words) { w.Round = ballot.MaxRound + 1 })},
		{"a seat without a vote", ballot.Ballot{Words: good.Words, Seat: 9}.Sign(ledgertest.Private("n9")).Bytes()},
		{"another document", document.Message("kogge/notice/v1", value[:])},
		{"a proposal whose valid round comes after it", ballot.Ballot{Words: h.Words(ballot.Proposal, 1, value, 1), Seat: 1}.Sign(ledgertest.Private("n1")).Bytes()},
	} {
		_, err := ballot.Open(c.raw, h)
		fmt.Fprintf(&b, "%s: %v\n", c.what, err)
	}
	golden.Compare(t, "refused.txt", b.String())
}

// TestProof is which two ballots prove that a seat has voted twice.
func TestProof(t *testing.T) {
	h := height(t)
	seats := roster.Roster{Version: 1, Rule: roster.TwoThirds, Seats: h.Voters}
	one, two := document.HashOf([]byte("one")), document.HashOf([]byte("two"))
	a := cast(h, ballot.Precommit, 3, one, 2)
	for what, c := range map[string]struct {
		other *ballot.Ballot
		seats roster.Roster
		good  bool
	}{
		"two values":     {cast(h, ballot.Precommit, 3, two, 2), seats, true},
		"a value, nil":   {cast(h, ballot.Precommit, 3, ballot.Nil, 2), seats, true},
		"the same":       {a, seats, false},
		"another round":  {cast(h, ballot.Precommit, 4, two, 2), seats, false},
		"another kind":   {cast(h, ballot.Prevote, 3, two, 2), seats, false},
		"another seat's": {cast(h, ballot.Precommit, 3, two, 3), seats, false},
		"no vote":        {cast(h, ballot.Precommit, 3, two, 2), roster.Roster{Seats: h.Voters[:1]}, false},
		"a forged one":   {&ballot.Ballot{Words: h.Words(ballot.Precommit, 3, two, ballot.Fresh), Seat: 2, Signature: a.Signature}, seats, false},
	} {
		p, err := ballot.ParseProof(ballot.Proof{c.other, a}.Bytes())
		if err == nil {
			var seat roster.Seat
			if seat, err = p.Check(h.Fleet, c.seats); err == nil && seat.Number != 2 {
				t.Errorf("%s: it is of seat %d", what, seat.Number)
			}
		}
		if c.good != (err == nil) || err != nil && !errors.Is(err, ballot.ErrProof) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzParse has bytes of strangers be read: what is taken has one spelling.
func FuzzParse(f *testing.F) {
	h := height(f)
	value := document.HashOf([]byte("a record"))
	b := cast(h, ballot.Prevote, 3, value, 1)
	f.Add(b.Bytes())
	f.Add(cast(h, ballot.Proposal, 3, value, 1).Bytes())
	f.Add(ballot.Proof{b, cast(h, ballot.Prevote, 3, ballot.Nil, 1)}.Bytes())
	f.Add(ballot.Answer{Fleet: h.Fleet, By: 3, At: 2, Ballot: b}.Sign(ledgertest.Private("n3")).Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, err := ballot.Parse(raw); err == nil && !bytes.Equal(got.Bytes(), raw) {
			t.Errorf("%x is spelled %x", raw, got.Bytes())
		}
		if got, err := ballot.ParseProof(raw); err == nil && !bytes.Equal(got.Bytes(), raw) {
			t.Errorf("%x is spelled %x", raw, got.Bytes())
		}
		_, _ = ballot.OpenAnswer(raw, h, ballot.Question{Seat: 1})
	})
}
