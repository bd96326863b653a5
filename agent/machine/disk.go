package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Writable says why nothing can be written to the file system that has folder dir any more;
// nil where nothing says so. It writes nothing itself. A kernel that has found damage, or
// whose journal the disk did not take, refuses every write from then on.
func Writable(dir string) error { return writable(dir, "/sys") }

// writable is Writable with sysfs at sys. Kernels from 6.12 on do not set ST_RDONLY when they
// refuse writes because of an error: the count of errors is what there is to see then, and
// an fsync that is refused. An error that did not end the writing is none of this.
//
// Source: Documentation/ABI/testing/sysfs-fs-ext4; ext4_handle_error and ext4_sync_file in
// fs/ext4 of the kernel tree.
func writable(dir, sys string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(int(f.Fd()), &fs), unix.Fstat(int(f.Fd()), &st)); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return errReadOnly
	}
	device, err := os.Readlink(filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))))
	if err != nil {
		return nil // on no disk
	}
	found := filepath.Join(sys, "fs/ext4", filepath.Base(device))
	if n := ReadLine(filepath.Join(found, "errors_count")); n == "" || n == "0" {
		return nil
	}
	if err := f.Sync(); err == nil {
		return nil
	}
	if where := ReadLine(filepath.Join(found, "last_error_func")); where != "" {
		return fmt.Errorf("%w (%s)", errReadOnly, strings.ToValidUTF8(where, "?"))
	}
	return errReadOnly
}

var errReadOnly = errors.New("it has become read-only: the kernel met an error on the disk and takes no writes until the next boot, which checks and repairs it; kogge node dmesg says more")
