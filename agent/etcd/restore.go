package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.uber.org/zap"

	"kogge.example/agent/etcd/membership"
	"kogge.example/update/durable"
)

// Backup writes a snapshot of what a member has, as its client socket gives it. It needs no
// leader. After an error what was written is none.
func Backup(ctx context.Context, socket string, w io.Writer) error {
	c, err := Connect(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("snapshot of etcd: %w", err)
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("snapshot of etcd: %w", err)
	}
	return nil
}

// Connect makes a client of a member's socket. It fails only where a client cannot be made at
// all: whether a member answers its calls say.
func Connect(socket string) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + socket}, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("client of etcd at %s: %w", socket, err)
	}
	return c, nil
}

// PlaceRestore has the member whose folder dir is begin etcd anew, from a snapshot, when its
// process starts next; nil is a snapshot of what the member has itself, but for what it wrote in the
// last tenth of a second before a power cut. The etcd that was before
// counts no more then: members of it that come back join the new one. Only what etcd orders and
// carries is restored, at heights that were; who relies on a height holds it himself. The new etcd
// is of a generation above after, which is that of the newest etcd that anybody knows: this member
// may have missed one. A cut leaves the order given, or not:
//
//  1. after
//  2. the snapshot, by which the order is given
func PlaceRestore(dir string, snapshot io.Reader, after int) error {
	if err := durable.Replace(filepath.Join(dir, afterName), []byte(strconv.Itoa(after)+"\n"), 0o600); err != nil {
		return fmt.Errorf("place a snapshot to restore: %w", err)
	}
	name := filepath.Join(dir, restoreName)
	if snapshot == nil {
		return durable.Replace(name, nil, 0o600)
	}
	if err := writeFile(name, snapshot); err != nil {
		return fmt.Errorf("place a snapshot to restore: %w", err)
	}
	return nil
}

// writeFile writes a file of any length, as durable.Replace does.
func writeFile(name string, from io.Reader) error {
	temp := name + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, name); err != nil {
		return err
	}
	return durable.SyncFolder(filepath.Dir(name))
}

// bump is how far revisions jump at a restore, times the generation: no watcher ever sees one
// twice, however old the snapshot is.
const bump = 1 << 30

// restore does what PlaceRestore has asked for. A cut leaves the old data or the new one; the
// order may be carried out twice:
//
//  1. the new data, under another name
//  2. its own name
//  3. the mark names it: from now on it counts
//  4. the old data is kept aside
//  5. the order is gone
func (f *folder) restore() (did bool, err error) {
	order := f.path(restoreName)
	info, err := os.Stat(order)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	what, why, m := f.look()
	from, whole := order, true
	if info.Size() == 0 {
		if what == membership.Foreign {
			return false, fmt.Errorf("restore: %s", why)
		}
		from, whole = datadir.ToBackendFileName(f.data(m.Generation)), false
	}
	if err := f.renew(m, from, whole, f.after()); err != nil {
		if kept := f.disk.Rename(order, order+".bad"); kept != nil { // else the node would try for ever
			err = errors.Join(err, kept)
		}
		return false, fmt.Errorf("restore: %w", err)
	}
	return true, f.disk.RemoveAll(order)
}

// after is the generation above which the ordered one is to be. Without a file that says so, or
// with one that has decayed, this member's own is what counts.
func (f *folder) after() int {
	raw, err := os.ReadFile(f.path(afterName))
	if err != nil {
		return 0
	}
	after, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || after < 0 || after > maxGeneration {
		return 0
	}
	return after
}

// maxGeneration is more than anybody restores.
const maxGeneration = 1 << 30

// renew begins the next generation, above m's and another one, of this seat alone, from a database.
// whole says that the database has the sum that a snapshot ends with.
func (f *folder) renew(m mark, from string, whole bool, after int) error {
	next := m
	next.Generation, next.Begun, next.Starts = max(m.Generation, after)+1, true, 0
	data := f.data(next.Generation)
	for _, left := range []string{data, data + ".new"} {
		if err := f.disk.RemoveAll(left); err != nil {
			return err
		}
	}
	err := recovered(func() error {
		return snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
			SnapshotPath: from, Name: memberName(f.mine.Seat), OutputDataDir: data + ".new", SkipHashCheck: !whole,
			PeerURLs: []string{peerURL(f.mine.Seat)}, InitialCluster: memberName(f.mine.Seat) + "=" + peerURL(f.mine.Seat),
			InitialClusterToken: f.token(next.Generation), RevisionBump: uint64(next.Generation) * bump, MarkCompacted: true,
		})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if err := syncTree(data + ".new"); err != nil {
		return err
	}
	if err := f.disk.Rename(data+".new", data); err != nil {
		return err
	}
	if err := f.write(next); err != nil {
		return err
	}
	return f.tidy(next)
}

// tidy keeps aside the data that a mark does not name.
func (f *folder) tidy(m mark) error {
	for _, name := range f.all() {
		if name == filepath.Base(f.data(m.Generation)) {
			continue
		}
		if err := f.disk.RemoveAll(f.path(asideName)); err != nil {
			return err
		}
		if err := f.disk.Rename(f.path(name), f.path(asideName)); err != nil {
			return err
		}
	}
	return nil
}

// token is what tells the etcds of two fleets, and of two generations, apart.
func (f *folder) token(generation int) string {
	return fmt.Sprintf("%s/%d", f.mine.First, generation)
}

// recovered is f, with what it panics as an error.
func recovered(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return f()
}

// syncTree syncs every file and folder of a tree.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return durable.SyncFolder(name) // a file is synced alike
	})
}

// Snapshot is a copy of a member's data on its own disk.
type Snapshot struct {
	Revision int64     `json:"revision"`
	Bytes    int64     `json:"bytes"`
	Made     time.Time `json:"made"` // by the node's clock
}

const (
	snapshotsName = "snapshots"
	// keptSnapshots is how many there are, at most.
	keptSnapshots = 3
	// A snapshot is made when the last one is snapshotAge old and something was written
	// since, or at snapshotRevisions if it is an hour old: it costs the disk a whole copy.
	snapshotAge       = 24 * time.Hour
	snapshotRevisions = 5000
	snapshotPause     = time.Hour
	// firstSnapshot is how long etcd runs before its first one.
	firstSnapshot = 10 * time.Minute
)

// snapshotDue says whether a snapshot is to be made. last is the newest one; running is how long
// etcd has been running, made how long ago last was made.
func snapshotDue(last Snapshot, revision int64, running, made time.Duration, free, size int64) bool {
	switch {
	case free < 3*size+(64<<20): // it would be in the way of the data
		return false
	case last.Revision == 0:
		return running >= firstSnapshot
	case revision == last.Revision:
		return false
	}
	behind := revision - last.Revision
	return made >= snapshotAge || made >= snapshotPause && (behind >= snapshotRevisions || behind < 0)
}

// snapshots are those that are here, the newest one last: revisions only grow, clocks do not.
func (f *folder) snapshots() (all []Snapshot) {
	entries, _ := os.ReadDir(f.path(snapshotsName)) // without the folder there are none
	for _, e := range entries {
		var s Snapshot
		if _, err := fmt.Sscanf(e.Name(), "%d.db", &s.Revision); err != nil || e.Name() != snapshotName(s.Revision) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		s.Bytes, s.Made = info.Size(), info.ModTime()
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return cmp.Compare(a.Revision, b.Revision) })
	return all
}

func snapshotName(revision int64) string { return fmt.Sprintf("%020d.db", revision) }

// keep writes a snapshot, and removes those that are too many. A cut leaves the older ones.
func (f *folder) keep(revision int64, from io.Reader) error {
	dir := f.path(snapshotsName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, snapshotName(revision)), from); err != nil {
		return fmt.Errorf("snapshot of etcd: %w", err)
	}
	all := f.snapshots()
	for _, s := range all[:max(0, len(all)-keptSnapshots)] {
		if err := os.Remove(filepath.Join(dir, snapshotName(s.Revision))); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".new") { // of a cut
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
