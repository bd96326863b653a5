package identity

import (
	"cmp"
	"slices"
	"time"

	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/wrapped"
)

// Shares are the wrapped keys that this node has made for others, by seat. To wrap one again would
// be news to everybody.
type Shares map[int]*share

type share struct {
	to     string // the key that it is wrapped to
	sealed []byte
	since  time.Time // when it began to be given; zero: it is not
	passed int       // how often it was given for [shareTurn] in vain
}

// shareTurn is how long a share is given to who does not take it, while others wait: he may be dead.
const shareTurn = 15 * time.Minute

// Give is what this seat says of the CA's key to those who are to hold it and do not, by what they
// say of themselves, but for those of whom refuse says why they get none, as one that is isolated:
// to a few at a time, who take turns. false: it holds no key, or nobody lacks it.
func (s Shares) Give(held *Custody, state ledger.State, says func(signed.Key) (notice.WrapKey, bool), refuse func(roster.Seat) error, now time.Time) (notice.CAKey, bool) {
	ca := state.Genesis.NodeCA
	if held.CA(ca) == nil {
		return notice.CAKey{}, false
	}
	k := notice.CAKey{Version: 1, CA: wrapped.CAOf(ca)}
	var lack []int
	for _, seat := range state.Roster.Custodians() {
		w, ok := says(seat.Key)
		if seat.Key == held.seat || !ok || w.Seat != seat.Number || w.Holds == k.CA || refuse(seat) != nil {
			delete(s, seat.Number)
			continue
		}
		if one := s[seat.Number]; one == nil || one.to != string(w.Key) {
			sealed, err := held.Wrap(ca, w, seat.Key)
			if err != nil {
				delete(s, seat.Number) // its key is none
				continue
			}
			s[seat.Number] = &share{to: string(w.Key), sealed: sealed}
		}
		lack = append(lack, seat.Number)
	}
	if len(lack) > notice.MaxWrapped {
		for _, number := range lack {
			if one := s[number]; !one.since.IsZero() && now.Sub(one.since) >= shareTurn {
				one.since = time.Time{}
				one.passed++
			}
		}
		slices.SortStableFunc(lack, func(a, b int) int { return cmp.Compare(s[a].passed, s[b].passed) })
		for _, number := range lack[notice.MaxWrapped:] {
			s[number].since = time.Time{}
		}
		lack = lack[:notice.MaxWrapped]
		slices.Sort(lack)
	}
	for _, number := range lack {
		one := s[number]
		if one.since.IsZero() {
			one.since = now
		}
		k.For = append(k.For, notice.WrappedFor{Seat: number, Sealed: one.sealed})
	}
	return k, len(k.For) > 0
}

// TakeShare takes the CA's key from what others say, if this seat is to hold it and does not.
func (c *Custody) TakeShare(state ledger.State, all []signed.Envelope) bool {
	ca := state.Genesis.NodeCA
	own, ok := state.Roster.ByKey(c.seat)
	if !ok || !own.Member && !own.Spare || c.CA(ca) != nil {
		return false
	}
	for _, e := range all {
		k, err := notice.OpenCAKey(e)
		if err != nil || k.CA != wrapped.CAOf(ca) {
			continue
		}
		for _, f := range k.For {
			if f.Seat == own.Number && c.Take(f.Sealed, ca) == nil {
				return true
			}
		}
	}
	return false
}
