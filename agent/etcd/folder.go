package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"

	"kogge.example/agent/etcd/membership"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/document"
)

// folder is what lies on STATE:
//
//	mark.json        whose data this is, and which of it counts
//	data.N           etcd's data, of generation N
//	aside            data that counts no more, the last one only
//	snapshots/       copies of the data
//	aside.snapshots  those of another fleet
//	restore.db       a snapshot that a person wants to begin anew from
//	restore.after    the generation that this is to come after
//	restore.db.why   why an order that is restore.db.bad now can never be carried out
//
// Data of another fleet is never used, and what may be the only copy never removed.
type folder struct {
	dir  string
	disk disk
	mine mark // fleet, record 1 and seat, as they have to be
	last *verdict
}

// mark says whose data lies beside it.
type mark struct {
	Version    int           `json:"version"` // of this file: 1
	Fleet      document.Hash `json:"fleet"`
	First      document.Hash `json:"first"` // record 1
	Seat       int           `json:"seat"`
	Generation int           `json:"generation"` // one more with each restore
	// Begun says that this seat has had data of that generation, and may have made promises.
	Begun bool `json:"begun"`
	// Starts is how often in a row etcd was started and did not live for a while.
	Starts int `json:"starts"`
	// Failed is how often in a row data was kept aside because of that.
	Failed int `json:"failed,omitempty"`
	// Only says that this seat was etcd's only voter: no other node has what is lost here.
	Only bool `json:"only,omitempty"`
}

const (
	markName    = "mark.json"
	asideName   = "aside"
	asideCopies = "aside.snapshots"
	restoreName = "restore.db"
	afterName   = "restore.after"
	markVersion = 1
)

// disk is what the folder does to a disk; each call has come true for good when it returns. The
// tests have one that loses power.
type disk interface {
	Replace(name string, data []byte) error
	Rename(from, to string) error
	RemoveAll(name string) error
}

// machine is the disk of this machine.
type machine struct{}

func (machine) Replace(name string, data []byte) error { return durable.Replace(name, data, 0o600) }

func (machine) Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return durable.SyncFolder(filepath.Dir(to))
}

func (machine) RemoveAll(name string) error {
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	return durable.SyncFolder(filepath.Dir(name))
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) data(generation int) string { return dataOf(f.dir, generation) }

// same says whether a mark is of this seat of this fleet.
func (m mark) same(other mark) bool {
	return m.Fleet == other.Fleet && m.First == other.First && m.Seat == other.Seat
}

// read reads the mark. found is false where there is none.
func (f *folder) read() (m mark, found bool, err error) {
	raw, err := os.ReadFile(f.path(markName))
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, false, nil
	}
	if err == nil {
		m, err = parseMark(raw)
	}
	return m, err == nil, err
}

// parseMark reads what format writes: a SHA-256, because disks decay, and the mark.
func parseMark(raw []byte) (m mark, err error) {
	sum, content, _ := bytes.Cut(raw, []byte("\n"))
	if len(raw) > 4096 || string(sum) != document.HashOf(content).String() {
		return mark{}, fmt.Errorf("%s: its bytes are not those that were written", markName)
	}
	d := json.NewDecoder(bytes.NewReader(content))
	if err := d.Decode(&m); err != nil {
		return mark{}, fmt.Errorf("%s: %w", markName, err)
	}
	if m.Version != markVersion || m.Generation < 0 || m.Generation > maxGeneration || m.Seat < 1 {
		return mark{}, fmt.Errorf("%s: version %d, seat %d, generation %d", markName, m.Version, m.Seat, m.Generation)
	}
	return m, nil
}

func (m mark) format() []byte {
	content, err := json.Marshal(m)
	if err != nil {
		panic(err) // there is no mark that JSON cannot write
	}
	return append([]byte(document.HashOf(content).String()+"\n"), content...)
}

func (f *folder) write(m mark) error {
	m.Version, m.Fleet, m.First, m.Seat = markVersion, f.mine.Fleet, f.mine.First, f.mine.Seat
	return f.disk.Replace(f.path(markName), m.format())
}

// all are the data folders that are here, whatever they are of.
func (f *folder) all() (names []string) {
	entries, _ := os.ReadDir(f.dir) // whoever needs to know has looked
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "data.") && !strings.HasSuffix(e.Name(), ".new") {
			names = append(names, e.Name())
		}
	}
	return names
}

// Holds says whether a folder Dir holds data of etcd, whatever it is of. What is kept aside is
// none.
func Holds(dir string) bool { return len((&folder{dir: dir}).all()) > 0 }

// newest is the highest generation that data folders are named by.
func newest(names []string) (generation int) {
	for _, name := range names {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, "data.")); err == nil && n <= maxGeneration {
			generation = max(generation, n)
		}
	}
	return generation
}

// look says what the folder holds, and in words what is wrong with it. Where it cannot be looked
// at, nothing is said of what it holds.
func (f *folder) look() (membership.Folder, string, mark) {
	m, found, err := f.read()
	here := f.all()
	lost := mark{Begun: true, Generation: newest(here)} // nobody knows what it has promised
	if _, err := os.ReadDir(f.dir); err != nil {
		return membership.Unread, fmt.Sprintf("%s cannot be read: %v", f.dir, err), lost
	}
	switch {
	case passing(err):
		return membership.Unread, err.Error(), lost
	case err != nil && len(here) > 0:
		return membership.Damaged, fmt.Sprintf("etcd's data in %s: %v", f.dir, err), lost
	case err != nil:
		return membership.Absent, "", lost
	case !found && len(here) == 0:
		return membership.Absent, "", mark{}
	case !found:
		return membership.Damaged, fmt.Sprintf("etcd's data in %s does not say of which fleet it is: %s is gone", f.dir, markName), lost
	case !m.same(f.mine) && len(here) == 0:
		return membership.Absent, "", mark{}
	case !m.same(f.mine):
		return membership.Foreign, fmt.Sprintf("etcd's data in %s is of seat %d of fleet %s, founded by %s, and this is seat %d of fleet %s, founded by %s",
			f.dir, m.Seat, m.Fleet.Short(), m.First.Short(), f.mine.Seat, f.mine.Fleet.Short(), f.mine.First.Short()), mark{}
	}
	data := f.data(m.Generation)
	log, err := hasLog(data)
	if err == nil && !log {
		return membership.Absent, "", m
	}
	if err == nil {
		err = f.check(data, time.Now())
	}
	switch {
	case passing(err):
		return membership.Unread, fmt.Sprintf("etcd's data in %s cannot be read now: %v", data, err), m
	case err != nil:
		return membership.Damaged, fmt.Sprintf("etcd's data in %s cannot be read: %v", data, err), m
	}
	return membership.Mine, "", m
}

// verdict is what check said of some files, and when. A node that waits looks every second.
type verdict struct {
	of  string
	at  time.Time
	err error
}

// checkAgain is after how long data that cannot be read is read again, though nobody has changed
// it: what the disk did not give it may give.
const checkAgain = 5 * time.Minute

// check says what is wrong with data. It is read once, while nobody changes it.
func (f *folder) check(data string, now time.Time) error {
	if f.last == nil {
		return check(data)
	}
	if of := stamp(data); f.last.of != of || f.last.err != nil && now.Sub(f.last.at) >= checkAgain {
		if *f.last = (verdict{of, now, check(data)}); passing(f.last.err) {
			f.last.at = time.Time{} // it is read again at once
		}
	}
	return f.last.err
}

// stamp names the files that check reads, with their sizes and when they were changed.
func stamp(data string) string {
	var b strings.Builder
	for _, dir := range []string{datadir.ToWALDir(data), datadir.ToSnapDir(data)} {
		entries, _ := os.ReadDir(dir) // check says what is wrong with it
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				fmt.Fprintln(&b, e.Name(), info.Size(), info.ModTime().UnixNano())
			}
		}
	}
	return data + b.String()
}

// passing says whether an error is of this moment, and says nothing of what could not be read.
func passing(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EINTR, unix.EAGAIN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// hasLog says whether a data folder has a log, in which promises may be.
func hasLog(data string) (bool, error) {
	entries, err := os.ReadDir(datadir.ToWALDir(data))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return filepath.Ext(e.Name()) == ".wal" }), err
}

// check reads the log whole, and the head of the database: etcd ends the process where it cannot
// read them.
func check(data string) (err error) {
	defer func() {
		if p := recover(); p != nil { // what etcd and bbolt do about some bytes
			err = fmt.Errorf("%v", p)
		}
	}()
	quiet := zap.NewNop()
	snaps, err := wal.ValidSnapshotEntries(quiet, datadir.ToWALDir(data))
	if err != nil {
		return fmt.Errorf("its log: %w", err)
	}
	last := &walpb.Snapshot{}
	if len(snaps) > 0 {
		last = snaps[len(snaps)-1]
	}
	if _, err := wal.Verify(quiet, datadir.ToWALDir(data), last); err != nil {
		return fmt.Errorf("its log: %w", err)
	}
	db, err := bolt.Open(datadir.ToBackendFileName(data), 0o400, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("its database: %w", err)
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		for _, name := range []string{"key", "meta", "members"} {
			b := tx.Bucket([]byte(name))
			if b == nil {
				return fmt.Errorf("its database has no bucket %s", name)
			}
			b.Cursor().First()
			b.Cursor().Last()
		}
		return nil
	})
}

// setAside keeps the data aside that lies here, in the place of what was kept before. Snapshots of
// another fleet go with its data. A cut leaves each of them here or there:
//
//  1. the older one goes
//  2. the data takes its place
//  3. the same of foreign snapshots
//  4. the mark says that this seat has begun; if the data was foreign, it goes
func (f *folder) setAside(what membership.Folder, m mark) error {
	here := f.all()
	if len(here) > 0 {
		kept := here[len(here)-1]
		if current := filepath.Base(f.data(m.Generation)); what != membership.Foreign && slices.Contains(here, current) {
			kept = current
		}
		if err := f.put(kept, asideName); err != nil {
			return err
		}
		for _, name := range here {
			if name != kept {
				if err := f.disk.RemoveAll(f.path(name)); err != nil {
					return err
				}
			}
		}
	}
	if what == membership.Foreign {
		if _, err := os.Stat(f.path(snapshotsName)); err == nil {
			if err := f.put(snapshotsName, asideCopies); err != nil {
				return err
			}
		}
		return f.disk.RemoveAll(f.path(markName))
	}
	if m.Begun, m.Starts = true, 0; what != membership.Damaged {
		m.Only = false // etcd goes on without this seat
	}
	return f.write(m)
}

// put renames something that lies here, in the place of what has that name.
func (f *folder) put(name, to string) error {
	if err := f.disk.RemoveAll(f.path(to)); err != nil {
		return err
	}
	return f.disk.Rename(f.path(name), f.path(to))
}

// prepare makes the folder ready for etcd to begin in data of a generation. What lies there made
// no promise: it has no log.
func (f *folder) prepare(m mark) error {
	if err := f.disk.RemoveAll(f.data(m.Generation)); err != nil {
		return err
	}
	if err := f.tidy(m); err != nil {
		return err
	}
	return f.write(m)
}
