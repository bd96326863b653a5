package operate

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// Adopted is a node that is in the fleet, and that this computer knows now.
type Adopted struct {
	Name   string
	Before bool // it was in the fleet already: only its address was recorded
	// Unasked says that this computer knows of no founding, and that none of the other nodes
	// could be asked: if the fleet is founded, the node does not know it.
	Unasked bool
	// Other is as in [Told]. Denied says that this operator may not ask for it.
	Other  *apiv1.RevokeResponse
	Denied bool
}

// Unanswered is the error of an address at which nobody answers.
type Unanswered struct{ Err error }

func (e Unanswered) Error() string { return e.Err.Error() }
func (e Unanswered) Unwrap() error { return e.Err }

// Untold is of a node that was adopted, but not told all that it has to know: of a key that
// was revoked in the meantime, or of the fleet's ledger.
type Untold struct {
	Node string
	Err  error
}

func (e Untold) Error() string { return e.Err.Error() }
func (e Untold) Unwrap() error { return e.Err }

// Adopt takes the node at address (host:port) into the fleet, and remembers it: by name,
// or, if that is "", by the name that its token is for, or by its host name. A node that
// is in the fleet already keeps its name, and only its address is recorded; with another
// name the error wraps [api.ErrAdopted]. A node learns of all revoked keys at once, and gets the
// fleet's ledger, if this computer has one, or another node that it knows.
//
// Before the node has proved its token nothing but a nonce was sent to it. The error may be
// [Unanswered], and wraps [keyring.ErrTokenUnknown] or another of its ErrToken…. It is an
// [OtherSeat] where the node has a seat in the fleet and does not show its key: adopt it again
// after [OtherSeat.Unseat].
func Adopt(ctx context.Context, k *keyring.Keyring, address, name string, tell func(Notice)) (Adopted, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	chain, err := api.PeerCertificates(ctx, address)
	if err != nil {
		return Adopted{}, Unanswered{err}
	}
	if is, ours := nodeOf(k.Genesis, chain); ours {
		if lost, err := revokedNodes(k); err != nil {
			return Adopted{}, err
		} else if lost(is.Key) {
			return Adopted{Name: is.Name}, fmt.Errorf("%w: %s, key %s", api.ErrNodeRevoked, is, fleet.Short(is.Key))
		}
		if name != "" && name != is.Name {
			return Adopted{Name: is.Name}, fmt.Errorf("%w: its name is %s", api.ErrAdopted, is.Name)
		}
		err := checkSeat(ctx, k, address, is.Name, is.Key)
		if err == nil {
			err = recordAddress(k, address, is.Name, chain[0])
		}
		in := Adopted{Name: is.Name, Before: true}
		if err == nil {
			err = in.inform(ctx, k, address, tell)
		}
		return in, err
	}
	revoked, err := k.RevokedKeys()
	if err != nil {
		return Adopted{}, err
	}
	var signed *x509.Certificate
	err = api.Adopt(ctx, address, api.Adoption{
		Genesis: k.Genesis, Certificate: k.Certificate(), Revoked: revoked,
		Sign: func(request, nonce, mac []byte, hostname string) ([]byte, error) {
			der, err := k.AdoptNode(request, nonce, mac, name, hostname, time.Now())
			if err == nil {
				signed, err = x509.ParseCertificate(der)
			}
			return der, err
		},
	})
	if err != nil {
		return Adopted{}, err
	}
	is, err := fleet.PeerOf(signed)
	if err != nil {
		return Adopted{}, err
	}
	node := Node{Address: address, Adopted: time.Now().UTC().Truncate(time.Second), Until: signed.NotAfter.UTC(), Key: is.Key}
	if err := RememberNode(k, is.Name, node); err != nil {
		return Adopted{}, err
	}
	in := Adopted{Name: is.Name}
	err = in.inform(ctx, k, address, tell)
	return in, err
}

// inform gives a node of the fleet the ledger, and tells it which keys are revoked: it may have come in by a
// member that left some out, and who revokes tells the nodes of nodes.json, so that what was revoked since
// this one was asked is for us to tell. What a member has made up is for the operator to say. Of an operator
// who may not say so the node hears of none, and he has it remembered all the same.
func (in *Adopted) inform(ctx context.Context, k *keyring.Keyring, address string, tell func(Notice)) error {
	var err, untold error
	in.Unasked, err = giveLedger(ctx, k, in.Name, tell)
	in.Other, untold = Remote{Keys: k, Name: in.Name, Address: address, Tell: tell}.TellRevoked(ctx, &apiv1.RevokeRequest{})
	if in.Denied = connect.CodeOf(untold) == connect.CodePermissionDenied; untold != nil && !in.Denied {
		err = errors.Join(err, Untold{in.Name, untold})
	}
	return err
}

// giveLedger gives a node the fleet's ledger, if the fleet is founded. Where this computer knows
// of no founding it asks all nodes first; unasked says that none of the others has answered.
func giveLedger(ctx context.Context, k *keyring.Keyring, name string, tell func(Notice)) (unasked bool, err error) {
	_, entries, err := Ledger(k)
	if err == nil && len(entries) == 0 {
		if unasked, err = learn(ctx, k, name, tell); err == nil {
			_, entries, err = Ledger(k)
		}
	}
	if err != nil || len(entries) == 0 {
		return unasked, err
	}
	told, err := Give(ctx, k, []string{name}, entries, tell)
	if err == nil && told[0].Err != nil {
		err = Untold{name, fmt.Errorf("give it the fleet's ledger: %w", told[0].Err)}
	}
	return false, err
}

// learn asks all nodes whether the fleet is founded, for a new one. alone says that there are
// others, and none has answered.
func learn(ctx context.Context, k *keyring.Keyring, name string, tell func(Notice)) (alone bool, err error) {
	nodes, err := Nodes(k)
	if err != nil {
		return false, err
	}
	limited, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	told, err := Gather(limited, k, sorted(nodes), tell)
	if err != nil {
		return false, Untold{name, err}
	}
	alone = len(nodes) > 1
	for _, n := range told {
		if n.Node != name && (n.Err == nil || n.Answered() || connect.CodeOf(n.Err) == connect.CodeUnimplemented) {
			alone = false
		}
	}
	return alone, nil
}

// recordAddress remembers a node that is one of the fleet already: another computer adopted
// it, or it was known here by another address.
func recordAddress(k *keyring.Keyring, address, name string, shown *x509.Certificate) error {
	return ChangeNodes(k, func(nodes map[string]Node) {
		n := nodes[name]
		if n.Seat != "" {
			n.Certified = "" // it is asked anew
		}
		n.Address, n.Until, n.Key = address, shown.NotAfter.UTC(), fleet.KeyID(shown.RawSubjectPublicKeyInfo)
		if n.Adopted.IsZero() {
			n.Adopted = shown.NotBefore.Add(fleet.Backdate).UTC()
		}
		nodes[name] = n
	})
}
