// Package workload keeps the wanted containers of this node running.
//
// In come containers as [Container], from a Compose file by way of package
// compose; out go tasks of containerd with their network, files and limits, and a
// [Status] of each. A [Keeper] owns their states and decides by [Unit.Step], which
// is pure; an [Engine] carries out and is the only door to containerd.
//
// Containers are children of their shims: they go on while the agent or
// containerd is restarted, and the Keeper adopts them. A container starts from
// its image each time; what is to last lies in a volume. The package leaves alone
// what is not in its containerd namespace.
package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"kogge.example/agent/workload/bridge"
)

// Container is one wanted container, complete: every default that does not come
// from its image is filled in.
type Container struct {
	// ID is its name, unique on the node: a DNS label. Also the name of its
	// cgroup (/workload/ID), of its log and the name other containers call it by.
	ID    string
	Image string // with registry and tag or digest, as the image store names it

	// Entrypoint and Command replace the image's; an Entrypoint without a
	// Command drops the image's command, as everywhere.
	Entrypoint []string `json:",omitempty"`
	Command    []string `json:",omitempty"`
	// Env are NAME=value, sorted, over those of the image.
	Env        []string `json:",omitempty"`
	WorkingDir string   `json:",omitempty"`
	User       string   `json:",omitempty"`
	Hostname   string

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

	// DropCaps are capabilities ("CAP_CHOWN") taken out of the default set, or
	// "ALL". Nothing can be added.
	DropCaps []string          `json:",omitempty"`
	Labels   map[string]string `json:",omitempty"`
}

// DefaultPids is the limit of a container that names none: far above what a
// server needs and far below what takes the node down.
const DefaultPids = 4096

// DefaultStopGrace is Compose's.
const DefaultStopGrace = 10 * time.Second

// Port publishes a port of the container on the node.
type Port struct {
	Protocol  bridge.Protocol
	HostIP    netip.Addr // zero: every IPv4 address of the node
	HostPort  uint16
	Container uint16
}

// Tmpfs is an empty file system in memory.
type Tmpfs struct {
	Target string
	Size   int64  `json:",omitempty"` // bytes; 0: the kernel's default, half of the memory
	Mode   uint32 `json:",omitempty"` // 0: 01777
}

// Volume is a folder of the node's STATE that outlives containers.
type Volume struct {
	Name     string // a folder under the volumes' root
	Target   string
	ReadOnly bool `json:",omitempty"`
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
	data, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("container is not JSON: %v", err)) // a struct of plain values
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
