package operate

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// ErrNotTheSeat is of somebody who answers in the name of a node that has a seat, and does not
// show the seat's key: a node whose STATE was lost, or a stranger with a key of the node CA.
var ErrNotTheSeat = errors.New("who answers there does not show the key of the node's seat")

// OtherSeat is an [ErrNotTheSeat], and what was seen: whether it is the node all the same is for
// people to say; see [OtherSeat.Unseat].
type OtherSeat struct {
	Node, Address string
	Seat          signed.Key // by the fleet's ledger
	Shown         signed.Key // that it shows; "": it shows none
	TLSKey        string     // of who answers, as in fleet.Peer.Key
	why           string     // it shows none
}

func (o *OtherSeat) Error() string {
	if o.Shown == "" {
		return fmt.Sprintf("%v, %s: %s", ErrNotTheSeat, o.Seat.ID().Short(), o.why)
	}
	return fmt.Sprintf("%v, %s: it shows key %s", ErrNotTheSeat, o.Seat.ID().Short(), o.Shown.ID().Short())
}

// Unwrap makes it an ErrNotTheSeat.
func (o *OtherSeat) Unwrap() error { return ErrNotTheSeat }

// Key is the fingerprint of the key by which it is known if it is the node: that which it shows
// as its seat's, or else its TLS key.
func (o *OtherSeat) Key() string {
	if o.Shown == "" {
		return o.TLSKey
	}
	return o.Shown.ID().String()
}

// Unseat remembers that a node has lost the key of its seat, because somebody has said so: from
// now on it is known by the key that it has shown instead.
func (o *OtherSeat) Unseat(k *keyring.Keyring) error {
	return ChangeNodes(k, func(nodes map[string]Node) {
		n := nodes[o.Node]
		n.Lost, n.Seat, n.Certified = o.Seat, o.Shown, ""
		if n.Seat == "" {
			n.Certified = o.TLSKey
		}
		if n.Address == "" {
			n.Address = o.Address
		}
		nodes[o.Node] = n
	})
}

// certify asks who answers for a node to show the key of its seat, together with the key of
// this connection, and remembers the latter. A ledger that is not to be relied on says nothing
// against the key. over has it ask with a certificate that is over, too: to be renewed.
func certify(ctx context.Context, k *keyring.Keyring, address, name string, seat signed.Key, over bool) (string, error) {
	c, err := dialAny(k, address, name)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if over {
		c.SetExpired()
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	a, err := applicant(ctx, k, c, Remote{Keys: k, Name: name, Address: address})
	other := &OtherSeat{Node: name, Address: address, Seat: seat, Shown: a.Key}
	if shown := c.Shown(); shown != nil {
		other.TLSKey = keyOf(shown)
	}
	switch {
	case err == nil && a.Key == seat:
	case err == nil:
		return "", other
	case keyless(err):
		other.why = said(err)
		return "", other
	default:
		return "", err
	}
	return other.TLSKey, ChangeNodes(k, func(nodes map[string]Node) {
		if n := nodes[name]; n.Seat == seat {
			n.Certified = other.TLSKey
			nodes[name] = n
		}
	})
}

// keyless says whether an error is the answer of one who shows no key: its seat's file is damaged,
// its release is of before the ledger, or it answers something else.
func keyless(err error) bool {
	code := connect.CodeOf(err)
	return errors.Is(err, roster.ErrRequest) || connect.IsWireError(err) && (code == connect.CodeFailedPrecondition || code == connect.CodeUnimplemented)
}

// checkSeat wants that who answers at an address with a TLS key is the node that this computer
// knows by a name, if that has a seat. The error may be an [OtherSeat].
func checkSeat(ctx context.Context, k *keyring.Keyring, address, name, tlsKey string) error {
	nodes, err := Nodes(k)
	if err != nil {
		return err
	}
	n := nodes[name]
	if n.Seat == "" && n.Lost == "" { // it is new here
		l, _, err := Ledger(k)
		if err != nil {
			return err
		}
		seat, _ := l.State().Roster.ByName(name)
		n.Seat = seat.Key
	}
	switch {
	case n.Seat != "":
		_, err = certify(ctx, k, address, name, n.Seat, true)
	case n.Lost != "" && n.Certified != tlsKey:
		err = &OtherSeat{Node: name, Address: address, Seat: n.Lost, TLSKey: tlsKey, why: "it shows TLS key " + fleet.Short(tlsKey) + ", and was known by " + fleet.Short(n.Certified)}
	}
	return err
}
