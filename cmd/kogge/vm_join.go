package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/qemu"
	"kogge.example/update/fleet"
)

// devFleet is the fleet of the VMs on this computer, unless they are told another.
const devFleet = "dev"

// tokenLife is how long a VM may take to boot and join.
const tokenLife = 24 * time.Hour

// invite has the VM boot with a join.yaml of its fleet, and makes the fleet called
// dev when it is absent. Without a fleet it does nothing and returns nil.
func (f *runFlags) invite(dir string, m *qemu.Machine) (*keyring.Keyring, error) {
	if f.fleet == "" {
		return nil, nil
	}
	ring, err := loadFleet(f.fleet)
	if errors.Is(err, keyring.ErrNoFleet) && f.fleet == devFleet {
		ring, err = createDevFleet()
	}
	if err != nil {
		return nil, err
	}
	if f.keep { // the disk knows its fleet
		m.Forwards = append(m.Forwards, qemu.Forward{Guest: api.Port})
		return ring, nil
	}
	return ring, inviteVM(ring, dir, m)
}

// inviteVM has a VM boot with a join.yaml of a fleet, which lies in the VM's folder, and its
// API be reached.
func inviteVM(ring *keyring.Keyring, dir string, m *qemu.Machine) error {
	m.Forwards = append(m.Forwards, qemu.Forward{Guest: api.Port})
	token, err := ring.NewToken(keyring.Terms{Node: m.Name, Life: tokenLife}, time.Now())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("folder of %s: %w", m.Name, err)
	}
	m.Join = filepath.Join(dir, "join.yaml")
	if err := os.WriteFile(m.Join, fleet.MarshalJoinFile(&fleet.JoinFile{Genesis: ring.Genesis, Token: token.Token}), 0o600); err != nil {
		return fmt.Errorf("join.yaml of %s: %w", m.Name, err)
	}
	return nil
}

// createDevFleet makes the fleet for trying things out: no passphrase, since nobody
// was asked for one, and nothing in it that matters.
func createDevFleet() (*keyring.Keyring, error) {
	dir, err := fleetDir(devFleet)
	if err != nil {
		return nil, err
	}
	ring, err := keyring.Create(devFleet, defaultOperator(), time.Now())
	if err != nil {
		return nil, err
	}
	say("fleet %s is created for the VMs of this computer: %s", devFleet, dir)
	return ring, ring.Save(dir, "")
}

// booting says whether err is that of a node which does not answer yet. QEMU takes
// connections before the node does, and resets them, which counts as canceled.
func booting(err error) bool {
	var said *connect.Error
	return errors.As(err, &said) && slices.Contains([]connect.Code{
		connect.CodeUnavailable, connect.CodeUnknown, connect.CodeCanceled, connect.CodeDeadlineExceeded,
	}, said.Code())
}

// joinPause is between two tries to reach a VM that is still booting.
const joinPause = 500 * time.Millisecond

// joinVM takes the VM into the fleet as soon as it answers, and says so. It gives up when
// ctx ends or the VM does.
func joinVM(ctx context.Context, vm *qemu.VM, ring *keyring.Keyring, name string, out io.Writer) error {
	port, err := vm.Port(api.Port)
	if err != nil {
		return err // the VM has ended
	}
	return join(ctx, vm.Done(), ring, fmt.Sprintf("127.0.0.1:%d", port), name, out)
}

// errVMEnded says that a VM is gone before it had joined.
var errVMEnded = errors.New("it has ended")

func join(ctx context.Context, ended <-chan struct{}, ring *keyring.Keyring, address, name string, out io.Writer) error {
	for {
		err := adopt(ctx, ring, address, name, out)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil, !booting(err):
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ended:
			return errVMEnded
		case <-time.After(joinPause):
		}
	}
}

// joinDetached waits for a VM in the background to boot and to join the fleet, as one in
// the foreground does. It runs on whatever comes of that.
func joinDetached(ctx context.Context, vm *qemu.VM, ring *keyring.Keyring, name string, out io.Writer) error {
	port, err := vm.Port(api.Port)
	if err != nil {
		return fmt.Errorf("vm run: %s: %w", name, err)
	}
	later := fmt.Sprintf("kogge node adopt 127.0.0.1:%d --fleet %s takes it into its fleet", port, ring.Genesis.Name)
	say("%s boots; it joins fleet %s as soon as it answers. Ctrl-C leaves it running", name, ring.Genesis.Name)
	bounded, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	switch err := joinVM(bounded, vm, ring, name, out); {
	case err == nil:
		return nil
	case errors.Is(err, errVMEnded):
		return errors.Join(fmt.Errorf("vm run: %s has ended before it joined fleet %s", name, ring.Genesis.Name), vm.Wait())
	case ctx.Err() != nil:
		fmt.Fprintln(out, later)
		return nil // as it was told
	case bounded.Err() != nil:
		return hinted{fmt.Errorf("vm run: %s runs, but has not answered within %s", name, joinLimit), "kogge vm console " + name + " shows why; " + later}
	default:
		return hinted{fmt.Errorf("vm run: %s runs, but does not join fleet %s: %w", name, ring.Genesis.Name, err), later}
	}
}

// joinLimit is how long a VM in the background is waited for: an emulated one boots for a
// minute or two.
const joinLimit = 10 * time.Minute
