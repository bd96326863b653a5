package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/qemu"
	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
)

// uBootLimit is how long one start of U-Boot may take.
const uBootLimit = 4 * time.Minute

// resetKernel is the smallest kernel for arm64 there is: all it does is to ask the
// firmware for a reset.
//
// Source: Documentation/arch/arm64/booting.rst in the kernel tree; SYSTEM_RESET in the
// Arm Power State Coordination Interface, DEN0022.
func resetKernel() []byte {
	le := binary.LittleEndian
	k := make([]byte, 4096)
	le.PutUint32(k, 0x14000010)            // b 0x40
	le.PutUint64(k[0x10:], uint64(len(k))) // size of the image
	le.PutUint64(k[0x18:], 0b1010)         // little-endian, pages of 4 KiB, anywhere
	copy(k[0x38:], "ARM\x64")              // magic
	for i, op := range []uint32{
		0x52800120, // mov w0, #9
		0x72b08000, // movk w0, #0x8400, lsl #16: SYSTEM_RESET
		0xd4000002, // hvc #0
		0x14000000, // b .
	} {
		le.PutUint32(k[0x40+4*i:], op)
	}
	return k
}

// uBootDisk makes a disk with nothing but a boot partition, which has our script and
// these files.
func uBootDisk(name string, files map[string][]byte) error {
	const size = 40 << 20
	esp := gpt.Partition{Name: "ESP", Type: gpt.ExtendedBoot, GUID: gpt.DeriveGUID(name, "ESP"), First: 2048, Last: size/gpt.SectorSize - 2049}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := gpt.Write(f, gpt.Table{Sectors: size / gpt.SectorSize, DiskGUID: gpt.DeriveGUID(name, "disk"), Partitions: []gpt.Partition{esp}}); err != nil {
		return err
	}
	script := bootloader.BootScript()
	list := []fat.File{{Path: bootloader.ScriptFile, Size: int64(len(script)), Data: bytes.NewReader(script)}}
	for path, content := range files {
		list = append(list, fat.File{Path: path, Size: int64(len(content)), Data: bytes.NewReader(content)})
	}
	return fat.Format(io.NewOffsetWriter(f, esp.Offset()), fat.Spec{Size: esp.Size(), Label: "KOGGE", When: time.Unix(epoch, 0)}, list)
}

// bootPartition lends the boot partition of a disk.
func bootPartition(name string, use func(*fat.Volume) error) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	t, err := gpt.Read(f, st.Size())
	if err != nil {
		return err
	}
	esp, err := t.Find("ESP")
	if err != nil {
		return err
	}
	v, err := fat.Open(f, esp.Offset(), esp.Size())
	if err != nil {
		return err
	}
	return use(v)
}

// slotFiles are the boot files of slots that reset the machine at once.
func slotFiles(slots string) map[string][]byte {
	files := map[string][]byte{}
	for _, slot := range slots {
		files[string(slot)+"/kernel"] = resetKernel()
		files[string(slot)+"/initrd"] = []byte("none")
		files[string(slot)+"/cmdline"] = bootloader.UBootCmdline("console=ttyAMA0 quiet kogge.version=" + string(slot))
	}
	return files
}

// uBootMachine is a machine with Debian's U-Boot and that disk, which it writes to.
func uBootMachine(t *testing.T, disk string) qemu.Machine {
	t.Helper()
	board, err := boards.Find("qemu-arm64-uboot")
	if err != nil {
		t.Fatal(err)
	}
	m := qemu.Machine{
		Name: "uboot", Arch: board.Arch, MemoryMiB: 256, CPUs: 1, Offline: true, NoWatchdog: true,
		Disks: []qemu.Disk{{Path: disk, Format: "raw", InPlace: true}},
	}
	if err := addFirmware(&m, board); err != nil {
		t.Fatal(err)
	}
	return m
}

// startUBoot starts the machine in a short folder of its own.
func startUBoot(t *testing.T, m qemu.Machine) *qemu.VM {
	t.Helper()
	dir, err := os.MkdirTemp("", "kogge-e2e-") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	v, err := qemu.Start(t.Context(), m, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		v.Kill()
		v.Close()
		if t.Failed() {
			t.Logf("console log %s/console.log", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return v
}

// starts is what the script says when it starts a slot.
var starts = regexp.MustCompile(`kogge: start slot ([AB])( kogge\.trial=1)?`)

// nextStart waits for the next slot that the script starts.
func nextStart(t *testing.T, c *qemu.Console) (string, *qemu.Console) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), uBootLimit, fmt.Errorf("nothing within %s", uBootLimit))
	defer cancel()
	line, c, err := c.Next(ctx, starts, 1)
	if err != nil {
		t.Fatal(err)
	}
	m := starts.FindStringSubmatch(line)
	if m[2] != "" {
		m[1] += " on trial"
	}
	return m[1], c
}

// trial makes out, a copy of an image for U-Boot whose slot B is on trial with a kernel
// that resets the machine.
func trial(image, out string) error {
	if text, err := exec.Command("cp", "--sparse=always", image, out).CombinedOutput(); err != nil {
		return fmt.Errorf("copy image: %w: %s", err, text)
	}
	loader, err := bootloader.For(boards.UBoot)
	if err != nil {
		return err
	}
	return bootPartition(out, func(v *fat.Volume) error {
		for path, content := range slotFiles("B") {
			if err := loader.Install(v, bootloader.B, filepath.Base(path), int64(len(content)), bytes.NewReader(content), time.Unix(epoch, 0)); err != nil {
				return err
			}
		}
		return loader.Arm(v, bootloader.B, "1.1", bootloader.Tries, time.Unix(epoch, 0))
	})
}

// decision is one line of the table that update/bootloader holds itself to.
type decision struct{ name, env, proven, files, want string }

var decisionLine = regexp.MustCompile(`^    proven ([AB]*) +files in ([AB]*) +starts (.*)$`)

// decisions reads the table.
func decisions(t *testing.T) []decision {
	t.Helper()
	data, err := os.ReadFile("../../update/bootloader/testdata/uboot-decisions.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []decision
	var now decision
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if m := decisionLine.FindStringSubmatch(line); m != nil {
			now.proven, now.files, now.want = m[1], m[2], m[3]
			all = append(all, now)
			continue
		}
		name, text, ok := strings.Cut(line, ` "`)
		env, err := strconv.Unquote(`"` + text)
		if !ok || err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		now = decision{name: name, env: env}
	}
	if len(all) < 200 {
		t.Fatalf("%d decisions", len(all))
	}
	return all
}

// TestUBootDecisions holds Debian's U-Boot and our script to the table of decisions:
// empty, torn and foreign environments boot a proven slot. A dozen of them run
// always, one for each kind of trouble; with KOGGE_E2E=all it is every one.
func TestUBootDecisions(t *testing.T) {
	whole(t)
	t.Parallel()
	few := map[string]bool{
		"none/A/AB": true, "slot B/AB/AB": true, "slot A, try B, 3 left/A/AB": true, "slot A, try B, 1 left/A/A": true,
		"slot A, try B, 0 left/A/AB": true, "torn in the middle/B/AB": true, "torn over an older one/AB/AB": true,
		"noise/B/AB": true, "a command in the slot/A/AB": true, "a command in the try/AB/AB": true,
		"a quote in the slot/AB/AB": true, "none//B": true,
	}
	all, ran := os.Getenv("KOGGE_E2E") == "all", 0
	for _, d := range decisions(t) {
		name := d.name + "/" + d.proven + "/" + d.files
		if !all && !few[name] {
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := slotFiles(d.files)
			for _, slot := range d.proven {
				files[string(slot)+"/proven"] = []byte("release 1.0\n")
			}
			if d.name != "none" {
				files["kogge.env"] = []byte(d.env)
			}
			disk := filepath.Join(t.TempDir(), "disk.img")
			if err := uBootDisk(disk, files); err != nil {
				t.Fatal(err)
			}
			m := uBootMachine(t, disk)
			m.NoReboot = true
			if got, _ := nextStart(t, startUBoot(t, m).Console()); got != d.want {
				t.Errorf("kogge.env %q, proven %q, files in %q: starts %s, want %s", d.env, d.proven, d.files, got, d.want)
			}
		})
	}
	if ran < len(few) {
		t.Errorf("only %d decisions of the short set are in the table", ran)
	}
}

// TestUBootTries arms slot B by the verbs that a node has. It is started three times,
// each try counted in a file that the verbs understand; then A starts by itself, and
// goes on to.
func TestUBootTries(t *testing.T) {
	whole(t)
	t.Parallel()
	loader, err := bootloader.For(boards.UBoot)
	if err != nil {
		t.Fatal(err)
	}
	files := slotFiles("AB")
	for _, f := range loader.Fresh("1.0") {
		if files[f.Path], err = io.ReadAll(f.Data); err != nil {
			t.Fatal(err)
		}
	}
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := uBootDisk(disk, files); err != nil {
		t.Fatal(err)
	}
	if err := bootPartition(disk, func(v *fat.Volume) error {
		return loader.Arm(v, bootloader.B, "1.1", bootloader.Tries, time.Unix(epoch, 0))
	}); err != nil {
		t.Fatal(err)
	}
	v := startUBoot(t, uBootMachine(t, disk))
	c := v.Console()
	for n, want := range []string{"B on trial", "B on trial", "B on trial", "A", "A"} {
		var got string
		if got, c = nextStart(t, c); got != want {
			t.Fatalf("start %d: %s, want %s", n+1, got, want)
		}
		err := bootPartition(disk, func(v *fat.Volume) error {
			s, err := loader.State(v)
			if err != nil {
				return err
			}
			done := min(n+1, bootloader.Tries)
			if !s.A.Proven() || s.B.Left != bootloader.Tries-done || s.B.Done != done || s.B.Version != "1.1" {
				t.Errorf("start %d: %+v", n+1, s)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	// U-Boot has written to the volume five times; nothing is wrong with it.
	err = bootPartition(disk, func(v *fat.Volume) error {
		r, err := v.Check()
		if err == nil && !r.Clean() {
			err = fmt.Errorf("%s", r)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
