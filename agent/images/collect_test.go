package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"kogge.example/agent/registry"
	"kogge.example/update/golden"
)

// TestSpare prints which images go, in order, until there is room: for each state of
// the disk and each wish, with what the removal of each frees.
func TestSpare(t *testing.T) {
	const mega = 1_000_000
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	image := func(name string, disk int64, edit func(*Image)) Image {
		i := Image{Name: name, Disk: disk * mega, Created: day(1)}
		edit(&i)
		return i
	}
	all := []Image{
		image("in-use", 100, func(i *Image) { i.By = []string{"web"} }),
		image("preload", 100, func(i *Image) { i.Preload = true }),
		image("coming", 100, func(i *Image) { i.Pulling = true }),
		image("used-long-ago", 100, func(i *Image) { i.Used = day(3) }),
		image("used-lately", 100, func(i *Image) { i.Used = day(20) }),
		image("never-used", 50, func(i *Image) { i.Created = day(10) }),
		image("never-used-too", 50, func(i *Image) { i.Created = day(10) }),
		image("used-by-a-wrong-clock", 10, func(i *Image) { i.Created, i.Used = day(4), time.Unix(0, 0) }),
		image("empty", 0, func(i *Image) { i.Created = day(30) }),
	}
	var b strings.Builder
	for _, c := range []struct {
		free, size, need int64
		all              []Image
	}{
		{200, 1000, 0, all}, {100, 1000, 0, all}, {99, 1000, 0, all}, {0, 1000, 0, all}, {0, 10000, 0, all},
		{200, 1000, 100, all}, {200, 1000, 101, all}, {200, 1000, 250, all}, {200, 1000, 410, all}, {200, 1000, 411, all},
		{0, 1000, 1 << 40, all}, {0, 1000, 0, all[:3]}, {0, 1000, 10, all[:3]}, {0, 1000, 0, nil}, {0, 0, 0, all},
	} {
		s, left := space{free: c.free * mega, size: c.size * mega}, slices.Clone(c.all)
		fmt.Fprintf(&b, "%d images, free %d of %d, need %d MB:", len(left), c.free, c.size, c.need)
		for {
			i, ok := spare(s, c.need*mega, left)
			if !ok {
				break
			}
			fmt.Fprintf(&b, " %s", i.Name)
			s.free += i.Disk
			left = slices.DeleteFunc(left, func(o Image) bool { return o.Name == i.Name })
		}
		fmt.Fprintf(&b, " — %v\n", s.enough(c.need*mega))
	}
	golden.Compare(t, "spare.txt", b.String())
}

// TestSpareFiles: where the files run out, an image goes only if images have enough of them.
func TestSpareFiles(t *testing.T) {
	const mega = 1_000_000
	disk := space{free: 500 * mega, size: 1000 * mega, freeFiles: 40, files: 1000} // 100 are to stay
	many := []Image{{Name: "few", Disk: mega, Files: 10}, {Name: "many", Disk: mega, Files: 50, Created: time.Unix(1, 0)}}
	if i, ok := spare(disk, 0, many); !ok || i.Name != "few" {
		t.Errorf("60 files of images for 60 that are missing: %q, %v", i.Name, ok)
	}
	if i, ok := spare(disk, 0, many[:1]); ok {
		t.Errorf("image %s goes, for nothing", i.Name)
	}
	if i, ok := spare(disk, 10*mega, many[:1]); ok {
		t.Errorf("image %s goes for a pull, for nothing", i.Name)
	}
	if err := disk.enough(0); !errors.Is(err, registry.ErrFull) || !strings.Contains(err.Error(), "40 more files, of which 100 are reserved") {
		t.Errorf("%v", err)
	}
	disk.freeFiles = 100
	if i, ok := spare(disk, 0, many); ok || disk.enough(0) != nil {
		t.Errorf("image %s goes, and there is room", i.Name)
	}
	// Bytes that are missing too are won as before.
	disk = space{free: 0, size: 1000 * mega, freeFiles: 0, files: 1000}
	if _, ok := spare(disk, 0, many[:1]); !ok {
		t.Error("no image goes for bytes")
	}
}

// TestWhileRoom: what takes room ends when that does, and says so; other ends say what they were.
func TestWhileRoom(t *testing.T) {
	asked := 0
	err := whileRoom(t.Context(), time.Millisecond, func(context.Context) error {
		if asked++; asked == 3 {
			return registry.ErrFull
		}
		return nil
	}, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, registry.ErrFull) {
		t.Errorf("%v", err)
	}
	broken := errors.New("broken")
	full := func(context.Context) error { return registry.ErrFull }
	if err := whileRoom(t.Context(), time.Millisecond, full, func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if err := whileRoom(t.Context(), time.Millisecond, full, func(context.Context) error { return nil }); err != nil {
		t.Errorf("%v", err)
	}
}

// TestRoomy: who sends a tar is stopped where the room ends.
func TestRoomy(t *testing.T) {
	asked := 0
	r := &roomy{Reader: zeroes{}, room: func() error {
		if asked++; asked > 3 {
			return registry.ErrFull
		}
		return nil
	}}
	n, err := io.Copy(io.Discard, r)
	if !errors.Is(err, registry.ErrFull) || !errors.Is(r.err, registry.ErrFull) || n < 3*4<<20 || n > 3*5<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// zeroes is a reader of nothing else.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestMost: what may be removed holds for what packs as real layers do, and not for what was
// made to fill a disk.
func TestMost(t *testing.T) {
	const mega = 1_000_000
	for _, c := range []struct {
		what                      string
		sent, unpacked, disk, not int64 // not: more than that is not allowed
	}{
		{"docker save", 90, 90, 180, 900},
		{"docker save | gzip, packed 3:1", 30, 90, 180, 500},
		{"docker save | gzip, packed 8:1", 10, 80, 160, 170},
		{"packed layers, 3:1", 30, 30, 120, 300},
		{"packed layers, 8:1", 10, 10, 90, 100},
		{"packed layers in a packed archive", 30, 31, 250, 500},
		{"a bomb", 1, 1, 0, 10},
		{"a packed bomb", 1, 1000, 0, 20},
		{"nothing", 0, 0, 0, 0},
	} {
		if got := loadedMost(c.sent*mega, c.unpacked*mega); got < c.disk*mega || got > c.not*mega {
			t.Errorf("%s: %d MB may go", c.what, got/mega)
		}
	}
	if got := pulledMost(10 * mega); got < 90*mega || got > 100*mega {
		t.Errorf("pulled: %d MB may go", got/mega)
	}
}

// TestMoving: a load that waits for bytes stands still at the second look, and goes on with
// each byte and while it unpacks; a pull that waits for its registry stands still too.
func TestMoving(t *testing.T) {
	var p pulls
	look := func(what string, want bool) {
		t.Helper()
		if got := p.moving(); got != want {
			t.Errorf("%s: moving is %v", what, got)
		}
	}
	look("nothing", false)
	load := &roomy{}
	end := p.load(load)
	load.wait.Store(true)
	look("a new load", true)
	look("a load that waits", false)
	load.sent.Add(1)
	look("a byte came", true)
	look("no byte came", false)
	load.wait.Store(false)
	look("it unpacks", true)
	look("it still unpacks", true)
	end()
	look("it has ended", false)
	one := newPull(wish{name: "a"}, nil)
	p.running = map[wish]*pull{{name: "a"}: one}
	look("a new pull", true)
	look("a pull that waits for the manifest", false)
	one.total, one.parts = 10, map[digest.Digest]*part{"l": {size: 10, have: 4}}
	look("four bytes", true)
	look("they are all", false)
	one.have("l", 10)
	look("ten", true)
	look("it unpacks", true)
}
