package orders

import (
	"fmt"
	"time"

	"kogge.example/agent/events"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Events says what is other in one standing than in the one before.
func Events(before, now order.Standing) (all []events.Event) {
	for _, one := range now.Isolated {
		if was, is := before.Isolates(one.Seat.Key); !is || was.Number != one.Number {
			all = append(all, events.Event{Kind: events.Node, Object: one.Seat.Name, What: "isolated", By: one.By, Text: one.Why})
		}
	}
	for _, one := range before.Isolated {
		if _, is := now.Isolates(one.Seat.Key); !is {
			all = append(all, events.Event{Kind: events.Node, Object: one.Seat.Name, What: "not isolated any more"})
		}
	}
	for _, one := range now.Beyond {
		known := false
		for _, was := range before.Beyond {
			known = known || was.Seat.Key == one.Seat.Key && was.Number == one.Number
		}
		if !known {
			all = append(all, events.Event{Kind: events.Node, Object: one.Seat.Name, What: "to be isolated, which does not count", By: one.By, Text: one.Doubt})
		}
	}
	for _, one := range now.Absent {
		if was, is := before.Absence(one.Seat.Key); !is || was != one {
			e := events.Event{Kind: events.Node, Object: one.Seat.Name, What: string(one.State), By: one.By, Text: one.Why}
			if !one.Until.IsZero() {
				e.What += " until " + one.Until.Format(time.RFC3339)
			}
			all = append(all, e)
		}
	}
	for _, one := range before.Absent {
		if _, is := now.Absence(one.Seat.Key); !is {
			all = append(all, events.Event{Kind: events.Node, Object: one.Seat.Name, What: "back"})
		}
	}
	return all
}

// Outcasts are the nodes of isolated seats, as callers: by the name in a certificate, which any
// key of the node CA can give, and by the TLS keys that they have called theirs. A seat may call
// another's key its own: whose name is that of a seat which does so, too, is none.
type Outcasts struct {
	names, keys map[string]string
	owns        func(name, key string) bool
}

// OutcastsOf says who they are, and why. tlsKey is asked later, too.
func OutcastsOf(s order.Standing, r roster.Roster, tlsKey func(signed.Key) (document.Hash, bool)) *Outcasts {
	o := &Outcasts{names: make(map[string]string), keys: make(map[string]string)}
	for _, one := range s.Isolated {
		o.names[one.Seat.Name] = one.String()
		if key, ok := tlsKey(one.Seat.Key); ok {
			o.keys[key.String()] = one.String()
		}
	}
	o.owns = func(name, key string) bool {
		seat, ok := r.ByName(name)
		if !ok {
			return false
		}
		its, ok := tlsKey(seat.Key)
		return ok && its.String() == key
	}
	return o
}

// Admit says why a caller is to be turned away. It fits the door.
func (o *Outcasts) Admit(who fleet.Peer) error {
	if o == nil || who.Kind != fleet.KindNode {
		return nil
	}
	why := o.names[who.Name]
	if by := o.keys[who.Key]; why == "" && by != "" && !o.owns(who.Name, who.Key) {
		why = by
	}
	if why != "" {
		return fmt.Errorf("%s: %w: %s", who, order.ErrIsolated, why)
	}
	return nil
}
