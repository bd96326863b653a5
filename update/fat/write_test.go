package fat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"kogge.example/update/crashdisk"
)

// TestWriteRefuses feeds Write with what is not the file that was announced: each time
// the volume keeps what it had, and is as clean as before.
func TestWriteRefuses(t *testing.T) {
	before := small(t, file("a.txt", 2000), file("dir/c.txt", 100))
	old := files(t, openSmall(t, crashdisk.New(before, 0)))
	endless := iotest.DataErrReader(io.LimitReader(zeros{}, 1<<40))
	unplugged := errors.New("no such device")
	for _, c := range []struct {
		name    string
		size    int64
		content io.Reader
		want    string
	}{
		{"short", 3000, bytes.NewReader(make([]byte, 2999)), "content of 3000 bytes, after 2999: unexpected EOF"},
		{"empty", 3000, bytes.NewReader(nil), "content of 3000 bytes, after 0: unexpected EOF"},
		{"long", 3000, bytes.NewReader(make([]byte, 3001)), "content is longer than the 3000 bytes announced"},
		{"endless", 3000, endless, "content is longer than the 3000 bytes announced"},
		{"more than none", 0, strings.NewReader("x"), "content is longer than the 0 bytes announced"},
		{"stick pulled", 3000, io.MultiReader(bytes.NewReader(make([]byte, 1000)), iotest.ErrReader(unplugged)), "after 1000: no such device"},
		{"pulled at the end", 3000, io.MultiReader(bytes.NewReader(make([]byte, 3000)), iotest.ErrReader(unplugged)), "at its end: no such device"},
		{"full", 1 << 20, iotest.ErrReader(errors.New("read before there was room")), "no space left on the volume"},
		{"negative", -1, nil, "-1 bytes"},
		{"more than FAT knows", 1 << 32, nil, "FAT holds at most 4 GiB"},
	} {
		d := crashdisk.New(before, 1<<20)
		v := openSmall(t, d)
		err := v.Write("a.txt", c.size, c.content, when)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v\nwant %s", c.name, err, c.want)
		}
		for _, v := range []*Volume{v, openSmall(t, d.Again(1, 0))} {
			if report, err := v.Check(); err != nil || !report.Clean() {
				t.Errorf("%s: %v, %v", c.name, report, err)
			}
			if got := files(t, v); !same(got, old) {
				t.Errorf("%s: %s", c.name, sizes(got))
			}
		}
		if err := v.Write("a.txt", 3000, bytes.NewReader(make([]byte, 3000)), when); err != nil {
			t.Errorf("%s: the next write: %v", c.name, err)
		}
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestWritePowerCut cuts the power at every write of a file that comes in pieces, into
// free clusters that do not lie in a row.
func TestWritePowerCut(t *testing.T) {
	d := crashdisk.New(small(t, file("a", 1500), file("b", 1500), file("c", 1500), file("d", 1500), file("last", 1500)), 1<<20)
	v := openSmall(t, d)
	for _, name := range []string{"a", "c"} {
		if err := v.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	before := d.AfterCut(1)
	fresh := content("fresh", 9000)
	write := func(v *Volume) error {
		return v.Write("last", int64(len(fresh)), iotest.HalfReader(bytes.NewReader(fresh)), when)
	}
	old := files(t, openSmall(t, crashdisk.New(before, 0)))
	next := maps.Clone(old)
	next["last"] = fresh
	for writes := 0; ; writes++ {
		d := crashdisk.New(before, writes)
		err := write(openSmall(t, d))
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatalf("writes=%d: %v", writes, err)
		}
		for seed := range uint64(64) {
			afterCut(t, fmt.Sprintf("writes=%d seed=%d", writes, seed), d.AfterCut(seed), old, next, err == nil, write)
		}
		if err == nil {
			t.Logf("%d writes", writes)
			return
		}
	}
}

// TestWriteMemory writes 40 MiB, the size of a kernel, and wants little memory for it.
func TestWriteMemory(t *testing.T) {
	f, _ := madeBy(t, "ours", 0, 512<<20)
	v, err := Open(hasty{f}, 0, 512<<20)
	if err != nil {
		t.Fatal(err)
	}
	const size = 40 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := v.Write("kernel", size, io.LimitReader(zeros{}, size), when); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 2<<20 {
		t.Errorf("%d bytes of memory for a file of %d", used, size)
	} else {
		t.Logf("%d KiB of memory", used>>10)
	}
	if report, err := v.Check(); err != nil || !report.Clean() {
		t.Errorf("%v, %v", report, err)
	}
}

// FuzzWrite writes files of any size from readers of any length, and reads them back.
func FuzzWrite(f *testing.F) {
	sound := small(f, file("a.txt", 2000))
	f.Add("new", int64(700), []byte("abc"))
	f.Add("a.txt", int64(3), []byte("abc"))
	f.Add("A.TXT", int64(1<<40), []byte{})
	f.Fuzz(func(t *testing.T, name string, size int64, content []byte) {
		if len(content) > 64<<10 {
			return
		}
		v := openSmall(t, crashdisk.New(sound, 1<<20))
		err := v.Write(name, size, bytes.NewReader(content), when)
		if err == nil && size != int64(len(content)) {
			t.Fatalf("%d bytes made a file of %d", len(content), size)
		}
		if err == nil {
			if got, err := v.ReadFile(name); err != nil || !bytes.Equal(got, content) {
				t.Errorf("read back %d bytes, %v", len(got), err)
			}
		}
		if report, err := v.Check(); err != nil || !report.Clean() {
			t.Errorf("%v, %v", report, err)
		}
	})
}
