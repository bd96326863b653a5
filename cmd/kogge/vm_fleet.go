package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/image/example"
	"kogge.example/qemu"
	"kogge.example/update/fleet"
)

// vmFleet is the fleet of kogge vm fleet, and the network of its VMs.
const vmFleet = "vms"

// maxVMs of a fleet: a computer has not the memory for more.
const maxVMs = 30

// fleetRun are the flags of kogge vm fleet.
type fleetRun struct {
	one     runFlags
	nodes   int
	console bool
}

func vmFleetCommand() *cobra.Command {
	f := fleetRun{one: runFlags{fleet: vmFleet, net: vmFleet, accel: "auto", cpus: 1, disk: 4 << 30, ports: []string{fmt.Sprintf("0:%d", example.Port)}}}
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Boot VMs in QEMU, and found a fleet of them, until Ctrl-C",
		Long: "Builds an image from this source tree, boots VMs n1, n2, … with it on one private network, adopts them into a\n" +
			"new fleet called " + vmFleet + ", founds it, and shows how it is. Ctrl-C shuts the VMs down. The fleet is for trying things\n" +
			"out: its policy has minutes where others have hours. The next run makes a new fleet in its place.",
		Example: "  kogge vm fleet\n  kogge vm fleet --nodes 4 --memory 384",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f.one.build.register(cmd)
	cmd.Flags().IntVarP(&f.nodes, "nodes", "n", 3, "number of VMs")
	cmd.Flags().IntVarP(&f.one.memory, "memory", "m", 512, "memory of each in MiB")
	cmd.Flags().StringVar(&f.one.accel, "accel", "auto", "tcg, kvm, or auto: kvm if it really works")
	completeFlag(cmd, "accel", cobra.FixedCompletions([]string{"auto", "kvm", "tcg"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().BoolVar(&f.one.direct, "direct", false, "start the kernels without firmware and boot loader")
	cmd.Flags().BoolVar(&f.console, "show-console", false, "show the nodes' consoles")
	return cmd
}

func (f *fleetRun) run(ctx context.Context, out io.Writer) error {
	if f.nodes < 1 || f.nodes > maxVMs {
		return usage{fmt.Errorf("vm fleet: %d VMs: 1 to %d", f.nodes, maxVMs)}
	}
	ring, err := newVMFleet(f.nodes)
	if err != nil {
		return fmt.Errorf("vm fleet: %w", err)
	}
	p := ring.Genesis.Policy
	fmt.Fprintf(out, "Fleet %s is for trying things out. Its policy: bake %s, grace period %s, break-glass %s.\n", vmFleet, p.Bake, p.Grace, p.BreakGlass)
	machines, err := f.machines(ctx)
	if err != nil {
		return buildHint(err)
	}
	vms := make(map[string]*qemu.VM)
	defer func() {
		stopAll(machines)
		for _, vm := range vms {
			vm.Close() // pulls the plug of what did not shut down, so it comes last
		}
	}()
	for _, m := range machines {
		vm, err := f.start(ctx, ring, m)
		if err != nil {
			return err
		}
		vms[m.Name] = vm
		if f.console {
			follow, stop := context.WithCancel(ctx)
			defer stop()
			go copyConsole(follow, vm, errorOutput())
		}
	}
	say("%s boot; they join fleet %s as soon as they answer", count(len(vms), "VM"), vmFleet)
	if err := f.found(ctx, ring, vms, out); err != nil {
		return err
	}
	return f.stay(ctx, ring, vms, out)
}

// madeFile lies in the folder of a fleet that this command has made, and may remove.
const madeFile = "made-by-vm-fleet"

// newVMFleet makes the fleet, for so many VMs, in the place of the last one, if none of that one's
// VMs runs: nobody could reach them any more.
func newVMFleet(n int) (*keyring.Keyring, error) {
	dir, err := fleetDir(vmFleet)
	if err != nil {
		return nil, err
	}
	switch old, err := keyring.Load(dir); {
	case errors.Is(err, keyring.ErrNoFleet):
	case err != nil:
		return nil, err
	default:
		if _, err := os.Lstat(filepath.Join(dir, madeFile)); err != nil {
			return nil, hinted{fmt.Errorf("%s holds a fleet that this command has not made", dir), "move the folder: the name is for the VMs of this command"}
		}
		if err := noneRuns(old, n); err != nil {
			return nil, err
		}
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	ring, err := keyring.CreateWith(fleet.TrialPolicy(), vmFleet, defaultOperator(), time.Now())
	if err != nil {
		return nil, err
	}
	if err := ring.Save(dir, ""); err != nil {
		return nil, err
	}
	return ring, os.WriteFile(filepath.Join(dir, madeFile), nil, 0o600)
}

// noneRuns wants that none of a fleet's VMs runs, nor one of the first n by the names of this
// command's.
func noneRuns(ring *keyring.Keyring, n int) error {
	nodes, err := operate.Nodes(ring)
	if err != nil {
		return err
	}
	for i := 1; i <= n; i++ {
		nodes[vmName(i)] = operate.Node{}
	}
	dir, err := vmDir("")
	if err != nil {
		return err
	}
	all, err := qemu.List(dir)
	if err != nil {
		return err
	}
	for _, vm := range all {
		if _, ours := nodes[vm.Name]; ours && vm.Running {
			return vmHint(fmt.Errorf("%s: %w", vm.Name, qemu.ErrRunning), vm.Name)
		}
	}
	return nil
}

func vmName(i int) string { return fmt.Sprintf("n%d", i) }

// machines builds the image that all have, and describes the VMs.
func (f *fleetRun) machines(ctx context.Context) ([]qemu.Machine, error) {
	dir, err := vmDir(vmFleet)
	if err != nil {
		return nil, err
	}
	common, err := f.one.machine(ctx, vmFleet, dir)
	if err != nil {
		return nil, err
	}
	var all []qemu.Machine
	for i := 1; i <= f.nodes; i++ {
		m := common
		m.Name = vmName(i)
		m.Forwards = []qemu.Forward{{Guest: example.Port}}
		own, err := vmDir(m.Name)
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(own, 0o700); err != nil {
			return nil, fmt.Errorf("folder of %s: %w", m.Name, err)
		}
		m.Seed = filepath.Join(own, "node.yaml")
		if err := os.WriteFile(m.Seed, []byte(vmSeed(m.Name, i)), 0o644); err != nil {
			return nil, fmt.Errorf("seed of %s: %w", m.Name, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// vmSeed is the node.yaml of VM i: the example's, with an address on the private network, for
// nobody gives out any there.
func vmSeed(name string, i int) string {
	return strings.Replace(example.NodeYAML, "hostname: kogge\n", fmt.Sprintf("hostname: %s\nnetwork:\n  - match: eth0\n  - {match: eth1, addresses: [10.77.0.%d/24], ipv6: \"off\"}\n", name, i), 1)
}

// start boots a VM that has an invitation.
func (f *fleetRun) start(ctx context.Context, ring *keyring.Keyring, m qemu.Machine) (*qemu.VM, error) {
	dir, err := vmDir(m.Name)
	if err != nil {
		return nil, err
	}
	if err := inviteVM(ring, dir, &m); err != nil {
		return nil, fmt.Errorf("vm fleet: %w", err)
	}
	// Ctrl-C shuts the nodes down instead of pulling their plugs, so QEMU does not see ctx.
	vm, err := qemu.Start(context.WithoutCancel(ctx), m, dir)
	return vm, vmHint(err, m.Name)
}

// found adopts all VMs, and founds the fleet of them.
func (f *fleetRun) found(ctx context.Context, ring *keyring.Keyring, vms map[string]*qemu.VM, out io.Writer) error {
	bounded, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	var joining sync.WaitGroup
	failed := make(chan error, len(vms))
	lines := &lockedWriter{w: out}
	for name, vm := range vms {
		joining.Go(func() {
			if err := joinVM(bounded, vm, ring, name, lines); err != nil {
				failed <- fmt.Errorf("%s does not join: %w", name, err)
			}
		})
	}
	joining.Wait()
	close(failed)
	var err error
	for one := range failed {
		err = errors.Join(err, one)
	}
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return hinted{fmt.Errorf("vm fleet: %w", err), "--show-console shows why"}
	}
	fmt.Fprintln(out)
	founding := foundFlags{all: true, owner: ownerFlags{sheets: ring.Sheets()}, consent: consent{given: true}}
	for {
		// A node takes its address once nobody else has claimed it, some seconds after it answers.
		err := founding.run(ctx, ring, nil, out)
		if !errors.Is(err, operate.ErrFounding) {
			return err
		}
		select {
		case <-bounded.Done():
			return err
		case <-time.After(surveyPause):
		}
	}
}

// wholeLimit is how long a new fleet may take until nothing is wrong: an emulated node's boot
// is on trial for a while.
const wholeLimit = 5 * time.Minute

// stay shows how the fleet is and what to try, and ends with Ctrl-C.
func (f *fleetRun) stay(ctx context.Context, ring *keyring.Keyring, vms map[string]*qemu.VM, out io.Writer) error {
	s, h, board, err := survey(ctx, ring, wholeLimit)
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	if err := printHealth(out, s, h, board); err != nil {
		return err
	}
	cpu := 0.0
	for _, vm := range vms {
		if seconds, err := vm.CPUSeconds(); err == nil {
			cpu += seconds
		}
	}
	fmt.Fprintf(out, "\nSo far the VMs have used %.1f CPU seconds. In another terminal, try:\n\n"+
		"  export KOGGE_FLEET=%s\n  kogge fleet status\n  kogge fleet nodes\n  kogge ledger log\n  kogge ledger verify --node n1\n  kogge node status n2\n"+
		"  kogge vm stop n3 --kill; kogge fleet status\n  kogge vm start n3\n\nCtrl-C shuts them down.\n", cpu, vmFleet)
	<-ctx.Done()
	return nil
}

// stopAll shuts the VMs of these machines down that run, all at once, whoever has started them.
func stopAll(machines []qemu.Machine) {
	vms := make(map[string]*qemu.VM)
	for _, m := range machines {
		if vm, err := attach(m.Name); err == nil {
			defer vm.Close()
			vms[m.Name] = vm
		}
	}
	if len(vms) == 0 {
		return
	}
	say("shutting %s down; Ctrl-C once more pulls their plugs", count(len(vms), "VM"))
	bounded, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var stopping sync.WaitGroup
	for name, vm := range vms {
		stopping.Go(func() {
			if err := vm.Stop(bounded); err != nil {
				say("%s: %v", name, err)
			}
		})
	}
	stopping.Wait()
}

// lockedWriter is written to by several at once, a line at a time.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
