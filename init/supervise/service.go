package supervise

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Service is one program that PID 1 keeps running. It is written once, in PID
// 1's source, and never changes.
type Service struct {
	// Name stands in the status, the log and the cgroup: small letters, digits
	// and dashes, at most 32 of them.
	Name string
	// Path is the program, absolute. Args are its arguments after argv[0], which
	// is Path.
	Path string
	Args []string
	// Env is added to PID 1's small environment (PATH, HOME), as KEY=value.
	Env []string
	// Vital says that the node is of no use without it: while it keeps failing the
	// boot assessment cannot be good, and one that cannot even be killed stops the
	// pings to the hardware watchdog.
	Vital bool
	// OnDemand says that it is not started with the others: a control client starts it and
	// stops it, and while it is stopped nobody hears of it.
	OnDemand bool
	// Notify says that the service is ready when it says READY=1, instead of when
	// it is started.
	Notify bool
	// After names the services that are to be ready first. It is an order, no
	// condition: once such a service keeps failing or is stopped, nobody waits for it.
	After []string
	// Sockets are opened by PID 1 and passed as systemd's socket activation does.
	// They stay open while the service restarts, so no connection is refused.
	Sockets []Socket
	// StartTimeout is how long a Notify service may take to say READY=1. Default
	// 90 s. Then it counts as failed.
	StartTimeout time.Duration
	// StopTimeout is the time between SIGTERM and SIGKILL. Default 10 s.
	StopTimeout time.Duration
	// WatchdogTimeout is the longest pause between two WATCHDOG=1, counted from
	// ready on; the service finds it as WATCHDOG_USEC. Missed, it gets SIGABRT (Go
	// prints its goroutines), then SIGKILL, and starts anew. Default: none is expected.
	WatchdogTimeout time.Duration
	// OOMScoreAdj is from -1000 (never killed for memory) to 1000. Default 0.
	OOMScoreAdj int
	// NoFile is the limit of open files. Default [DefaultNoFile].
	NoFile uint64
	// UID and GID are who it runs as. Default root. No other groups.
	UID, GID uint32
	// Limit takes away all capabilities but Keep, for good and from every
	// descendant, and sets no_new_privs. Default: PID 1's own, which are all.
	Limit bool
	// Keep are CAP_ numbers (unix.CAP_NET_ADMIN …). It needs Limit.
	Keep []int
}

// Socket is one listening socket of a service.
type Socket struct {
	// Name is what the service finds in LISTEN_FDNAMES. Default: the service's name.
	Name string
	// Network is tcp, udp, unix or unixgram.
	Network string
	// Address is host:port, or the path of a unix socket, which is removed first.
	Address string
	// Mode of a unix socket. Default 0600.
	Mode uint32
}

// DefaultNoFile is the limit of open files for PID 1's children: the kernel's
// own (4096) is too low for a container runtime. The soft limit stays at 1024,
// because programs that use select(2) break above it; Go raises it by itself.
const DefaultNoFile = 512 << 10

// softNoFile is the soft limit that goes with it.
const softNoFile = 1024

const (
	defaultStart = 90 * time.Second
	defaultStop  = 10 * time.Second
)

// goodName says whether a name can stand in a status line, a path and a cgroup.
func goodName(name string) bool {
	return name != "" && len(name) <= 32 && name[0] != '-' &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Check says what is wrong with the definitions, all of it at once.
func Check(services []Service) error {
	var errs []error
	known := map[string]bool{}
	for _, s := range services {
		if !goodName(s.Name) {
			errs = append(errs, fmt.Errorf("service %q: a name has 1 to 32 of a-z, 0-9 and inner -", s.Name))
		}
		if known[s.Name] {
			errs = append(errs, fmt.Errorf("service %s: defined twice", s.Name))
		}
		known[s.Name] = true
		if !filepath.IsAbs(s.Path) {
			errs = append(errs, fmt.Errorf("service %s: path %q is not absolute", s.Name, s.Path))
		}
		if len(s.Keep) > 0 && !s.Limit {
			errs = append(errs, fmt.Errorf("service %s: keeps capabilities without a limit", s.Name))
		}
		for _, sock := range s.Sockets {
			if strings.ContainsAny(sock.Name, ":\x00") {
				errs = append(errs, fmt.Errorf("service %s: socket name %q has a colon", s.Name, sock.Name))
			}
		}
	}
	for _, s := range services {
		for _, a := range s.After {
			if !known[a] {
				errs = append(errs, fmt.Errorf("service %s: starts after %q, which is not defined", s.Name, a))
			}
		}
	}
	if loop := cycle(services); loop != nil {
		errs = append(errs, fmt.Errorf("services wait for each other: %s", strings.Join(loop, ", ")))
	}
	return errors.Join(errs...)
}

// cycle names the services that can never start because of their After, sorted;
// nil if all can.
func cycle(services []Service) []string {
	left := map[string][]string{}
	for _, s := range services {
		left[s.Name] = s.After
	}
	for progress := true; progress; {
		progress = false
		for name, after := range left {
			if !slices.ContainsFunc(after, func(a string) bool { _, waits := left[a]; return waits }) {
				delete(left, name)
				progress = true
			}
		}
	}
	var names []string
	for name := range left {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
