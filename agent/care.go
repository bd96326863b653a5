package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log"
	"net"
	"path/filepath"
	"time"

	"kogge.example/agent/etcd"
	"kogge.example/agent/etcd/fsync"
	"kogge.example/agent/events"
	"kogge.example/agent/serve/care"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
)

// caring is what the node does for operators who look after its fleet.
func caring(at paths, p *part, t *talk, happened func(...events.Event)) care.Care {
	r := restorer{part: p, dir: filepath.Join(at.state, "etcd"), happened: happened, restart: restartEtcd}
	return care.Care{
		Give: t.give, Given: t.given, Reach: t.reachNode, Restore: r.restore,
		Backup: func(ctx context.Context, w io.Writer) error {
			if e, err := control.ReadEtcd(at.run); err != nil || !e.Running {
				return errors.Join(errors.New("etcd does not run here: ask one of its members"), err)
			}
			return etcd.Backup(ctx, etcd.ClientSocket(filepath.Join(at.run, "etcd")), w)
		},
		Probe: func() care.Disk {
			d := fsync.Measure(filepath.Join(at.state, "etcd"))
			return care.Disk{Writes: d.Writes, Median: d.Median, P99: d.P99, Most: etcd.Slowest, Unfit: d.Unfit(etcd.Slowest)}
		},
	}
}

// Limits of a way to another node.
const (
	reachEach = 5 * time.Second // for one address
	reachMost = 4               // addresses
)

// reachNode opens a connection to the API of another node that has a seat, at the first of its
// addresses that answers. Who that is, is for who speaks over it to find out.
func (t *talk) reachNode(ctx context.Context, name string) (net.Conn, error) {
	now := t.session.Load()
	if now == nil {
		return nil, errNoSeat
	}
	seat, ok := now.taken.State().Roster.ByName(name)
	if !ok {
		return nil, care.ErrNoNode
	}
	if err := refuse(t.part.book())(seat); err != nil {
		return nil, err
	}
	addresses := t.reach(now.engine, now.taken, seat)
	if len(addresses) == 0 {
		return nil, errors.New("this node knows no address of it")
	}
	var all error
	for _, a := range addresses[:min(len(addresses), reachMost)] {
		conn, err := (&net.Dialer{Timeout: reachEach}).DialContext(ctx, "tcp", a.String())
		if err == nil {
			return conn, nil
		}
		all = errors.Join(all, err)
	}
	return nil, all
}

// restorer has the node's etcd begin anew.
type restorer struct {
	part     *part
	dir      string // etcd's, on STATE
	happened func(...events.Event)
	restart  func(context.Context) error // the service etcd
}

// maxSnapshot is the bytes of a snapshot, at most: of the largest database that a member may have,
// and what etcd adds to it.
const maxSnapshot = 2 * etcd.DefaultQuota

// restore places a snapshot, or the order to begin anew from the node's own disk, and has the
// service etcd start anew. The fleet's ledger on STATE is not touched: whatever a snapshot says,
// the node goes on from the height that it has. The error wraps [ledger.ErrPermit] where the owner
// has not permitted just this.
func (r *restorer) restore(ctx context.Context, by string, permit []byte, snapshot io.Reader) error {
	p, err := ledger.ParseRestore(permit)
	if err != nil {
		return err
	}
	seat, taken, err := r.part.whole()
	if err != nil {
		return err
	}
	if err := taken.Problem(); err != nil {
		return err
	}
	s := taken.State()
	if err := s.PermitsRestore(p, seat.Key); err != nil {
		return err
	}
	if own, ok := s.Roster.ByKey(seat.Key); !ok || !own.Member && !own.Spare {
		return errors.New("the roster does not have this node run etcd")
	}
	e, err := control.ReadEtcd(r.part.run)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the service etcd has not run since the node booted: ask again in a minute")
	}
	if err != nil {
		return err
	}
	if p.Generation < int64(e.Generation) { // higher, where this node has missed one
		return fmt.Errorf("%w: it is for etcd of generation %d, and here it is %d: a permit is used once", ledger.ErrPermit, p.Generation, e.Generation)
	}
	what := "what is on its disk"
	if p.Snapshot.IsZero() != (snapshot == nil) {
		return fmt.Errorf("%w: it is for %s, and a snapshot came: %v", ledger.ErrPermit, snapshotName(p.Snapshot), snapshot != nil)
	}
	if snapshot != nil {
		what = "a snapshot"
		snapshot = &checked{from: io.LimitReader(snapshot, maxSnapshot+1), sum: sha256.New(), want: p.Snapshot}
	}
	if err := etcd.PlaceRestore(r.dir, snapshot, int(p.Generation)); err != nil {
		return err
	}
	log.Printf("agent: etcd begins anew from %s: by %s, permitted by the owner", what, by)
	r.happened(events.Event{Kind: events.Node, Object: "etcd", What: "to begin anew", By: by, Text: "from " + what})
	return r.restart(ctx)
}

func snapshotName(h document.Hash) string {
	if h.IsZero() {
		return "what is on the node's disk"
	}
	return "snapshot " + h.Short()
}

// checked is a snapshot that ends in an error if it is not the one that is wanted.
type checked struct {
	from io.Reader
	sum  hash.Hash
	size int64
	want document.Hash
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.sum.Write(p[:n])
	c.size += int64(n)
	if c.size > maxSnapshot {
		return n, fmt.Errorf("the snapshot has more than %d bytes", int64(maxSnapshot))
	}
	if err == io.EOF {
		if got := document.Hash(c.sum.Sum(nil)); got != c.want {
			return n, fmt.Errorf("%w: it is for snapshot %s, and %s came", ledger.ErrPermit, c.want.Short(), got.Short())
		}
	}
	return n, err
}

// restartEtcd has PID 1 start the service etcd anew.
func restartEtcd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := control.Dial(ctx, control.Path)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Restart(ctx, "etcd")
}
