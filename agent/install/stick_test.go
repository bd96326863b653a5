package install

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/update/fat"
)

// plug puts a disk into a port of the machine: below /sys, and its content below /dev.
func (m *machine) plug(port, name string, content []byte) {
	m.t.Helper()
	path := filepath.Join(m.dir, "sys", "devices", port, "block", name)
	if parent := strings.TrimRight(name, "0123456789"); parent != name {
		path = filepath.Join(m.dir, "sys", "devices", port, "block", parent, name)
	}
	must(m.t, os.MkdirAll(path, 0o700))
	class := filepath.Join(m.dir, "sys", "class", "block")
	must(m.t, os.MkdirAll(class, 0o700))
	must(m.t, os.Symlink(path, filepath.Join(class, name)))
	must(m.t, os.WriteFile(filepath.Join(path, "size"), []byte("4096\n"), 0o600))
	if strings.TrimRight(name, "0123456789") != name {
		must(m.t, os.WriteFile(filepath.Join(path, "partition"), []byte("1\n"), 0o600))
	}
	m.write(filepath.Join("dev", name), string(content))
}

// formatted is a stick with a release in a folder.
func formatted(t testing.TB, r *made, folder string) []byte {
	t.Helper()
	const size = 8 * mib
	f, err := os.Create(filepath.Join(t.TempDir(), "stick"))
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(size))
	files := []fat.File{{Path: "photos/a.jpg", Size: 3, Data: strings.NewReader("jpg")}}
	if r != nil {
		must(t, fs.WalkDir(os.DirFS(r.dir), ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(filepath.Join(r.dir, path))
			files = append(files, fat.File{Path: folder + "/" + path, Size: int64(len(data)), Data: bytes.NewReader(data)})
			return err
		}))
	}
	must(t, fat.Format(f, fat.Spec{Size: size, Tiny: true, When: created}, files))
	raw, err := os.ReadFile(f.Name())
	must(t, err)
	return raw
}

const usbPort = "pci0000:00/0000:00:14.0/usb1/1-2"

// TestStick updates from a stick, and from none that is not one.
func TestStick(t *testing.T) {
	next := makeRelease(t, "1.1", 2, wish{})
	with, without := formatted(t, &next, StickFolder), formatted(t, nil, "")
	for _, c := range []struct {
		name string
		plug func(m *machine)
		want string // "": it works
	}{
		{"a partition", func(m *machine) { m.plug(usbPort, "sda", nil); m.plug(usbPort, "sda1", with) }, ""},
		{"a whole stick", func(m *machine) { m.plug(usbPort, "sda", with) }, ""},
		{"beside another one", func(m *machine) { m.plug(usbPort, "sda", with); m.plug(usbPort+"/3", "sdb", without) }, ""},
		{"beside a disk", func(m *machine) { m.plug("pci0000:00/ata1", "sda", with); m.plug(usbPort, "sdb", with) }, ""},
		{"none", func(m *machine) { m.plug("pci0000:00/ata1", "sda", with) }, "no USB stick"},
		{"no USB", func(m *machine) { must(t, os.RemoveAll(filepath.Join(m.dir, "sys/bus"))) }, "does not support USB"},
		{"no release on it", func(m *machine) { m.plug(usbPort, "sda", without) }, "sda: folder kogge-release"},
		{"something else on it", func(m *machine) { m.plug(usbPort, "sda", bytes.Repeat([]byte("NTFS    "), 1000)) }, "FAT32"},
		{"two", func(m *machine) { m.plug(usbPort, "sda", with); m.plug(usbPort+"/3", "sdb", with) }, "sda has a release, and sdb has one too"},
		{"in another folder", func(m *machine) { m.plug(usbPort, "sda", formatted(t, &next, "release")) }, "folder kogge-release"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
			m.have(next)
			m.write("run/node.yaml", "update: {usb: ask}\n")
			must(t, os.MkdirAll(filepath.Join(m.dir, "sys/class/block"), 0o700))
			must(t, os.MkdirAll(filepath.Join(m.dir, "sys/bus/usb"), 0o700))
			c.plug(m)
			said, err := m.update(Order{From: "usb:"})
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrUnreachable) {
					t.Fatalf("%s: %v, want %q", said, err, c.want)
				}
				return
			}
			if err != nil || said != allSteps {
				t.Fatalf("%s, %v", said, err)
			}
			if v := m.boot(); v != "1.1" {
				t.Errorf("booted %s", v)
			}
		})
	}
}

// TestStickPulled pulls the stick while it is read: the slot that runs goes on, and with
// the stick back the update does.
func TestStickPulled(t *testing.T) {
	next := makeRelease(t, "1.1", 2, wish{})
	m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
	m.have(next)
	m.write("run/node.yaml", "update: {usb: ask}\n")
	content := formatted(t, &next, StickFolder)
	m.plug(usbPort, "sda", content)
	device := filepath.Join(m.dir, "dev", "sda")
	err := m.Update(t.Context(), Order{From: "usb:"}, func(s Step) {
		if s.Step == Staging {
			must(t, os.Truncate(device, 400<<10))
		}
	})
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("pulled: %v", err)
	}
	if next, _ := m.loaderState().Next(); next != "A" || m.rebooted > 0 {
		t.Errorf("the loader starts %q, %d reboots", next, m.rebooted)
	}
	must(t, os.WriteFile(device, content, 0o600))
	if said, err := m.update(Order{From: "usb:"}); err != nil || said != allSteps {
		t.Fatalf("plugged in again: %s, %v", said, err)
	}
	if v := m.boot(); v != "1.1" {
		t.Errorf("booted %s", v)
	}
}

// FuzzStick reads sticks that anybody may have written.
func FuzzStick(f *testing.F) {
	next := makeRelease(f, "1.1", 2, wish{blocks: 2})
	f.Add(formatted(f, &next, StickFolder)[:1<<20], 100, byte(7))
	f.Add([]byte("NTFS"), 0, byte(0))
	f.Fuzz(func(t *testing.T, content []byte, at int, flip byte) {
		if at >= 0 && at < len(content) {
			content[at] ^= flip
		}
		device := filepath.Join(t.TempDir(), "sda")
		must(t, os.WriteFile(device, content, 0o600))
		s, err := openStick(device)
		if err != nil {
			return
		}
		defer s.Close()
		if index, err := s.Index(t.Context()); err == nil && len(index) == 0 {
			t.Error("an index of nothing")
		}
	})
}
