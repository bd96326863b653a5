package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/qemu"
	"kogge.example/qemu/nbd"
	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
)

// faultWord is what the release of slot B has on its command line. A test puts the
// fault that it wants there: so one build serves for all of them.
const faultWord = "kogge.fault=" + "----------------------------"

// assessYAML is the example's node.yaml with a boot assessment that does not wait for
// long: a boot is quick, and nobody waits for minutes to see that one is bad.
const assessYAML = "assess: {for: 3s, timeout: 90s}\n"

// pair is a disk with two releases: 1.0 in slot A, which has booted, was found good and
// was shut down in order, and 1.1 in slot B, staged and not armed. It is only read.
type pair struct {
	state *nbd.State
	table gpt.Table
	board boards.Board
	vars  string // variables of the firmware, as the first boot left them
}

// written is the time of what tests write to boot partitions.
var written = time.Unix(epoch, 0).UTC()

// good is what the console says when a boot has proven itself.
var good = regexp.MustCompile(`kogge: boot assessment: good, slot ([AB])`)

// pairs makes the pair of the board qemu-x86_64, once per run of the tests.
var pairs = sync.OnceValues(func() (*pair, error) { return makePair("qemu-x86_64") })

func makePair(name string) (*pair, error) {
	board, err := boards.Find(name)
	if err != nil {
		return nil, err
	}
	boots, err := images()
	if err != nil {
		return nil, err
	}
	yaml, err := os.ReadFile(boots.exampleYAML)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(tools, "matrix.yaml")
	if err := os.WriteFile(config, append(yaml, assessYAML...), 0o644); err != nil {
		return nil, err
	}
	a, b := filepath.Join(tools, name+"-1.0.img"), filepath.Join(tools, name+"-1.1.img")
	err = errors.Join(
		buildRelease(name, "1.0", a, "--config", config, "--preload", boots.exampleTar),
		buildRelease(name, "1.1", b, "--fault", strings.TrimPrefix(faultWord, "kogge.fault=")))
	if err != nil {
		return nil, err
	}
	defer os.Remove(b) // a stays: it is what the disk of the pair is made of
	disk, _, err := nbd.OpenDisk(a, growthDisk<<20)
	if err != nil {
		return nil, err
	}
	p := &pair{board: board}
	if p.table, err = gpt.Read(disk, disk.Size()); err != nil {
		return nil, err
	}
	if err := p.stage(disk, b); err != nil {
		return nil, fmt.Errorf("slot B: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), growthLimit, fmt.Errorf("nothing within %s", growthLimit))
	defer cancel()
	n, err := bootDisk(ctx, disk, "")
	if err != nil {
		return nil, err
	}
	defer n.end()
	if err := n.http(ctx, "8080", "/", "Hello from"); err != nil {
		return nil, err
	}
	if _, err := n.vm.Console().WaitLine(ctx, good); err != nil {
		return nil, err
	}
	if err := n.vm.Stop(ctx); err != nil {
		return nil, err
	}
	p.vars = filepath.Join(tools, name+"-vars.fd")
	if err := os.Rename(filepath.Join(n.dir, "vars.fd"), p.vars); err != nil {
		return nil, err
	}
	p.state = disk.AfterCut(1) // QEMU has left: all is there
	p.table, err = gpt.Read(p.state, p.state.Size())
	return p, err
}

// buildRelease builds an image whose programs can be broken.
func buildRelease(board, version, out string, args ...string) error {
	program, err := cli()
	if err != nil {
		return err
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	args = append([]string{"image", "build", "--board", board, "--version", version, "--tags", "testport", "-o", out}, args...)
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch))
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, text)
	}
	return nil
}

// stage copies slot A of an image into slot B of the disk.
func (p *pair) stage(disk *nbd.Disk, image string) error {
	f, err := os.Open(image)
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
	from, err := t.Find("ROOT-A")
	if err != nil {
		return err
	}
	to, err := p.table.Find("ROOT-B")
	if err != nil {
		return err
	}
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < from.Size(); off += int64(len(buf)) {
		if _, err := f.ReadAt(buf, from.Offset()+off); err != nil {
			return err
		}
		if !bytes.Equal(buf, zeros) {
			if err := disk.Write(buf, to.Offset()+off, false); err != nil {
				return err
			}
		}
	}
	loader, err := bootloader.For(p.board.Bootloader)
	if err != nil {
		return err
	}
	esp, err := t.Find("ESP")
	if err != nil {
		return err
	}
	source, err := fat.Open(f, esp.Offset(), esp.Size())
	if err != nil {
		return err
	}
	return p.edit(disk, func(v *fat.Volume) error {
		for _, name := range loader.BootFiles() {
			r, err := loader.Open(source, bootloader.A, name)
			if err != nil {
				return err
			}
			if err := loader.Install(v, bootloader.B, name, r.Size(), r, written); err != nil {
				return err
			}
		}
		return nil
	})
}

// edit changes the boot partition of a disk that no machine is using.
func (p *pair) edit(disk *nbd.Disk, change func(*fat.Volume) error) error {
	esp, err := p.table.Find("ESP")
	if err != nil {
		return err
	}
	v, err := fat.Open(grid{disk}, esp.Offset(), esp.Size())
	if err != nil {
		return err
	}
	return errors.Join(change(v), disk.Flush())
}

// breakB has slot B carry out a fault at each boot.
func (p *pair) breakB(v *fat.Volume, loader bootloader.Loader, fault string) error {
	word := "kogge.fault=" + fault
	if len(word) > len(faultWord) {
		return fmt.Errorf("fault %q is longer than %d characters", fault, len(faultWord)-len("kogge.fault="))
	}
	return p.replaceInB(v, loader, faultWord, word)
}

// replaceInB exchanges words on the kernel command line of slot B. The boot file keeps
// its length: a shorter word is followed by spaces.
func (p *pair) replaceInB(v *fat.Volume, loader bootloader.Loader, old, word string) error {
	found := 0
	for _, name := range loader.BootFiles() {
		r, err := loader.Open(v, bootloader.B, name)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		n := bytes.Count(data, []byte(old))
		if n == 0 {
			continue
		}
		found += n
		path, err := loader.Path(bootloader.B, name)
		if err != nil {
			return err
		}
		if err := v.WriteFile(path, bytes.ReplaceAll(data, []byte(old), fmt.Appendf(nil, "%-*s", len(old), word)), written); err != nil {
			return err
		}
	}
	if found != 1 {
		return fmt.Errorf("%s is %d times in the boot files of slot B, want once", old, found)
	}
	return nil
}

// grid lets a caller read and write any bytes of a disk of whole sectors.
type grid struct{ *nbd.Disk }

func (g grid) ReadAt(p []byte, off int64) (int, error) {
	first, end := off/nbd.SectorSize*nbd.SectorSize, (off+int64(len(p))+nbd.SectorSize-1)/nbd.SectorSize*nbd.SectorSize
	if first == off && end == off+int64(len(p)) {
		return g.Disk.ReadAt(p, off)
	}
	whole := make([]byte, end-first)
	if _, err := g.Disk.ReadAt(whole, first); err != nil {
		return 0, err
	}
	return copy(p, whole[off-first:]), nil
}

func (g grid) WriteAt(p []byte, off int64) (int, error) {
	if err := g.Disk.Write(p, off, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (g grid) Sync() error { return g.Disk.Flush() }

// bootDisk starts a VM on a disk. vars are the variables of its firmware, "" for fresh
// ones. Whoever calls it ends the node.
func bootDisk(ctx context.Context, disk *nbd.Disk, vars string) (*node, error) {
	dir, err := os.MkdirTemp("", "kogge-e2e-") // short: it holds sockets
	if err != nil {
		return nil, err
	}
	firmware, err := firmware()
	if err != nil {
		return nil, err
	}
	n := &node{dir: filepath.Join(dir, "n1"), sock: filepath.Join(dir, "n1.nbd"), disk: disk, test: true}
	n.machine = qemu.Machine{
		Name: "n1", UEFI: &qemu.UEFI{Code: firmware.Code, Vars: cmp.Or(vars, firmware.Vars)}, Offline: true, Forwards: []qemu.Forward{{Guest: 8080}},
		Disks: []qemu.Disk{{NBD: n.sock}}, Extra: testPort,
	}
	if err := n.serve(); err != nil {
		return nil, err
	}
	if n.vm, err = qemu.Start(ctx, n.machine, n.dir); err != nil {
		n.end()
		return nil, err
	}
	n.started = time.Now()
	return n, nil
}

// disk returns a new disk that holds the pair.
func (p *pair) disk(t *testing.T) *nbd.Disk {
	t.Helper()
	d, err := nbd.NewDisk(p.state, p.state.Size())
	if err != nil {
		t.Fatal(err)
	}
	return d
}
