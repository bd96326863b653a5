// Package etcd is the one door to etcd: it runs this node's member, lets the other members in,
// and sees to it that enough of them run.
//
// In come the roster's seats with their addresses and the node's certificate ([Config],
// [Facts]); out go etcd's client socket, which is root's alone, and a [Status]. Who runs etcd
// next is decided by package membership. What is written into etcd, and who else may read it,
// is the gateway's matter; nothing that etcd says is believed here but who its members are.
//
// etcd is built from its server's parts, without package embed, which brings HTTP gateways
// and asks the kernel for its routes before main begins. A process runs one member: etcd knows
// its peers as unix sockets in the process's working directory (see [tunnels]).
package etcd

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"kogge.example/agent/etcd/membership"
	"kogge.example/update/fleet/document"
)

// Config is how a member runs. All fields but the last ones are needed.
type Config struct {
	Dir  string // on STATE: data, what is remembered of it, snapshots
	Run  string // forgotten by a boot: the sockets
	Seat int    // this node's
	// Listen is where the other members come in, as in ":7444".
	Listen string
	// Certificate is the node's, asked at each handshake.
	Certificate func() (tls.Certificate, error)
	// VerifyPeer says whose key is at the other end of a connection: it names the seats of the
	// roster that call this TLS key theirs, of which some may lie. It is asked at each handshake,
	// and again after Facts have changed. Of those seats the ones are let in that Facts or etcd's
	// list name.
	VerifyPeer func(tls.ConnectionState) (seats []int, err error)
	// Facts is asked at each look.
	Facts func() (Facts, error)
	// Said hears of each new status. Default: nobody does.
	Said func(Status)
	// Log takes lines for people. Default: nobody does.
	Log func(string)
	// Slowest is what 99 in 100 synced writes may take where a member's data is. Default that of [Slowest].
	Slowest time.Duration
	// Quota is how many bytes etcd's data may have. Default [DefaultQuota].
	Quota int64
}

// Facts are what the fleet has decided, and what is known of its nodes.
type Facts struct {
	Fleet document.Hash // its id
	Trial bool          // it is for trying things out, see [Slowest]
	First document.Hash // record 1, which names who begins
	Seats []membership.Seat
	// Leaving are seats that had Seats run etcd, and have not any more: etcd may still list them.
	Leaving []int
	// Founders are the seats that record 1 has run etcd.
	Founders []int
	// Addresses are where the doors of the seats answer, the likeliest first.
	Addresses map[int][]netip.AddrPort
	// Away are the seats that are silent on purpose, Yields those that are to lead only where no
	// other can.
	Away, Yields map[int]bool
	// Grace is how long a member may be silent until a spare takes its place.
	Grace time.Duration
	// Ordered is the newest generation of etcd that a signed order to restore has begun; 0: none
	// is known. Without it a member believes nobody who says that there is another etcd while it
	// has a leader, or may have one again.
	Ordered int
}

const (
	// DefaultQuota holds the records of 10,000 nodes and their history with room to spare, and
	// is no burden for a board's memory: what is read of it is mapped.
	DefaultQuota = 256 << 20

	// The heartbeat and the time after which a follower wants to lead. A leader that is killed is
	// followed after 1.25 to 2.5 s and two journeys; see [Slowest] for disks.
	tick     = 125 * time.Millisecond
	election = 1250 * time.Millisecond

	// history is how many revisions a watch may be behind.
	history = 5000
	// Entries between two snapshots of the log, and those kept behind it for followers. All of
	// them are in memory, at 64 KiB at most.
	snapshotEvery = 2000
	catchUp       = 1000

	// maxRequest is the largest write: an object of 64 KiB, and room for its key.
	maxRequest = 256 << 10

	// spared is how long an answer of another member may take.
	spared = 2 * time.Second
)

// Slowest is what 99 in 100 synced writes may take where a member's log is. etcd's makers want 10 ms
// of disks in a data centre, for throughput. Here some writes a minute are all there is, and SD cards
// and eMMC, with 10 to 100 ms, have to do. What may not happen is that a leader looks dead: it sends
// no heartbeat while it writes, so a write has to be over well within the time of an election. A fifth
// of that leaves room for a network and a busy card. The nodes of a fleet for trying things out lie on
// one disk, of a computer that does something else: they may lose a leader now and then, but not fail
// to be a fleet.
func Slowest(trial bool) time.Duration {
	if trial {
		return 2 * election
	}
	return election / 5
}

// compare is how often the leader compares the members' data, where revisions were forgotten.
var compare = time.Minute

// segment is the size of a piece of the log, in bytes, of which two are allocated at a time.
// etcd's own 64 MB are a tenth of a small card.
var segment int64 = 16 << 20

// ClientSocket is where etcd serves clients below a folder Run.
func ClientSocket(run string) string { return filepath.Join(run, "client.sock") }

// peerURL is how etcd's list names a seat: not by an address, which DHCP may change for all of
// them at once, but by the tunnel to it.
func peerURL(seat int) string { return "unix://" + tunnelName(seat) }

func tunnelName(seat int) string { return fmt.Sprintf("seat%d:1", seat) }

// memberName is what etcd calls the member of a seat.
func memberName(seat int) string { return fmt.Sprintf("seat%d", seat) }

// seatOf is the seat of a member by its URLs; 0: none of ours.
func seatOf(urls []string) int {
	if len(urls) != 1 {
		return 0
	}
	digits, ok := strings.CutPrefix(urls[0], "unix://seat")
	digits, ends := strings.CutSuffix(digits, ":1")
	seat, err := strconv.Atoi(digits)
	if !ok || !ends || err != nil || seat < 1 || peerURL(seat) != urls[0] {
		return 0
	}
	return seat
}
