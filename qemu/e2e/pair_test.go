package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/image/example"
	"kogge.example/image/program"
	"kogge.example/qemu"
	"kogge.example/qemu/nbd"
	"kogge.example/update/bootloader"
	"kogge.example/update/cmdline"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/memory"
	"kogge.example/update/slot"
	"kogge.example/update/verity"
)

// noFault is what the release of slot B has to break by its command line. A test puts the
// fault that it wants there: so one build serves for all of them.
const noFault = "----------------------------"

// assessYAML is the example's node.yaml with a boot assessment that is soon good, and has
// time to be where the machine is slow.
const assessYAML = "assess: {for: 3s, timeout: 4m}\n"

// pair is a disk that gets two releases: 1.0 in slot A, and 1.1 in slot B. It is only read.
type pair struct {
	board  boards.Board
	first  *nbd.State // with 1.0, which has never booted, and nothing in slot B
	second string     // image of release 1.1
	// The rest is of a pair that has booted.
	bare  *nbd.State // with 1.0, which was found good and shut down in order
	state *nbd.State // the same with 1.1 staged and not armed
	table gpt.Table
	vars  string // variables of the firmware, as the first boot left them
}

// written is the time of what tests write to boot partitions.
var written = time.Unix(epoch, 0).UTC()

// good is what the console says when a boot has proven itself.
var good = regexp.MustCompile(`kogge: boot assessment: good, slot ([AB])`)

// releases makes a pair of a board that has not booted, and pairs one that has, each
// once per run of the tests.
var (
	releases = perBoard(newPair)
	pairs    = perBoard(func(board string) (*pair, error) {
		p, err := releases(board)
		if err != nil {
			return nil, err
		}
		return p.booted()
	})
)

// perBoard returns a function that makes a pair once for each board. Tests of one board
// wait for each other, no longer than it takes.
func perBoard(make func(board string) (*pair, error)) func(board string) (*pair, error) {
	var mu sync.Mutex
	made := map[string]func() (*pair, error){}
	return func(board string) (*pair, error) {
		mu.Lock()
		once := made[board]
		if once == nil {
			once = sync.OnceValues(func() (*pair, error) { return make(board) })
			made[board] = once
		}
		mu.Unlock()
		return once()
	}
}

// newPair builds both releases.
func newPair(name string) (*pair, error) {
	board, err := boards.Find(name)
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	container, config := filepath.Join(tools, name+"-example.tar"), filepath.Join(tools, name+".yaml")
	o := program.Options{Source: root, Cache: filepath.Join(cache, "programs"), Arch: board.Arch}
	if err := example.Build(context.Background(), o, written, container); err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, []byte(example.NodeYAML+assessYAML), 0o644); err != nil {
		return nil, err
	}
	a, b := filepath.Join(tools, name+"-1.0.img"), filepath.Join(tools, name+"-1.1.img")
	err = errors.Join(
		buildRelease(name, "1.0", a, "--config", config, "--preload", container),
		buildRelease(name, "1.1", b, "--fault", noFault))
	if err != nil {
		return nil, err
	}
	disk, _, err := nbd.OpenDisk(a, growthDisk<<20) // read as long as there are tests
	if err != nil {
		return nil, err
	}
	p := &pair{board: board, first: disk.AfterCut(1), second: b}
	p.bare = p.first
	p.table, err = gpt.Read(p.first, p.first.Size())
	return p, err
}

// booted boots release 1.0 once, and then stages 1.1.
func (fresh *pair) booted() (*pair, error) {
	disk, err := nbd.NewDisk(fresh.first, fresh.first.Size())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), growthLimit, fmt.Errorf("nothing within %s", growthLimit))
	defer cancel()
	n, err := fresh.boot(ctx, disk, "")
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
	p := *fresh
	if n.machine.UEFI != nil {
		p.vars = filepath.Join(tools, p.board.Name+"-vars.fd")
		if err := os.Rename(filepath.Join(n.dir, "vars.fd"), p.vars); err != nil {
			return nil, err
		}
	}
	p.bare = disk.AfterCut(1) // QEMU has left: all is there
	if p.table, err = gpt.Read(p.bare, p.bare.Size()); err != nil {
		return nil, err
	}
	if disk, err = nbd.NewDisk(p.bare, p.bare.Size()); err != nil {
		return nil, err
	}
	if err := p.stage(disk, p.second, false); err != nil {
		return nil, fmt.Errorf("slot B: %w", err)
	}
	p.state = disk.AfterCut(1)
	return &p, os.RemoveAll(filepath.Dir(n.dir))
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

// stage puts the release of an image into slot B of the disk, as a node that runs slot A
// does it. The node's memory of it is in a folder of the host. With arm, slot B is the
// one that starts next, on trial.
func (p *pair) stage(disk *nbd.Disk, image string, arm bool) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := p.release(f)
	if err != nil {
		return err
	}
	running, err := parameters(p.root(disk, bootloader.A))
	if err != nil {
		return err
	}
	loader, err := bootloader.For(p.board.Bootloader)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kogge-e2e-memory-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	remembered := memory.In(dir)
	d := slot.Disk{
		Board: p.board.Name, Loader: loader, Boot: bootFiles{p, disk}, Running: bootloader.A, Verity: running,
		Roots: map[bootloader.Slot]slot.Root{},
	}
	for _, s := range []bootloader.Slot{bootloader.A, bootloader.B} {
		root := p.root(disk, s)
		d.Roots[s] = slot.Root{Device: section{root, disk}, Size: root.Size()}
	}
	lone, err := slot.LoneVoter(1, "")
	if err != nil {
		return err
	}
	if err := slot.Stage(context.Background(), d, remembered, r, lone, nil); err != nil || !arm {
		return err
	}
	_, err = slot.Arm(d, remembered, r.Digest, lone, written)
	return err
}

// release is what slot A of an image holds.
func (p *pair) release(f *os.File) (r slot.Release, err error) {
	st, err := f.Stat()
	if err != nil {
		return r, err
	}
	t, err := gpt.Read(f, st.Size())
	if err != nil {
		return r, err
	}
	root, err := t.Find("ROOT-A")
	if err != nil {
		return r, err
	}
	esp, err := t.Find("ESP")
	if err != nil {
		return r, err
	}
	v, err := fat.Open(f, esp.Offset(), esp.Size())
	if err != nil {
		return r, err
	}
	loader, err := bootloader.For(p.board.Bootloader)
	if err != nil {
		return r, err
	}
	state, err := loader.State(v)
	if err != nil {
		return r, err
	}
	r = slot.Release{Version: state.A.Version, Board: p.board.Name, Counter: 2, Digest: "sha256:of-a-test"}
	if r.Verity, err = parameters(io.NewSectionReader(f, root.Offset(), root.Size())); err != nil {
		return r, err
	}
	add := func(name string, content *io.SectionReader) error {
		h := sha256.New()
		if _, err := io.Copy(h, content); err != nil {
			return err
		}
		r.Parts = append(r.Parts, slot.Part{
			Name: name, Size: content.Size(), SHA256: [sha256.Size]byte(h.Sum(nil)),
			Open: func(_ context.Context, offset int64) (io.ReadCloser, error) {
				return io.NopCloser(io.NewSectionReader(content, offset, content.Size()-offset)), nil
			},
		})
		return nil
	}
	for _, name := range loader.BootFiles() {
		content, err := loader.Open(v, bootloader.A, name)
		if err == nil {
			err = add(name, content)
		}
		if err != nil {
			return r, err
		}
	}
	size := r.Verity.Blocks*verity.BlockSize + verity.TreeSize(r.Verity.Blocks)
	return r, add(slot.RootPart, io.NewSectionReader(f, root.Offset(), int64(size)))
}

// root is the root partition of a slot.
func (p *pair) root(disk *nbd.Disk, s bootloader.Slot) *io.SectionReader {
	root, err := p.table.Find("ROOT-" + string(s))
	if err != nil { // gpt.Read of a Kogge disk has found it
		panic(err)
	}
	return io.NewSectionReader(grid{disk}, root.Offset(), root.Size())
}

// bootFiles is the boot partition as update/slot wants it.
type bootFiles struct {
	p    *pair
	disk *nbd.Disk
}

func (b bootFiles) Edit(edit func(*fat.Volume) error) error { return b.p.edit(b.disk, edit) }
func (b bootFiles) Read(read func(*fat.Volume) error) error { return b.p.edit(b.disk, read) }

// section is a root partition as update/slot wants it.
type section struct {
	*io.SectionReader
	disk *nbd.Disk
}

func (s section) WriteAt(b []byte, offset int64) (int, error) {
	_, from, _ := s.Outer()
	return grid{s.disk}.WriteAt(b, from+offset)
}

func (s section) Sync() error { return s.disk.Flush() }

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
	if len(fault) > len(noFault) {
		return fmt.Errorf("fault %q is longer than %d characters", fault, len(noFault))
	}
	return p.replaceInB(v, loader, cmdline.Words{Fault: noFault}.String(), cmdline.Words{Fault: fault}.String())
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

// grid lets a caller read and write any bytes of a disk of whole sectors, as the kernel
// does for who uses a block device.
type grid struct{ *nbd.Disk }

// around returns the sectors around n bytes.
func (g grid) around(off int64, n int) (whole []byte, first int64, err error) {
	first = off / nbd.SectorSize * nbd.SectorSize
	end := (off + int64(n) + nbd.SectorSize - 1) / nbd.SectorSize * nbd.SectorSize
	whole = make([]byte, end-first)
	_, err = g.Disk.ReadAt(whole, first)
	return whole, first, err
}

func (g grid) ReadAt(p []byte, off int64) (int, error) {
	if off%nbd.SectorSize == 0 && len(p)%nbd.SectorSize == 0 {
		return g.Disk.ReadAt(p, off)
	}
	whole, first, err := g.around(off, len(p))
	if err != nil {
		return 0, err
	}
	return copy(p, whole[off-first:]), nil
}

func (g grid) WriteAt(p []byte, off int64) (int, error) {
	whole, first, err := g.around(off, len(p))
	if err != nil {
		return 0, err
	}
	n := copy(whole[off-first:], p)
	return n, g.Disk.Write(whole, first, false)
}

func (g grid) Sync() error { return g.Disk.Flush() }

// boot starts the pair's machine on a disk. vars are the variables of its firmware, ""
// for fresh ones. Whoever calls it ends the node.
func (p *pair) boot(ctx context.Context, disk *nbd.Disk, vars string) (*node, error) {
	return p.bootWith(ctx, disk, vars, "")
}

// bootWith is boot with a node.yaml that QEMU hands over; "" is none.
func (p *pair) bootWith(ctx context.Context, disk *nbd.Disk, vars, seed string) (*node, error) {
	dir, err := os.MkdirTemp("", "kogge-e2e-") // short: it holds sockets
	if err != nil {
		return nil, err
	}
	n := &node{dir: filepath.Join(dir, "n1"), sock: filepath.Join(dir, "n1.nbd"), disk: disk, test: true}
	n.machine = qemu.Machine{
		Name: "n1", Arch: p.board.Arch, Offline: true, Forwards: []qemu.Forward{{Guest: 8080}},
		Disks: []qemu.Disk{{NBD: n.sock}}, Extra: testPort(p.board.Arch), Seed: seed,
	}
	if err := addFirmware(&n.machine, p.board); err != nil {
		return nil, err
	}
	if n.machine.UEFI != nil && vars != "" {
		n.machine.UEFI.Vars = vars
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
