// Package qemu turns a disk image into a running virtual machine and its serial
// console into lines that a program can wait for.
//
// In goes a [Machine]: images, firmware, forwards, the seed. Out comes a [VM]
// with a console, forwarded ports on 127.0.0.1, QEMU's monitor and the CPU time
// it used. Everything a VM writes lies in one folder of its own, so another
// process can list, attach to and stop it. Images are left alone: a VM writes to
// a qcow2 overlay unless its disk says InPlace. Nothing here needs root, and no
// QEMU outlives the process that started it in the foreground, however it ends.
//
// The package knows nothing of what is on the disk: see image/ for that.
package qemu

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Machine describes one virtual computer. The zero value of a field is its
// default; Name and something to boot from are the only things it needs.
type Machine struct {
	// Name of the VM and of its folder: lower-case letters, digits and dashes,
	// at most 32. MAC addresses derive from it.
	Name string
	// Arch is Go's name of the architecture: amd64 (default) or arm64.
	Arch string
	// MemoryMiB is the guest's memory. Default 1024.
	MemoryMiB int
	// CPUs is the number of virtual processors. Default 2.
	CPUs int

	// Disks in boot order: the first one is tried first.
	Disks []Disk
	// UEFI boots through firmware with variables that persist. Excludes Direct.
	// With neither, the machine's own BIOS boots the first disk; arm64 has none.
	UEFI *UEFI
	// BIOS is a file with firmware that keeps no variables, such as U-Boot, instead
	// of the machine's own BIOS. Excludes UEFI and Direct.
	BIOS string
	// Direct has QEMU load a kernel, without firmware menus or boot loader.
	Direct *Direct

	// Forwards lead from ports on the host's loopback address to the guest.
	Forwards []Forward
	// NIC is the model of the guest's network cards: virtio (default), e1000e,
	// e1000, rtl8139 or vmxnet3.
	NIC string
	// Offline keeps the guest from reaching anything beyond the host's forwards.
	// DHCP, router advertisements and forwards go on working.
	Offline bool
	// Network gives the guest a second network card on a private Ethernet that
	// all VMs of this user with the same Network share. Default: no second card.
	// It runs over multicast on the host's loopback interface.
	Network string
	// Pcap records what the second card sends and receives in net1.pcap.
	Pcap bool

	// Seed is a node.yaml and Join a join.yaml; the guest finds them in fw_cfg
	// as opt/kogge/node.yaml and opt/kogge/join.yaml.
	Seed, Join string
	// RTC is the time that the hardware clock starts with. Default: the host's.
	RTC time.Time
	// NoWatchdog leaves out the i6300esb, which resets a guest that stops
	// pinging it.
	NoWatchdog bool
	// NoSerial leaves out the first serial port, and with it the console's log.
	NoSerial bool

	// Accel is tcg (default), kvm, or auto: kvm where [ProbeKVM] finds that it
	// really runs a guest, else tcg.
	Accel string
	// NoReboot ends QEMU where the guest resets itself.
	NoReboot bool
	// ReadyLine is a regular expression. A guest that double-faults before its
	// console shows this line is reset, once, and counted in [VM.Restarts]:
	// QEMU 7.2 emulates some instructions badly. Default: never. It excludes
	// NoReboot. The boot loader sees one more boot then.
	ReadyLine string

	// Detached lets the VM outlive this process. Default: it ends with it, even
	// with kill -9.
	Detached bool
	// Fresh throws away the overlays and firmware variables of an earlier run
	// in the same folder. Without it, an image that changed since is an error
	// ([ErrImageChanged]).
	Fresh bool
	// Extra are further QEMU arguments, appended as they are.
	Extra []string
}

// Disk is one disk of a machine: an image file or an NBD server.
type Disk struct {
	// Path of an image file. It has to exist.
	Path string
	// Format of Path: raw or qcow2. Default: told by the file's first bytes.
	Format string
	// NBD is the unix socket of an NBD server, instead of Path. A relative one
	// is looked up in the VM's folder.
	NBD string
	// InPlace writes to Path itself. Default: to an overlay in the VM's folder,
	// which persists until Fresh, so several VMs can share one image.
	InPlace bool
	// SizeMiB makes the overlay larger than the image, as if the image had been
	// written to a larger disk. Default: as large as the image.
	SizeMiB int
	// Bus is virtio (default), nvme, sata or usb.
	Bus string
}

// UEFI is the firmware of a machine.
type UEFI struct {
	// Code is the firmware, for instance OVMF_CODE_4M.fd. It is not written to.
	Code string
	// Vars is the template of its variables, for instance OVMF_VARS_4M.fd; each
	// VM gets a copy of its own, which persists until Fresh.
	Vars string
}

// Direct is a Linux kernel that QEMU loads itself.
type Direct struct {
	// Kernel is a bzImage. Required.
	Kernel string
	// Initrd may be empty.
	Initrd string
	// Cmdline is the kernel's command line.
	Cmdline string
}

// Forward leads from a port of the host to one of the guest.
type Forward struct {
	// Host is the port on 127.0.0.1. Default 0: a free one is chosen.
	Host int `json:"host"`
	// Guest is the port in the guest, on its first network card.
	Guest int `json:"guest"`
	// UDP forwards datagrams. Default: TCP.
	UDP bool `json:"udp,omitempty"`
}

// proto is the forward's name in QEMU's and our own messages.
func (f Forward) proto() string {
	if f.UDP {
		return "udp"
	}
	return "tcp"
}

// ErrMachine is part of every error about a [Machine] that cannot be built,
// whatever the host is like.
var ErrMachine = errors.New("machine is not possible")

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// arch is what differs between architectures of guests.
type arch struct {
	binary  string // QEMU's program
	debian  string // the package that has it
	machine string // -machine
	cpu     string // -cpu under TCG
	noACPI  string // added to -machine for firmware that hands on a device tree
	sata    bool   // has a controller for it
	bios    bool   // starts a disk without firmware from outside
}

var archs = map[string]arch{
	"amd64": {
		binary:  "qemu-system-x86_64",
		debian:  "qemu-system-x86",
		machine: "q35",
		// la57: five-level paging costs time and nobody needs it. cx16: QEMU 7.2
		// leaks flags from its cmpxchg16b, and 3 Linux boots of 10 double-fault.
		cpu:  "max,la57=off,cx16=off",
		sata: true, bios: true,
	},
	"arm64": {
		binary: "qemu-system-aarch64",
		debian: "qemu-system-arm",
		// The default interrupt controller, version 2, serves 8 processors at most.
		machine: "virt,gic-version=3",
		// With ACPI the device tree has no power button.
		noACPI: ",acpi=off",
		// Armv8.0 as Debian builds for it: "max" would have TCG work out authenticated
		// pointers as well.
		cpu: "cortex-a72",
	},
}

// Program returns QEMU's program for the machine, and Debian's package that has it.
func (m Machine) Program() (program, debian string) {
	a := archs[or(m.Arch, "amd64")]
	return a.binary, a.debian
}

// nics are QEMU's names of network cards.
var nics = map[string]string{"virtio": "virtio-net-pci", "e1000e": "e1000e", "e1000": "e1000", "rtl8139": "rtl8139", "vmxnet3": "vmxnet3"}

// normal returns m with its defaults filled in and all paths absolute, or an
// error that wraps [ErrMachine]. It looks at nothing but m and the working
// directory.
func (m Machine) normal() (Machine, error) {
	if !validName.MatchString(m.Name) {
		return m, fmt.Errorf("%w: name %q: want up to 32 lower-case letters, digits and dashes", ErrMachine, m.Name)
	}
	m.Arch = or(m.Arch, "amd64")
	m.Accel = or(m.Accel, "tcg")
	m.MemoryMiB = or(m.MemoryMiB, 1024)
	m.CPUs = or(m.CPUs, 2)
	m.NIC = or(m.NIC, "virtio")
	if err := m.check(); err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrMachine, m.Name, err)
	}
	m.Forwards = append([]Forward(nil), m.Forwards...)
	m.Disks = append([]Disk(nil), m.Disks...)
	paths := []*string{&m.Seed, &m.Join, &m.BIOS}
	for i := range m.Disks {
		m.Disks[i].Bus = or(m.Disks[i].Bus, "virtio")
		paths = append(paths, &m.Disks[i].Path)
	}
	if m.UEFI != nil {
		u := *m.UEFI
		m.UEFI, paths = &u, append(paths, &u.Code, &u.Vars)
	}
	if m.Direct != nil {
		d := *m.Direct
		m.Direct, paths = &d, append(paths, &d.Kernel, &d.Initrd)
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return m, fmt.Errorf("%s: %w", m.Name, err)
		}
		*p = abs
	}
	return m, nil
}

// check finds what no host could run.
func (m Machine) check() error {
	switch _, known := archs[m.Arch]; {
	case !known:
		return fmt.Errorf("architecture %q: want amd64 or arm64", m.Arch)
	case m.Accel != "tcg" && m.Accel != "kvm" && m.Accel != "auto":
		return fmt.Errorf("acceleration %q: want tcg, kvm or auto", m.Accel)
	case m.Accel == "kvm" && m.Arch != probed:
		return fmt.Errorf("acceleration kvm: it runs only %s guests, and this one is %s", probed, m.Arch)
	case m.MemoryMiB < 0 || m.MemoryMiB > 1<<20:
		return fmt.Errorf("memory of %d MiB", m.MemoryMiB)
	case m.CPUs < 0 || m.CPUs > 64:
		return fmt.Errorf("%d processors: want 1 to 64", m.CPUs)
	case m.UEFI != nil && m.Direct != nil:
		return errors.New("both firmware and a kernel to load directly")
	case m.BIOS != "" && (m.UEFI != nil || m.Direct != nil):
		return errors.New("firmware without variables, and another way to boot")
	case m.BIOS == "" && m.UEFI == nil && m.Direct == nil && !archs[m.Arch].bios:
		return fmt.Errorf("a machine of %s starts a disk only by UEFI or other firmware", m.Arch)
	case m.UEFI != nil && (m.UEFI.Code == "" || m.UEFI.Vars == ""):
		return errors.New("firmware needs both its code and a template of its variables")
	case m.Direct != nil && m.Direct.Kernel == "":
		return errors.New("no kernel to load directly")
	case m.Direct == nil && len(m.Disks) == 0:
		return errors.New("no disk to boot from")
	case nics[or(m.NIC, "virtio")] == "":
		return fmt.Errorf("network card %q: want virtio, e1000e, e1000, rtl8139 or vmxnet3", m.NIC)
	case m.ReadyLine != "" && m.NoSerial:
		return errors.New("ReadyLine needs a console, and there is none")
	case m.ReadyLine != "" && m.NoReboot:
		return errors.New("ReadyLine resets the guest, NoReboot forbids it")
	case m.Pcap && m.Network == "":
		return errors.New("the pcap file records the private network, but there is none")
	}
	if _, err := regexp.Compile(m.ReadyLine); err != nil {
		return fmt.Errorf("ready line: %w", err)
	}
	for i, d := range m.Disks {
		if err := d.check(); err != nil {
			return fmt.Errorf("disk %d: %w", i, err)
		}
		if d.Bus == "sata" && !archs[m.Arch].sata {
			return fmt.Errorf("disk %d: a machine of %s has no controller for sata", i, m.Arch)
		}
	}
	seen := map[string]bool{}
	for _, f := range m.Forwards {
		if f.Guest < 1 || f.Guest > 65535 || f.Host < 0 || f.Host > 65535 {
			return fmt.Errorf("forward %d to %d: ports are 1 to 65535", f.Host, f.Guest)
		}
		key := fmt.Sprintf("%s host port %d", f.proto(), f.Host)
		if f.Host != 0 && seen[key] {
			return fmt.Errorf("%s is forwarded twice", key)
		}
		seen[key] = true
	}
	return nil
}

func (d Disk) check() error {
	switch {
	case (d.Path == "") == (d.NBD == ""):
		return errors.New("want either an image file or an NBD socket")
	case d.Format != "" && d.Format != "raw" && d.Format != "qcow2":
		return fmt.Errorf("format %q: want raw or qcow2", d.Format)
	case d.SizeMiB < 0:
		return fmt.Errorf("size of %d MiB", d.SizeMiB)
	case d.SizeMiB > 0 && (d.InPlace || d.NBD != ""):
		return errors.New("only an overlay can have another size than its image")
	case d.InPlace && d.NBD != "":
		return errors.New("InPlace is about image files, not about NBD")
	case !strings.Contains(" virtio nvme sata usb ", " "+or(d.Bus, "virtio")+" "):
		return fmt.Errorf("bus %q: want virtio, nvme, sata or usb", d.Bus)
	case filepath.IsAbs(d.NBD) && len(d.NBD) > maxSocketPath:
		return fmt.Errorf("NBD socket %s: the path is longer than %d bytes", d.NBD, maxSocketPath)
	}
	return nil
}

// maxSocketPath is how long the path of a unix socket may be (sun_path less its zero byte).
const maxSocketPath = 107

// or returns v, or def where v is the zero value.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
