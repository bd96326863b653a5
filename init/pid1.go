package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"kogge.example/init/cgroup"
	"kogge.example/init/control"
	"kogge.example/init/guard"
	"kogge.example/init/module"
	"kogge.example/init/mount"
	"kogge.example/init/nodeconfig"
	"kogge.example/init/shutdown"
	"kogge.example/init/supervise"
	"kogge.example/init/trial"
	"kogge.example/init/watchdog"
	"kogge.example/update/cmdline"
)

// Files at run time.
const (
	runDir    = control.RunDir
	etcDir    = runDir + "/etc"
	nodeYAML  = runDir + "/node.yaml" // what the node runs with
	cgroupDir = "/sys/fs/cgroup"
)

// setUpLimit is how long the watchdog is fed before the supervisor's loop does it:
// a PC with much hardware loads drivers for a while. The check of STATE, inside it,
// has a longer limit of its own.
const setUpLimit = 5 * time.Minute

// self is this program. The one that runs came with the initramfs; the same bytes
// in the slot would have to be read once more.
const self = "/proc/self/exe"

// node is what the steps of a boot hand from one to the next.
type node struct {
	boot     control.Boot
	dog      *watchdog.Dog
	cgroups  cgroup.Tree
	budget   shutdown.Budget
	degraded supervise.Degraded
	modules  *module.Index
	cmdline  cmdline.Words
	disk     mount.Disk
	config   nodeconfig.Config
	settings []byte // the text of config
	persist  bool   // STATE is on the disk

	asking sync.Mutex // held while a wish is left on the boot partition
	trial  trial.Boot // what of this boot concerns the slots
}

// pid1 runs the node from the root file system on. It does not return.
func pid1(b control.Boot, dog *watchdog.Dog) {
	n := &node{boot: b, dog: dog}
	n.trial.Node = trial.Node{
		Facts: &n.boot, Run: runDir, ID: bootID(), Selected: selectedSlot, Pstore: n.openPstore, Dog: dog, Degraded: &n.degraded, Say: n.say,
	}
	how, err := n.run()
	if err != nil {
		guard.Kmsg("boot: " + err.Error())
		how = shutdown.Reboot // on trial this uses up a try; a proven slot comes back degraded
	}
	shutdown.Now(how, shutdown.Options{Dog: n.dog, Cgroups: n.cgroups, State: mount.StateDir, Budget: &n.budget, Say: n.say})
}

// run is the boot from the root file system on. Early file systems, watchdog and
// root may end it; whatever fails later is recorded, shown, and the boot goes on.
func (n *node) run() (how shutdown.How, err error) {
	defer func() {
		if v := recover(); v != nil {
			guard.Kmsg(fmt.Sprintf("panic: %v\n%s", v, debug.Stack()))
			how, err = shutdown.Reboot, fmt.Errorf("%w: panic: %v", guard.ErrPanic, v)
			n.goDown(func() { n.trial.NoteDown(string(how), err) })
		}
	}()
	var events *module.Events
	n.dog.While(setUpLimit, guard.Go, func() { events, err = n.setUp() })
	if err != nil {
		return "", err
	}
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	if events != nil && n.modules != nil {
		guard.Go("device events", func() { events.Serve(ctx, n.modules, n.say) })
	}
	n.testPort()
	fault("services")
	guard.Go("boot options", func() { n.degraded.Add("boot options of the firmware", n.nameSlots()) })
	show, stop := n.startConsole()
	defer stop()
	restarts := make(chan string)
	settings := n.keepSettings(restarts)
	assessment := n.trial.Assess(ctx, n.config.Assessment().Timeout, end)
	cfg := supervise.Config{
		Services: n.services(), Dir: runDir, Cgroups: n.cgroups, Dog: n.dog, Budget: &n.budget,
		Degraded: &n.degraded, Say: n.say, Restarts: restarts,
		Changed: func(s control.Status) {
			settings.Observe(s)
			assessment.Observe(s)
			show(s)
		},
		Answer: func(r control.Request) control.Response { return n.answer(settings, assessment, r) },
		Trace:  n.trial.Trace(),
	}
	if n.persist {
		cfg.LogDir = filepath.Join(mount.StateDir, "log")
	}
	settle() // what the boot allocated is garbage now
	how, err = supervise.Run(ctx, cfg)
	n.goDown(func() {
		assessment.Over(err == nil)
		n.trial.NoteDown(string(how), err)
		n.degraded.Add("seed of randomness", n.saveEntropy())
	})
	return how, err
}

// downLimit is for what is written down when the node goes down: there is no supervisor
// any more that beats, and a disk that is dead must not keep the node up.
const downLimit = 20 * time.Second

func (n *node) goDown(write func()) {
	n.dog.While(downLimit, guard.Go, func() { guard.Within(downLimit, "last notes", write) })
}

// setUp is the part before there are services. The device events that it returns
// are nil where the kernel gives none.
func (n *node) setUp() (events *module.Events, err error) {
	if err := mount.Early(); err != nil {
		return nil, fmt.Errorf("mount early file systems: %w", err)
	}
	// Every boot says at once what it is: people and tests look for this line.
	n.say("kogge: " + n.boot.String())
	n.degraded.Add("watchdog", n.dog.Missing())
	n.degraded.Add("kernel settings", setSysctls("/proc/sys"))
	n.degraded.Add("folders", makeFolders())
	n.degraded.Add("boot facts", n.boot.Write(runDir))
	n.degraded.Add("cgroups", n.openCgroups())
	// Before the drivers and STATE, which may be what the boots fail at.
	n.degraded.Add("boot disk", n.findDisk())
	moved, err := n.trial.Count()
	n.degraded.Add("count of boots", err)
	if moved != nil {
		return nil, moved
	}
	fault("drivers")
	events, err = module.Listen()
	n.degraded.Add("device events", err)
	n.degraded.Add("modules", n.loadModules())
	n.degraded.Add("node.yaml", n.configure())
	// The check of STATE may have taken longer than the watchdog is fed from outside.
	n.dog.While(setUpLimit, guard.Go, func() { moved = n.remember() })
	return events, moved
}

// remember is the part of setUp that wants STATE. The error ends the boot.
func (n *node) remember() error {
	n.degraded.Add("clock", n.startClock())
	moved, err := n.trial.CountAgain(imageTime())
	n.degraded.Add("count of boots", err)
	if moved != nil {
		return moved
	}
	n.degraded.Add("seed of randomness", n.startEntropy())
	n.degraded.Add("identity", n.identify())
	if n.persist {
		n.degraded.Add("machine", compareMachine(machineRecord, machineOf("/")))
	}
	n.degraded.Add("history of boots", n.trial.NoteUp())
	n.degraded.Add("trial", n.trial.Conclude())
	return nil
}

// say shows a line on the consoles and keeps it in the kernel log.
func (n *node) say(line string) {
	guard.Note(line)
	consoles.writeLine(line)
}

// makeFolders makes what programs expect below /run and /tmp.
func makeFolders() error {
	var errs []error
	for _, dir := range []string{etcDir, runDir + "/var", runDir + "/var/lib", runDir + "/var/log", runDir + "/var/tmp", "/run/netns"} {
		errs = append(errs, os.MkdirAll(dir, 0o755))
	}
	return errors.Join(errs...)
}

func (n *node) openCgroups() error {
	tree, err := cgroup.Open(cgroupDir)
	if err != nil {
		return err
	}
	n.cgroups = tree
	err = tree.Setup()
	memory, tasks := machineSize("/proc/sys/kernel")
	return errors.Join(err, tree.Bind(cgroup.Bounds(memory, tasks)))
}

// wanted are modules that every node needs sooner or later. Loading them here
// spares the kernel a process for each, when containers ask for them.
var wanted = []string{
	"overlay", "quota_v2", "bridge", "veth", "nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_fib_ipv4", "nft_ct", "nft_limit", "nft_connlimit", "nft_reject_ipv4", "qemu_fw_cfg", "evdev",
}

// loadModules loads the drivers of all devices, and what is wanted anyway.
func (n *node) loadModules() error {
	x, err := openModules()
	if err != nil {
		return err
	}
	n.modules = x
	errs := []error{x.Coldplug()}
	for _, name := range wanted {
		if _, err := x.Load(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// findDisk finds the boot disk again, unless stage 0 said to keep away from it.
func (n *node) findDisk() error {
	var err error
	if n.cmdline, err = cmdline.Read(cmdline.File); err != nil {
		return err
	}
	if n.boot.Alone != "" {
		return errors.New(n.boot.Alone)
	}
	disks, unusable, err := mount.Disks()
	if err != nil {
		return err
	}
	for _, d := range disks {
		if d.Name == n.boot.Disk {
			n.disk = d
			part, err := bootPartition(d)
			if err != nil {
				return err
			}
			n.trial.Part = part
			return nil
		}
	}
	return errors.Join(fmt.Errorf("disk %s, which we booted from, is gone", n.boot.Disk), unusable)
}

// startTimeout is for a board with little memory, which reads its programs from a
// slow medium again and again, or imports large images at its first boot.
const startTimeout = 10 * time.Minute

// services are the programs of a node.
func (n *node) services() []supervise.Service {
	return []supervise.Service{
		{
			Name: "network", Path: self, Args: []string{"network"}, Notify: true, WatchdogTimeout: 2 * time.Minute, OOMScoreAdj: -900,
		},
		{
			Name: "clock", Path: self, Args: []string{"clock"}, Notify: true, WatchdogTimeout: 5 * time.Minute, OOMScoreAdj: -900,
		},
		{
			Name: "containerd", Path: "/bin/agent", Args: []string{"containerd"}, Vital: true, Notify: true, StartTimeout: startTimeout,
			WatchdogTimeout: 2 * time.Minute, OOMScoreAdj: -999,
		},
		{
			Name: "agent", Path: "/bin/agent", Args: []string{"agent"}, Vital: true, Notify: true, After: []string{"containerd"}, StartTimeout: startTimeout,
			WatchdogTimeout: 2 * time.Minute, OOMScoreAdj: -900, StopTimeout: 30 * time.Second,
		},
		{ // the agent starts it where the fleet has this node run etcd
			Name: "etcd", Path: "/bin/agent", Args: []string{"etcd"}, OnDemand: true, Notify: true, StartTimeout: startTimeout,
			WatchdogTimeout: 2 * time.Minute, OOMScoreAdj: -950, StopTimeout: 20 * time.Second,
		},
	}
}
