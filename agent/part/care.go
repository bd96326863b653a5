package part

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log"
	"path/filepath"
	"sync"

	"kogge.example/agent/etcd"
	"kogge.example/agent/etcd/fsync"
	"kogge.example/agent/events"
	"kogge.example/agent/serve/care"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

// Care is what the node does for operators who look after its fleet. restart has PID 1 start the
// service etcd anew.
func (t *Talk) Care(restart func(context.Context) error) care.Care {
	state, run := t.part.state, t.part.run
	r := restorer{part: t.part, dir: filepath.Join(state, "etcd"), happened: t.happened, give: t.give, restart: restart}
	return care.Care{
		Give: t.give, Given: t.given, Reach: t.reachNode, Restore: r.restore,
		Backup: func(ctx context.Context, w io.Writer) error {
			if e, err := control.ReadEtcd(run); err != nil || !e.Running {
				return errors.Join(errors.New("etcd does not run here: ask one of its members"), err)
			}
			return etcd.Backup(ctx, etcd.ClientSocket(filepath.Join(run, "etcd")), w)
		},
		Probe: func() care.Disk {
			d := fsync.Measure(filepath.Join(state, "etcd"))
			g := t.part.node.Genesis()
			most := etcd.Slowest(g != nil && g.Policy.Trial)
			return care.Disk{Writes: d.Writes, Median: d.Median, P99: d.P99, Most: most, Unfit: d.Unfit(most)}
		},
	}
}

// restorer has the node's etcd begin anew.
type restorer struct {
	part     *Part
	dir      string // etcd's, on STATE
	happened func(...events.Event)
	give     func(signed.Envelope) error // tells others of an order
	restart  func(context.Context) error // the service etcd

	busy sync.Mutex // held while one snapshot comes
}

// maxSnapshot is the bytes of a snapshot, at most: of the largest database that a member may have,
// and what etcd adds to it.
const maxSnapshot = 2 * etcd.DefaultQuota

// restore places a snapshot, or the order to begin anew from the node's own disk, tells the others of
// it, and has the service etcd start anew: who brings the order may go as soon as the snapshot is here.
// The fleet's ledger on STATE is not touched: whatever a snapshot says, the node goes on from the
// height that it has. The error wraps [ledger.ErrPermit] where the owner has not permitted just this.
func (r *restorer) restore(ctx context.Context, by string, object signed.Envelope, snapshot io.Reader) error {
	if !r.busy.TryLock() {
		return errors.New("another restore is under way here")
	}
	defer r.busy.Unlock()
	p, err := r.permitted(object)
	if err != nil {
		return err
	}
	what := "what is on its disk"
	if p.Snapshot.IsZero() != (snapshot == nil) {
		return fmt.Errorf("%w: it is for %s, and a snapshot came: %v", ledger.ErrPermit, snapshotName(p.Snapshot), snapshot != nil)
	}
	if snapshot != nil {
		what = "a snapshot"
		snapshot = &checked{from: io.LimitReader(snapshot, maxSnapshot+1), sum: sha256.New(), want: p.Snapshot}
	}
	if err := etcd.PlaceRestore(r.dir, snapshot, int(p.Generation), func() error { return r.give(object) }); err != nil {
		return err
	}
	log.Printf("agent: etcd begins anew from %s: by %s, permitted by the owner", what, by)
	r.happened(events.Event{Kind: events.Node, Object: "etcd", What: "to begin anew", By: by, Text: "from " + what})
	if err := r.restart(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("etcd begins anew when its service starts next: %w", err)
	}
	return nil
}

// permitted is what the owner permits by an order, if it is for this node as it stands now.
func (r *restorer) permitted(object signed.Envelope) (p ledger.Restore, err error) {
	o, err := order.ParseRestoring(object.Body)
	if err != nil {
		return p, err
	}
	if p, err = ledger.ParseRestore(o.Leave); err != nil {
		return p, err
	}
	seat, taken, err := r.part.Whole()
	if err != nil {
		return p, err
	}
	if err := taken.Problem(); err != nil {
		return p, err
	}
	s := taken.State()
	if err := s.PermitsRestore(p, seat.Key); err != nil {
		return p, err
	}
	if err := order.Check(s, object); err != nil {
		return p, err
	}
	if own, ok := s.Roster.ByKey(seat.Key); !ok || !own.Member && !own.Spare {
		return p, errors.New("the roster does not have this node run etcd")
	}
	e, err := control.ReadEtcd(r.part.run)
	if errors.Is(err, fs.ErrNotExist) {
		return p, errors.New("the service etcd has not run since the node booted: ask again in a minute")
	}
	newest := max(e.Generation, r.part.book().Standing().Generation) // what was ordered may run elsewhere
	if err == nil && p.Generation < int64(newest) {                  // higher, where this node has missed one
		err = fmt.Errorf("%w: it is for etcd of generation %d, and %d is known here: a permit is used once", ledger.ErrPermit, p.Generation, newest)
	}
	return p, err
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
