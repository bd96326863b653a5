package workload

import (
	"fmt"
	"strings"
	"time"
)

// Status is what the Keeper knows, for people and for the API. Nobody changes one
// that was handed out.
type Status struct {
	// Settled says that every container had its first start, well or not, or waits
	// for others that had theirs.
	Settled bool
	// Trouble is with the node rather than with one container; "" is none.
	Trouble string
	// Generation is that of the set which was last compared with what there is, see the
	// keeper's Want; until then the units may be of it, and nobody knows what leaves. Seen
	// says that one was, since the agent runs.
	Generation uint64
	Seen       bool
	// Ahead says that Units are of a later set, which nobody has compared yet: what leaves
	// because of it is not among Leaving.
	Ahead bool
	Units []UnitStatus // by name
	// Leaving are containers that nobody wants and that have not stopped yet, by name; their
	// Image is not known. Of a container that is wanted again its unit says so.
	Leaving []UnitStatus
}

// UnitStatus is the state of one container.
type UnitStatus struct {
	ID       string
	Instance string // its name in containerd, and of its cgroup; of the one that serves, if there are two
	// OldServes says that an older instance goes on until this one is up to it; Instance,
	// At and Ports are its.
	OldServes bool
	State     State
	Image     string    // as it was asked for
	At        []Address // its places on networks
	Ports     []Port    // published while it runs
	Health    HealthStatus
	// StartedAt is when the process that runs was started; zero if none runs.
	StartedAt time.Time
	Exits     int // and failed starts, in a row
	Restarts  int // starts after the first, since this agent runs
	ExitCode  int // of its last end, if there was one: see Reason
	// Reason is why it does not run or, where it is stopping, since when and until when; of
	// one that runs, that another instance does too, or why that cannot be removed. Else "".
	Reason string
	// Pull is how far its image is, where it waits for that; else nil.
	Pull *Progress
}

// HealthStatus is what the health check of a container last said.
type HealthStatus struct {
	State    HealthState
	Failures int       // in a row
	At       time.Time // end of the last test; zero before the first
	Output   string    // of the last test, its end if it was long
}

// String is one line: what is wrong first.
func (s Status) String() string {
	var parts []string
	if s.Trouble != "" {
		parts = append(parts, s.Trouble)
	}
	running := 0
	for _, u := range s.Units {
		text := u.ID + " " + string(u.State)
		if u.State == Running {
			running++
			if u.Health.State != Unhealthy {
				continue
			}
			text = u.ID + " " + string(Unhealthy)
		}
		if u.Reason != "" {
			text += ": " + u.Reason
		}
		parts = append(parts, text)
	}
	parts = append(parts, fmt.Sprintf("%d of %d containers running", running, len(s.Units)))
	return strings.Join(parts, "; ")
}
