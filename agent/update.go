package main

import (
	"context"
	"errors"
	"log"
	"path/filepath"
	"sync"

	"kogge.example/agent/install"
	"kogge.example/agent/probe"
	"kogge.example/init/control"
	"kogge.example/update/bootloader"
	"kogge.example/update/cmdline"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/memory"
	"kogge.example/update/osrelease"
	"kogge.example/update/release"
)

// installer is the node's way to its slots.
func installer(at paths, now *parts) *install.Installer {
	return &install.Installer{
		Run: at.run, State: at.state, Image: "/usr/lib/kogge/tuf/root.json", Cmdline: cmdline.File, Facts: osrelease.File,
		Web: func(url string) (release.Stored, error) {
			registries, err := at.registries.Read()
			if err != nil {
				return nil, err
			}
			return registries.OpenWebRelease(url)
		},
		Registry: func(ctx context.Context, name string) (release.Stored, error) {
			registries, err := at.registries.Read()
			if err != nil {
				return nil, err
			}
			return registries.OpenRelease(ctx, name)
		},
		Ledger: func() (ledger.State, error) {
			own := now.part.Load()
			if own == nil {
				return ledger.State{}, errors.New("the node does not know yet who it is")
			}
			taken, err := own.Ledger()
			if err != nil {
				return ledger.State{}, err
			}
			return taken.State(), taken.Problem()
		},
		Seat: func() (signed.Key, error) {
			own := now.part.Load()
			if own == nil {
				return "", errors.New("the node does not know yet who it is")
			}
			seat, _, err := own.Whole()
			if err != nil {
				return "", err
			}
			return seat.Key, nil
		},
		Format: func() int { return at.format(now.node.Load()) },
		Sticks: install.Sticks{Sys: "/sys", Dev: "/dev"}.Open,
		Remember: func() error {
			status, err := now.status()
			if err != nil {
				return nil // containers that are not known cannot be missed
			}
			return probe.Remember(filepath.Join(at.state, probe.MemoryFile), status)
		},
		Noted: func(slot bootloader.Slot, r memory.Staged, by string, failed bool) {
			if own := now.part.Load(); own != nil {
				own.Arming(slot, r, by, failed)
			}
		},
		Drain: now.drain.stop,
		Reboot: func(ctx context.Context) error {
			err := reboot(ctx, filepath.Join(at.run, filepath.Base(control.Path)))
			if err != nil {
				now.drain.giveUp(err)
			}
			return err
		},
	}
}

func reboot(ctx context.Context, socket string) error {
	c, err := control.Dial(ctx, socket)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Reboot(ctx)
}

// drain has the containers stopped while the agent goes on: for a reboot that may take
// longer than PID 1 grants a service that stops.
type drain struct {
	mu      sync.Mutex // guards the fields below
	keeping bool       // there are containers to stop
	limit   context.Context
	asked   func()        // ends the keeper
	over    chan struct{} // closed once they have stopped
	failed  chan error    // the reboot does not come
}

// begin is called when there are containers to stop. stop ends the one who keeps them.
func (d *drain) begin(stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keeping, d.asked, d.over, d.failed = true, stop, make(chan struct{}), make(chan error, 1)
}

// stop stops the containers, and returns when they have, or ctx ends.
func (d *drain) stop(ctx context.Context) {
	d.mu.Lock()
	if !d.keeping || d.limit != nil {
		d.mu.Unlock()
		log.Print("agent: no containers are running: none has to stop before the reboot")
		return
	}
	d.limit = ctx
	d.asked()
	d.mu.Unlock()
	select {
	case <-d.over:
	case <-ctx.Done():
	}
}

// wanted is the context that says for how long containers have to stop; nil: they go on.
func (d *drain) wanted() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limit
}

// giveUp has the agent start anew, and with it the containers.
func (d *drain) giveUp(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.limit != nil {
		select {
		case d.failed <- err:
		default:
		}
	}
}
