package qemu

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kogge.example/update/golden"
)

// machines are what the golden file shows the commands of.
var machines = []struct {
	title string
	m     Machine
}{
	{"a BIOS machine with one image, all defaults", Machine{
		Name: "n1", Disks: []Disk{{Path: "/images/base.img", Format: "raw"}},
	}},
	{"firmware, a seed, forwards, a larger disk, a clock in 1970", Machine{
		Name:     "n2",
		Disks:    []Disk{{Path: "/images/base.img", Format: "raw", SizeMiB: 8192}},
		UEFI:     &UEFI{Code: "/firmware/OVMF_CODE_4M.fd", Vars: "/firmware/OVMF_VARS_4M.fd"},
		Forwards: []Forward{{Host: 8080, Guest: 80}, {Host: 5353, Guest: 53, UDP: true}},
		Seed:     "/seed/node.yaml", Join: "/seed/join.yaml",
		RTC: time.Unix(0, 0),
	}},
	{"a kernel loaded directly, its disk behind NBD, paths and words that need quoting", Machine{
		Name:    "n3",
		Arch:    "amd64",
		Disks:   []Disk{{NBD: "disk.sock"}},
		Direct:  &Direct{Kernel: "/k/vmlinuz", Initrd: "/k/it's,here", Cmdline: `quiet panic=10 name="a b"`},
		Offline: true, NoReboot: true, NoWatchdog: true, Accel: "kvm",
		Seed: "/seed/a, b.yaml",
	}},
	{"every bus, a private network, 4 GiB", Machine{
		Name: "n4", MemoryMiB: 4096, CPUs: 4, Network: "fleet", Pcap: true,
		Disks: []Disk{
			{Path: "/images/a.img", Format: "raw", Bus: "sata"}, {Path: "/images/b.qcow2", Format: "qcow2", Bus: "sata", InPlace: true},
			{Path: "/images/c.img", Format: "raw", Bus: "nvme"}, {Path: "/images/d.img", Format: "raw", Bus: "usb"},
		},
		Extra: []string{"-device", "isa-debug-exit"},
	}},
	{"64-bit ARM by UEFI", Machine{
		Name: "n6", Arch: "arm64", Disks: []Disk{{Path: "/images/arm.img", Format: "raw"}},
		UEFI: &UEFI{Code: "/firmware/AAVMF_CODE.fd", Vars: "/firmware/AAVMF_VARS.fd"},
	}},
	{"64-bit ARM by U-Boot, a disk on NVMe", Machine{
		Name: "n7", Arch: "arm64", Disks: []Disk{{Path: "/images/arm.img", Format: "raw", Bus: "nvme"}}, BIOS: "/firmware/u-boot.bin",
	}},
	{"another network card, no serial port", Machine{
		Name: "n5", Disks: []Disk{{Path: "/images/base.img", Format: "raw"}}, NIC: "e1000e", NoSerial: true,
	}},
}

func TestCommandLine(t *testing.T) {
	var got strings.Builder
	for _, c := range machines {
		script, err := c.m.CommandLine("/vm/" + c.m.Name)
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString("# " + c.title + "\n" + strings.ReplaceAll(script, " -", " \\\n    -") + "\n")
	}
	golden.Compare(t, "commands.txt", got.String())
}

// TestQuote has a shell take apart what quote joined.
func TestQuote(t *testing.T) {
	words := []string{"plain-1,a=b", "two words", "it's", `"$HOME" \`, "", "*", "line\nbreak"}
	out, err := exec.Command("sh", "-c", `printf '%s\000' `+quote(words)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Join(words, "\x00")+"\x00", string(out)); diff != "" {
		t.Error(diff)
	}
}

// TestBadMachines wants a word about what is wrong with each.
func TestBadMachines(t *testing.T) {
	disk := []Disk{{Path: "base.img"}}
	for want, m := range map[string]Machine{
		`name "N 1": want`:                  {Name: "N 1", Disks: disk},
		"no disk to boot from":              {Name: "n1"},
		`architecture "sparc"`:              {Name: "n1", Disks: disk, Arch: "sparc"},
		`acceleration "hax"`:                {Name: "n1", Disks: disk, Accel: "hax"},
		"memory of -1 MiB":                  {Name: "n1", Disks: disk, MemoryMiB: -1},
		"65 processors":                     {Name: "n1", Disks: disk, CPUs: 65},
		"both firmware and a kernel":        {Name: "n1", Disks: disk, UEFI: &UEFI{}, Direct: &Direct{}},
		"firmware needs both":               {Name: "n1", Disks: disk, UEFI: &UEFI{Code: "c"}},
		"no kernel to load":                 {Name: "n1", Direct: &Direct{}},
		`network card "ne2000"`:             {Name: "n1", Disks: disk, NIC: "ne2000"},
		"ReadyLine needs a console":         {Name: "n1", Disks: disk, ReadyLine: "x", NoSerial: true},
		"forbids it":                        {Name: "n1", Disks: disk, ReadyLine: "x", NoReboot: true},
		"missing closing )":                 {Name: "n1", Disks: disk, ReadyLine: "("},
		"there is none":                     {Name: "n1", Disks: disk, Pcap: true},
		"want either an image":              {Name: "n1", Disks: []Disk{{}}},
		`format "vmdk"`:                     {Name: "n1", Disks: []Disk{{Path: "a", Format: "vmdk"}}},
		"size of -1 MiB":                    {Name: "n1", Disks: []Disk{{Path: "a", SizeMiB: -1}}},
		"only an overlay can":               {Name: "n1", Disks: []Disk{{Path: "a", SizeMiB: 1, InPlace: true}}},
		"not about NBD":                     {Name: "n1", Disks: []Disk{{NBD: "a", InPlace: true}}},
		`bus "scsi"`:                        {Name: "n1", Disks: []Disk{{Path: "a", Bus: "scsi"}}},
		"longer than 107 bytes":             {Name: "n1", Disks: []Disk{{NBD: "/" + strings.Repeat("a", 107)}}},
		"ports are 1 to 65535":              {Name: "n1", Disks: disk, Forwards: []Forward{{Guest: 0}}},
		"tcp host port 80 is forwarded twi": {Name: "n1", Disks: disk, Forwards: []Forward{{80, 80, false}, {80, 80, true}, {80, 81, false}}},
	} {
		_, err := m.CommandLine("/vm")
		if !errors.Is(err, ErrMachine) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
