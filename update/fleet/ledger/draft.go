package ledger

import (
	"cmp"
	"fmt"
	"slices"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/signed"
)

// Draft is the founding of a fleet while its owners sign it, each at a place of his own. In a
// file it is an entry as [FormatEntry] writes it, with a certificate that has too few
// signatures so far.
type Draft struct {
	Record Record
	Value  Value
	State  State              // of the ledger, once the founding is signed
	Owners []signed.Signature // so far, by number of the owner's key
}

// NewDraft is the draft of a founding that nobody has signed. The error wraps [ErrValue].
func NewDraft(g *fleet.Genesis, v Value) (Draft, error) {
	r, err := New(g).State().Next(v)
	if err != nil {
		return Draft{}, err
	}
	return ParseDraft(g, Entry{Record: r.Encode(), Value: v.Encode(), Certificate: Certificate{Version: version}.Encode()})
}

// ParseDraft reads a draft, and verifies all of it but that the signatures are enough. The error
// wraps [ErrRecord], [ErrValue] or [ErrCertificate].
func ParseDraft(g *fleet.Genesis, e Entry) (Draft, error) {
	l := New(g)
	if err := l.Recall(e); err != nil {
		return Draft{}, err
	}
	owner, err := OwnerOf(g)
	if err != nil {
		return Draft{}, err
	}
	c, err := ParseCertificate(e.Certificate)
	if err != nil {
		return Draft{}, err
	}
	d := Draft{State: l.State(), Owners: c.Owners}
	if d.Record, err = ParseRecord(e.Record); err != nil {
		return Draft{}, err
	}
	if d.Value, err = ParseValue(e.Value); err != nil {
		return Draft{}, err
	}
	if len(c.Seats) > 0 || c.Round != 0 {
		return Draft{}, fmt.Errorf("%w: field seats: seats cannot found their fleet", ErrCertificate)
	}
	if err := fit(c.Owners, owner, FoundingBytes(d.Record)); err != nil {
		return Draft{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return d, nil
}

// With is the draft with more signatures; of two by one key the one that is there stays.
func (d Draft) With(more ...signed.Signature) Draft {
	all := slices.Clone(d.Owners)
	for _, s := range more {
		if !slices.ContainsFunc(all, func(o signed.Signature) bool { return o.By == s.By }) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b signed.Signature) int { return cmp.Compare(a.By, b.By) })
	d.Owners = all
	return d
}

// Signers are the numbers of the owner keys that have signed.
func (d Draft) Signers() (numbers []int) {
	for _, s := range d.Owners {
		numbers = append(numbers, s.By)
	}
	return numbers
}

// Enough says whether as many have signed as are the owner.
func (d Draft) Enough() bool { return len(d.Owners) >= d.State.Genesis.Threshold }

// Entry is the draft as an entry of the ledger.
func (d Draft) Entry() Entry {
	return Entry{Record: d.Record.Encode(), Value: d.Value.Encode(), Certificate: Certificate{Version: version, Owners: d.Owners}.Encode()}
}
