package entropy

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// machine is a disk and a pool in memory. It loses power after so many calls; late
// says that the one under way then still has its effect on the disk.
type machine struct {
	left    int
	late    bool
	disk    map[string][]byte
	mode    fs.FileMode
	full    bool // no write works
	unready bool
	added   []byte
	bits    int
	random  byte
}

var errCut = errors.New("power cut")

func (m *machine) step() error {
	m.left--
	if m.left < 0 {
		return errCut
	}
	return nil
}

func (m *machine) Read(name string) ([]byte, fs.FileMode, error) {
	data, ok := m.disk[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return data, m.mode, m.step()
}

func (m *machine) Replace(name string, data []byte) error {
	if m.full {
		return errors.New("no space left on device")
	}
	if err := m.step(); err != nil {
		if m.late {
			m.disk[name], m.late = data, false
		}
		return err
	}
	m.disk[name] = data
	return nil
}

func (m *machine) Random(b []byte, ready bool) error {
	if ready && m.unready {
		return ErrNotReady
	}
	for i := range b {
		m.random++
		b[i] = m.random
	}
	return m.step()
}

func (m *machine) Add(data []byte, bits int) error {
	if err := m.step(); err != nil {
		return err
	}
	m.added, m.bits = data, bits
	return nil
}

const file = "/state/kogge/seed"

func seed(first byte) []byte {
	b := make([]byte, Size)
	for i := range b {
		b[i] = first + byte(i*7)
	}
	return b
}

func newMachine(calls int, data []byte) *machine {
	m := &machine{left: calls, mode: 0o600, disk: map[string][]byte{}}
	if data != nil {
		m.disk[file] = data
	}
	return m
}

// TestLoadPowerCut cuts the power at every call: a seed that counted is never what
// the next boot finds, and there always is a whole one.
func TestLoadPowerCut(t *testing.T) {
	for calls := 0; ; calls++ {
		for _, late := range []bool{true, false} {
			m := newMachine(calls, seed(1))
			m.late = late
			counted, err := load(m, m, file)
			after := m.disk[file]
			if len(after) != Size {
				t.Fatalf("cut after %d calls: the seed is %d bytes long", calls, len(after))
			}
			if m.bits > 0 && bytes.Equal(after, seed(1)) {
				t.Fatalf("cut after %d calls: the seed counted, and will again", calls)
			}
			if err != nil {
				continue
			}
			if !counted || m.bits != credit || bytes.Contains(after, m.added) {
				t.Fatalf("counted %v, %d bits", counted, m.bits)
			}
			return
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		mode fs.FileMode
		full bool
		err  bool
		bits int
		adds bool
	}{
		{name: "good", data: seed(1), mode: 0o600, bits: credit, adds: true},
		{name: "none"},
		{name: "empty", data: []byte{}, mode: 0o600, err: true},
		{name: "short", data: seed(1)[:Size-1], mode: 0o600, err: true},
		{name: "long", data: append(seed(1), 0), mode: 0o600, err: true},
		{name: "zeros", data: make([]byte, Size), mode: 0o600, err: true},
		{name: "readable by all", data: seed(1), mode: 0o644, err: true},
		{name: "a folder", data: seed(1), mode: 0o700 | fs.ModeDir, err: true},
		{name: "full disk: mixed in, not counted", data: seed(1), mode: 0o600, full: true, err: true, adds: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(100, c.data)
			m.mode, m.full = c.mode, c.full
			counted, err := load(m, m, file)
			if (err != nil) != c.err || counted != (c.bits > 0) || m.bits != c.bits || (m.added != nil) != c.adds {
				t.Errorf("counted %v, %d bits, added %v, error %v", counted, m.bits, m.added != nil, err)
			}
		})
	}
}

func TestSaveNotReady(t *testing.T) {
	m := newMachine(100, seed(1))
	m.unready = true
	if err := save(m, m, file); !errors.Is(err, ErrNotReady) || !bytes.Equal(m.disk[file], seed(1)) {
		t.Errorf("error %v, file changed %v", err, !bytes.Equal(m.disk[file], seed(1)))
	}
}

// TestFiles saves and loads a real file; the pool is not the machine's.
func TestFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "seed")
	m := newMachine(100, nil)
	if err := os.WriteFile(name+".new", []byte("left over"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := save(osFiles{}, m, name); err != nil {
		t.Fatal(err)
	}
	before, mode, err := osFiles{}.Read(name)
	if err != nil || len(before) != Size || mode != 0o600 {
		t.Fatalf("%d bytes, mode %s, %v", len(before), mode, err)
	}
	counted, err := load(osFiles{}, m, name)
	after, _, readErr := osFiles{}.Read(name)
	if err != nil || readErr != nil || !counted || bytes.Equal(before, after) || len(after) != Size {
		t.Errorf("counted %v, %v, %v", counted, err, readErr)
	}
	link := name + ".link"
	if err := os.Symlink(name, link); err != nil {
		t.Fatal(err)
	}
	if _, err := load(osFiles{}, m, link); err == nil {
		t.Error("a link is followed")
	}
}
