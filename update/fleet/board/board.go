// Package board is how the fleet's notice board is divided, which etcd is: what lies under which
// key, and what it says of who is there.
//
//	/kogge/v1/nodes/ID/record      what a node is, by its seat's own word
//	/kogge/v1/nodes/ID/status      how it is; gone when nobody renews its lease
//	/kogge/v1/ledger/0000000007    an entry of the ledger
//
// ID is the fingerprint of the seat's key. In come keys, and envelopes that were verified
// elsewhere; out go places. Whoever holds a member can write any key: so a place says nothing
// of what lies there, and an object that lies in another's place counts for nothing.
package board

import (
	"fmt"
	"strconv"
	"strings"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
)

// Root is what all keys begin with.
const Root = "/kogge/v1/"

// Topic is a part of the board that is followed as a whole.
type Topic string

// The topics.
const (
	Nodes  Topic = "nodes"
	Ledger Topic = "ledger"
)

// Topics are all of them.
func Topics() []Topic { return []Topic{Ledger, Nodes} }

// Prefix is what the keys of a topic begin with.
func (t Topic) Prefix() string { return Root + string(t) + "/" }

// Place is where something lies.
type Place struct {
	Topic Topic
	// Of Nodes: whose it is, by the fingerprint of the seat's key, and the kind of the object.
	Node document.Hash
	Kind string
	// Of Ledger: from 1.
	Height int64
}

// leaves are how the last part of a node's key says which kind lies there.
var leaves = []struct{ name, kind string }{{"record", notice.NodeKind}, {"status", notice.StatusKind}}

// Kinds are the kinds of objects that have a place.
func Kinds() (all []string) {
	for _, l := range leaves {
		all = append(all, l.kind)
	}
	return all
}

// Leased says whether what lies there goes when nobody renews its lease.
func (p Place) Leased() bool { return p.Topic == Nodes && p.Kind == notice.StatusKind }

// digits of a height: so many that keys of the ledger are in its order.
const digits = 10

// Key is the key of a place; "": there is no such place.
func (p Place) Key() string {
	switch p.Topic {
	case Nodes:
		for _, l := range leaves {
			if l.kind == p.Kind && p.Height == 0 {
				return Nodes.Prefix() + p.Node.String() + "/" + l.name
			}
		}
	case Ledger:
		if p.Height >= 1 && p.Node.IsZero() && p.Kind == "" {
			if key := fmt.Sprintf("%0*d", digits, p.Height); len(key) == digits {
				return Ledger.Prefix() + key
			}
		}
	}
	return ""
}

// Parse is the place of a key; false: it is none that this release knows. Each place has one
// key.
func Parse(key string) (Place, bool) {
	var p Place
	if rest, ok := strings.CutPrefix(key, Nodes.Prefix()); ok {
		id, leaf, _ := strings.Cut(rest, "/")
		node, err := document.ParseHash(id)
		if err != nil {
			return Place{}, false
		}
		p = Place{Topic: Nodes, Node: node}
		for _, l := range leaves {
			if l.name == leaf {
				p.Kind = l.kind
			}
		}
	} else if rest, ok := strings.CutPrefix(key, Ledger.Prefix()); ok {
		height, err := strconv.ParseInt(rest, 10, 64)
		if err != nil {
			return Place{}, false
		}
		p = Place{Topic: Ledger, Height: height}
	}
	if p.Key() != key || key == "" {
		return Place{}, false
	}
	return p, true
}

// Of is where an object of a seat lies; false: its kind has no place, and travels by gossip
// alone.
func Of(e signed.Envelope) (Place, bool) {
	p := Place{Topic: Nodes, Node: e.By.ID(), Kind: e.Kind}
	return p, p.Key() != ""
}

// Entry is the place of a height of the ledger.
func Entry(height int64) Place { return Place{Topic: Ledger, Height: height} }
