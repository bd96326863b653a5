package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/ledger"
)

// ErrFork is of two histories of one fleet. Both are proved, and only one can be the fleet's.
var ErrFork = errors.New("the fleet's ledger has two histories")

// history is a ledger as somebody has it, verified.
type history struct {
	of      string // who has it
	log     *ledger.Log
	entries []ledger.Entry
}

// Gather asks nodes how far their ledger is, a few at a time, and keeps the longest one in the
// fleet's folder: no node is believed, each ledger is verified from the genesis on. It returns
// how each node answered, in the order of the names. The error wraps [ErrFork] where two of
// the nodes, or one of them and the folder, have different records; then the folder stays as
// it is.
func Gather(ctx context.Context, k *keyring.Keyring, names []string, tell func(Notice)) ([]Told, error) {
	nodes, err := Nodes(k)
	if err != nil {
		return nil, err
	}
	mine, _, err := Ledger(k)
	if err != nil {
		return nil, err
	}
	all, found := make([]Told, len(names)), make([]history, len(names))
	each(len(names), func(i int) {
		limited, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		all[i].Node = names[i]
		n, ok := nodes[names[i]]
		if !ok {
			all[i].Err = keyring.ErrNoNode
			return
		}
		r := Remote{Keys: k, Name: names[i], Address: n.Address, Tell: tell}
		all[i].Err = r.Call(limited, func(ctx context.Context, c *api.Client) error {
			a, err := applicant(ctx, k, c, r)
			if err == nil {
				err = a.sound()
			}
			if err != nil {
				return err
			}
			if known, err := mine.Record(a.Height); err == nil && known == a.Head {
				return nil
			}
			l, entries, err := fetch(ctx, k, c)
			found[i] = history{"node " + names[i], l, entries} // up to what is wrong
			return err
		})
	})
	return all, k.Alone(func() error { return keep(k, found) })
}

// Level has this computer and a node tell each other the records that the other one lacks. It
// returns the ledger that both have then, and what the node says of itself: nothing if it does
// not speak of such things, or has a ledger that is not to be relied on, while this computer
// knows of no founding. The error wraps [ErrFork] where they have two histories, or [ErrUnsound].
func Level(ctx context.Context, k *keyring.Keyring, c *api.Client, node string) (*ledger.Log, Applicant, error) {
	r := Remote{Keys: k, Name: node}
	l, entries, err := Ledger(k)
	if err != nil {
		return nil, Applicant{}, err
	}
	a, err := applicant(ctx, k, c, r)
	if err == nil {
		err = a.sound()
	}
	switch code := connect.CodeOf(err); {
	case err == nil:
	case l.State().Height == 0 && errors.Is(err, ErrUnsound):
		return l, Applicant{}, nil
	case l.State().Height == 0 && (code == connect.CodeUnimplemented || code == connect.CodeFailedPrecondition):
		return l, Applicant{}, nil
	default:
		return nil, Applicant{}, err
	}
	if !has(entries, a.Height, a.Head) {
		theirs, more, err := fetch(ctx, k, c)
		if err == nil {
			err = k.Alone(func() error { return keep(k, []history{{"node " + node, theirs, more}}) })
		}
		if err != nil {
			return nil, a, err
		}
		if l, entries, err = Ledger(k); err != nil {
			return nil, a, err
		}
	}
	if a.Height < l.State().Height {
		if err := give(ctx, c, entries, a.Height+1); err != nil {
			return nil, a, err
		}
		a, err = applicant(ctx, k, c, r)
	}
	return l, a, err
}

// keep puts the longest of histories that are one into the fleet's folder.
func keep(k *keyring.Keyring, found []history) error {
	longest := history{of: "this computer"}
	var err error
	if longest.log, longest.entries, err = Ledger(k); err != nil {
		return err
	}
	before := longest.log.State()
	for _, h := range found {
		if h.log == nil {
			continue
		}
		if err := longest.agrees(h); err != nil {
			return err
		}
		if h.log.State().Height > longest.log.State().Height {
			longest = h
		}
	}
	now := longest.log.State()
	if now.Height == before.Height {
		return noteSeats(k, now) // nodes.json may be of before
	}
	return writeLedger(k, now, longest.entries)
}

// agrees wants that one of two histories goes on where the other one ends.
func (h history) agrees(other history) error {
	for height := int64(1); height <= min(h.log.State().Height, other.log.State().Height); height++ {
		one, err := h.log.Record(height)
		if err != nil {
			return err
		}
		two, err := other.log.Record(height)
		if err != nil {
			return err
		}
		if one != two {
			return fmt.Errorf("%w: record %d is %s on %s, and %s on %s", ErrFork, height, one.Short(), h.of, two.Short(), other.of)
		}
	}
	return nil
}

// Agrees wants a ledger that comes from elsewhere to be the one of the fleet's folder, as far
// as both go. The error wraps [ErrFork]; of says whose ledger it is.
func Agrees(k *keyring.Keyring, of string, l *ledger.Log) error {
	mine, _, err := Ledger(k)
	if err != nil {
		return err
	}
	return history{of: "this computer", log: mine}.agrees(history{of: of, log: l})
}

// writeLedger keeps a ledger and its state in the fleet's folder, which is locked already. After a
// cut the seats' keys may be known before the ledger, and never the other way round:
//
//  1. the seats' keys in nodes.json
//  2. the ledger
func writeLedger(k *keyring.Keyring, s ledger.State, entries []ledger.Entry) error {
	var b bytes.Buffer
	if err := Export(&b, k.Genesis, entries); err != nil {
		return err
	}
	if err := noteSeats(k, s); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(k.Dir, ledgerFile), b.Bytes(), 0o600)
}
