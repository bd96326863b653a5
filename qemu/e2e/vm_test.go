package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kogge.example/boards"
	"kogge.example/qemu"
	"kogge.example/qemu/nbd"
)

// bench is what one script has running.
type bench struct {
	ctx   context.Context
	dir   string        // one folder per VM
	limit time.Duration // of every wait
	vms   map[string]*node
	thief *thief // who has stolen the key of the node CA; nil: nobody has yet
}

// node is one VM of a script, over all its lives.
type node struct {
	dir     string
	machine qemu.Machine
	vm      *qemu.VM      // nil before the first start
	console *qemu.Console // after the line that was found last
	started time.Time     // of this life

	test   bool // has a test port
	asked  int  // commands to the test port
	poller *poller
	writer *writer
	acked  []string // records answered for in earlier lives
	lives  int      // of writers

	// With -nbd:
	sock   string
	base   io.Closer
	disk   *nbd.Disk
	server *nbd.Server
}

// end stops whatever runs.
func (n *node) end() {
	if n.poller != nil {
		n.poller.cancel()
		<-n.poller.done
	}
	if n.writer != nil {
		n.writer.cancel()
		<-n.writer.done
	}
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

// call is one use of the command vm on a VM that was started once.
type call struct {
	ts     *testscript.TestScript
	count  int
	signal int
	args   []string
}

// verb is what can be done with a VM.
type verb struct {
	operands int // after the VM's name; -1: one or more
	run      func(ctx context.Context, n *node, c call) error
}

// verbs are the words after vm; doc.go describes them.
var verbs = map[string]verb{
	"wait": {1, func(ctx context.Context, n *node, c call) error { return n.wait(ctx, c.ts, c.args[0], c.count) }},
	"http": {3, func(ctx context.Context, n *node, c call) error {
		err := n.http(ctx, c.args[0], c.args[1], c.args[2])
		cpu, _ := n.vm.CPUSeconds()
		c.ts.Logf("%.1f s and %.1f CPU seconds after the start", time.Since(n.started).Seconds(), cpu)
		return err
	}},
	"event": {1, func(ctx context.Context, n *node, c call) error {
		_, err := n.vm.WaitEvent(ctx, c.args[0], c.count)
		c.ts.Logf("%s after %.1f s", c.args[0], time.Since(n.started).Seconds())
		return err
	}},
	"atmost": {2, func(_ context.Context, n *node, c call) error {
		return withNumber(c.args[1], func(most int) error { return n.atMost(c.args[0], most) })
	}},
	"send":     {1, func(ctx context.Context, n *node, c call) error { return n.vm.Console().Send(ctx, c.args[0]+"\n") }},
	"stop":     {0, func(ctx context.Context, n *node, _ call) error { return n.vm.Stop(ctx) }},
	"reset":    {0, func(ctx context.Context, n *node, _ call) error { return n.vm.Reset(ctx) }},
	"unplug":   {1, func(ctx context.Context, n *node, c call) error { return n.plug(ctx, c.args[0], false) }},
	"plug":     {1, func(ctx context.Context, n *node, c call) error { return n.plug(ctx, c.args[0], true) }},
	"kill":     {0, func(_ context.Context, n *node, _ call) error { return n.vm.Kill() }},
	"cut":      {1, func(ctx context.Context, n *node, c call) error { return n.cut(ctx, c.args) }},
	"cutafter": {2, func(ctx context.Context, n *node, c call) error { return n.cut(ctx, c.args) }},
	"save":     {1, func(_ context.Context, n *node, c call) error { return n.save(c.ts.MkAbs(c.args[0])) }},
	"fsck":     {0, func(ctx context.Context, n *node, _ call) error { return n.fsck(ctx) }},
	"port": {-1, func(ctx context.Context, n *node, c call) error {
		text, err := n.ask(ctx, command{Op: c.args[0], Args: c.args[1:], Signal: c.signal})
		c.ts.Logf("%.1f s after the start", time.Since(n.started).Seconds())
		return c.print(text, err)
	}},
	"portwait": {-1, func(ctx context.Context, n *node, c call) error {
		if len(c.args) < 2 {
			return errors.New("want an expression and an operation")
		}
		text, err := n.askUntil(ctx, c.args[0], command{Op: c.args[1], Args: c.args[2:]})
		return c.print(text, err)
	}},
	"poll":   {1, func(_ context.Context, n *node, c call) error { return withNumber(c.args[0], n.poll) }},
	"record": {1, func(_ context.Context, n *node, c call) error { return withNumber(c.args[0], n.record) }},
	"polled": {1, func(ctx context.Context, n *node, c call) error {
		return withNumber(c.args[0], func(more int) error { return c.print(n.polled(ctx, more)) })
	}},
	"recorded": {1, func(ctx context.Context, n *node, c call) error {
		return withNumber(c.args[0], func(count int) error { return n.recorded(ctx, count) })
	}},
	"records": {1, func(ctx context.Context, n *node, c call) error {
		return withNumber(c.args[0], func(guest int) error { return c.print(n.records(ctx, guest)) })
	}},
}

// print shows text to the script, as its standard output, unless err stands.
func (c call) print(text string, err error) error {
	if err == nil {
		_, err = io.WriteString(c.ts.Stdout(), text)
	}
	return err
}

func withNumber(text string, do func(int) error) error {
	number, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	return do(number)
}

// vm is the command of the scripts; doc.go describes it.
func vm(ts *testscript.TestScript, neg bool, args []string) {
	b := ts.Value(benchKey{}).(*bench)
	if len(args) < 2 {
		ts.Fatalf("usage: vm VERB [-count N] [-signal N] NAME [ARG...]")
	}
	ctx, cancel := context.WithTimeoutCause(b.ctx, b.limit, fmt.Errorf("nothing within %s", b.limit))
	defer cancel()
	c := call{ts: ts}
	flags := flag.NewFlagSet("vm "+args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&c.count, "count", 1, "")
	flags.IntVar(&c.signal, "signal", 0, "")
	ts.Check(flags.Parse(args[1:]))
	if flags.NArg() == 0 || c.count < 1 {
		ts.Fatalf("vm %s: want a name, and a count from 1", args[0])
	}
	name := flags.Arg(0)
	c.args = flags.Args()[1:]
	if args[0] == "start" && !neg {
		ts.Check(b.start(ts, name, c.args))
		return
	}
	n := b.vms[name]
	if n == nil || n.vm == nil {
		ts.Fatalf("vm %s: %s was never started", args[0], name)
	}
	v, known := verbs[args[0]]
	if !known || v.operands >= 0 && len(c.args) != v.operands || v.operands < 0 && len(c.args) == 0 {
		ts.Fatalf("vm %s: no such verb, or not its operands after %s", args[0], name)
	}
	err := v.run(ctx, n, c)
	if !neg {
		ts.Check(err)
		return
	}
	if err == nil {
		ts.Fatalf("vm %s: succeeded", args[0])
	}
	fmt.Fprintln(ts.Stderr(), err)
}

// start starts a VM, or an ended one once more.
func (b *bench) start(ts *testscript.TestScript, name string, args []string) error {
	n := b.vms[name]
	switch {
	case n == nil && len(args) == 0:
		return fmt.Errorf("vm start: %s has no image", name)
	case n != nil && n.vm != nil && n.vm.Running():
		return fmt.Errorf("vm start: %s runs already", name)
	case n != nil:
		if err := n.alter(ts, args); err != nil {
			return fmt.Errorf("vm start %s: %w", name, err)
		}
	default:
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
	n.vm, n.console, n.started = v, v.Console(), time.Now()
	prefix := strings.ReplaceAll(name, "-", "_")
	ts.Setenv(prefix+"_dir", n.dir)
	for _, f := range v.Forwards {
		ts.Setenv(fmt.Sprintf("%s_%d", prefix, f.Guest), fmt.Sprintf("127.0.0.1:%d", f.Host))
	}
	return nil
}

// alter changes what may differ from one life to the next.
func (n *node) alter(ts *testscript.TestScript, args []string) error {
	flags := flag.NewFlagSet("vm start", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("seed", "", func(s string) error {
		n.machine.Seed = ts.MkAbs(s)
		return nil
	})
	flags.Func("join", "", func(s string) error {
		n.machine.Join = ts.MkAbs(s)
		return nil
	})
	flags.Func("rtc", "", func(s string) (err error) {
		n.machine.RTC, err = time.Parse(time.RFC3339, s)
		return err
	})
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return fmt.Errorf("it has its image and flags already, only -seed, -join and -rtc may change; another machine needs another name (%v)", err)
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
	flags.StringVar(&m.NIC, "nic", "", "")
	flags.BoolVar(&m.NoSerial, "noserial", false, "")
	flags.BoolVar(&n.test, "test", false, "")
	var further []string
	flags.Func("further", "", func(s string) error {
		further = append(further, ts.MkAbs(s))
		return nil
	})
	var sticks []qemu.Disk
	flags.Func("stick", "", func(s string) error {
		sticks = append(sticks, qemu.Disk{Path: ts.MkAbs(s), Bus: "usb"})
		return nil
	})
	flags.StringVar(&m.ReadyLine, "ready", "", "")
	flags.StringVar(&m.Seed, "seed", "", "")
	flags.StringVar(&m.Join, "join", "", "")
	onNBD := flags.Bool("nbd", false, "")
	bios := flags.Bool("bios", false, "")
	boardName := flags.String("board", "qemu-x86_64", "")
	var direct qemu.Direct
	flags.StringVar(&direct.Kernel, "kernel", "", "")
	flags.StringVar(&direct.Initrd, "initrd", "", "")
	cmdline := flags.String("cmdline", "", "")
	flags.Func("rtc", "", func(s string) (err error) {
		m.RTC, err = time.Parse(time.RFC3339, s)
		return err
	})
	flags.Func("port", "", func(s string) (err error) {
		f := qemu.Forward{}
		if f.Guest, err = strconv.Atoi(s); err == nil && f.Guest == apiPort {
			f.Host, err = address()
		}
		m.Forwards = append(m.Forwards, f)
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
	board, err := boards.Find(*boardName)
	if err != nil {
		return err
	}
	m.Arch = board.Arch
	switch {
	case direct.Kernel != "":
		m.Direct = &direct
	case !*bios:
		if err := addFirmware(&m, board); err != nil {
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
	for _, path := range further {
		m.Disks = append(m.Disks, qemu.Disk{Path: path, SizeMiB: disk.SizeMiB, Bus: disk.Bus})
	}
	m.Disks = append(m.Disks, sticks...)
	if n.test {
		m.Extra = append(m.Extra, testPort(m.Arch)...)
	}
	n.machine = m
	return nil
}

// apiPort is where a node answers operators.
const apiPort = 7443

// address is a port of this machine at which a node answers operators in all its lives, as one at
// home keeps its address. It lies below those that the kernel gives to whoever asks for any.
func address() (port int, err error) {
	for range 20 {
		port = 10000 + rand.IntN(10000)
		var l net.Listener
		if l, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
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

// plug puts the cable of a network card in, or pulls it out.
func (n *node) plug(ctx context.Context, card string, in bool) error {
	net, known := map[string]string{"eth0": "net0", "eth1": "net1"}[card]
	if !known {
		return fmt.Errorf("no network card %q: eth0 leads to this machine, eth1 to the private network", card)
	}
	return n.vm.Monitor(ctx, "set_link", map[string]any{"name": net, "up": in}, nil)
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

// fsck judges STATE as the cut left it.
func (n *node) fsck(ctx context.Context) error {
	if n.server == nil || n.server.State() == nil {
		return errors.New("vm fsck: the VM was not cut")
	}
	st := n.server.State()
	_, err := checkState(ctx, st, st.Size(), n.dir)
	return err
}

// atMost says whether QEMU has told of an event at most so many times in this life.
func (n *node) atMost(name string, most int) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // what has happened is known at once
	if _, err := n.vm.WaitEvent(ctx, name, most+1); err == nil {
		return fmt.Errorf("event %s came more than %d times", name, most)
	}
	return nil
}
