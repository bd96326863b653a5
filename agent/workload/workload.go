// Package workload says what a container is: how it is wanted ([Container]), what there is
// of it ([Instance], [Found]), where its networks lead ([Network], [Publish]), and how it
// is doing ([Status]).
//
// It is plain data and what follows from it alone. Package compose makes containers of
// Compose files, package keeper keeps them running, package engine carries that out on
// containerd. Nothing here opens a file, a socket or a namespace, so that whoever only
// talks of containers, the operator's command line too, imports none of that.
package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// Container is one wanted container, complete: every default that does not come
// from its image is filled in.
//
// A new field is added here, with omitempty or omitzero (see [Container.Hash]); read from its
// key in agent/compose (keys.go, service.go); carried out in agent/engine/spec.go; and shown
// or hidden by agent/redaction. What a node must allow is in init/rights as well.
type Container struct {
	// ID is its name, unique on the node, and that of its log: [Join] of a project
	// and a service, which is a DNS label and what other containers call it.
	ID    string
	Image string // with registry and tag or digest, as the image store names it

	// Entrypoint and Command replace the image's, also where they are empty and not nil; an
	// Entrypoint without a Command drops the image's command, as everywhere.
	Entrypoint []string `json:",omitzero"`
	Command    []string `json:",omitzero"`
	// Env are NAME=value, sorted, over those of the image.
	Env        []string `json:",omitempty"`
	WorkingDir string   `json:",omitempty"`
	User       string   `json:",omitempty"`
	Hostname   string

	// Networks are those that it is on; without any it has nothing but a loopback. The
	// first one that is not internal leads outside.
	Networks []Attachment `json:",omitempty"`

	Ports   []Port  `json:",omitempty"`
	Restart Restart // what an exit means

	ReadOnly bool     `json:",omitempty"` // the root file system
	Tmpfs    []Tmpfs  `json:",omitempty"`
	Volumes  []Volume `json:",omitempty"`

	Memory   int64   `json:",omitempty"` // bytes, swap is not added to it; 0: no limit
	CPUs     float32 `json:",omitempty"` // 0.5 is half of one; 0: no limit
	Pids     int64   // processes and threads
	ShmBytes int64   `json:",omitempty"` // of /dev/shm; 0: 64 MiB

	StopSignal string        `json:",omitempty"` // "": the image's, else SIGTERM
	StopGrace  time.Duration // from StopSignal to SIGKILL

	// Order says whether the container that this one replaces goes on until this one
	// works; "": see [Container.Beside].
	Order Order `json:",omitempty"`

	// DropCaps are capabilities ("CAP_CHOWN") taken out of the default set, or
	// "ALL". What is added is among the Rights.
	DropCaps []string          `json:",omitempty"`
	Rights   Rights            `json:",omitzero"`
	Labels   map[string]string `json:",omitempty"`

	// NewPrivileges lets programs with a set-user-ID bit or with capabilities of their file
	// have them, within the capabilities of the container; else they run without.
	NewPrivileges bool `json:",omitempty"`

	// Platform is what the image has to be for ("linux/arm64"); "": this node.
	Platform string `json:",omitempty"`
	// Init runs a small process 1 that reaps children and passes signals on.
	Init bool `json:",omitempty"`
	// GroupAdd are further groups of the first process, names or numbers.
	GroupAdd []string `json:",omitempty"`
	// Domainname is the container's NIS domain name, which few programs ask for.
	Domainname string `json:",omitempty"`
	// ExtraHosts are further lines of /etc/hosts.
	ExtraHosts []Host `json:",omitempty"`
	// DNS are the name servers, instead of the node's, for names that no container has;
	// Search and DNSOptions replace those of the node's resolv.conf.
	DNS        []netip.Addr `json:",omitempty"`
	Search     []string     `json:",omitempty"`
	DNSOptions []string     `json:",omitempty"`
	// Ulimits replace the node's defaults, sorted by name.
	Ulimits []Ulimit `json:",omitempty"`
	// Sysctls are settings of the container's own namespaces: package compose takes no
	// other ones.
	Sysctls map[string]string `json:",omitempty"`
	// Files are read-only files that lie in memory, sorted by target.
	Files []File `json:",omitempty"`
	// Health says how to find out whether it works; nil: as its image says.
	Health *Health `json:",omitempty"`
	// After are containers of the same file that come first, sorted by ID. They
	// make no cycle.
	After []Dependency `json:",omitempty"`

	// See [Container.With].
	hash string
	ids  []uint32
}

// Order is which of two instances comes first when one replaces the other.
type Order string

// The orders.
const (
	StartFirst Order = "start-first"
	StopFirst  Order = "stop-first"
)

// DefaultPids is the limit of a container that names none: far above what a
// server needs and far below what takes the node down.
const DefaultPids = 4096

// DefaultStopGrace is Compose's.
const DefaultStopGrace = 10 * time.Second

// Port publishes a port of the container on the node.
type Port struct {
	Protocol  Protocol
	HostIP    netip.Addr // zero: every IPv4 address of the node
	HostPort  uint16
	Container uint16
}

// Attachment is a container's place on a network.
type Attachment struct {
	// Network is the node's name of it: [Join] of a project and its own name, or a name
	// that projects share.
	Network string
	// Internal says that it leads nowhere else, External that others say whether it
	// does.
	Internal bool `json:",omitempty"`
	External bool `json:",omitempty"`
	// Aliases are what the container is called there besides its service's name,
	// sorted and in lower case.
	Aliases []string `json:",omitempty"`
}

// MaxNetworks is how many networks a container is on at most.
const MaxNetworks = 16

// MaxOnNetwork is how many containers can be on one network: a subnet has 253
// addresses, and while one replaces another both have one.
const MaxOnNetwork = 120

// Tmpfs is an empty file system in memory.
type Tmpfs struct {
	Target string
	Size   int64  `json:",omitempty"` // bytes; 0: half of the memory that the container can have
	Mode   uint32 `json:",omitempty"` // 0: 01777
	UID    uint32 `json:",omitempty"` // whose it is
	GID    uint32 `json:",omitempty"`
	NoExec bool   `json:",omitempty"` // no program of it can be run
}

// Volume is a folder of the node's STATE that outlives containers.
type Volume struct {
	Name     string // a folder under the volumes' root
	Target   string
	ReadOnly bool `json:",omitempty"`
	NoCopy   bool `json:",omitempty"` // of what the image has at Target, into an empty volume
}

// Host is a name for an address.
type Host struct {
	Name string
	Addr netip.Addr
}

// Ulimit is a limit of each process.
type Ulimit struct {
	Name       string // without RLIMIT_ and in lower case: "nofile"
	Soft, Hard int64  // in the units of setrlimit(2); -1: unlimited
}

// Health is a command inside the container that says whether it works: exit 0 is
// good, anything else, and no answer within Timeout, is bad.
type Health struct {
	// Off says that nothing is asked, whatever the image says; all else is zero.
	Off bool `json:",omitempty"`
	// Test is the command with its arguments; nil: the image's.
	Test []string `json:",omitempty"`
	// Interval lies between two tests, Timeout ends one.
	Interval, Timeout time.Duration
	// StartPeriod after a start is when bad answers do not count, and a test comes
	// every StartInterval until the first good one.
	StartPeriod, StartInterval time.Duration
	Retries                    int // bad answers in a row that make it bad
}

// Compose's defaults of a health check.
const (
	DefaultHealthInterval      = 30 * time.Second
	DefaultHealthTimeout       = 30 * time.Second
	DefaultHealthStartInterval = 5 * time.Second
	DefaultHealthRetries       = 3
)

// Dependency is a container that has to be in some condition before another starts.
type Dependency struct {
	ID        string
	Condition Condition
	// Optional lets the other start too where this one cannot.
	Optional bool `json:",omitempty"`
	// Restart restarts the other after this one was replaced.
	Restart bool `json:",omitempty"`
}

// Condition is what a dependency waits for.
type Condition string

// The conditions.
const (
	WhenStarted   Condition = "started"
	WhenHealthy   Condition = "healthy"
	WhenCompleted Condition = "completed" // it ended with exit code 0
)

// File is a configuration or a secret of a container. It prints and marshals
// without its content, and what was marshalled has it no more.
type File struct {
	Target   string // an absolute path inside the container
	Mode     uint32 // permissions only
	UID, GID int
	Data     []byte
	// Secret says that nobody is shown Data.
	Secret bool
}

// MaxFiles is how many bytes the Files of one container have at most: they lie in
// memory.
const MaxFiles = 1 << 20

// String names the file and its size.
func (f File) String() string {
	return fmt.Sprintf("%s (%d bytes, mode %#o, %d:%d)", f.Target, len(f.Data), f.Mode, f.UID, f.GID)
}

// GoString is String, so that %#v shows no secret either.
func (f File) GoString() string { return f.String() }

// MarshalJSON is everything but the content, which is a size and, of what is no
// secret, its SHA-256: that of a short secret could be guessed.
func (f File) MarshalJSON() ([]byte, error) {
	shown := struct {
		Target   string
		Mode     string
		UID, GID int
		Bytes    int
		SHA256   string `json:",omitempty"`
		Secret   bool   `json:",omitempty"`
	}{Target: f.Target, Mode: fmt.Sprintf("%#o", f.Mode), UID: f.UID, GID: f.GID, Bytes: len(f.Data), Secret: f.Secret}
	if !f.Secret {
		sum := sha256.Sum256(f.Data)
		shown.SHA256 = hex.EncodeToString(sum[:])
	}
	return json.Marshal(shown)
}

// Restart says what an exit of the container means.
type Restart struct {
	Policy Policy
	// Max ends on-failure after as many failed starts in a row; 0: never.
	Max int `json:",omitempty"`
}

// Policy is Compose's restart policy.
type Policy string

// The policies. A container that could not even be started is always tried again:
// that is the node's trouble, not an exit.
const (
	No        Policy = "no"         // it ends once
	OnFailure Policy = "on-failure" // again unless it exits with 0
	Always    Policy = "always"     // again
)

// Hash names c's content: two containers with one hash need no change. It is
// stored with running containers, so a change of its input makes an agent of a
// new release start them anew.
func (c Container) Hash() string {
	if c.hash != "" {
		return c.hash
	}
	data, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("container is not JSON: %v", err)) // a struct of plain values
	}
	whole := sha256.New()
	whole.Write(data)
	for _, f := range c.Files { // their content is not in data
		sum := sha256.Sum256(f.Data)
		whole.Write(sum[:])
	}
	return hex.EncodeToString(whole.Sum(nil)[:16])
}
