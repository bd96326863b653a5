package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoQEMU means that a program of QEMU is not installed. The error names the package.
	ErrNoQEMU = errors.New("not found")
	// ErrPortInUse means that a forward's host port is taken.
	ErrPortInUse = errors.New("port is in use")
	// ErrImageChanged means that an image is not the one that the VM's overlay
	// was made on. [Machine.Fresh] starts with a new overlay.
	ErrImageChanged = errors.New("image changed since this VM was made")
	// ErrArch means that an image or kernel is for another architecture.
	ErrArch = errors.New("wrong architecture")
	// ErrNoSpace means that the host's disk is full.
	ErrNoSpace = errors.New("no space left on the host")
)

// minFree is what the host's disk has to have left before a VM starts: enough
// for the log, the variables and the first writes.
const minFree = 64 << 20

// lookPath finds a program of QEMU or says which package has it.
func lookPath(program, debian string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%s %w: install it with: apt-get install %s", program, ErrNoQEMU, debian)
	}
	return path, nil
}

// formats returns m with the format of each image filled in.
func (m Machine) formats() (Machine, error) {
	for i, d := range m.Disks {
		if d.Path == "" || d.Format != "" {
			continue
		}
		f, err := os.Open(d.Path)
		if err != nil {
			return m, fmt.Errorf("disk %d of %s: %w", i, m.Name, err)
		}
		var magic [4]byte
		_, err = io.ReadFull(f, magic[:])
		f.Close()
		switch {
		case err != nil:
			return m, fmt.Errorf("disk %d of %s: %s is not an image: %w", i, m.Name, d.Path, err)
		case string(magic[:]) == "QFI\xfb":
			m.Disks[i].Format = "qcow2"
		default:
			m.Disks[i].Format = "raw"
		}
	}
	return m, nil
}

// checkFiles opens every file that QEMU will read, because QEMU's own complaints
// come late and name its options instead of ours.
func (m Machine) checkFiles() error {
	files := map[string]string{"node.yaml": m.Seed, "join.yaml": m.Join}
	if m.BIOS != "" {
		files["firmware"] = m.BIOS
	}
	if m.UEFI != nil {
		files["firmware"], files["firmware variables"] = m.UEFI.Code, m.UEFI.Vars
	}
	if m.Direct != nil {
		files["kernel"], files["initrd"] = m.Direct.Kernel, m.Direct.Initrd
	}
	for i, d := range m.Disks {
		files[fmt.Sprintf("disk %d", i)] = d.Path
	}
	for what, path := range files {
		if path == "" {
			continue
		}
		if err := m.checkFile(path); err != nil {
			return fmt.Errorf("%s of %s: %w", what, m.Name, err)
		}
	}
	return nil
}

func (m Machine) checkFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.IsDir() {
		return &fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}
	}
	if got := archOf(f); got != "" && got != m.Arch {
		return fmt.Errorf("%s: %w: it is for %s, and this VM is %s", path, ErrArch, got, m.Arch)
	}
	return nil
}

// rootTypes are GPT partition types of root file systems, as they lie on disk.
//
// Source: uapi-group.org/specifications/specs/discoverable_partitions_specification
var rootTypes = map[[16]byte]string{
	{0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09}: "amd64",
	{0x45, 0xb0, 0x21, 0xb9, 0xf0, 0x1d, 0xc3, 0x41, 0xaf, 0x44, 0x4c, 0x6f, 0x28, 0x0d, 0x3f, 0xae}: "arm64",
}

// archOf says for which architecture a Linux kernel or a raw disk with a GPT is,
// in Go's words, or "" where it cannot tell.
//
// Source: Documentation/arch/x86/boot.rst and Documentation/arch/arm64/booting.rst
// in the kernel tree; UEFI 2.10 §5.3.
func archOf(r io.ReaderAt) string {
	head := make([]byte, 1024)
	n, _ := r.ReadAt(head, 0) // a short file has none of what follows
	head = head[:n]
	at := func(off int, magic string) bool {
		return len(head) >= off+len(magic) && string(head[off:off+len(magic)]) == magic
	}
	switch {
	case at(0x202, "HdrS"):
		return "amd64"
	case at(0x38, "ARM\x64"):
		return "arm64"
	case !at(512, "EFI PART") || len(head) < 1024:
		return ""
	}
	const entries = 128 // what every GPT of ours has
	first, size := binary.LittleEndian.Uint64(head[512+72:]), binary.LittleEndian.Uint32(head[512+84:])
	if size != 128 || first > 1<<20 {
		return ""
	}
	table := make([]byte, entries*size)
	n, _ = r.ReadAt(table, int64(first)*512)
	for table = table[:n]; len(table) >= int(size); table = table[size:] {
		if a, ok := rootTypes[[16]byte(table[:16])]; ok {
			return a
		}
	}
	return ""
}

// stamp is what tells one state of an image file from another.
type stamp struct {
	Path    string    `json:"path"`
	Size    int64     `json:"size"`
	ModTime time.Time `json:"modTime"`
}

func stampOf(path string) (stamp, error) {
	st, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{Path: path, Size: st.Size(), ModTime: st.ModTime().UTC()}, nil
}

// stampImages returns what the overlays lie on, by disk, after it has thrown away
// those of an earlier run where m is Fresh. An overlay that stays has to lie on
// the image of then: old is what stampImages returned at that time.
func (m Machine) stampImages(dir string, old []stamp) ([]stamp, error) {
	stamps := make([]stamp, len(m.Disks))
	for i, d := range m.Disks {
		if !d.hasOverlay() {
			continue
		}
		path := filepath.Join(dir, overlay(i))
		if m.Fresh {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("disk %d of %s: %w", i, m.Name, err)
			}
		}
		var err error
		if stamps[i], err = stampOf(d.Path); err != nil {
			return nil, fmt.Errorf("disk %d of %s: %w", i, m.Name, err)
		}
		if _, err := os.Stat(path); err == nil && (i >= len(old) || old[i] != stamps[i]) {
			return nil, fmt.Errorf("disk %d of %s: %s: %w", i, m.Name, d.Path, ErrImageChanged)
		}
	}
	return stamps, nil
}

// makeFiles puts firmware variables and overlays into dir, unless an earlier run
// left them there. Each appears whole or not at all.
func (m Machine) makeFiles(ctx context.Context, dir string) error {
	if m.UEFI != nil {
		path := filepath.Join(dir, varsFile)
		if _, err := os.Stat(path); m.Fresh || errors.Is(err, fs.ErrNotExist) {
			vars, err := os.ReadFile(m.UEFI.Vars)
			if err == nil {
				err = replaceFile(path, vars)
			}
			if err != nil {
				return fmt.Errorf("copy firmware variables: %w", err)
			}
		}
	}
	for i, d := range m.Disks {
		if !d.hasOverlay() {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, overlay(i))); err == nil {
			continue
		}
		if err := d.makeOverlay(ctx, dir, overlay(i)); err != nil {
			return fmt.Errorf("overlay of disk %d of %s: %w", i, m.Name, err)
		}
	}
	return nil
}

// makeOverlay makes an overlay called name in dir.
func (d Disk) makeOverlay(ctx context.Context, dir, name string) error {
	args := d.createOverlay(name + ".new")
	program, err := lookPath(args[0], "qemu-utils")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args[1:]...)
	cmd.Dir = dir
	path := filepath.Join(dir, name)
	if out, err := cmd.CombinedOutput(); err != nil {
		os.Remove(path + ".new")
		return fmt.Errorf("qemu-img create: %w: %s", err, bytes.TrimSpace(out))
	}
	return os.Rename(path+".new", path)
}

// spaceIn refuses a folder on a full disk.
func spaceIn(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < minFree {
		return fmt.Errorf("%s: %w: %d MiB free, a VM needs at least %d", dir, ErrNoSpace, free>>20, minFree>>20)
	}
	return nil
}

// replaceFile writes a file under another name, syncs it and renames it. After a
// crash of the host or with a full disk the file is the old one or the new one.
func replaceFile(path string, data []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// choosePorts returns the forwards with a free host port where none was named,
// and refuses named ones that are taken. Somebody may still be faster than QEMU:
// Start tries chosen ports again then.
func choosePorts(forwards []Forward) ([]Forward, error) {
	chosen := append([]Forward(nil), forwards...)
	// All are held until the last is known, so that none is chosen twice.
	var held []io.Closer
	defer func() {
		for _, h := range held {
			h.Close()
		}
	}()
	// The named ones first, so that a chosen one is never one of them.
	for _, named := range []bool{true, false} {
		for i, f := range chosen {
			if (forwards[i].Host != 0) != named {
				continue
			}
			h, port, err := hold(f)
			if err != nil {
				return nil, fmt.Errorf("forward to guest port %d: %w", f.Guest, err)
			}
			held = append(held, h)
			chosen[i].Host = port
		}
	}
	return chosen, nil
}

// hold takes f's host port and returns which one it is.
func hold(f Forward) (io.Closer, int, error) {
	addr := fmt.Sprintf("127.0.0.1:%d", f.Host)
	var h io.Closer
	var local net.Addr
	var err error
	if f.UDP {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp4", addr); err == nil {
			h, local = c, c.LocalAddr()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp4", addr); err == nil {
			h, local = l, l.Addr()
		}
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, 0, fmt.Errorf("host %s %s: %w", f.proto(), addr, ErrPortInUse)
	case err != nil:
		return nil, 0, fmt.Errorf("host %s %s: %w", f.proto(), addr, err)
	}
	if a, ok := local.(*net.TCPAddr); ok {
		return h, a.Port, nil
	}
	return h, local.(*net.UDPAddr).Port, nil
}

// tail returns the last lines of a file for an error message, at most n bytes.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > n {
		f.Seek(-n, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, n))
	return strings.TrimSpace(string(data))
}
