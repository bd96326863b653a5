package part

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"kogge.example/agent/pinned"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/ledger"
)

// This file is the ledger of a fleet into which the node wants to come. It lies apart from the node's
// own, because a node that comes in nowhere may still be given to another fleet.

func (p *Part) arriving() string { return filepath.Join(p.state, "kogge", "arriving") }

// seen is what of it was verified; anew: it begins again. So it does where it cannot be read, or is of
// another fleet.
func (p *Part) seen(anew bool) (*pinned.Ledger, error) {
	l := pinned.Open(p.arriving(), p.node.Genesis())
	if !anew && l.Problem() == nil {
		return l, nil
	}
	if l.State().Height > 0 {
		log.Printf("agent: the ledger that members have shown is fetched again: %v", errors.Join(l.Problem()))
	}
	if err := os.RemoveAll(p.arriving()); err != nil {
		return nil, fmt.Errorf("the ledger that members have shown: %w", err)
	}
	return pinned.Open(p.arriving(), p.node.Genesis()), nil
}

// arrive has that be the node's ledger, once the node is in the fleet. It is repeated until it has
// succeeded: until then the node takes itself for one of a fleet that is not founded. A cut leaves the
// node before it, or after it:
//
//  1. PID 1 knows how many votes decide
//  2. the folder has the other name
func (p *Part) arrive() error {
	if _, err := os.Stat(p.arriving()); !p.node.Adopted() || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := p.seen(false)
	if err != nil {
		return err
	}
	taken := p.opened()
	if s := l.State(); s.Height > 0 && taken.State().Height == 0 && taken.Problem() == nil && p.becomes(s, taken) == nil {
		return nil
	}
	for h := taken.State().Height + 1; h <= l.State().Height; h++ { // something lies there already
		e, err := l.Entry(h)
		if err == nil {
			err = taken.Take(h, e)
		}
		if err != nil && taken.Problem() == nil {
			return fmt.Errorf("the ledger that members have shown: %w", err)
		}
	}
	return os.RemoveAll(p.arriving())
}

func (p *Part) becomes(s ledger.State, taken *pinned.Ledger) error {
	if err := p.votes(s); err != nil {
		return err
	}
	own := filepath.Join(p.state, "kogge", "ledger")
	if err := os.Remove(own); err != nil && !errors.Is(err, fs.ErrNotExist) { // one that is empty
		return err
	}
	if err := os.Rename(p.arriving(), own); err != nil {
		return err
	}
	if err := durable.SyncFolder(filepath.Dir(own)); err != nil {
		return err
	}
	taken.Reread()
	return taken.Mend()
}
