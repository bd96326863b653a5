package shelf

// Verdict is what became of an envelope.
type Verdict int

// The verdicts.
const (
	Taken     Verdict = iota // it is news
	Renewed                  // it says the same as before under a higher number
	Contested                // the seat has said something else under the same number, and both are kept
	Behind                   // it lies behind a newer one by another operator, and is passed on
	Known                    // it was there already, or is one more under a number with two objects

	// What follows is refused.
	Older        // the seat has said something since
	Malformed    // it is no envelope
	TooLarge     // for its kind, with so many seats
	UnknownKind  // a later release may know it
	Foreign      // it is of another fleet
	Unlisted     // its key has no seat in the ledger's state
	Withdrawn    // [Shelf.Withdrawn] says so: others may not know of it
	Early        // [Shelf.Early] says so: the ledger of who sends it is further
	BadNumber    // nobody counts to its number
	BadSignature // it is forged, or was damaged
	BadBody      // the seat has signed what is no document of its kind
	Missing      // it renews what is not here

	verdicts = iota
)

func (v Verdict) String() string {
	return [verdicts]string{
		"taken", "renewed", "contested", "taken behind a newer one", "known", "older", "malformed", "too large", "of an unknown kind", "of another fleet",
		"of no seat", "by a key that was revoked", "of a later record than the ledger has", "with an impossible number", "with a wrong signature", "with a wrong body", "renews what is not here",
	}[v]
}

// News says whether the shelf is another one now.
func (v Verdict) News() bool { return v == Taken || v == Renewed || v == Contested || v == Behind }

// Lie says whether no honest node would have sent it, whatever it knows and whichever release
// it runs.
func (v Verdict) Lie() bool { return v == Malformed || v == Foreign || v == BadSignature }

// Counts is how many envelopes had which verdict, in words.
func (s *Shelf) Counts() map[string]uint64 {
	counts := make(map[string]uint64, verdicts)
	for v, n := range s.counts {
		if n > 0 {
			counts[Verdict(v).String()] = n
		}
	}
	return counts
}

// Refused is how many envelopes were refused.
func (s *Shelf) Refused() (n uint64) {
	for _, count := range s.counts[Older:] {
		n += count
	}
	return n
}
