package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// probed is the architecture of guests that the probe speaks for.
const probed = "amd64"

// kvmLimit is how long the probe's guest may take to say its byte.
const kvmLimit = 3 * time.Second

var kvm struct {
	sync.Mutex // guards the fields below
	known, ok  bool
	why        string
}

// ProbeKVM says whether KVM really runs guests on this host, and if not, why.
// /dev/kvm alone proves nothing: on a host that is itself a guest it may exist
// and run three instructions, yet no firmware. So the probe asks for the
// processor's own module, then boots a sector and wants its byte within three
// seconds. The answer is found once per process.
func ProbeKVM(ctx context.Context) (ok bool, why string) {
	kvm.Lock()
	defer kvm.Unlock()
	if !kvm.known {
		kvm.ok, kvm.why = probeKVM(ctx, "/sys/module", "kvm", "host")
		kvm.known = ctx.Err() == nil // an interrupted probe has found nothing
	}
	return kvm.ok, kvm.why
}

// probeKVM is ProbeKVM with its surroundings as parameters: the folder of loaded
// kernel modules, and QEMU's accelerator and processor for the second step.
func probeKVM(ctx context.Context, modules, accel, cpu string) (ok bool, why string) {
	loaded := false
	for _, m := range []string{"kvm_intel", "kvm_amd"} {
		if _, err := os.Stat(filepath.Join(modules, m)); err == nil {
			loaded = true
		}
	}
	if !loaded {
		return false, "neither kvm_intel nor kvm_amd is loaded"
	}
	ctx, cancel := context.WithTimeout(ctx, kvmLimit)
	defer cancel()
	said, err := bootProbe(ctx, accel, cpu)
	if err != nil {
		return false, fmt.Sprintf("a boot sector under %s: %v", accel, err)
	}
	// The firmware says this on the same port before it jumps to the sector.
	_, after, jumped := bytes.Cut(said, []byte("Booting from 0000:7c00"))
	if !jumped || !bytes.Contains(after, []byte("K")) {
		return false, fmt.Sprintf("a boot sector under %s printed nothing within %s", accel, kvmLimit)
	}
	return true, ""
}

// bootProbe boots a disk whose first sector prints K on the firmware's debug
// port, and returns what was printed there when K came or ctx ended.
func bootProbe(ctx context.Context, accel, cpu string) ([]byte, error) {
	program, err := lookPath(archs["amd64"].binary, archs["amd64"].debian)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "kogge-kvm-probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	disk := make([]byte, 1<<20) // the BIOS refuses much smaller disks
	copy(disk, []byte{
		0xba, 0x02, 0x04, // mov $0x402,%dx
		0xb0, 'K', // mov $'K',%al
		0xee, // out %al,%dx
		0xf4, // hlt
	})
	disk[510], disk[511] = 0x55, 0xaa
	image, debug := filepath.Join(dir, "disk"), filepath.Join(dir, "debug")
	if err := os.WriteFile(image, disk, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "q35", "-accel", accel, "-cpu", cpu, "-m", "64",
		"-drive", "if=none,id=disk0,format=raw,file="+comma(image), "-device", "virtio-blk-pci,drive=disk0,bootindex=0",
		"-chardev", "file,id=debug,path="+comma(debug), "-device", "isa-debugcon,iobase=0x402,chardev=debug")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	// The signal comes when the thread that forks dies, so this one stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		said, _ := os.ReadFile(debug) // not there yet: nothing said
		_, after, _ := bytes.Cut(said, []byte("Booting from 0000:7c00"))
		if bytes.Contains(after, []byte("K")) || ctx.Err() != nil {
			cmd.Process.Kill()
			<-ended
			return said, nil
		}
		select {
		case err := <-ended:
			if ctx.Err() != nil {
				return said, nil
			}
			return nil, fmt.Errorf("QEMU ended: %v: %s", err, bytes.TrimSpace(stderr.Bytes()))
		case <-tick.C:
		}
	}
}
