package voice

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"kogge.example/update/fleet/document"
	"kogge.example/update/golden"
)

// TestSpelling has what releases to come read.
func TestSpelling(t *testing.T) {
	h := document.HashOf([]byte("x"))
	o := Opinions{Opinions: [][]byte{[]byte("an opinion")}}.Encode()
	b := Ballots{
		Height: 7, Ballots: [][]byte{[]byte("a ballot")}, Drafts: []Draft{{Proposal: h, Evidence: []document.Hash{h}}},
		Proofs: [][]byte{[]byte("a proof")}, Nonce: h, Answers: [][]byte{[]byte("an answer")},
	}.Encode()
	golden.Compare(t, "v1.txt", string(o)+string(b))
	if again, err := ParseOpinions(o); err != nil || !bytes.Equal(again.Encode(), o) {
		t.Errorf("opinions: %v", err)
	}
	if again, err := ParseBallots(b); err != nil || !bytes.Equal(again.Encode(), b) {
		t.Errorf("ballots: %v", err)
	}
}

// TestBad has what no seat says.
func TestBad(t *testing.T) {
	h := document.HashOf([]byte("x"))
	many := func(n, size int) (all [][]byte) {
		for range n {
			all = append(all, make([]byte, size))
		}
		return all
	}
	for want, b := range map[string]Ballots{
		"field height: 0":             {},
		"field ballots: 129":          {Height: 1, Ballots: many(MaxBallots+1, 1)},
		"field ballots[0]: 513 bytes": {Height: 1, Ballots: many(1, 513)},
		"field ballots[0]: 0 bytes":   {Height: 1, Ballots: many(1, 0)},
		"field drafts: 7":             {Height: 1, Drafts: make([]Draft, MaxDrafts+1)},
		"field drafts[0].proposal":    {Height: 1, Drafts: make([]Draft, 1)},
		"field drafts[0].evidence: 0": {Height: 1, Drafts: []Draft{{Proposal: h}}},
		"field proofs: 5":             {Height: 1, Proofs: many(MaxProofs+1, 1)},
		"field answers: 25":           {Height: 1, Answers: many(MaxAnswers+1, 1)},
	} {
		if _, err := ParseBallots(b.Encode()); !errors.Is(err, ErrVoice) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := ParseOpinions(Opinions{Opinions: many(MaxOpinions+1, 1)}.Encode()); !errors.Is(err, ErrVoice) {
		t.Errorf("too many opinions: %v", err)
	}
	if _, err := ParseOpinions([]byte(strings.Replace(string(Opinions{}.Encode()), `1`, `2`, 1))); !errors.Is(err, document.ErrNewer) {
		t.Errorf("of a later release: %v", err)
	}
}

// FuzzBallots has bytes of strangers: what is read has one spelling.
func FuzzBallots(f *testing.F) {
	f.Add(Ballots{Height: 1, Ballots: [][]byte{{1}}}.Encode())
	f.Add(Opinions{Opinions: [][]byte{{1}}}.Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if b, err := ParseBallots(raw); err == nil && !bytes.Equal(b.Encode(), raw) {
			t.Errorf("%q is read as %q", raw, b.Encode())
		}
		if o, err := ParseOpinions(raw); err == nil && !bytes.Equal(o.Encode(), raw) {
			t.Errorf("%q is read as %q", raw, o.Encode())
		}
	})
}
