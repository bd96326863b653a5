package votes

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"kogge.example/cmd/kogge/votes/agenda"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
)

// traveller is a fleet, and a paper of it that one owner key has signed.
func traveller(t testing.TB) (*ledgertest.Fleet, []byte) {
	t.Helper()
	f := ledgertest.Founded(t, 4, 1)
	p := f.Proposal(t, ledger.Value{Version: 1, Unseat: &decision.Unseat{Seats: []int{4}}})
	a, err := proposal.ParseAnswer(f.Answer(proposal.ID(p), true, "hanse", "", 2))
	if err != nil {
		t.Fatal(err)
	}
	return f, ledgertest.Must[[]byte](t)(Paper{Proposal: p.Bytes(), Answer: a}.Encode())
}

// TestPaper has an answer travel, and refuses one that is about something else, or that nobody has signed.
func TestPaper(t *testing.T) {
	f, raw := traveller(t)
	s := f.Log.State()
	p, item, err := ParsePaper(raw, s)
	if err != nil || item.Kind != decision.KindUnseat || !p.Answer.Yes || len(p.Answer.Signatures) != 1 {
		t.Fatalf("%+v, %+v, %v", p, item, err)
	}
	other := p
	other.Answer.Proposal = document.HashOf(nil)
	stranger := p
	stranger.Answer.Owner = "bob"
	decided := ledgertest.Founded(t, 4, 2)
	for name, c := range map[string]struct {
		raw []byte
		s   ledger.State
	}{
		"nothing":         {nil, s},
		"it is too long":  {bytes.Repeat([]byte(" "), MaxPaper+1), s},
		"another one":     {ledgertest.Must[[]byte](t)(other.Encode()), s},
		"no owner's":      {ledgertest.Must[[]byte](t)(stranger.Encode()), s},
		"of another no":   {bytes.Replace(raw, []byte(`"yes": true`), []byte(`"yes": false`), 1), s},
		"another fleet's": {raw, decided.Log.State()},
	} {
		if _, _, err := ParsePaper(c.raw, c.s); !errors.Is(err, ErrPaper) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParsePaper(f *testing.F) {
	fleet, raw := traveller(f)
	f.Add(raw)
	f.Add([]byte(`{"version":1,"proposal":"","answer":{}}`))
	s := fleet.Log.State()
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, item, err := ParsePaper(raw, s)
		if err == nil && (item.ID != p.Answer.Proposal || len(p.Answer.Signatures) == 0) {
			t.Errorf("it takes %q", raw)
		}
	})
}

// TestAnswerNumber wants a later answer to count, also by a clock that is behind.
func TestAnswerNumber(t *testing.T) {
	was := proposal.Answer{Number: 2_000_000_000}
	item := agenda.Item{Owners: []agenda.Owner{{Name: "hanse", Answer: &was}}}
	for owner, want := range map[string]int64{"hanse": 2_000_000_001, "bob": 1_000_000_000} {
		if a := Answer(item, owner, false, "", time.Unix(1_000_000_000, 0)); a.Number != want {
			t.Errorf("owner %s: number %d, want %d", owner, a.Number, want)
		}
	}
}

// TestRefused tells a proposal that has left the queue from one that is refused for another reason.
func TestRefused(t *testing.T) {
	over := error(refused("proposal 3: " + docket.ErrOver.Error() + ": it has left the queue: …"))
	if !errors.Is(over, docket.ErrOver) || errors.Is(refused("no"), docket.ErrOver) || errors.Is(over, docket.ErrFull) {
		t.Error("the words of a node are taken for others")
	}
}
