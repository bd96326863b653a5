package keeper

import (
	"cmp"
	"fmt"
	"log"

	"kogge.example/agent/workload"
)

// Snapshot is the newest status. Any goroutine may ask, at any time.
func (k *Keeper) Snapshot() workload.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}

func (k *Keeper) report() {
	s := workload.Status{Settled: true, Trouble: workload.Line(cmp.Or(k.trouble, k.links)), Generation: k.generation, Seen: k.seen, Ahead: k.ahead}
	for _, id := range k.ids {
		u := k.units[id]
		s.Settled = s.Settled && k.settled(u)
		s.Units = append(s.Units, k.status(u))
	}
	s.Leaving = k.leftovers()
	k.mu.Lock()
	k.last = s
	k.mu.Unlock()
	if k.Report != nil {
		k.Report(s)
	}
}

func (k *Keeper) status(u *unit) workload.UnitStatus {
	s := workload.UnitStatus{
		ID: u.want.ID, Instance: u.serving().Name, State: u.State, Image: u.want.Image, At: u.serving().At, OldServes: u.Old == Serving,
		Exits: u.Exits, Restarts: max(u.starts-1, 0), ExitCode: u.code, Reason: u.reason,
	}
	switch {
	case u.Old == Serving && u.State == workload.Running:
		s.Reason = "the old one keeps running until it is healthy"
	case u.Old == Serving && s.Reason != "":
		s.Reason += "; the old one keeps running"
	case u.Old == Serving:
		s.Reason = "the old one keeps running"
	}
	if u.State == workload.Running {
		s.Ports, s.StartedAt = u.want.Ports, u.began
		s.Health = workload.HealthStatus{State: u.check.State, Failures: u.check.Failures, At: u.tested, Output: u.output}
	}
	if u.Old == Serving {
		s.Ports = u.old.Ports
	}
	if u.State == workload.Starting {
		s.Pull = u.pull
	}
	if s.Reason == "" || u.State == workload.Stopping || u.State == workload.Replacing {
		s.Reason = cmp.Or(k.goes(u.want.ID), s.Reason)
	}
	return s
}

// complain has the log say, in one line, what is wrong with more than one container.
func complain(err error) { log.Print("workloads: " + workload.Line(err.Error())) }

// killed is the exit code of a program that SIGKILL has ended, as the kernel sends it when
// memory runs out.
const killed = 128 + 9

// Because is told why the node is about to end an instance, in words, and says so when that
// has ended. Any goroutine may call it.
func (k *Keeper) Because(instance, why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.blamed == nil {
		k.blamed = make(map[string]string)
	}
	k.blamed[instance] = why
}

// because is what it was told of an instance that has ended; "" is nothing.
func (k *Keeper) because(instance string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	why := k.blamed[instance]
	delete(k.blamed, instance)
	return why
}

// ended is how a container ended that the node may have ended: why, or "".
func ended(code int, why string) string {
	text := fmt.Sprintf("exit code %d", code)
	if why != "" {
		text += "; " + why
	}
	return text
}

// exited is why a container ended that wanted so many bytes of memory, of at most so many; of
// either 0 means that there is no such bound.
func exited(code int, wanted, most int64) string {
	text := fmt.Sprintf("exit code %d", code)
	const mib = 1 << 20
	switch {
	case most > 0 && wanted > most:
		return fmt.Sprintf("%s; mem_limit %d MiB lowered to the %d MiB that one container can have on this node", text, wanted/mib, most/mib)
	case code != killed:
		return text
	case wanted > 0:
		return fmt.Sprintf("%s: killed; its mem_limit is %d MiB", text, wanted/mib)
	case most > 0:
		return fmt.Sprintf("%s: killed; it can have %d MiB of memory on this node", text, most/mib)
	}
	return text
}
