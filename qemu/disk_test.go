package qemu_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kogge.example/qemu"
	"kogge.example/qemu/nbd"
)

// onNBD serves a guest's image and returns the machine that boots from it. The
// bus decides what the guest's writes become: with SATA they stay in the disk's
// cache, because the BIOS never flushes.
func onNBD(t *testing.T, base io.ReaderAt, size int64) (qemu.Machine, *nbd.Server) {
	t.Helper()
	disk, err := nbd.NewDisk(base, size)
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: QEMU takes only 107 bytes of path.
	dir, err := os.MkdirTemp("", "kogge-nbd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sock := filepath.Join(dir, "disk.sock")
	server, err := nbd.Serve(sock, disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	m := guest("n1", "")
	m.Disks = []qemu.Disk{{NBD: sock, Bus: "sata"}}
	return m, server
}

func imageBytes(t *testing.T) *bytes.Reader {
	t.Helper()
	data, err := os.ReadFile(guestImage(t))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(data)
}

// TestPowerCut boots from NBD, cuts the power at the guest's third write, and
// boots again from what the disk held.
func TestPowerCut(t *testing.T) {
	ctx := testCtx(t)
	image := imageBytes(t)
	m, server := onNBD(t, image, image.Size())
	var logged bytes.Buffer
	log, err := nbd.NewLog(&logged, image.Size())
	if err != nil {
		t.Fatal(err)
	}
	server.Disk.Record(log)
	server.CutAfter(3, 1)
	v := start(t, ctx, m, t.TempDir())
	say(t, ctx, v, "", `^ready$`, 1)
	say(t, ctx, v, "wweA", `^A$`, 1)
	say(t, ctx, v, "", `^W$`, 2)
	blurt(t, ctx, v, "w") // the machine dies over it
	select {
	case <-server.WasCut():
	case <-ctx.Done():
		t.Fatal("the third write never came")
	}
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	check := func(what string, st *nbd.State, want ...byte) {
		t.Helper()
		sectors := make([]byte, 4*nbd.SectorSize)
		if _, err := st.ReadAt(sectors, 0); err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			if got := sectors[(i+1)*nbd.SectorSize:][:nbd.SectorSize]; !bytes.Equal(got, bytes.Repeat([]byte{w}, nbd.SectorSize)) {
				t.Errorf("%s: sector %d begins with %d, want %d", what, i+1, got[0], w)
			}
		}
	}
	check("all arrived", server.State(), 1, 2, 3)
	check("all forgotten", server.Disk.AfterCut(0), 0, 0, 0)
	if err := log.Flush(); err != nil {
		t.Fatal(err)
	}
	for n, want := range [][]byte{{0, 0, 0}, {1, 0, 0}, {1, 2, 0}, {1, 2, 3}} {
		r, err := nbd.ReadLog(bytes.NewReader(logged.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		st, err := nbd.Replay(image, r, n, 1)
		if err != nil {
			t.Fatal(err)
		}
		check("replay", st, want...)
	}

	m, _ = onNBD(t, server.State(), server.State().Size())
	say(t, ctx, start(t, ctx, m, t.TempDir()), "", `^ready$`, 1)
}

// TestWriteThrough shows what the bus changes: the BIOS's virtio driver has no
// flush, so QEMU lets each of its writes through to the medium.
func TestWriteThrough(t *testing.T) {
	ctx := testCtx(t)
	image := imageBytes(t)
	m, server := onNBD(t, image, image.Size())
	m.Disks[0].Bus = "virtio"
	v := start(t, ctx, m, t.TempDir())
	say(t, ctx, v, "", `^ready$`, 1)
	say(t, ctx, v, "w", `^W$`, 1)
	sector := make([]byte, nbd.SectorSize)
	if _, err := server.Cut(0).ReadAt(sector, nbd.SectorSize); err != nil || sector[0] != 1 {
		t.Errorf("sector 1 begins with %d, %v", sector[0], err)
	}
}

// TestHostDiskFull has the disk run out of space while the guest writes: waits
// end at once and say why, instead of running into their limit.
func TestHostDiskFull(t *testing.T) {
	ctx := testCtx(t)
	image := imageBytes(t)
	m, server := onNBD(t, image, image.Size())
	server.Disk.SetLimit(0)
	v := start(t, ctx, m, t.TempDir())
	say(t, ctx, v, "", `^ready$`, 1)
	blurt(t, ctx, v, "w")
	_, err := v.Console().WaitLine(ctx, regexp.MustCompile(`^W$`))
	if !errors.Is(err, qemu.ErrNoSpace) || !strings.Contains(err.Error(), "guest stands still: disk0") {
		t.Errorf("wait: %v", err)
	}
}

// TestBuses boots the guest from each bus, with an overlay larger than its image.
func TestBuses(t *testing.T) {
	ctx := testCtx(t)
	image := guestImage(t)
	for _, bus := range []string{"nvme", "sata", "usb"} {
		m := guest("n1", image)
		m.Disks = []qemu.Disk{{Path: image, Bus: bus, SizeMiB: 16}, {Path: image}, {Path: image, Bus: "sata"}, {Path: image, Bus: bus}}
		v := start(t, ctx, m, filepath.Join(t.TempDir(), bus))
		say(t, ctx, v, "", `^ready$`, 1)
		say(t, ctx, v, "w", `^W$`, 1)
		v.Kill()
	}
}
