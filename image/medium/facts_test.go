package medium

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/update/golden"
)

// machine is a computer with disks of every kind, as /sys and /proc show them.
func machine(t *testing.T) host {
	t.Helper()
	root := t.TempDir()
	put := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	number := 0
	device := func(dir string, attributes map[string]string) {
		number++
		dev := fmt.Sprintf("8:%d", number)
		put(dir+"/dev", dev)
		put("dev/"+filepath.Base(dir), "")
		for k, v := range attributes {
			put(dir+"/"+k, v)
		}
		for _, link := range []string{"sys/dev/block/" + dev, "sys/class/block/" + filepath.Base(dir)} {
			path := filepath.Join(root, link)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(root, dir), path); err != nil {
				t.Fatal(err)
			}
		}
	}
	disk := func(dir, model, removable, ro string, sectors int) {
		device(dir, map[string]string{"size": fmt.Sprint(sectors), "ro": ro, "removable": removable, "device/model": model, "queue/logical_block_size": "512"})
	}
	part := func(dir string) { device(dir, map[string]string{"size": "2048", "ro": "0", "partition": "1"}) }
	const (
		sata = "sys/devices/pci0000:00/ata1/host0/block/sda"
		usb  = "sys/devices/pci0000:00/usb1/1-1/host2/block/sdb"
		card = "sys/devices/platform/mmc_host/mmc0/block/mmcblk0"
		nvme = "sys/devices/pci0000:00/nvme/nvme0/nvme0n1"
		empt = "sys/devices/pci0000:00/usb1/1-2/host3/block/sdc"
		raid = "sys/devices/pci0000:00/ata2/host1/block/sdd"
		fs   = "sys/devices/pci0000:00/ata3/host4/block/sde"
		swp  = "sys/devices/pci0000:00/virtio0/block/vda"
	)
	disk(sata, "Samsung SSD 860", "0", "0", 8<<20) // 1: system disk, LVM on its second partition
	part(sata + "/sda1")                           // 2
	part(sata + "/sda2")                           // 3
	device("sys/devices/virtual/block/dm-0", map[string]string{"size": "2048", "ro": "0"})
	put(sata+"/sda2/holders/dm-0", "")
	disk(usb, "Ultra Fit", "1", "0", 8<<20) // a free stick
	put(usb+"/device/vendor", "SanDisk")
	part(usb + "/sdb1")
	device(card, map[string]string{"size": "8388608", "ro": "1", "device/name": "SD16G", "removable": "0"}) // locked card
	disk(nvme, "WD Black", "0", "0", 1<<20)                                                                 // too small
	disk(empt, "Card Reader", "1", "0", 0)
	disk(raid, "WD Red", "0", "0", 8<<20)
	part(raid + "/sdd1")
	device("sys/devices/virtual/block/md0", map[string]string{"size": "2048"})
	put(raid+"/sdd1/holders/md0", "")
	disk(fs, "Data", "0", "0", 8<<20) // btrfs: mountinfo has a number of its own
	part(fs + "/sde1")
	disk(swp, "", "0", "0", 8<<20)
	part(swp + "/vda1")
	dm := strings.TrimSpace(readFile(t, filepath.Join(root, "sys/devices/virtual/block/dm-0/dev")))
	put("proc/self/mountinfo", "22 1 "+dm+" / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw\n"+
		"23 22 0:21 / /proc rw - proc proc rw\n"+
		"24 22 8:2 / /boot/efi rw - vfat /dev/sda1 rw\n"+
		"25 22 0:44 /home /media/my\\040disk rw shared:9 - btrfs /dev/sde1 rw,subvol=/home\n"+
		"torn line")
	put("proc/swaps", "Filename Type Size Used Priority\n/dev/vda1 partition 1024 0 -2\n/swapfile file 1024 0 -3")
	return host{root}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestDecide prints what is said of each disk of a computer: the table to review.
func TestDecide(t *testing.T) {
	h := machine(t)
	var b strings.Builder
	try := func(f Facts, file bool) {
		fmt.Fprintln(&b, f.Describe())
		if err := Decide(f, 2<<30, file); err != nil {
			fmt.Fprintf(&b, "  no: %v\n", err)
		} else {
			fmt.Fprintln(&b, "  yes")
		}
	}
	for _, name := range []string{"sda", "sda1", "sda2", "dm-0", "sdb", "sdb1", "mmcblk0", "nvme0n1", "sdc", "sdd", "md0", "sde", "vda"} {
		f := Facts{Path: "/dev/" + name, Kind: Block}
		if err := h.device(strings.TrimSpace(readFile(t, h.path("sys/class/block", name, "dev"))), &f); err != nil {
			t.Fatal(err)
		}
		if f.Name != name {
			t.Errorf("device %s is called %s", name, f.Name)
		}
		try(f, false)
	}
	try(Facts{Path: "/dev/sdf", Kind: Block, Size: 4 << 30, Sector: 4096}, false)
	try(Facts{Path: "/dev/sdf", Kind: Block, Size: 2 << 30, Sector: 512, Holds: "Kogge 1.0 for board pc-x86_64"}, false)
	try(Facts{Path: "/dev/sdf", Kind: Block, Size: 4 << 30}, true)
	try(Facts{Path: "disk.img", Kind: Regular, Size: 4 << 30}, false)
	try(Facts{Path: "disk.img", Kind: Regular, Size: 4 << 30}, true)
	try(Facts{Path: "disk.img", Kind: Regular, Size: 1 << 20}, true)
	try(Facts{Path: "disk.img", Kind: Regular, Size: 4 << 30, ReadOnly: true}, true)
	try(Facts{Path: "/dev/tty", Kind: Other}, false)
	try(Facts{Path: "/dev/tty", Kind: Other}, true)
	golden.Compare(t, "decide.txt", b.String())
}

// TestLookHere asks the machine that runs the test.
func TestLookHere(t *testing.T) {
	for name, kind := range map[string]Kind{file(t, "f", []byte("x")): Regular, "/dev/null": Other, t.TempDir(): Other} {
		f, err := Look(name)
		if err != nil || f.Kind != kind {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if _, err := Look("/no/such/device"); err == nil {
		t.Error("a missing device was found")
	}
	if _, err := (host{"/"}).mounts(); err != nil {
		t.Error(err)
	}
	if _, err := (host{"/"}).swaps(); err != nil {
		t.Error(err)
	}
}
