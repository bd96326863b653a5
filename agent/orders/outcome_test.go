package orders

import (
	"errors"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

// TestOutcasts is the table of who is turned away while n3 and n4 are isolated. n4 has called the TLS
// key of n5 its own.
func TestOutcasts(t *testing.T) {
	s, keys := founded(t)
	standing := order.Decide(s, []signed.Envelope{seal(t, s, keys["ada"], 1, isolate(s, 3, true)), seal(t, s, keys["ada"], 2, isolate(s, 4, true))}, now)
	key := func(of string) document.Hash { return document.HashOf([]byte(of)) }
	own := map[int]document.Hash{1: key("n1"), 3: key("n3"), 4: key("n5"), 5: key("n5")} // n2 has said nothing yet
	o := OutcastsOf(standing, s.Roster, func(k signed.Key) (document.Hash, bool) {
		seat, ok := s.Roster.ByKey(k)
		its, said := own[seat.Number]
		return its, ok && said
	})
	for _, c := range []struct {
		what, name, key string
		kind            fleet.PeerKind
		in              bool
	}{
		{"a node", "n1", "n1", fleet.KindNode, true},
		{"an outcast", "n3", "n3", fleet.KindNode, false},
		{"an outcast with a key that nobody knows", "n3", "new", fleet.KindNode, false},
		{"an outcast's key under a name that nobody has", "n99", "n3", fleet.KindNode, false},
		{"an outcast's key under another node's name", "n1", "n3", fleet.KindNode, false},
		{"an outcast's key under the name of one that has said nothing", "n2", "n3", fleet.KindNode, false},
		{"a node whose key an outcast calls its own", "n5", "n5", fleet.KindNode, true},
		{"the outcast with that key", "n4", "n5", fleet.KindNode, false},
		{"an operator of the same name", "n3", "ada", fleet.KindOperator, true},
	} {
		err := o.Admit(fleet.Peer{Kind: c.kind, Name: c.name, Key: key(c.key).String()})
		if (err == nil) != c.in || err != nil && !errors.Is(err, order.ErrIsolated) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	var none *Outcasts
	if err := none.Admit(fleet.Peer{Kind: fleet.KindNode, Name: "n3"}); err != nil {
		t.Error(err)
	}
}
