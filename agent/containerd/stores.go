package containerd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"kogge.example/update/durable"
)

// files are containerd's two databases, below its root: which images, containers and
// leases there are, and which snapshots.
var files = []string{
	"io.containerd.metadata.v1.bolt/meta.db",
	"io.containerd.snapshotter.v1.overlayfs/metadata.db",
}

// Boot says which slot boots, and by which arming.
type Boot struct {
	Slot   string `json:"slot"`
	Number int    `json:"number"`
	Trial  bool   `json:"-"` // it is on trial
}

// copied is what is noted beside copies of the stores.
type copied struct {
	Version int  `json:"version"` // 1
	Trial   Boot `json:"trial"`   // before which they were made
	Restore bool `json:"restore"` // they are being put back
}

const copiedFile = "copied.json"

// KeepStores is called before containerd starts. STATE is never rolled back; these two
// files are the exception, because a newer containerd may bring them to a form that
// the older one takes for something else. So they are copied before the first boot of a
// trial, and put back when the slot before it runs again, but only if their form has
// changed in between: the older containerd can go on with what the trial left in the old
// form, and knows then of the images that were pulled on it. Where they are put back,
// containers and images of the trial are forgotten; the containers that are wanted are
// made anew at every boot, and images are pulled once more.
//
// root is containerd's, which does not run; dir is where the copies lie. It says what it
// did, "" for nothing. A cut at any point leaves stores that are whole, and copies that
// are whole or not noted:
//
//  1. copies, each synced, then the note of them
//  2. to put back: the note says so, each file whole in the place of the old one, then
//     the note goes
func KeepStores(root, dir string, now Boot) (string, error) {
	note, noted, err := readCopied(filepath.Join(dir, copiedFile))
	if err != nil {
		return "", err
	}
	switch {
	case noted && note.Restore:
		return putBack(root, dir)
	case now.Trial && noted && note.Trial.Slot == now.Slot && note.Trial.Number == now.Number:
		return "", nil // a further try
	case now.Trial:
		return saveAll(root, dir, now)
	case !noted:
		return "", nil
	case note.Trial.Slot == now.Slot: // it has proven itself
		return "", dropCopies(dir)
	}
	other, err := changed(root, dir)
	if err != nil || !other {
		return "", errors.Join(err, dropCopies(dir))
	}
	note.Restore = true
	if err := writeCopied(dir, note); err != nil {
		return "", err
	}
	return putBack(root, dir)
}

func readCopied(file string) (copied, bool, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return copied{}, false, nil
	}
	var c copied
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err == nil && c.Version != 1 {
		err = fmt.Errorf("this release cannot read version %d", c.Version)
	}
	if err != nil {
		return c, false, fmt.Errorf("copies of containerd's databases: %s: %w", file, err)
	}
	return c, true, nil
}

func writeCopied(dir string, c copied) error {
	c.Version = 1
	raw, err := json.Marshal(c)
	if err == nil {
		err = durable.Replace(filepath.Join(dir, copiedFile), append(raw, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("copies of containerd's databases: %w", err)
	}
	return nil
}

// copyOf is where the copy of a store lies.
func copyOf(dir, store string) string { return filepath.Join(dir, filepath.Base(store)) }

func saveAll(root, dir string, now Boot) (string, error) {
	if err := dropCopies(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("copies of containerd's databases: %w", err)
	}
	var size int64
	for _, store := range files {
		n, err := copyWhole(filepath.Join(root, store), copyOf(dir, store))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a containerd that has never run
		}
		if err != nil {
			return "", fmt.Errorf("copy of containerd's database: %w", errors.Join(err, dropCopies(dir)))
		}
		size += n
	}
	return fmt.Sprintf("copied its databases, %d KiB, before the trial of slot %s", size>>10, now.Slot), writeCopied(dir, copied{Trial: now})
}

// copyWhole puts a file in the place of another one: at a cut that is as it was, or
// wholly the new one.
func copyWhole(from, to string) (n int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	part := to + ".new"
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		return n, errors.Join(err, os.Remove(part))
	}
	return n, durable.SyncFolder(filepath.Dir(to))
}

func putBack(root, dir string) (string, error) {
	for _, store := range files {
		_, err := copyWhole(copyOf(dir, store), filepath.Join(root, store))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("restore containerd's database: %w", err)
		}
	}
	return "restored its databases from before the trial, which had changed their format", dropCopies(dir)
}

// dropCopies takes the note away first: copies without one are none.
func dropCopies(dir string) error {
	for _, name := range []string{copiedFile, "."} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("copies of containerd's databases: %w", err)
		}
		if err := durable.SyncFolder(filepath.Dir(filepath.Join(dir, name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("copies of containerd's databases: %w", err)
		}
	}
	return nil
}

// changed says whether any of the stores has another form than its copy, or
// cannot be read any more.
func changed(root, dir string) (bool, error) {
	for _, store := range files {
		before, err := form(copyOf(dir, store))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("copy of containerd's database: %w", err) // there is nothing to put back
		}
		if now, err := form(filepath.Join(root, store)); err != nil || now != before {
			return true, nil
		}
	}
	return false, nil
}

// form is what containerd goes by when it brings a database to its own form: the names
// of its outermost buckets, which are versions, and the number that each has as
// "version".
//
// Source: core/metadata/db.go and core/snapshots/storage/bolt.go of containerd 2.
func form(file string) (string, error) {
	if _, err := os.Stat(file); err != nil {
		return "", err
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 10 * time.Second})
	if err != nil {
		return "", err
	}
	defer db.Close()
	var parts []string
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			parts = append(parts, fmt.Sprintf("%s=%x", name, b.Get([]byte("version"))))
			return nil
		})
	})
	slices.Sort(parts)
	return strings.Join(parts, " "), err
}
