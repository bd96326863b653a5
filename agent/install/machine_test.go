package install

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/init/control"
	"kogge.example/update/bootloader"
	"kogge.example/update/cmdline"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/release"
	"kogge.example/update/verity"
)

const (
	board   = "qemu-x86_64"
	mib     = 1 << 20
	espSize = 4 * mib
)

var created = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// key is a key of these tests, the same on every run.
func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// rootOf is version 1 of a root.json, whose one key of each role has that name, or a
// further version of it with another key for targets.
func rootOf(t testing.TB, name string, version int64, targets string) []byte {
	t.Helper()
	root, target := key("root "+name), key("targets "+targets)
	raw, err := release.NewRoot{
		Version: version, Expires: created.AddDate(9, 0, 0), RootK: 1, TargetsK: 1,
		Root: []ed25519.PublicKey{root.Public().(ed25519.PublicKey)}, Targets: []ed25519.PublicKey{target.Public().(ed25519.PublicKey)},
	}.Sign([]ed25519.PrivateKey{root})
	must(t, err)
	return raw
}

// made is a release, and what of it goes onto a disk.
type made struct {
	*release.Bundle
	dir       string // OCI layout
	uki, root []byte
	verity    verity.Params
}

// wish says how a release differs from what is usual.
type wish struct {
	board   string // default: ours
	maker   string // default: hanse
	blocks  uint64 // default: 600, so 2.4 MiB
	expires time.Time
	roots   [][]byte // default: rootOf(maker, 1, maker)
	targets string   // default: maker
	schema  memory.Schema
}

// makeRelease makes a release whose bytes follow from its version.
func makeRelease(t testing.TB, version string, counter uint64, w wish) made {
	t.Helper()
	if w.board == "" {
		w.board = board
	}
	if w.maker == "" {
		w.maker = "hanse"
	}
	if w.targets == "" {
		w.targets = w.maker
	}
	if w.blocks == 0 {
		w.blocks = 600
	}
	if w.expires.IsZero() {
		w.expires = created.AddDate(1, 0, 0)
	}
	if w.roots == nil {
		w.roots = [][]byte{rootOf(t, w.maker, 1, w.maker)}
	}
	if w.schema.Writes == 0 {
		w.schema = release.StateSchema
	}
	m := made{dir: filepath.Join(t.TempDir(), version)}
	m.uki = bytes.Repeat([]byte("uki "+version+"\n"), 30_000)
	data := make([]byte, w.blocks*verity.BlockSize)
	for i := 0; i < len(data); i += sha256.Size {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", version, i))
		copy(data[i:], sum[:])
	}
	salt := sha256.Sum256([]byte(version))
	tree, top, err := verity.HashTree(bytes.NewReader(data), w.blocks, salt)
	must(t, err)
	m.root, m.verity = append(data, tree...), verity.Params{Root: top, Salt: salt, Blocks: w.blocks}
	file := func(name string, content []byte) release.File {
		return release.File{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}
	}
	m.Bundle, err = release.New([]release.Content{{
		Facts: release.Facts{Version: version, Counter: counter, Board: w.board, Arch: "amd64", Created: created, Schema: w.schema, Verity: m.verity.String()},
		Parts: []release.File{file("uki", m.uki), file(release.RootPart, m.root)},
	}})
	must(t, err)
	must(t, m.Prepare(w.expires, w.roots))
	must(t, m.Sign(key("targets "+w.targets)))
	must(t, m.Write(t.Context(), m.dir))
	return m
}

// open opens the layout.
func (m made) open(t testing.TB) release.Source {
	t.Helper()
	src, err := release.Open(m.dir)
	must(t, err)
	t.Cleanup(func() { src.Close() })
	return src
}

// machine is a node without a kernel: its disk is three files, and it boots what the boot
// loader's state says.
type machine struct {
	*Installer
	t        testing.TB
	dir      string
	whole    map[string]made // releases by version
	running  bootloader.Slot
	stopped  int // how often containers were
	rebooted int
	clock    time.Time
}

// newMachine is one that was flashed with a release.
func newMachine(t testing.TB, first made, slotSize int64) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, dir: dir, whole: map[string]made{}, clock: created.AddDate(0, 1, 0)}
	for _, name := range []string{"run", "state", "image"} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o700))
	}
	l, err := bootloader.For(boards.SystemdBoot)
	must(t, err)
	uki, err := l.Path(bootloader.A, "uki")
	must(t, err)
	esp, err := os.Create(m.part("ESP"))
	must(t, err)
	must(t, esp.Truncate(espSize))
	must(t, fat.Format(esp, fat.Spec{Size: espSize, Tiny: true, When: created},
		append(l.Fresh("1.0"), fat.File{Path: uki, Size: int64(len(first.uki)), Data: bytes.NewReader(first.uki)})))
	must(t, esp.Close())
	must(t, os.WriteFile(m.part("ROOT-A"), first.root, 0o600))
	must(t, os.Truncate(m.part("ROOT-A"), slotSize))
	must(t, os.WriteFile(m.part("ROOT-B"), nil, 0o600))
	must(t, os.Truncate(m.part("ROOT-B"), slotSize))
	m.write("image/root.json", string(rootOf(t, "hanse", 1, "hanse")))
	m.write("run/node.yaml", "hostname: n1\n")
	m.Installer = m.installer()
	must(t, control.Clock{Floor: created}.Write(m.Run))
	m.have(first)
	m.boot()
	return m
}

// installer is what an agent that starts makes of the node.
func (m *machine) installer() *Installer {
	return &Installer{
		Run: filepath.Join(m.dir, "run"), State: filepath.Join(m.dir, "state"), Image: filepath.Join(m.dir, "image", "root.json"), Cmdline: filepath.Join(m.dir, "cmdline"),
		Sticks: Sticks{filepath.Join(m.dir, "sys"), filepath.Join(m.dir, "dev")}.Open,
		Drain:  func(context.Context) { m.stopped++ },
		Reboot: func(context.Context) error { m.rebooted++; return nil },
		Now:    func() time.Time { return m.clock },
	}
}

func (m *machine) part(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) write(name, text string) {
	m.t.Helper()
	must(m.t, os.MkdirAll(filepath.Dir(filepath.Join(m.dir, name)), 0o700))
	must(m.t, os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600))
}

// have notes a release, so that it is known again on the disk.
func (m *machine) have(all ...made) {
	for _, r := range all {
		m.whole[r.Facts()[0].Version] = r
	}
}

// loaderState is what the boot loader would do.
func (m *machine) loaderState() bootloader.State {
	m.t.Helper()
	b := boot{control.Boot{Loader: string(boards.SystemdBoot), Parts: map[string]string{"ESP": m.part("ESP")}}}
	l, err := b.loader()
	must(m.t, err)
	state, err := b.readLoader(l)
	must(m.t, err)
	return state
}

// boot boots what the loader starts: its kernel and its root have to be those of one
// release, whole. It returns the release's version.
func (m *machine) boot() string {
	m.t.Helper()
	state := m.loaderState()
	next, ok := state.Next()
	if !ok {
		m.t.Fatal("the loader starts nothing")
	}
	r, known := m.whole[state.Of(next).Version]
	if !known {
		m.t.Fatalf("slot %s has release %q", next, state.Of(next).Version)
	}
	root, err := os.ReadFile(m.part("ROOT-" + string(next)))
	must(m.t, err)
	if !bytes.HasPrefix(root, r.root) {
		m.t.Fatalf("the root of slot %s is not that of release %s", next, r.Facts()[0].Version)
	}
	p, err := boot{control.Boot{Parts: map[string]string{"ESP": m.part("ESP")}}}.bootPart()
	must(m.t, err)
	must(m.t, p.Read(func(v *fat.Volume) error {
		uki, err := v.ReadFile("EFI/kogge/" + strings.ToLower(string(next)) + ".efi")
		if err == nil && !bytes.Equal(uki, r.uki) {
			m.t.Errorf("the kernel of slot %s is not that of release %s", next, r.Facts()[0].Version)
		}
		return err
	}))
	m.running, m.leaving = next, false
	trial := state.Of(next).Counted
	facts := control.Boot{
		Slot: string(next), Version: r.Facts()[0].Version, Board: board, Trial: trial, TriesLeft: state.Of(next).Left, Loader: string(boards.SystemdBoot),
		Parts:    map[string]string{"ESP": m.part("ESP"), "ROOT-A": m.part("ROOT-A"), "ROOT-B": m.part("ROOT-B")},
		RootHash: rootHash(r.verity.String()),
	}
	must(m.t, facts.Write(m.Run))
	m.write("cmdline", "quiet "+cmdline.Words{Board: board, Verity: r.verity}.String())
	must(m.t, control.Assessment{State: "pending"}.Write(m.Run))
	must(m.t, m.dropReboot())
	return r.Facts()[0].Version
}

// good is the assessment of the slot that runs, as PID 1 acts on it.
func (m *machine) good() {
	m.t.Helper()
	d, err := m.openDisk()
	must(m.t, err)
	defer d.Close()
	must(m.t, d.Boot.Edit(func(v *fat.Volume) error { return d.Loader.Bless(v, d.Running, m.clock) }))
	must(m.t, memory.Pass(m.memory(), d.Running))
	must(m.t, control.Assessment{State: "good"}.Write(m.Run))
}

// bad has the loader give the slot on trial up.
func (m *machine) bad() {
	m.t.Helper()
	d, err := m.openDisk()
	must(m.t, err)
	defer d.Close()
	must(m.t, d.Boot.Edit(func(v *fat.Volume) error { return d.Loader.MarkBad(v, m.running, m.clock) }))
}

// update updates from a source and returns the steps, each once.
func (m *machine) update(o Order) (string, error) {
	m.t.Helper()
	var said []string
	err := m.Update(m.t.Context(), o, note(&said))
	return strings.Join(said, " "), err
}

func note(said *[]string) func(Step) {
	return func(s Step) {
		if n := len(*said); n == 0 || (*said)[n-1] != s.Step {
			*said = append(*said, s.Step)
		}
	}
}

// table shows the slots.
func (m *machine) table() string {
	m.t.Helper()
	all, err := m.Slots(m.t.Context())
	must(m.t, err)
	var b strings.Builder
	for _, s := range all.Slots {
		running := ""
		if s.Running {
			running = "*"
		}
		fmt.Fprintf(&b, "  %s%-1s %-4s %-10s entry %d, tries %d, counter %d, root %.6s %s\n", s.Slot, running, s.Version, s.State, s.Number, s.TriesLeft, s.Counter, s.RootHash, s.Text)
	}
	return b.String()
}
