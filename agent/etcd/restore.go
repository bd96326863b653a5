package etcd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
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

	"golang.org/x/sys/unix"

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
// last tenth of a second before a power cut. The etcd that was before counts no more then: members of
// it that come back join the new one. Only what etcd orders and carries is restored, at heights that
// were; who relies on a height holds it himself. The new etcd is of a generation above after, which is
// that of the newest etcd that anybody knows: this member may have missed one. Members that run, and
// have a leader, go on without the new one until their [Facts] say that it was ordered, which tell is
// to see to.
func PlaceRestore(dir string, snapshot io.Reader, after int, tell func() error) error {
	return (&folder{dir: dir, disk: machine{}}).place(snapshot, after, tell)
}

// place gives an order to begin anew. A cut leaves it given, and told, or not given, though others
// may have been told: they wait for nothing then, and the next order comes above it.
//
//  1. the snapshot, under another name
//  2. tell, once all is here that the order needs
//  3. an older order goes
//  4. after
//  5. the snapshot's own name, by which the order is given
func (f *folder) place(snapshot io.Reader, after int, tell func() error) error {
	if snapshot == nil {
		snapshot = strings.NewReader("")
	}
	order, temp := f.path(restoreName), f.path(restoreName+".new")
	for _, do := range []func() error{
		func() error { return writeSynced(temp, snapshot) },
		tell,
		func() error { return f.disk.RemoveAll(order) },
		func() error { return f.disk.RemoveAll(order + badEnd) },
		func() error { return f.disk.RemoveAll(order + whyEnd) },
		func() error { return f.disk.Replace(f.path(afterName), []byte(strconv.Itoa(after)+"\n")) },
		func() error { return f.disk.Rename(temp, order) },
	} {
		if err := do(); err != nil {
			return errors.Join(fmt.Errorf("place a snapshot to restore: %w", err), os.RemoveAll(temp))
		}
	}
	return nil
}

// writeFile writes a file of any length, as durable.Replace does.
func writeFile(name string, from io.Reader) error {
	if err := writeSynced(name+".new", from); err != nil {
		return err
	}
	return machine{}.Rename(name+".new", name)
}

func writeSynced(name string, from io.Reader) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// bump is how far revisions jump at a restore, times the generation: no watcher ever sees one
// twice, however old the snapshot is.
const bump = 1 << 30

// errBad is of a snapshot that is none: nothing will ever come of it.
var errBad = errors.New("this is no whole snapshot")

// intact says whether a file is a whole snapshot; errBad: it is not.
func intact(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	length := info.Size() - sha256.Size
	if length <= 0 || length%512 != 0 { // a database of whole pages, and its sum
		return fmt.Errorf("%s: %w: it has %d bytes", name, errBad, info.Size())
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, f, length); err != nil {
		return err
	}
	said := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, said); err != nil {
		return err
	}
	if !bytes.Equal(said, sum.Sum(nil)) {
		return fmt.Errorf("%s: %w: its bytes are not those that were written", name, errBad)
	}
	return nil
}

// mayPass says that an error may be over by itself: the disk is full, or cannot be used now.
func mayPass(err error) bool {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, errRoom} {
		if errors.Is(err, e) {
			return true
		}
	}
	return passing(err)
}

// errRoom is of what is not begun because the disk would be full before it ends.
var errRoom = errors.New("there is too little room")

// restore does what PlaceRestore has asked for, where free bytes are left. A cut leaves the old data
// or the new one, and what counts already is not begun a second time, which nobody has ordered:
//
//  1. the new data, under another name
//  2. its own name
//  3. the mark names it: from now on it counts
//  4. the old data is kept aside
//  5. the order is gone
//
// An order that can never be carried out is kept beside, with the reason, and the old data goes on;
// any other one stays.
func (f *folder) restore(free int64) (did bool, err error) {
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
	if what == membership.Unread {
		return false, fmt.Errorf("restore: %s", why)
	}
	after, known := f.after()
	if known && what == membership.Mine && m.Generation > after {
		if err := f.tidy(m); err != nil {
			return false, fmt.Errorf("restore: %w", err)
		}
		return true, f.disk.RemoveAll(order)
	}
	if info.Size() == 0 {
		if what == membership.Foreign {
			return false, fmt.Errorf("restore: %s", why)
		}
		from, whole = datadir.ToBackendFileName(f.data(m.Generation)), false
	}
	if err := f.renew(m, from, whole, after, free); err != nil {
		if !mayPass(err) {
			err = errors.Join(err, f.disk.Replace(order+whyEnd, []byte(err.Error())), f.disk.Rename(order, order+badEnd))
		}
		return false, fmt.Errorf("restore: %w", err)
	}
	return true, f.disk.RemoveAll(order)
}

// What is left of an order that can never be carried out, and why that is so.
const badEnd, whyEnd = ".bad", ".why"

// refused says why the last order came to nothing; "": it did not, or a later etcd counts here.
func (f *folder) refused(m mark) string {
	why, err := os.ReadFile(f.path(restoreName + whyEnd))
	if after, known := f.after(); err != nil || known && m.Generation > after {
		return ""
	}
	return fmt.Sprintf("etcd was to begin anew here, and cannot: %.1000s", why)
}

// after is the generation above which the ordered one is to be. Where no file says so, or one that
// has decayed, it is not known, and this member's own is what counts.
func (f *folder) after() (after int, known bool) {
	raw, err := os.ReadFile(f.path(afterName))
	if err != nil {
		return 0, false
	}
	after, err = strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || after < 0 || after > maxGeneration {
		return 0, false
	}
	return after, true
}

// renew begins the next generation, above m's and another one, of this seat alone, from a database,
// where free bytes are left. whole says that the database has the sum that a snapshot ends with;
// the error is errBad if it is wrong. What a failed try has written is gone.
func (f *folder) renew(m mark, from string, whole bool, after int, free int64) error {
	next := m
	next.Generation, next.Begun, next.Starts, next.Only = max(m.Generation, after)+1, true, 0, true
	if next.Generation > maxGeneration {
		return fmt.Errorf("%s: etcd was restored %d times, and there are no more numbers", f.dir, next.Generation-1)
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if need := info.Size() + leastFree(); free < need {
		return fmt.Errorf("%s: %w: it takes %d MiB, and %s has %d", from, errRoom, need>>20, f.dir, free>>20)
	}
	if whole {
		if err := intact(from); err != nil {
			return err
		}
	}
	data := f.data(next.Generation)
	for _, left := range []string{data, data + ".new"} {
		if err := f.disk.RemoveAll(left); err != nil {
			return err
		}
	}
	err = recovered(func() error {
		return snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
			SnapshotPath: from, Name: memberName(f.mine.Seat), OutputDataDir: data + ".new", SkipHashCheck: true,
			PeerURLs: []string{peerURL(f.mine.Seat)}, InitialCluster: memberName(f.mine.Seat) + "=" + peerURL(f.mine.Seat),
			InitialClusterToken: f.token(next.Generation), RevisionBump: uint64(next.Generation) * bump, MarkCompacted: true,
		})
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", from, err)
	} else {
		err = syncTree(data + ".new")
	}
	if err != nil {
		return errors.Join(err, f.disk.RemoveAll(data+".new"))
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
		if err := f.put(name, asideName); err != nil {
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
	Generation int       `json:"generation"` // of the etcd that it is of
	Revision   int64     `json:"revision"`
	Bytes      int64     `json:"bytes"`
	Made       time.Time `json:"made"` // by the node's clock
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

// snapshots are those of this founding that are here, the newest one last: revisions only grow,
// clocks do not, and an etcd that began from nothing counts revisions from the start.
func (f *folder) snapshots() (all []Snapshot) {
	entries, _ := os.ReadDir(f.path(snapshotsName)) // without the folder there are none
	for _, e := range entries {
		var s Snapshot
		_, err := fmt.Sscanf(strings.TrimPrefix(e.Name(), f.mine.First.String()), "-%d-%d.db", &s.Generation, &s.Revision)
		if err != nil || e.Name() != f.snapshotName(s.Generation, s.Revision) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		s.Bytes, s.Made = info.Size(), info.ModTime()
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Snapshot) int {
		return cmp.Or(cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Revision, b.Revision))
	})
	return all
}

// snapshotName tells foundings apart, whose data is never mixed.
func (f *folder) snapshotName(generation int, revision int64) string {
	return fmt.Sprintf("%s-%07d-%020d.db", f.mine.First.String(), generation, revision)
}

// keep writes a snapshot, and removes those that are too many. A cut leaves the older ones.
func (f *folder) keep(generation int, revision int64, from io.Reader) error {
	dir := f.path(snapshotsName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, f.snapshotName(generation, revision)), from); err != nil {
		return fmt.Errorf("snapshot of etcd: %w", err)
	}
	all := f.snapshots()
	for _, s := range all[:max(0, len(all)-keptSnapshots)] {
		if err := os.Remove(filepath.Join(dir, f.snapshotName(s.Generation, s.Revision))); err != nil {
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
