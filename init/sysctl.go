package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// sysctls are the kernel's settings that every node has. Names have dots for
// slashes, as people write them.
//
// Source: Documentation/admin-guide/sysctl/ in the kernel tree; the values of
// fs.protected_* are those that containers meet on most hosts.
var sysctls = []struct{ name, value string }{
	// Links, pipes and files in folders that all may write to deceive nobody.
	{"fs.protected_hardlinks", "1"},
	{"fs.protected_symlinks", "1"},
	{"fs.protected_fifos", "1"},
	{"fs.protected_regular", "1"},
	// The kernel's addresses and log are for the node's own programs.
	{"kernel.kptr_restrict", "1"},
	{"kernel.dmesg_restrict", "1"},
}

// isaReserve frees what the kernel keeps for ISA cards: of each GiB, 4 MB that no
// program may have, in the 16 MB that such a card could reach. The other numbers
// are the kernel's own. On ARM the same zone is for devices that nodes do have.
const isaReserve = "65536 256 32"

// setSysctls sets them, all that it can, below root, which is /proc/sys.
func setSysctls(root string) error {
	set := func(name, value string) error {
		return os.WriteFile(filepath.Join(root, strings.ReplaceAll(name, ".", "/")), []byte(value), 0)
	}
	var errs []error
	for _, s := range sysctls {
		errs = append(errs, set(s.name, s.value))
	}
	if runtime.GOARCH == "amd64" {
		errs = append(errs, set("vm.lowmem_reserve_ratio", isaReserve))
	}
	return errors.Join(errs...)
}
