package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/boards"
	"kogge.example/image"
	"kogge.example/image/disk"
	"kogge.example/image/example"
	"kogge.example/image/firmware"
	"kogge.example/qemu"
)

// runFlags are the flags of kogge vm run.
type runFlags struct {
	build                      buildFlags
	image, seed, accel, net    string
	fleet                      string
	memory, cpus               int
	disk                       size
	ports                      []string
	direct, detach             bool
	keep, printCommand, online bool
	console                    bool
}

func vmRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [NAME]",
		Short: "Boot an image in QEMU until Ctrl-C",
		Long: "Boots an image in QEMU. Without --image it builds one from this source tree, with an example\n" +
			"container, and prints the address under which the container answers. The node joins its fleet as soon\n" +
			"as it answers; with -d the command ends then.",
		Example: "  kogge vm run\n  kogge vm run n2 -d --network lan\n  kogge vm run --image kogge.img --seed node.yaml --memory 512 --port 8080:80",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "kogge"
			if len(args) > 0 {
				name = args[0]
			}
			return f.run(cmd.Context(), name, cmd.OutOrStdout())
		},
	}
	f.build.register(cmd)
	cmd.Flags().StringVar(&f.image, "image", "", "image file to boot (default: build one with the example container)")
	cmd.Flags().StringVar(&f.seed, "seed", "", "node.yaml that QEMU hands to the node (default: one that runs the example)")
	cmd.Flags().IntVarP(&f.memory, "memory", "m", 1024, "memory in MiB")
	cmd.Flags().IntVar(&f.cpus, "cpus", 2, "virtual processors")
	cmd.Flags().Var(&f.disk, "disk", "size of the disk (default 4GiB)")
	cmd.Flags().StringArrayVarP(&f.ports, "port", "p", nil, "HOST:GUEST: a port on 127.0.0.1 and the node's port that it leads to; HOST 0 picks a free one (default 0:8080)")
	cmd.Flags().StringVar(&f.accel, "accel", "auto", "tcg, kvm, or auto: kvm if it really works")
	completeFlag(cmd, "accel", cobra.FixedCompletions([]string{"auto", "kvm", "tcg"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().StringVar(&f.fleet, "fleet", "", "fleet that the node joins (default: "+devFleet+", created if missing; with --image none)")
	completeFlag(cmd, "fleet", completeFleetFlag)
	cmd.Flags().StringVar(&f.net, "network", "", "private network for a second network card; VMs that name the same one share it")
	cmd.Flags().BoolVar(&f.direct, "direct", false, "start the kernel without firmware and boot loader")
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "leave the VM running in the background, once it has joined its fleet")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "keep the disk of the last run")
	cmd.Flags().BoolVar(&f.online, "online", false, "let the node reach networks beyond this machine")
	cmd.Flags().BoolVar(&f.console, "show-console", true, "show the node's console")
	cmd.Flags().BoolVar(&f.printCommand, "print-command", false, "print the QEMU command instead of running it")
	return cmd
}

func (f *runFlags) run(ctx context.Context, name string, out io.Writer) error {
	dir, err := vmDir(name)
	if err != nil {
		return err
	}
	m, err := f.machine(ctx, name, dir)
	if err != nil {
		return buildHint(err)
	}
	ring, err := f.invite(dir, &m)
	if err != nil {
		return fmt.Errorf("vm run: %w", err)
	}
	if f.printCommand {
		line, err := m.CommandLine(dir)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, line)
		return nil
	}
	say("boot %s", name)
	// Ctrl-C shuts the node down instead of pulling its plug, so QEMU does not see ctx.
	vm, err := qemu.Start(context.WithoutCancel(ctx), m, dir)
	if err != nil {
		return vmHint(err, name)
	}
	defer vm.Close()
	if f.detach {
		fmt.Fprintf(out, "%s runs; kogge vm console %s shows it, kogge vm stop %s ends it\n", name, name, name)
		if ring == nil {
			return nil
		}
		return joinDetached(ctx, vm, ring, name, out)
	}
	if f.console {
		follow, stop := context.WithCancel(ctx)
		defer stop()
		go copyConsole(follow, vm, errorOutput())
	}
	go f.announce(ctx, vm, out)
	if ring != nil {
		go func() {
			if err := joinVM(ctx, vm, ring, name, out); err != nil && ctx.Err() == nil && vm.Running() {
				say("%s does not join fleet %s: %v", name, ring.Genesis.Name, err)
			}
		}()
	}
	select {
	case <-vm.Done():
		return vm.Wait()
	case <-ctx.Done():
	}
	say("shutting %s down; Ctrl-C once more pulls its plug", name)
	bounded, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return vm.Stop(bounded)
}

// findBoard is the board of the machine: the flag's, or that of the image.
func (f *runFlags) findBoard() (boards.Board, error) {
	board, err := boards.Find(f.build.board)
	if err != nil {
		return board, hinted{fmt.Errorf("vm run: %w", err), "kogge boards list"}
	}
	if f.image == "" {
		return board, nil
	}
	if name := boardOf(f.image); name != "" {
		return boards.Find(name)
	}
	return board, nil
}

// boardOf is the board that a raw image names, "" where there is none.
func boardOf(image string) string {
	file, err := os.Open(image)
	if err != nil {
		return "" // whoever opens it next says why
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return ""
	}
	c, err := disk.Inspect(file, st.Size())
	if err != nil {
		return ""
	}
	return c.Board
}

// check refuses what cannot run before anything is built, downloaded or written.
func (f *runFlags) check(m qemu.Machine) error {
	switch {
	case f.image == "":
		// Some kernel stands for the image that is still to be built.
		m.Direct = &qemu.Direct{Kernel: "vmlinuz"}
	case f.direct:
		return errors.New("vm run: --direct needs the kernel of an image built here; leave out --image")
	default:
		m.Disks = []qemu.Disk{{Path: f.image}}
	}
	if _, err := m.CommandLine("."); err != nil {
		return fmt.Errorf("vm run: %w", err)
	}
	if f.seed != "" {
		if _, err := os.Stat(f.seed); err != nil {
			return fmt.Errorf("vm run: seed: %w", err)
		}
	}
	if f.printCommand {
		return nil // for a machine that need not be this one
	}
	program, pkg := m.Program()
	if _, err := exec.LookPath(program); err != nil {
		return hinted{fmt.Errorf("vm run: %s: %w", program, qemu.ErrNoQEMU), "apt-get install " + pkg}
	}
	for _, forward := range m.Forwards {
		if err := tryPort(forward); err != nil {
			return vmHint(fmt.Errorf("vm run: %w", err), m.Name)
		}
	}
	return nil
}

// tryPort looks whether a port is free now; QEMU will have to be as lucky.
func tryPort(f qemu.Forward) error {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", f.Host))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("127.0.0.1:%d: %w", f.Host, qemu.ErrPortInUse)
	case err != nil:
		return fmt.Errorf("127.0.0.1:%d: %w", f.Host, err)
	}
	return l.Close()
}

// machine builds what has to be built and describes the VM.
func (f *runFlags) machine(ctx context.Context, name, dir string) (qemu.Machine, error) {
	forwards, err := parsePorts(f.ports)
	if err != nil {
		return qemu.Machine{}, err
	}
	board, err := f.findBoard()
	if err != nil {
		return qemu.Machine{}, err
	}
	m := qemu.Machine{
		Name: name, Arch: board.Arch, MemoryMiB: f.memory, CPUs: f.cpus, Forwards: forwards, Offline: !f.online, Network: f.net,
		Accel: f.accel, Detached: f.detach, Fresh: !f.keep, Seed: f.seed, ReadyLine: "kogge: ",
	}
	if err := f.check(m); err != nil {
		return qemu.Machine{}, err
	}
	var built image.Built
	if f.image == "" && f.fleet == "" {
		f.fleet = devFleet
	}
	own := filepath.Join(dir, "kogge.img")
	if f.image == "" && f.keep && !f.direct && isFile(own) {
		// The disk goes with the image that it began as, so that one boots again. Its
		// seed was read then; without one from QEMU the node keeps what it knows.
		say("the image of the last run boots; leave out --keep to build a new one")
		f.image = own
	}
	if f.image == "" {
		f.image = own
		if built, err = f.example(ctx, dir, &m); err != nil {
			return qemu.Machine{}, err
		}
	}
	if f.disk == 0 {
		f.disk = 4 << 30
	}
	m.Disks = []qemu.Disk{{Path: f.image, SizeMiB: int(f.disk >> 20)}}
	if f.direct {
		m.Direct = &qemu.Direct{Kernel: built.Kernel, Initrd: built.Initrd, Cmdline: built.Cmdline}
	} else if err := f.addFirmware(ctx, &m, board); err != nil {
		return qemu.Machine{}, err
	}
	return m, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// addFirmware completes the machine with the board's firmware from the package cache.
func (f *runFlags) addFirmware(ctx context.Context, m *qemu.Machine, board boards.Board) error {
	packages, err := packageCache(f.build.locked, f.build.without...)
	if err != nil {
		return err
	}
	files, err := firmware.Fetch(ctx, packages, board)
	if err != nil {
		return err
	}
	if files.Vars == "" {
		m.BIOS = files.Code
		return nil
	}
	m.UEFI = &qemu.UEFI{Code: files.Code, Vars: files.Vars}
	return nil
}

// parsePorts reads HOST:GUEST flags.
func parsePorts(flags []string) ([]qemu.Forward, error) {
	if len(flags) == 0 {
		flags = []string{fmt.Sprintf("0:%d", example.Port)}
	}
	var all []qemu.Forward
	for _, text := range flags {
		host, guest, ok := strings.Cut(text, ":")
		h, err1 := strconv.ParseUint(host, 10, 16)
		g, err2 := strconv.ParseUint(guest, 10, 16)
		if !ok || err1 != nil || err2 != nil || g == 0 {
			return nil, fmt.Errorf("port %q: write it as HOST:GUEST, for instance 8080:80", text)
		}
		all = append(all, qemu.Forward{Host: int(h), Guest: int(g)})
	}
	return all, nil
}

// announce prints where the container answers, once it does.
func (f *runFlags) announce(ctx context.Context, vm *qemu.VM, out io.Writer) {
	guest := vm.Forwards[0].Guest
	status, body, err := vm.WaitHTTP(ctx, guest, "/")
	if err != nil {
		return // the VM has ended or the user has gone
	}
	port, err := vm.Port(guest)
	if err != nil {
		return
	}
	cpu, _ := vm.CPUSeconds()
	fmt.Fprintf(out, "\n  http://127.0.0.1:%d/ answers %d after %.1f CPU seconds: %s\n  Ctrl-C shuts the node down.\n\n", port, status, cpu, strings.TrimSpace(string(body)))
}

// copyConsole shows the console's lines until ctx or the VM ends.
func copyConsole(ctx context.Context, vm *qemu.VM, w io.Writer) {
	_ = vm.Console().Follow(ctx, func(line string) { fmt.Fprintln(w, line) })
}
