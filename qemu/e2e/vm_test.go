package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kogge.example/qemu"
	"kogge.example/qemu/nbd"
)

// bench is what one script has running.
type bench struct {
	ctx   context.Context
	dir   string        // one folder per VM
	limit time.Duration // of every wait
	vms   map[string]*node
}

// node is one VM of a script, over all its lives.
type node struct {
	dir     string
	machine qemu.Machine
	vm      *qemu.VM      // nil before the first start
	console *qemu.Console // after the line that was found last

	// With -nbd:
	sock   string
	base   io.Closer
	disk   *nbd.Disk
	server *nbd.Server
}

// end stops whatever runs.
func (n *node) end() {
	if n.vm != nil {
		n.vm.Close()
	}
	if n.server != nil {
		n.server.Close()
	}
	if n.base != nil {
		n.base.Close()
	}
}

// vm is the command of the scripts; doc.go describes it.
func vm(ts *testscript.TestScript, neg bool, args []string) {
	b := ts.Value(benchKey{}).(*bench)
	if neg || len(args) < 2 {
		ts.Fatalf("usage: vm VERB [-count=N] NAME [ARG...], without a negation")
	}
	ctx, cancel := context.WithTimeoutCause(b.ctx, b.limit, fmt.Errorf("nothing within %s", b.limit))
	defer cancel()
	verb, args := args[0], args[1:]
	count := 1
	if text, ok := strings.CutPrefix(args[0], "-count="); ok {
		var err error
		if count, err = strconv.Atoi(text); err != nil || count < 1 || len(args) < 2 {
			ts.Fatalf("vm %s: %s: want a number from 1, and a name", verb, args[0])
		}
		args = args[1:]
	}
	name, args := args[0], args[1:]
	if verb == "start" {
		ts.Check(b.start(ts, name, args))
		return
	}
	n := b.vms[name]
	if n == nil {
		ts.Fatalf("vm %s: %s was never started", verb, name)
	}
	operands, known := map[string]int{"wait": 1, "http": 3, "event": 1, "send": 1, "cut": 1, "cutafter": 2, "save": 1, "stop": 0, "reset": 0, "kill": 0}[verb]
	if !known || len(args) != operands {
		ts.Fatalf("vm %s: no such verb, or not %d operands after %s", verb, operands, name)
	}
	var err error
	switch verb {
	case "wait":
		err = n.wait(ctx, ts, args[0], count)
	case "http":
		err = n.http(ctx, args[0], args[1], args[2])
	case "event":
		_, err = n.vm.WaitEvent(ctx, args[0], count)
	case "send":
		err = n.vm.Console().Send(ctx, args[0]+"\n")
	case "cut", "cutafter":
		err = n.cut(ctx, args)
	case "save":
		err = n.save(ts.MkAbs(args[0]))
	case "stop":
		err = n.vm.Stop(ctx)
	case "reset":
		err = n.vm.Reset(ctx)
	case "kill":
		err = n.vm.Kill()
	}
	ts.Check(err)
}

// start starts a VM, or an ended one once more.
func (b *bench) start(ts *testscript.TestScript, name string, args []string) error {
	n := b.vms[name]
	switch {
	case n == nil && len(args) == 0:
		return fmt.Errorf("vm start: %s has no image", name)
	case n != nil && n.vm != nil && n.vm.Running():
		return fmt.Errorf("vm start: %s runs already", name)
	case n != nil && len(args) > 0:
		return fmt.Errorf("vm start: %s has its image and flags already; another machine needs another name", name)
	case n == nil:
		n = &node{dir: filepath.Join(b.dir, name), sock: filepath.Join(b.dir, name+".nbd")}
		b.vms[name] = n
		if err := n.describe(ts, name, args); err != nil {
			return fmt.Errorf("vm start %s: %w", name, err)
		}
	}
	if err := n.serve(); err != nil {
		return fmt.Errorf("vm start %s: %w", name, err)
	}
	v, err := qemu.Start(b.ctx, n.machine, n.dir)
	if err != nil {
		return err
	}
	n.vm, n.console = v, v.Console()
	for _, f := range v.Forwards {
		ts.Setenv(fmt.Sprintf("%s_%d", strings.ReplaceAll(name, "-", "_"), f.Guest), fmt.Sprintf("127.0.0.1:%d", f.Host))
	}
	return nil
}

// describe reads the operands of vm start into the node's machine.
func (n *node) describe(ts *testscript.TestScript, name string, args []string) error {
	m := qemu.Machine{Name: name, Offline: true}
	disk := qemu.Disk{Path: ts.MkAbs(args[0])}
	flags := flag.NewFlagSet("vm start", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&m.MemoryMiB, "memory", 0, "")
	flags.IntVar(&m.CPUs, "cpus", 0, "")
	flags.IntVar(&disk.SizeMiB, "disk", 0, "")
	flags.StringVar(&disk.Bus, "bus", "", "")
	flags.StringVar(&m.Network, "network", "", "")
	flags.StringVar(&m.ReadyLine, "ready", "", "")
	flags.StringVar(&m.Seed, "seed", "", "")
	flags.StringVar(&m.Join, "join", "", "")
	onNBD := flags.Bool("nbd", false, "")
	bios := flags.Bool("bios", false, "")
	var direct qemu.Direct
	flags.StringVar(&direct.Kernel, "kernel", "", "")
	flags.StringVar(&direct.Initrd, "initrd", "", "")
	cmdline := flags.String("cmdline", "", "")
	flags.Func("rtc", "", func(s string) (err error) {
		m.RTC, err = time.Parse(time.RFC3339, s)
		return err
	})
	flags.Func("port", "", func(s string) error {
		guest, err := strconv.Atoi(s)
		m.Forwards = append(m.Forwards, qemu.Forward{Guest: guest})
		return err
	})
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q: flags come last", flags.Args())
	}
	for _, path := range []*string{&m.Seed, &m.Join, &direct.Kernel, &direct.Initrd} {
		if *path != "" {
			*path = ts.MkAbs(*path)
		}
	}
	if *cmdline != "" {
		direct.Cmdline = strings.TrimSpace(ts.ReadFile(*cmdline))
	}
	var err error
	switch {
	case direct.Kernel != "":
		m.Direct = &direct
	case !*bios:
		if m.UEFI, err = firmware(); err != nil {
			return err
		}
	}
	if *onNBD {
		if n.disk, n.base, err = nbd.OpenDisk(disk.Path, int64(disk.SizeMiB)<<20); err != nil {
			return err
		}
		disk.Path, disk.SizeMiB, disk.NBD = "", 0, n.sock
	}
	m.Disks = []qemu.Disk{disk}
	n.machine = m
	return nil
}

// serve puts the disk of -nbd on the line: after a cut, what the cut left of it.
func (n *node) serve() (err error) {
	if n.disk == nil || n.server != nil && n.server.State() == nil {
		return nil
	}
	if n.server != nil {
		st := n.server.State()
		n.server.Close()
		if n.disk, err = nbd.NewDisk(st, st.Size()); err != nil {
			return err
		}
	}
	n.server, err = nbd.Serve(n.sock, n.disk)
	return err
}

func (n *node) wait(ctx context.Context, ts *testscript.TestScript, want string, count int) error {
	re, err := regexp.Compile(want)
	if err != nil {
		return err
	}
	line, next, err := n.console.Next(ctx, re, count)
	if err != nil {
		return err
	}
	n.console = next
	ts.Logf("%s", line)
	return nil
}

// http asks until status and body are as they should be.
func (n *node) http(ctx context.Context, port, path, want string) error {
	re, err := regexp.Compile(want)
	if err != nil {
		return err
	}
	guest, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("port %q: %w", port, err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := "no answer"
	for {
		status, body, err := n.vm.WaitHTTP(ctx, guest, path)
		if err != nil {
			return fmt.Errorf("%w (last answer: %s)", err, last)
		}
		if status == 200 && re.Match(body) {
			return nil
		}
		last = fmt.Sprintf("%d %.200q", status, body)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for 200 and %q from port %s of %s: %w (last answer: %s)", want, port, n.machine.Name, context.Cause(ctx), last)
		}
	}
}

// cut cuts the power: now (SEED), or when the disk has taken so many writes (N SEED).
func (n *node) cut(ctx context.Context, args []string) error {
	if n.server == nil {
		return errors.New("vm cut: the VM was not started with -nbd")
	}
	seed, err := strconv.ParseUint(args[len(args)-1], 10, 64)
	if err != nil {
		return fmt.Errorf("vm cut: seed: %w", err)
	}
	if len(args) == 1 {
		n.server.Cut(seed)
		return n.vm.Kill()
	}
	writes, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("vm cutafter: writes: %w", err)
	}
	n.server.CutAfter(writes, seed)
	select {
	case <-n.server.WasCut():
		return n.vm.Kill()
	case <-ctx.Done():
		return fmt.Errorf("vm cutafter: %w: the disk has taken %d writes of %d", context.Cause(ctx), n.disk.Writes(), writes)
	}
}

func (n *node) save(path string) error {
	if n.server == nil || n.server.State() == nil {
		return errors.New("vm save: the VM was not cut")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return n.server.State().Save(path)
}
