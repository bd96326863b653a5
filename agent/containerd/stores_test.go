package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"kogge.example/update/golden"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes both databases as a containerd of a version leaves them, with a word in them.
func write(t testing.TB, root string, version byte, word string) {
	t.Helper()
	for _, name := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700))
		db, err := bbolt.Open(filepath.Join(root, name), 0o600, nil)
		must(t, err)
		must(t, db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("v1"))
			if err != nil {
				return err
			}
			if err := b.Put([]byte("version"), []byte{version}); err != nil {
				return err
			}
			return b.Put([]byte("word"), []byte(word))
		}))
		must(t, db.Close())
	}
}

// words are what the databases hold.
func words(t testing.TB, root string) string {
	t.Helper()
	var all []string
	for _, name := range files {
		db, err := bbolt.Open(filepath.Join(root, name), 0o600, &bbolt.Options{ReadOnly: true})
		must(t, err)
		must(t, db.View(func(tx *bbolt.Tx) error {
			all = append(all, string(tx.Bucket([]byte("v1")).Get([]byte("word"))))
			return nil
		}))
		must(t, db.Close())
	}
	return strings.Join(all, " ")
}

// TestKeep shows what becomes of the databases over the boots of an update.
func TestKeep(t *testing.T) {
	inA, inB := Boot{Slot: "A"}, Boot{Slot: "B"}
	tryB, tryA := Boot{Slot: "B", Number: 2, Trial: true}, Boot{Slot: "A", Number: 3, Trial: true}
	var b strings.Builder
	for _, story := range []struct {
		name  string
		boots []Boot
		// What containerd does in each boot: its version, 0 for nothing.
		versions []byte
	}{
		{"no update", []Boot{inA, inA}, []byte{4, 4}},
		{"a good one", []Boot{inA, tryB, inB, inB}, []byte{4, 5, 5, 5}},
		{"a sick one in the same form", []Boot{inA, tryB, tryB, tryB, inA}, []byte{4, 4, 4, 4, 4}},
		{"a sick one in a newer form", []Boot{inA, tryB, tryB, tryB, inA, inA}, []byte{4, 5, 5, 5, 4, 4}},
		{"one that never starts containerd", []Boot{inA, tryB, tryB, tryB, inA}, []byte{4, 0, 0, 0, 4}},
		{"forward and back by hand", []Boot{inA, tryB, inB, tryA, inA}, []byte{4, 5, 5, 4, 4}},
		{"back by hand, and that is sick", []Boot{inB, tryA, inB}, []byte{5, 6, 5}},
	} {
		fmt.Fprintf(&b, "%s\n", story.name)
		root, dir := filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "update", "containerd")
		must(t, os.MkdirAll(filepath.Dir(dir), 0o700))
		for i, boot := range story.boots {
			did, err := KeepStores(root, dir, boot)
			must(t, err)
			did = sized(did)
			if v := story.versions[i]; v > 0 {
				before := ""
				if i > 0 {
					before = words(t, root)
				}
				write(t, root, v, fmt.Sprintf("boot-%d", i))
				did = strings.TrimSpace(fmt.Sprintf("finds %q; %s", before, did))
			}
			_, err = os.Stat(dir)
			fmt.Fprintf(&b, "  slot %s, trial %v: %s; copies: %v\n", boot.Slot, boot.Trial, did, err == nil)
		}
	}
	golden.Compare(t, "keep.txt", b.String())
}

// sized leaves the size of the copies out.
func sized(did string) string {
	if i := strings.Index(did, " KiB"); i > 0 {
		return did[:strings.LastIndexByte(did[:i], ' ')] + " N" + did[i:]
	}
	return did
}

// TestKeepCut ends the work at each file that it leaves behind: what a cut leaves is
// found again, and comes to the same end.
func TestKeepCut(t *testing.T) {
	root, dir := filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "containerd")
	write(t, root, 4, "old")
	_, err := KeepStores(root, dir, Boot{Slot: "B", Number: 2, Trial: true})
	must(t, err)
	write(t, root, 5, "new")
	// Between the note that it begins and the end of putting back: one file is back.
	note, noted, err := readCopied(filepath.Join(dir, copiedFile))
	must(t, err)
	note.Restore = true
	must(t, writeCopied(dir, note))
	_, err = copyWhole(copyOf(dir, files[1]), filepath.Join(root, files[1]))
	must(t, err)
	if got := words(t, root); !noted || got != "new old" {
		t.Fatalf("half put back: %q", got)
	}
	if did, err := KeepStores(root, dir, Boot{Slot: "A"}); err != nil || did == "" || words(t, root) != "old old" {
		t.Errorf("%q, %v, %s", did, err, words(t, root))
	}
	// Copies without a note are none.
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(copyOf(dir, files[0]), []byte("half a copy"), 0o600))
	if did, err := KeepStores(root, dir, Boot{Slot: "A"}); err != nil || did != "" || words(t, root) != "old old" {
		t.Errorf("%q, %v, %s", did, err, words(t, root))
	}
	must(t, os.WriteFile(filepath.Join(dir, copiedFile), []byte(`{"version":2}`), 0o600))
	if _, err := KeepStores(root, dir, Boot{Slot: "A"}); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a note of a later release: %v", err)
	}
}
