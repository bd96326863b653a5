package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write makes a file of the test.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// kernelOf and diskOf are just enough of a kernel and a disk to tell what they are for.
func kernelOf(goarch string) []byte {
	k := make([]byte, 1024)
	if goarch == "amd64" {
		copy(k[0x202:], "HdrS")
	} else {
		copy(k[0x38:], "ARM\x64")
	}
	return k
}

func diskOf(goarch string) []byte {
	d := make([]byte, 40*512)
	copy(d[512:], "EFI PART")
	binary.LittleEndian.PutUint64(d[512+72:], 2)
	binary.LittleEndian.PutUint32(d[512+84:], 128)
	for id, a := range rootTypes {
		if a == goarch {
			copy(d[2*512+3*128:], id[:])
		}
	}
	return d
}

func TestArchOf(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		for what, data := range map[string][]byte{"kernel": kernelOf(goarch), "disk": diskOf(goarch)} {
			if got := archOf(bytes.NewReader(data)); got != goarch {
				t.Errorf("%s for %s: %q", what, goarch, got)
			}
		}
	}
	if got := archOf(bytes.NewReader(diskOf("neither"))); got != "" {
		t.Errorf("disk without root: %q", got)
	}
}

// FuzzArchOf reads the start of foreign disks.
func FuzzArchOf(f *testing.F) {
	f.Add(kernelOf("arm64"))
	f.Add(diskOf("amd64"))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, data []byte) { archOf(bytes.NewReader(data)) })
}

// TestRefusals starts machines that this host cannot run; nothing may be left of them.
func TestRefusals(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	image := write(t, "base.img", make([]byte, 1<<20))
	missing := filepath.Join(t.TempDir(), "missing")
	good := Machine{Name: "n1", Disks: []Disk{{Path: image}}}
	for _, c := range []struct {
		title string
		with  func(*Machine)
		is    error
		says  string
	}{
		{"a missing image", func(m *Machine) { m.Disks = []Disk{{Path: missing}} }, os.ErrNotExist, "disk 0 of n1: open " + missing},
		{"a missing image of known format", func(m *Machine) { m.Disks = []Disk{{Path: missing, Format: "raw"}} }, os.ErrNotExist, "disk 0 of n1"},
		{"an empty image", func(m *Machine) { m.Disks = []Disk{{Path: os.DevNull}} }, nil, "is not an image"},
		{"a folder for an image", func(m *Machine) { m.Disks = []Disk{{Path: t.TempDir(), Format: "raw"}} }, nil, "is a directory"},
		{"a missing seed", func(m *Machine) { m.Seed = missing }, os.ErrNotExist, "node.yaml of n1"},
		{"missing firmware", func(m *Machine) { m.UEFI = &UEFI{Code: missing, Vars: image} }, os.ErrNotExist, "firmware of n1"},
		{"an arm64 kernel", func(m *Machine) { m.Direct = &Direct{Kernel: write(t, "Image", kernelOf("arm64"))} }, ErrArch, "it is for arm64, and this VM is amd64"},
		{"an arm64 disk", func(m *Machine) { m.Disks = []Disk{{Path: write(t, "a", diskOf("arm64"))}} }, ErrArch, "it is for arm64"},
		{"a port in use", func(m *Machine) { m.Forwards = []Forward{{Guest: 81}, {Host: port, Guest: 80}} }, ErrPortInUse,
			fmt.Sprintf("vm n1: forward to guest port 80: host tcp 127.0.0.1:%d: port is in use", port)},
		{"what QEMU does not know", func(m *Machine) { m.Extra = []string{"-device", "warp-drive"} }, nil, "'warp-drive' is not a valid device"},
	} {
		m := good
		c.with(&m)
		v, err := Start(t.Context(), m, filepath.Join(t.TempDir(), "vm"))
		if err == nil {
			v.Close()
			t.Errorf("%s: started", c.title)
			continue
		}
		if !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.title, err)
		}
	}

	t.Setenv("PATH", t.TempDir())
	_, err = Start(t.Context(), good, filepath.Join(t.TempDir(), "vm"))
	if want := "qemu-system-x86_64 not found: install it with: apt-get install qemu-system-x86"; !errors.Is(err, ErrNoQEMU) || err.Error() != want {
		t.Errorf("without QEMU: %v", err)
	}
	if err := good.Disks[0].makeOverlay(t.Context(), t.TempDir(), overlay(0)); !errors.Is(err, ErrNoQEMU) || !strings.Contains(err.Error(), "apt-get install qemu-utils") {
		t.Errorf("without qemu-img: %v", err)
	}
}

// TestVars copies the firmware's variables once, and again only where asked.
func TestVars(t *testing.T) {
	dir := t.TempDir()
	m := Machine{Name: "n1", UEFI: &UEFI{Code: "code", Vars: write(t, "vars", []byte("template"))}}
	vars := filepath.Join(dir, varsFile)
	for _, step := range []struct {
		fresh bool
		want  string
	}{{false, "template"}, {false, "changed by the guest"}, {true, "template"}} {
		m.Fresh = step.fresh
		if err := m.makeFiles(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(vars); err != nil || string(got) != step.want {
			t.Errorf("fresh %v: %q, %v, want %q", step.fresh, got, err, step.want)
		}
		if err := os.WriteFile(vars, []byte("changed by the guest"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// idle is a VM without QEMU whose port 80 is at port.
func idle(t *testing.T, port int) *VM {
	return &VM{Name: "n1", Dir: t.TempDir(), Forwards: []Forward{{Host: port, Guest: 80}}, done: make(chan struct{}), faulted: make(chan struct{})}
}

// TestWaitHTTP answers at the fourth try; the first three find a line that is hung up.
func TestWaitHTTP(t *testing.T) {
	tries := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries < 4 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, r.URL.Path)
	}))
	defer server.Close()
	v := idle(t, server.Listener.Addr().(*net.TCPAddr).Port)
	status, body, err := v.WaitHTTP(t.Context(), 80, "/hello")
	if err != nil || status != http.StatusTeapot || string(body) != "/hello" {
		t.Errorf("%d %q %v", status, body, err)
	}
	if _, _, err := v.WaitHTTP(t.Context(), 81, "/"); err == nil {
		t.Error("a port without forward answers")
	}

	server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := v.WaitHTTP(ctx, 80, "/"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "last try") {
		t.Errorf("nobody listens: %v", err)
	}
	close(v.done)
	if _, _, err := v.WaitHTTP(t.Context(), 80, "/"); err == nil || !strings.Contains(err.Error(), "QEMU ended") {
		t.Errorf("QEMU is gone: %v", err)
	}
}

// TestProbeKVM asks for the module first; its second step is tried with TCG,
// which runs everywhere.
func TestProbeKVM(t *testing.T) {
	modules := t.TempDir()
	if ok, why := probeKVM(t.Context(), modules, "tcg", "max"); ok || !strings.Contains(why, "neither kvm_intel nor kvm_amd") {
		t.Errorf("without a module: %v, %s", ok, why)
	}
	if err := os.Mkdir(filepath.Join(modules, "kvm_amd"), 0o700); err != nil {
		t.Fatal(err)
	}
	// The probe's own limit is short, and this machine may be busy: three tries.
	var ok bool
	var why string
	for try := 0; try < 3 && !ok; try++ {
		ok, why = probeKVM(t.Context(), modules, "tcg", "max,la57=off,cx16=off")
	}
	if !ok {
		t.Errorf("a boot sector that works: %s", why)
	}
	if ok, why := probeKVM(t.Context(), modules, "warp", "max"); ok || !strings.Contains(why, "QEMU ended") {
		t.Errorf("an accelerator that does not exist: %v, %s", ok, why)
	}
}
