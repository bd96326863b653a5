package qemu

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
)

// The files in a VM's folder. QEMU runs with the folder as its working
// directory, because the path of a unix socket must stay below 108 bytes.
const (
	consoleLog  = "console.log"   // everything the guest said on its first serial port
	consoleOld  = "console.1.log" // the same of the run before
	consoleSock = "console.sock"  // the serial port itself, one client at a time
	qmpSock     = "qmp.sock"      // QEMU's monitor, one client at a time: connect, ask, leave
	eventSock   = "events.sock"   // a second monitor, held by the process that started the VM
	pidFile     = "qemu.pid"
	varsFile    = "vars.fd"
	qemuLog     = "qemu.log" // what QEMU itself had to say
	vmFile      = "vm.json"
	lockFile    = "lock"
	pcapFile    = "net1.pcap"
)

// overlay is the file that takes the writes to disk i.
func overlay(i int) string { return fmt.Sprintf("disk%d.qcow2", i) }

// argv is the command that runs m in a VM's folder. m is normal.
func (m Machine) argv() []string {
	a := archs[m.Arch]
	machine, cpu := a.machine, a.cpu
	if m.BIOS != "" {
		machine += a.noACPI
	}
	if m.Accel == "kvm" {
		cpu = "host"
	}
	args := []string{a.binary,
		"-name", "guest=" + m.Name,
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", machine, "-accel", m.Accel, "-cpu", cpu,
		"-smp", fmt.Sprint(m.CPUs), "-m", fmt.Sprint(m.MemoryMiB),
		"-pidfile", pidFile,
		"-qmp", "unix:" + qmpSock + ",server=on,wait=off",
		"-qmp", "unix:" + eventSock + ",server=on,wait=off",
		// The log file gets every byte whether or not somebody is connected.
		"-chardev", "socket,id=console,path=" + consoleSock + ",server=on,wait=off,logfile=" + consoleLog + ",logappend=on",
	}
	if m.NoSerial {
		args = append(args, "-serial", "none")
	} else {
		args = append(args, "-serial", "chardev:console")
	}
	args = append(args, m.bootArgs()...)
	args = append(args, m.diskArgs()...)
	args = append(args, m.netArgs()...)
	args = append(args, "-device", "virtio-rng-pci")
	if !m.NoWatchdog {
		args = append(args, "-device", "i6300esb", "-action", "watchdog=reset")
	}
	if m.NoReboot {
		args = append(args, "-action", "reboot=shutdown")
	}
	if !m.RTC.IsZero() {
		args = append(args, "-rtc", "base="+m.RTC.UTC().Format("2006-01-02T15:04:05"))
	}
	return append(args, m.Extra...)
}

// bootArgs names firmware or kernel, and the seed that goes with them.
func (m Machine) bootArgs() []string {
	var args []string
	if u := m.UEFI; u != nil {
		args = append(args,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+comma(u.Code),
			"-drive", "if=pflash,unit=1,format=raw,file="+varsFile)
	}
	if m.BIOS != "" {
		args = append(args, "-bios", m.BIOS)
	}
	if d := m.Direct; d != nil {
		args = append(args, "-kernel", d.Kernel)
		if d.Initrd != "" {
			args = append(args, "-initrd", d.Initrd)
		}
		if d.Cmdline != "" {
			args = append(args, "-append", d.Cmdline)
		}
	}
	if m.Seed != "" {
		args = append(args, "-fw_cfg", "name=opt/kogge/node.yaml,file="+comma(m.Seed))
	}
	if m.Join != "" {
		args = append(args, "-fw_cfg", "name=opt/kogge/join.yaml,file="+comma(m.Join))
	}
	return args
}

func (m Machine) diskArgs() []string {
	var args []string
	for _, d := range m.Disks {
		if d.Bus == "usb" {
			args = append(args, "-device", "qemu-xhci,id=xhci")
			break
		}
	}
	sata := 0
	for i, d := range m.Disks {
		file, format := overlay(i), "qcow2"
		switch {
		case d.NBD != "":
			file, format = "nbd:unix:"+d.NBD, "raw"
		case d.InPlace:
			file, format = d.Path, d.Format
		}
		id := fmt.Sprintf("disk%d", i)
		args = append(args, "-drive", fmt.Sprintf("if=none,id=%s,format=%s,discard=unmap,file=%s", id, format, comma(file)))
		var device string
		switch d.Bus {
		case "virtio":
			device = "virtio-blk-pci"
		case "nvme":
			device = "nvme"
		case "sata":
			device = fmt.Sprintf("ide-hd,bus=ide.%d", sata)
			sata++
		case "usb":
			device = "usb-storage,bus=xhci.0"
		}
		device += fmt.Sprintf(",drive=%s,serial=%s", id, id)
		if m.Direct == nil { // a kernel that QEMU loads takes the first place itself
			device += fmt.Sprintf(",bootindex=%d", i)
		}
		args = append(args, "-device", device)
	}
	return args
}

// netArgs gives the guest its cards, without the network boot of their ROMs.
func (m Machine) netArgs() []string {
	user := "user,id=net0"
	if m.Offline {
		user += ",restrict=on"
	}
	for _, f := range m.Forwards {
		user += fmt.Sprintf(",hostfwd=%s:127.0.0.1:%d-:%d", f.proto(), f.Host, f.Guest)
	}
	args := []string{"-netdev", user, "-device", nics[m.NIC] + ",netdev=net0,romfile=,mac=" + m.mac(0)}
	if m.Network != "" {
		args = append(args, "-netdev", "socket,id=net1,localaddr=127.0.0.1,mcast="+group(m.Network),
			"-device", nics[m.NIC]+",netdev=net1,romfile=,mac="+m.mac(1))
	}
	if m.Pcap {
		args = append(args, "-object", "filter-dump,id=pcap,netdev=net1,file="+pcapFile)
	}
	return args
}

// mac is the address of network card i: QEMU's prefix, then three bytes that
// derive from the VM's name and the network it is on.
func (m Machine) mac(i int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", m.Network, m.Name, i))
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", h[0], h[1], h[2])
}

// group is the multicast group of a private network: an address of the
// organisation-local scope (RFC 2365) and a port, both from its name.
func group(network string) string {
	h := sha256.Sum256([]byte(network))
	port := 20000 + (int(h[3])<<8|int(h[4]))%12000 // below the range of ephemeral ports
	return fmt.Sprintf("239.%d.%d.%d:%d", 192+int(h[0]&3), h[1], h[2], port)
}

// comma doubles commas, which part the options of one QEMU argument.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// CommandLine returns the shell commands that [Start] stands for, one per line:
// the folder, the copy of the firmware variables, the overlays, QEMU. It starts
// and writes nothing, and looks only at the format of images. A forward whose
// host port is 0 is printed as 0.
func (m Machine) CommandLine(dir string) (string, error) {
	m, err := m.normal()
	if err != nil {
		return "", err
	}
	if m, err = m.formats(); err != nil {
		return "", err
	}
	if m.Accel == "auto" {
		m.Accel = "tcg"
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", fmt.Errorf("folder of %s: %w", m.Name, err)
	}
	return m.script(dir), nil
}

// script is CommandLine for a normal machine whose formats are known.
func (m Machine) script(dir string) string {
	lines := []string{
		quote([]string{"mkdir", "-p", dir}),
		quote([]string{"cd", dir}),
	}
	if m.UEFI != nil {
		lines = append(lines, quote([]string{"cp", m.UEFI.Vars, varsFile}))
	}
	for i, d := range m.Disks {
		if d.hasOverlay() {
			lines = append(lines, quote(d.createOverlay(overlay(i))))
		}
	}
	return strings.Join(append(lines, quote(m.argv())), "\n") + "\n"
}

// hasOverlay says whether the guest's writes go to an overlay.
func (d Disk) hasOverlay() bool { return d.NBD == "" && !d.InPlace }

// createOverlay is the command that makes an overlay called name.
func (d Disk) createOverlay(name string) []string {
	cmd := []string{"qemu-img", "create", "-q", "-f", "qcow2", "-F", d.Format, "-b", d.Path, name}
	if d.SizeMiB > 0 {
		cmd = append(cmd, fmt.Sprintf("%dM", d.SizeMiB))
	}
	return cmd
}

// quote joins words so that a shell takes them apart again the same way.
func quote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		plain := w != "" && strings.IndexFunc(w, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_", r)
		}) < 0
		if plain {
			quoted[i] = w
		} else {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
