package images

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"kogge.example/agent/accounts"
	"kogge.example/agent/workload"
)

// Bounds of the search for an image's ids: what an image can have is more than a node may
// want to look at.
const (
	maxEntries = 1 << 20                // files and folders
	maxPending = 1 << 16                // folders that wait to be looked at
	idsLimit   = 3 * time.Minute        // for all of it
	enoughIDs  = workload.MaxBeyond + 1 // more are too many in any case
)

// labelIDs marks the configuration of an image, and with it these very layers, with the ids
// that were found: numbers with commas between them. Where the image has more files than we
// look at, "+" is behind them. A search that failed leaves no mark.
const labelIDs = "kogge.example/ids"

// IDs are the users and groups beyond [workload.IDs] that the files of an image belong to,
// or that its /etc/passwd and /etc/group know; of very many only some, which are too many.
// config is the digest of its configuration, and layers are what that says of them. The first
// call of an image looks at all of its files.
func (s *Store) IDs(ctx context.Context, config digest.Digest, layers []digest.Digest) ([]uint32, error) {
	ctx = s.context(ctx)
	info, err := s.client.ContentStore().Info(ctx, config)
	if err != nil {
		return nil, err
	}
	if text, known := info.Labels[labelIDs]; known {
		return parseIDs(text), nil
	}
	ctx, done, err := s.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	// One at a time of each image: at the first boot of a release all containers begin at once,
	// and many of one. What an agent leaves that is killed goes with the lease.
	leave, err := s.searching.Take(ctx, config.String())
	if err != nil {
		return nil, err
	}
	defer leave()
	if info, err = s.client.ContentStore().Info(ctx, config); err != nil {
		return nil, err
	}
	if text, known := info.Labels[labelIDs]; known {
		return parseIDs(text), nil
	}
	snapshots, view := s.client.SnapshotService(Snapshotter), "ids-"+strings.ToLower(rand.Text())
	mounts, err := snapshots.View(ctx, view, identity.ChainID(layers).String())
	if err != nil {
		return nil, err
	}
	defer snapshots.Remove(context.WithoutCancel(ctx), view)
	var ids []uint32
	var broken error
	err = Look(ctx, mounts, func(root string) error {
		limited, cancel := context.WithTimeout(ctx, idsLimit)
		defer cancel()
		ids, broken = findIDs(limited, root, maxEntries)
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	text := formatIDs(ids)
	if broken != nil {
		text += "+"
		log.Printf("image with configuration %s: not all of its files were looked at, those of other users above %d may be nobody's: %v", config, workload.IDs-1, broken)
	}
	if broken != nil && !errors.Is(broken, errBounds) {
		return ids, nil
	}
	if _, err := s.client.ContentStore().Update(ctx, content.Info{Digest: config, Labels: map[string]string{labelIDs: text}}, "labels."+labelIDs); err != nil {
		log.Printf("image with configuration %s: the ids of its files are looked for again at the next start: %v", config, err)
	}
	return ids, nil
}

// Look shows see the root of what mounts say, as it lies on the disk: to read, and with no
// device and no program that could be one.
func Look(ctx context.Context, mounts []mount.Mount, see func(root string) error) error {
	all := slices.Clone(mounts)
	for i, m := range all {
		all[i].Options = append(slices.Clone(m.Options), "nodev", "nosuid", "noexec")
	}
	var seen error
	err := mount.WithReadonlyTempMount(ctx, all, func(root string) error {
		seen = see(root)
		return nil
	})
	return errors.Join(seen, err)
}

// formatIDs and parseIDs are the text of labelIDs. What others wrote there is no ids.
func formatIDs(ids []uint32) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(uint64(id), 10))
	}
	return b.String()
}

func parseIDs(text string) (ids []uint32) {
	for one := range strings.SplitSeq(strings.TrimSuffix(text, "+"), ",") {
		if id, err := strconv.ParseUint(one, 10, 32); err == nil {
			ids = append(ids, uint32(id))
		}
	}
	return ids
}

// found are ids by number.
type found map[uint32]bool

func (f found) add(ids ...uint32) {
	for _, id := range ids {
		if id >= workload.IDs && id != math.MaxUint32 && len(f) < enoughIDs {
			f[id] = true
		}
	}
}

var errBounds = errors.New("there are too many")

// findIDs looks at the files below root, at most so many, which nobody changes meanwhile. It
// follows no link.
// The error says why it did not look at all of them.
func findIDs(ctx context.Context, root string, most int) ([]uint32, error) {
	top, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	ids, left := make(found), most
	for id := range accounts.Read(root).IDs() {
		ids.add(id)
	}
	if info, err := top.Stat("."); err == nil {
		ids.add(ownersOf(info)...)
	}
	err = nil
	for todo := []string{"."}; len(todo) > 0 && err == nil; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		err = eachEntry(ctx, top, at, func(info fs.FileInfo) error {
			ids.add(ownersOf(info)...)
			if left--; left < 0 || len(todo) >= maxPending {
				return errBounds
			}
			if info.IsDir() {
				todo = append(todo, path.Join(at, info.Name()))
			}
			return nil
		})
	}
	all := make([]uint32, 0, len(ids))
	for id := range ids {
		all = append(all, id)
	}
	slices.Sort(all)
	return all, err
}

// eachEntry calls each for what is in a folder, a part of it at a time.
func eachEntry(ctx context.Context, top *os.Root, folder string, each func(fs.FileInfo) error) error {
	f, err := top.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		entries, err := f.ReadDir(512)
		for _, entry := range entries {
			info, err := entry.Info()
			if err == nil {
				err = each(info)
			}
			if err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return ctx.Err()
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

func ownersOf(info fs.FileInfo) []uint32 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return []uint32{st.Uid, st.Gid}
}
