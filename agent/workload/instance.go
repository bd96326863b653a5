package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// Instance is a container as containerd has it. There may be two of one [Container] at a
// time: see [Instances].
type Instance struct {
	// Name is its name in containerd, and that of its cgroup (/workload/NAME), its
	// network namespace and its files.
	Name string
	At   []Address // its places on networks, eth0 first
}

// Record is what else an agent has to know of an instance. It is an extension of the
// container in containerd's store, as it can be larger than labels.
type Record struct {
	Instance
	ID         string // of the Container
	Ports      []Port
	Networks   []Attachment
	StopSignal string
	StopGrace  time.Duration
	// Together says that it is in the node's user namespace for its many ids alone: the
	// node has to go on allowing that.
	Together bool `json:",omitempty"`
}

// RecordOf is the record of the instance i of c.
func RecordOf(c Container, i Instance) *Record {
	return &Record{Instance: i, ID: c.ID, Ports: c.Ports, Networks: c.Networks, StopSignal: c.StopSignal, StopGrace: c.StopGrace, Together: c.tooMany() != nil}
}

// Found is a container that containerd knows.
type Found struct {
	Record         // its ID is empty if an agent of an older release made it
	Spec    string // Container.Hash of what it was made from
	Image   string // digest
	Task    Task
	Exit    int // if Task is Exited or Over
	Started time.Time
	// Relieved says that another instance has taken over from it.
	Relieved bool
}

// Told is why what was told to stop is still there: its grace was broken off, or it could not
// be killed or removed after that.
type Told struct{ Err error }

func (t Told) Error() string { return t.Err.Error() }
func (t Told) Unwrap() error { return t.Err }

// Task is what a found container does.
type Task string

// What a found container does.
const (
	Absent  Task = "absent"  // nothing: of another boot, or half made
	Alive   Task = "alive"   // it runs
	Exited  Task = "exited"  // it ended and nobody has noted it yet
	Over    Task = "over"    // it ended in this boot and is not to be started again
	Strange Task = "strange" // paused, or in a state that we do not make
)

// View is what an instance sees of the networks that it is on.
type View struct {
	Peers []Peer
	// Resolver is the node's name server there; invalid: there is none.
	Resolver netip.Addr
	// Outside says that one of them leads outside.
	Outside bool
}

// Peer is one or several names for an address.
type Peer struct {
	Addr  netip.Addr
	Names []string
}

// Instances are what the instances of the container id are called: there are two at
// most, side by side while one takes over from the other. No service's name has an
// underscore, so that none is that of another container.
func Instances(id string) [2]string {
	name := id
	if len(name) > maxInstance-2 || !instanceName.MatchString(name) {
		sum := sha256.Sum256([]byte(id))
		name = strings.Trim(separators.ReplaceAllString(id, "-"), "-")
		name = strings.TrimRight(name[:min(len(name), 50)], "-") + "_" + hex.EncodeToString(sum[:8])
	}
	return [2]string{name, name + "_2"}
}

// maxInstance is the longest name that containerd takes, and instanceName its form.
//
// Source: pkg/identifiers/validate.go of containerd.
const maxInstance = 76

var (
	instanceName = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)
	separators   = regexp.MustCompile(`[._-]+`)
)
