// Package shutdown ends the machine: a reason comes in, and after the last
// processes are gone and the disks are synced the machine reboots or goes off.
//
// Services are stopped before, by package supervise. What is left here are
// processes that are no service (containers, their shims), mounts, and the
// reboot. Whatever does not work is said and passed over: the machine goes down
// within the [Budget], or the hardware watchdog sees to it.
package shutdown

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"kogge.example/init/cgroup"
	"kogge.example/init/guard"
	"kogge.example/init/watchdog"
)

// The parts of the budget. What one of them does not use, the later ones have.
const (
	termShare    = 10 * time.Second
	killShare    = 5 * time.Second
	syncShare    = 30 * time.Second
	unmountShare = 10 * time.Second
	// atLeast is what each step gets of a budget that is used up: a disk that
	// syncs in no time shall not lose data because a service hung before.
	atLeast = 2 * time.Second
)

// Options is what the boot has brought about by the time it ends. The zero
// Options are good for a boot that failed early.
type Options struct {
	// Dog is fed during the shutdown and gets its longest time before the reboot.
	Dog *watchdog.Dog
	// Cgroups is the hierarchy in which everything but PID 1 is killed at once.
	// Default: none, the processes are killed one by one.
	Cgroups cgroup.Tree
	// State is where STATE is mounted: what cannot be unmounted there becomes
	// read-only. Default /state.
	State string
	// Budget is what the services' stop has left. Default: a whole one.
	Budget *Budget
	// Say receives lines for the console. Default: the kernel log.
	Say func(line string)
}

// machine is what a shutdown does to the world. The kernel is one, a test
// brings another and looks at the order.
type machine interface {
	now() time.Time
	pause(time.Duration)
	// processes names those that are neither PID 1 nor kernel threads.
	processes() ([]string, error)
	// terminate sends SIGTERM to them, kill SIGKILL.
	terminate() error
	kill() error
	// sync writes all disks' caches, unmount and readonly change one mount. They
	// return after limit at the latest, though the kernel may go on.
	sync(limit time.Duration) error
	// mounts are the targets of all mounts, the oldest first.
	mounts() ([]string, error)
	unmount(target string, limit time.Duration) error
	readonly(target string, limit time.Duration) error
	// patience gives the hardware watchdog its longest time.
	patience() error
	// reboot does not return if it works.
	reboot(How) error
}

// Now ends the machine. It does not return.
func Now(how How, o Options) {
	if o.Dog == nil {
		o.Dog = watchdog.None(nil)
	}
	if o.State == "" {
		o.State = "/state"
	}
	if o.Budget == nil {
		o.Budget = &Budget{}
	}
	if o.Say == nil {
		o.Say = guard.Kmsg
	}
	limit := o.Budget.Share(time.Now(), Total) + 5*atLeast
	// The pings end with the limit, whatever hangs: then the hardware resets.
	o.Dog.While(limit, guard.Go, func() {
		defer guard.Recover("shutdown") // a panic costs the order, not the reboot
		end(kernel{o}, how, o)
	})
	for { // the panic, or a kernel that refused
		err := kernel{o}.reboot(how)
		o.Say(fmt.Sprintf("%s: %v", how, err))
		time.Sleep(time.Minute)
	}
}

// end is the order of a shutdown:
//
//  1. all processes get SIGTERM, then SIGKILL;
//  2. disks are synced, so that what hangs later costs no data;
//  3. everything is unmounted, the newest mount first; a STATE that stays busy
//     becomes read-only;
//  4. disks are synced again;
//  5. the watchdog gets its longest time, and the machine reboots.
//
// After a power cut at any point STATE has what was synced by then; its journal
// makes it whole.
func end(m machine, how How, o Options) {
	complain := func(what string, err error) {
		if err != nil {
			o.Say(fmt.Sprintf("%s: %s: %v", how, what, err))
		}
	}
	share := func(want time.Duration) time.Duration {
		return max(o.Budget.Share(m.now(), want), atLeast)
	}

	if living, err := m.processes(); err != nil || len(living) > 0 {
		complain("list processes", err)
		complain("terminate processes", m.terminate())
		living = await(m, share(termShare))
		if len(living) > 0 {
			o.Say(fmt.Sprintf("%s: killing %s", how, few(living)))
			complain("kill processes", m.kill())
			if living = await(m, share(killShare)); len(living) > 0 {
				o.Say(fmt.Sprintf("%s: cannot be killed: %s", how, few(living)))
			}
		}
	}
	complain("sync", m.sync(share(syncShare)))
	complain("unmount", unmountAll(m, o.State, share(unmountShare)))
	complain("sync", m.sync(share(syncShare)))
	complain("watchdog", m.patience())
	o.Say(fmt.Sprintf("%s: now", how))
	complain(string(how), m.reboot(how))
}

// poll is the pause between two looks at what should go away.
const poll = 50 * time.Millisecond

// await waits until no process is left and returns those that are after limit.
func await(m machine, limit time.Duration) []string {
	for deadline := m.now().Add(limit); ; m.pause(poll) {
		living, err := m.processes()
		if err == nil && len(living) == 0 || !m.now().Before(deadline) {
			return living
		}
	}
}

// few names the first of many.
func few(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, " ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], " "), len(names)-most)
}

// unmountAll unmounts whatever can be, again and again until limit is over: a
// mount may be busy because of the next one. What stays on STATE becomes read-only.
func unmountAll(m machine, state string, limit time.Duration) error {
	deadline := m.now().Add(limit)
	for {
		mounts, err := m.mounts()
		if err != nil {
			return err
		}
		left := leave(mounts)
		if len(left) == 0 {
			return nil
		}
		var last error
		progress := false
		for _, target := range left {
			rest := max(deadline.Sub(m.now()), poll)
			if err := m.unmount(target, rest); err != nil {
				last = fmt.Errorf("%s: %w", target, err)
			} else {
				progress = true
			}
		}
		if last == nil {
			continue // look whether something was hidden below
		}
		if !m.now().Before(deadline) {
			for _, target := range left {
				if target != state {
					continue
				}
				if err := m.readonly(state, atLeast); err != nil {
					return fmt.Errorf("%w; remount %s read-only: %w", last, state, err)
				}
			}
			return last
		}
		if !progress {
			m.pause(poll)
		}
	}
}

// leave returns the targets that a shutdown unmounts, in its order: the newest
// first. The root and the kernel's own file systems stay: nothing on them is
// written to a disk, and the last lines of PID 1 need them.
func leave(mounts []string) []string {
	var targets []string
	for _, target := range slices.Backward(mounts) {
		stays := target == "/" || target == "/run"
		for _, own := range []string{"/dev", "/proc", "/sys"} {
			stays = stays || target == own || strings.HasPrefix(target, own+"/")
		}
		if !stays {
			targets = append(targets, target)
		}
	}
	return targets
}
