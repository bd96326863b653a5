package bootpart

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/update/fat"
)

var when = time.Date(2026, 11, 28, 21, 0, 0, 0, time.UTC)

const size = 256 << 10

// partition makes a file with a volume in it that has one file, count.
func partition(t *testing.T) Partition {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	count := fat.File{Path: "count", Size: 1, Data: strings.NewReader("0")}
	err = errors.Join(f.Truncate(size), fat.Format(f, fat.Spec{Size: size, When: when, Tiny: true}, []fat.File{count}))
	if err != nil {
		t.Fatal(err)
	}
	return Partition{Device: name, Size: size}
}

func read(t *testing.T, p Partition, name string) string {
	t.Helper()
	var content []byte
	err := p.Read(func(v *fat.Volume) (err error) {
		content, err = v.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestEditTakesTurns has many writers count to a number that only holds if each saw what
// the one before it wrote. Locks belong to open files, so goroutines stand for processes.
func TestEditTakesTurns(t *testing.T) {
	p := partition(t)
	var wait sync.WaitGroup
	failed := make(chan error, 40)
	for range 20 {
		wait.Go(func() {
			failed <- p.Edit(func(v *fat.Volume) error {
				old, err := v.ReadFile("count")
				if err != nil {
					return err
				}
				var n int
				if _, err := fmt.Sscan(string(old), &n); err != nil {
					return err
				}
				return v.WriteFile("count", fmt.Append(nil, n+1), when)
			})
		})
		wait.Go(func() {
			failed <- p.Read(func(v *fat.Volume) error {
				report, err := v.Check()
				if err == nil && !report.Clean() {
					err = fmt.Errorf("a reader sees %v", report)
				}
				return err
			})
		})
	}
	wait.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			t.Error(err)
		}
	}
	if got := read(t, p, "count"); got != "20" {
		t.Errorf("20 edits counted to %s", got)
	}
}

// TestEditRepairs leaves lost clusters behind, as a power cut does; Edit frees them and
// Read leaves them alone.
func TestEditRepairs(t *testing.T) {
	p := partition(t)
	f, err := os.OpenFile(p.Device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const reserved = 32 * 512 // of a volume of ours; its FAT begins there
	if _, err := f.WriteAt([]byte{0xff, 0xff, 0xff, 0x0f}, reserved+100*4); err != nil {
		t.Fatal(err)
	}
	lost := func() (n int) {
		err := p.Read(func(v *fat.Volume) error {
			report, err := v.Check()
			n = report.Lost
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := lost(); n != 1 {
		t.Fatalf("%d lost clusters, want 1", n)
	}
	if err := p.Edit(func(*fat.Volume) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if n := lost(); n != 0 {
		t.Errorf("%d lost clusters after an Edit", n)
	}
	if err := p.DropCaches(); err != nil {
		t.Error(err)
	}
}

// TestDamage breaks the chain of a file: Check tells it and writes nothing, edits go on,
// and the one that finds no room says what may have taken it.
func TestDamage(t *testing.T) {
	p := partition(t)
	kernel := func(v *fat.Volume) error { return v.WriteFile("kernel", make([]byte, 2000), when) }
	if err := p.Edit(kernel); err != nil {
		t.Fatal(err)
	}
	if report, err := check(p); err != nil || !report.Clean() {
		t.Fatalf("%v, %v", report, err)
	}
	full := func(v *fat.Volume) error { return v.WriteFile("more", make([]byte, size), when) }
	if err := p.Edit(full); !errors.Is(err, fat.ErrFull) || strings.Contains(err.Error(), "damage") {
		t.Errorf("a sound volume: %v", err)
	}

	disk, err := os.ReadFile(p.Device)
	if err != nil {
		t.Fatal(err)
	}
	const first = 4 // cluster of the kernel, behind the root and count
	sectors := int(binary.LittleEndian.Uint32(disk[36:]))
	for copy := range 2 {
		clear(disk[(32+copy*sectors)*512+first*4:][:4])
	}
	if err := os.WriteFile(p.Device, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	const want = `"/kernel" has 1 of 4 clusters`
	for range 2 {
		report, err := check(p)
		if err != nil || !slices.Equal(report.Damage, []string{want}) || report.Lost != 3 {
			t.Errorf("%v, %v", report, err)
		}
	}
	if after, err := os.ReadFile(p.Device); err != nil || !bytes.Equal(after, disk) {
		t.Errorf("Check writes, or %v", err)
	}
	if err := p.Edit(full); !errors.Is(err, fat.ErrFull) || !strings.Contains(err.Error(), want) {
		t.Errorf("a damaged volume that is full: %v", err)
	} else {
		t.Log(err)
	}
	// The file that is broken goes, and the damage with it.
	if err := p.Edit(func(v *fat.Volume) error { return v.Remove("kernel") }); err != nil {
		t.Error(err)
	}
	if err := p.Edit(kernel); err != nil {
		t.Error(err)
	}
	if report, err := check(p); err != nil || !report.Clean() {
		t.Errorf("%v, %v", report, err)
	}
	if _, err := check(Partition{Device: p.Device + ".gone", Size: size}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no device: %v", err)
	}
}

func TestErrors(t *testing.T) {
	p := partition(t)
	mine := errors.New("my own")
	if err := p.Edit(func(*fat.Volume) error { return mine }); !errors.Is(err, mine) || !strings.Contains(err.Error(), p.Device) {
		t.Errorf("the error of an edit: %v", err)
	}
	gone := Partition{Device: p.Device + ".gone", Size: size}
	if err := gone.Edit(func(*fat.Volume) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no device: %v", err)
	}
	if err := os.WriteFile(p.Device, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Read(func(*fat.Volume) error { return nil }); err == nil {
		t.Error("a volume where there is none")
	}
	// Whoever waits for too long hears why.
	f, err := os.Open(p.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(p.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := acquire(other, unix.LOCK_SH, time.Now()); !errors.Is(err, ErrBusy) {
		t.Errorf("a locked device: %v", err)
	}
}

// check looks at a volume and writes nothing.
func check(p Partition) (report fat.Report, err error) {
	err = p.Read(func(v *fat.Volume) (err error) {
		report, err = v.Check()
		return err
	})
	return report, err
}
