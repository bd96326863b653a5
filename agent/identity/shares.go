package identity

import (
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/wrapped"
)

// Shares are the wrapped keys that this node has made for others, by seat. To wrap one again would
// be news to everybody.
type Shares map[int]share

type share struct {
	to     string // the key that it is wrapped to
	sealed []byte
}

// Give is what this seat says of the CA's key to those who are to hold it and do not, by what they
// say of themselves, but for those of whom refuse says why they get none, as one that is isolated.
// false: it holds no key, or nobody lacks it.
func (s Shares) Give(held *Custody, state ledger.State, says func(signed.Key) (notice.WrapKey, bool), refuse func(roster.Seat) error) (notice.CAKey, bool) {
	ca := state.Genesis.NodeCA
	if held.CA(ca) == nil {
		return notice.CAKey{}, false
	}
	k := notice.CAKey{Version: 1, CA: wrapped.CAOf(ca)}
	for _, seat := range state.Roster.Custodians() {
		w, ok := says(seat.Key)
		if seat.Key == held.seat || !ok || w.Seat != seat.Number || w.Holds == k.CA || refuse(seat) != nil {
			delete(s, seat.Number)
			continue
		}
		if len(k.For) == notice.MaxWrapped {
			continue
		}
		one := s[seat.Number]
		if one.to != string(w.Key) {
			sealed, err := held.Wrap(ca, w, seat.Key)
			if err != nil {
				continue // its key is none
			}
			one = share{string(w.Key), sealed}
			s[seat.Number] = one
		}
		k.For = append(k.For, notice.WrappedFor{Seat: seat.Number, Sealed: one.sealed})
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
