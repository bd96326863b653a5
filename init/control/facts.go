package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"kogge.example/init/nodeconfig"
)

// RunDir is the folder of what the programs of a node tell each other. A boot forgets it.
const RunDir = "/run/kogge"

// The facts that lie in RunDir, a JSON object each. Whoever a file is of replaces it whole,
// everybody else reads it. All are of one release, for each boot runs one: so the files
// have no version. Keys are words with underscores, as on the socket.
const (
	BootFile       = "boot.json"       // Boot, of PID 1
	AssessmentFile = "assessment.json" // Assessment, of PID 1
	NetworkFile    = "network.json"    // Network, of the network service
	ClockFile      = "clock.json"      // Clock, of the clock service
	FleetFile      = "fleet.json"      // Fleet, of the agent
	SeatsFile      = "seats.json"      // Seats, of the agent
	EtcdFile       = "etcd.json"       // Etcd, of the service etcd
)

// Boot is what stage 0 found out about this boot.
type Boot struct {
	Slot    string `json:"slot"`    // "A" or "B"
	Version string `json:"version"` // of the release
	Board   string `json:"board"`
	Trial   bool   `json:"trial"` // this slot has not proven itself yet
	Disk    string `json:"disk"`  // kernel's name of the boot disk
	// Alone is "" or the reason why no other partition may be used: two disks
	// carry one image, and writing to either could be the wrong one.
	Alone string `json:"alone,omitempty"`
	// Loader is the boot loader that started us, as boards name it; "" where the kernel
	// was started directly. TriesLeft are the tries of this slot after this one.
	Loader    string `json:"loader,omitempty"`
	TriesLeft int    `json:"tries_left,omitempty"`
	// Parts are the device files of the boot disk's partitions, by name.
	Parts map[string]string `json:"parts,omitempty"`
	// RootHash names the root file system that runs, in hex.
	RootHash string `json:"root_hash,omitempty"`
	// Marks are in which ways the image is not what its commit and its lock say,
	// separated by commas; "" for a release.
	Marks string `json:"marks,omitempty"`
}

// Fleet is the node's place in its fleet.
type Fleet struct {
	Name string `json:"name"`
	ID   string `json:"id"`             // 64 hexadecimal digits
	Seat int    `json:"seat,omitempty"` // 0: none
	// Key is the fingerprint of the key of its seat, or of the one that it would have, as people
	// compare it: 12 hexadecimal digits. "": it was never asked for one.
	Key    string `json:"key,omitempty"`
	Height int64  `json:"height"` // of the ledger; 0: the fleet is not founded
	Votes  int    `json:"votes,omitempty"`
	Quorum int    `json:"quorum,omitempty"`
	// New says that the node came by a token, and nobody has accepted it.
	New bool `json:"new,omitempty"`
	// Waits is why the node has not come in by its token yet; "": it is in, or an operator is to
	// adopt it.
	Waits string `json:"waits,omitempty"`
	// Problem is why the ledger is not to be relied on; "": it is.
	Problem string `json:"problem,omitempty"`
}

// String is "hanse (0123456789ab), seat 2, key ba9876543210, 1 record, 2 of 3 votes decide", as
// people are told.
func (f Fleet) String() string {
	s := fmt.Sprintf("%s (%.12s)", f.Name, f.ID)
	if f.Waits != "" {
		return s + ", not in it yet: " + f.Waits
	}
	switch {
	case f.Seat > 0:
		s += fmt.Sprintf(", seat %d", f.Seat)
	case f.New:
		s += ", new: it waits to be accepted"
	case f.Height > 0:
		s += ", no seat"
	}
	if f.Key != "" {
		s += ", key " + f.Key
	}
	switch {
	case f.Height == 1:
		s += ", 1 record"
	case f.Height > 1:
		s += fmt.Sprintf(", %d records", f.Height)
	default:
		s += ", not founded"
	}
	if f.Votes > 0 {
		s += fmt.Sprintf(", %d of %d votes decide", f.Quorum, f.Votes)
	}
	if f.Problem != "" {
		s += ": " + f.Problem
	}
	return s
}

// String is "slot A, release 1.0, board pc-x86_64", as people are told.
func (b Boot) String() string {
	s := fmt.Sprintf("slot %s, release %s, board %s", b.Slot, b.Version, b.Board)
	if b.Trial {
		s += ", on trial"
	}
	return s
}

// Assessment is how this boot is judged.
type Assessment struct {
	State string `json:"state"` // good, bad or pending
	// Why is what is bad, or what a pending one waits for.
	Why string `json:"why,omitempty"`
	// Since is when it came into that state, by the node's clock of then.
	Since time.Time `json:"since"`
}

// Network is the network as it is.
type Network struct {
	Interfaces []Interface  `json:"interfaces"`
	DNS        []netip.Addr `json:"dns,omitempty"`    // in use, best first
	Search     []string     `json:"search,omitempty"` // domains tried behind short names
	NTP        []netip.Addr `json:"ntp,omitempty"`    // time servers that DHCP named
	// Problem is which entries of node.yaml no link matches though others may be meant, or
	// though they had a card that is gone; "": none, or the node has just started.
	Problem string `json:"problem,omitempty"`
}

// Interface is one link that the settings match.
type Interface struct {
	Name      string         `json:"name"`
	MAC       string         `json:"mac"`
	Match     string         `json:"match"` // the entry that counts
	Carrier   bool           `json:"carrier"`
	MTU       int            `json:"mtu"` // bytes
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateway   []netip.Addr   `json:"gateway,omitempty"`
	Lease     *Lease         `json:"lease,omitempty"`
	Lease6    *Lease         `json:"lease6,omitempty"`    // of a DHCPv6 server
	Problem   string         `json:"problem,omitempty"`   // the change that did not work
	MDNS      bool           `json:"mdns"`                // the node may say its name there
	Forward   bool           `json:"forward,omitempty"`   // the node routes between those that say so
	FirstMTU  int            `json:"first_mtu,omitempty"` // as the driver had it, for the next run
	Foreign   bool           `json:"foreign,omitempty"`   // whoever made it gives it addresses, too
	Own       []netip.Prefix `json:"own,omitempty"`       // of Addresses, those that init/network gave it
	// What routers named here, for the next run: it counts until they have been asked again.
	Resolvers []netip.Addr `json:"resolvers,omitempty"`
	Domains   []string     `json:"domains,omitempty"`
}

// Lease is what a DHCP server gave us, checked. One of DHCPv6 has no Server, Routes and
// MTU; without an address it is only about servers and domains.
type Lease struct {
	Address netip.Prefix       `json:"address"`
	Server  netip.Addr         `json:"server"`
	Routes  []nodeconfig.Route `json:"routes,omitempty"` // default route included
	DNS     []netip.Addr       `json:"dns,omitempty"`
	Search  []string           `json:"search,omitempty"`
	NTP     []netip.Addr       `json:"ntp,omitempty"`
	MTU     int                `json:"mtu,omitempty"`

	// ServerID names a DHCPv6 server, in hex. The address is Preferred for so long: then
	// nothing new is to be sent from it.
	ServerID  string        `json:"server_id,omitempty"`
	Preferred time.Duration `json:"preferred,omitempty"`

	// Since is when it was given or last renewed; after Renew the server is asked
	// again, after Rebind any server, after Valid it is over. By the clock of the
	// node; within the process the monotonic one. SinceBoot is the same from the node's start
	// on, for the next run of init/network: the clock may be set in between.
	Since     time.Time     `json:"since"`
	SinceBoot time.Duration `json:"since_boot,omitempty"`
	Renew     time.Duration `json:"renew"`
	Rebind    time.Duration `json:"rebind"`
	Valid     time.Duration `json:"valid"`
}

// At has Since be right by the clock of a process that has just read the lease; now is that
// clock, up the time since the node's start.
func (l *Lease) At(now time.Time, up time.Duration) {
	if l.SinceBoot > 0 {
		l.Since = now.Add(l.SinceBoot - up)
	}
}

// Expires is when the lease is over.
func (l *Lease) Expires() time.Time { return l.Since.Add(l.Valid) }

// FirstAddress returns an address at which others can reach the node, IPv4 before
// IPv6.
func (n Network) FirstAddress() (netip.Addr, bool) {
	var best netip.Addr
	for _, i := range n.Interfaces {
		for _, p := range i.Addresses {
			a := p.Addr()
			if !a.IsLinkLocalUnicast() && (!best.IsValid() || best.Is6() && a.Is4()) {
				best = a
			}
		}
	}
	return best, best.IsValid()
}

// Named are the links on which the node may say its name, and that are connected.
func (n Network) Named() (all []Interface) {
	for _, i := range n.Interfaces {
		if i.MDNS && i.Carrier {
			all = append(all, i)
		}
	}
	return all
}

// Clock is what the node's clock goes by.
type Clock struct {
	Synced   bool          `json:"synced"`
	Source   string        `json:"source,omitempty"` // the servers that agree
	Single   bool          `json:"single,omitempty"` // one server alone is believed: no other is configured, or none answers
	Offset   string        `json:"offset,omitempty"` // of the last poll, as a duration
	Polled   time.Time     `json:"polled,omitzero"`
	Floor    time.Time     `json:"floor"`             // has passed for sure; it rises while the node runs
	Jump     string        `json:"jump,omitempty"`    // the last time the clock was set: by how much
	JumpAt   time.Time     `json:"jump_at,omitzero"`  // and when, by the clock after it
	Problem  string        `json:"problem,omitempty"` // why the clock does not follow servers
	Servers  []string      `json:"servers,omitempty"`
	SavedAt  time.Time     `json:"saved_at,omitzero"`
	Received int           `json:"received"` // good answers to the last poll
	Answers  []ClockAnswer `json:"answers,omitempty"`
	ByHand   time.Time     `json:"by_hand,omitzero"` // when a person set the clock, by the clock after it
}

// Seats is what the agent knows of the nodes that the fleet has run etcd, or has had, for the
// service etcd. Which seats may, is in the ledger.
type Seats struct {
	Seats []Seat `json:"seats"`
	// Ordered is the generation of the newest etcd that the owner has let begin anew; 0: none.
	Ordered int `json:"ordered,omitempty"`
}

// Seat is the node of one seat.
type Seat struct {
	Number int    `json:"number"`
	Key    string `json:"key"` // fingerprint of the seat's own key, of which the rest is true
	// TLSKey is the fingerprint of the key of its certificate, as the seat's own key has signed
	// it; "": none is known, and nobody is believed to be this seat. TLSNumber is the number of
	// that word: one below it is an older word.
	TLSKey    string `json:"tls_key,omitempty"`
	TLSNumber uint64 `json:"tls_number,omitempty"`
	// Addresses are where its etcd answers other members, the likeliest first. None: where it did
	// when the fleet was founded.
	Addresses []netip.AddrPort `json:"addresses,omitempty"`
	// Away says that it is silent on purpose: nobody takes its place. Yields says that its etcd
	// is to lead only where no other can.
	Away   bool `json:"away,omitempty"`
	Yields bool `json:"yields,omitempty"`
}

// Etcd is this node's part in the fleet's etcd.
type Etcd struct {
	// PID is the process that says so: of one that was killed the file stays.
	PID     int    `json:"pid"`
	Seat    int    `json:"seat"`
	Running bool   `json:"running"`
	Leader  int    `json:"leader,omitempty"` // seat; 0: none is known
	Doing   string `json:"doing"`            // or what it waits for
	Problem string `json:"problem,omitempty"`
	// Members are the seats that count, Learners those that are to.
	Members  []int `json:"members,omitempty"`
	Learners []int `json:"learners,omitempty"`
	// Generation grows with each restore.
	Generation int   `json:"generation"`
	Revision   int64 `json:"revision,omitempty"`
	Bytes      int64 `json:"bytes,omitempty"` // of the database
	Quota      int64 `json:"quota,omitempty"`
	Full       []int `json:"full,omitempty"`    // seats without room: nothing can be written
	Corrupt    []int `json:"corrupt,omitempty"` // seats whose data is not that of the others
	// Fsync is what a synced write took on this node's disk, of 99 in 100, as a duration; "": it
	// was not probed since the start. Snapshots are copies on this node's disk, Newest the
	// revision of the last.
	Fsync     string `json:"fsync,omitempty"`
	Snapshots int    `json:"snapshots,omitempty"`
	Newest    int64  `json:"newest,omitempty"`
}

// Reference is the time by which signatures are over: none that was good only until before
// it is good now, unless the node's clock has been far ahead. now is that clock.
func (c Clock) Reference(now time.Time) time.Time {
	at := c.Floor
	if c.SavedAt.After(at) {
		at = c.SavedAt
	}
	if c.Synced && now.After(at) {
		at = now
	}
	return at
}

// ClockAnswer is what one time server said to the last poll.
type ClockAnswer struct {
	Server  string `json:"server"`
	Stratum int    `json:"stratum"` // 1: it has a clock of its own; each server in between adds one
	Offset  string `json:"offset"`  // as a duration
	Error   string `json:"error"`   // how wrong Offset may be, as a duration
}

// These read the facts in the folder dir: RunDir, but for tests. The error wraps
// fs.ErrNotExist where nobody has written them yet.
func ReadBoot(dir string) (Boot, error)             { return read[Boot](dir, BootFile) }
func ReadAssessment(dir string) (Assessment, error) { return read[Assessment](dir, AssessmentFile) }
func ReadNetwork(dir string) (Network, error)       { return read[Network](dir, NetworkFile) }
func ReadClock(dir string) (Clock, error)           { return read[Clock](dir, ClockFile) }
func ReadFleet(dir string) (Fleet, error)           { return read[Fleet](dir, FleetFile) }
func ReadSeats(dir string) (Seats, error)           { return read[Seats](dir, SeatsFile) }
func ReadEtcd(dir string) (Etcd, error)             { return read[Etcd](dir, EtcdFile) }

// Write replaces the facts in the folder dir, for whom they are of. A reader sees the old
// ones or the new ones. They are in memory, and nothing is synced.
func (b Boot) Write(dir string) error       { return write(dir, BootFile, b) }
func (a Assessment) Write(dir string) error { return write(dir, AssessmentFile, a) }
func (n Network) Write(dir string) error    { return write(dir, NetworkFile, n) }
func (c Clock) Write(dir string) error      { return write(dir, ClockFile, c) }
func (f Fleet) Write(dir string) error      { return write(dir, FleetFile, f) }
func (s Seats) Write(dir string) error      { return write(dir, SeatsFile, s) }
func (e Etcd) Write(dir string) error       { return write(dir, EtcdFile, e) }

// maxFacts is far above what the node's own programs write about themselves, in bytes.
const maxFacts = 1 << 20

func read[T any](dir, name string) (T, error) {
	var facts, none T
	file := filepath.Join(dir, name)
	f, err := os.Open(file)
	if err != nil {
		return none, err // it names the file
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFacts+1))
	switch {
	case err != nil:
	case len(data) > maxFacts:
		err = errors.New("it is too large")
	default:
		err = json.Unmarshal(data, &facts)
	}
	if err != nil {
		return none, fmt.Errorf("%s: %w", file, err)
	}
	return facts, nil
}

func write(dir, name string, facts any) error {
	file := filepath.Join(dir, name)
	data, err := json.MarshalIndent(facts, "", "  ")
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	temp := file + ".new"
	if err == nil {
		err = os.WriteFile(temp, append(data, '\n'), 0o644)
	}
	if err == nil {
		err = os.Rename(temp, file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
