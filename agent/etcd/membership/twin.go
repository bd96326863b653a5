package membership

import "time"

// Twin is what a node hears of another machine that runs etcd as its seat. Two that vote, and
// acknowledge entries, as one make others believe what is not so. So the one that comes second
// does not begin: what runs already is never stopped for that.
type Twin struct {
	// Was says that another machine did: the data here is older than what the seat has said.
	Was         bool
	first, last time.Time // when all others said that etcd of this seat speaks to them
}

// Stale is how long others may hear etcd of a seat that has ended.
const Stale = 10 * time.Second

// Holds says why etcd is not to begin here now; "": it may. speaks says that others hear etcd of
// this seat. One that was surely there has to be gone for the grace, as for all that replaces it.
func (t *Twin) Holds(speaks bool, now time.Time, grace time.Duration) string {
	switch {
	case speaks && t.first.IsZero():
		t.first, t.last = now, now
	case speaks:
		t.last = now
	case t.last.Sub(t.first) < Stale || now.Sub(t.last) >= grace:
		t.first, t.last = time.Time{}, time.Time{}
		return ""
	}
	if t.last.Sub(t.first) < Stale {
		return "the others still hear etcd of this seat"
	}
	t.Was = true
	return "another machine runs etcd with the key of this node's seat: if the disk of one is a copy of the other's, kogge node reset makes one of the two a new node"
}
