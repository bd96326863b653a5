package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// Revocation is what the fleet's folder says of an operator who was revoked.
type Revocation struct {
	Keys      int // of theirs that are revoked; 0: nobody had used their invitation
	Withdrawn int // invitations that nobody had used
}

// Revoke revokes every key of an operator in the fleet's folder, durably, and withdraws
// their open invitations. No node knows it yet: see [TellRevoked]. The error wraps
// [keyring.ErrNoKey] where another computer signs the fleet's operators, and
// [keyring.ErrNoOperator] if there is none of that name, invited or signed.
func Revoke(k *keyring.Keyring, name string, now time.Time) (Revocation, error) {
	if k.HoldsCA(fleet.KindOperator) == keyring.Elsewhere {
		return Revocation{}, fmt.Errorf("operator CA of fleet %s: %w", k.Genesis.Name, keyring.ErrNoKey)
	}
	withdrawn, err := k.Withdraw(name)
	if err != nil {
		return Revocation{}, err
	}
	keys, err := k.RevokeOperator(name, now)
	if errors.Is(err, keyring.ErrNoOperator) && withdrawn > 0 {
		err = nil
	}
	return Revocation{Keys: len(keys), Withdrawn: withdrawn}, err
}

// Told is how it went to tell one node something.
type Told struct {
	Node    string
	Address string // where it was told of revoked keys
	Err     error  // nil: it knows
	// Other is what a node that was told of revoked keys says of others: this computer's are not all that
	// the fleet has revoked, and a member may have lied. nil: nothing.
	Other *apiv1.RevokeResponse
}

// Answered says whether the error is of a node that was reached, or of what it said: it may know
// what it does not say. A node whose release is older knows nothing of what was asked.
func (t Told) Answered() bool {
	var c *connect.Error
	return !errors.As(t.Err, &c) || connect.IsWireError(c) && c.Code() != connect.CodeUnimplemented
}

// TellRevoked tells every node that this computer knows which keys the fleet has revoked so
// far, a few at a time, and returns how it went, in the order of their names. Nodes end
// what runs under those keys. A node that has a seat, and is neither known nor revoked here, is
// among them as one that was not told.
func TellRevoked(ctx context.Context, k *keyring.Keyring, tell func(Notice)) ([]Told, error) {
	keys, err := k.RevokedKeys()
	if err != nil {
		return nil, err
	}
	nodes, err := Nodes(k)
	if err != nil {
		return nil, err
	}
	names, err := withSeats(k, nodes)
	if err != nil {
		return nil, err
	}
	all := make([]Told, len(names))
	each(len(names), func(i int) {
		if _, known := nodes[names[i]]; !known {
			all[i] = Told{Node: names[i], Err: keyring.ErrNoNode}
			return
		}
		all[i].Node, all[i].Address = names[i], nodes[names[i]].Address
		all[i].Other, all[i].Err = Remote{Keys: k, Name: names[i], Address: all[i].Address, Tell: tell}.TellRevoked(ctx, &apiv1.RevokeRequest{Keys: keys})
	})
	return all, nil
}

// withSeats are the names of nodes, and of those that have a seat, without revoked ones.
func withSeats(k *keyring.Keyring, nodes map[string]Node) ([]string, error) {
	l, _, err := Ledger(k)
	if err != nil {
		return nil, err
	}
	lost, err := k.RevokedNodes()
	names := sorted(nodes)
	for _, seat := range l.State().Roster.Seats {
		if !slices.ContainsFunc(lost, func(r keyring.RevokedNode) bool { return r.Name == seat.Name }) {
			names = append(names, seat.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// RevokeNode revokes the keys of a node in the fleet's folder, durably, and forgets the
// node: neither is it called from here any more, nor is anything signed for it. No other node
// knows it yet: see [TellRevoked]. The keys are those that this computer has seen of the
// node; where it has seen none, that of who answers at the node's address. It returns how
// many there are. The error wraps [keyring.ErrNoNode] where no key is known.
func RevokeNode(ctx context.Context, k *keyring.Keyring, name string, now time.Time) (int, error) {
	nodes, err := Nodes(k)
	if err != nil {
		return 0, err
	}
	var known []string
	if n, ok := nodes[name]; ok {
		if n.Key == "" {
			limited, cancel := context.WithTimeout(ctx, callLimit)
			defer cancel()
			if chain, err := api.PeerCertificates(limited, n.Address); err == nil { // else a token may tell
				if is, ours := nodeOf(k.Genesis, chain); ours && is.Name == name {
					n.Key = is.Key
				}
			}
		}
		if n.Key != "" {
			known = append(known, n.Key)
		}
	}
	keys, err := k.RevokeNode(name, known, now)
	if err != nil {
		return 0, err
	}
	return len(keys), ChangeNodes(k, func(nodes map[string]Node) {
		if n := nodes[name]; n.Key == "" || slices.Contains(keys, n.Key) {
			delete(nodes, name)
		}
	})
}

// revokedNodes says which keys of nodes are revoked in the fleet's folder.
func revokedNodes(k *keyring.Keyring) (func(key string) bool, error) {
	all, err := k.RevokedNodes()
	return func(key string) bool {
		return slices.ContainsFunc(all, func(n keyring.RevokedNode) bool { return n.Key == key })
	}, err
}

// TellRevoked tells one node which keys are revoked, those that this computer has among them, and
// returns what it says of others; nil: nothing.
func (r Remote) TellRevoked(ctx context.Context, q *apiv1.RevokeRequest) (other *apiv1.RevokeResponse, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if q.Keys == nil {
		if q.Keys, err = r.Keys.RevokedKeys(); err != nil {
			return nil, err
		}
	}
	err = r.Call(ctx, func(ctx context.Context, c *api.Client) error {
		answer, err := c.Revoke(ctx, connect.NewRequest(q))
		if err != nil {
			return err
		}
		answer.Msg.Told = slices.DeleteFunc(answer.Msg.Told, func(key string) bool { return !fleet.IsHash(key) })
		if other = nil; len(answer.Msg.Told) > 0 || answer.Msg.Forgets {
			other = answer.Msg
		}
		return nil
	})
	return other, err
}
