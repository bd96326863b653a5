package engine

import (
	"errors"
	"strings"
	"testing"
)

// TestCannotMount: what an image has where something is to be mounted is said without
// paths of the node; all else is what it is.
func TestCannotMount(t *testing.T) {
	const runc = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: "
	for said, want := range map[string]string{
		`error mounting "/run/workload/web/resolv.conf" to rootfs at "/etc/resolv.conf": create mountpoint for /etc/resolv.conf mount: lookup mountpoint target: securejoin.OpenInRoot /etc/resolv.conf: openat2 /etc/resolv.conf: too many levels of symbolic links`:                            "/etc/resolv.conf: too many levels of symbolic links",
		`error mounting "/run/workload/web/resolv.conf" to rootfs at "/etc/resolv.conf": move_mount src=/run/workload/web/resolv.conf, srcType=open_tree, srcFd=11, dst=/etc/resolv.conf, dstFd=/proc/thread-self/fd/15, flags=MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC|MS_BIND: invalid argument`: "/etc/resolv.conf: invalid argument",
		`error mounting "/run/workload/web/resolv.conf" to rootfs at "/etc/resolv.conf": create mountpoint for /etc/resolv.conf mount: lookup mountpoint target: securejoin.OpenInRoot /etc/resolv.conf: openat2 /etc/resolv.conf: not a directory`:                                              "/etc/resolv.conf: not a directory",
		`error mounting "proc" to rootfs at "/proc": filesystem "proc" must be mounted on ordinary directory`:                                                                            "/proc: filesystem \"proc\" must be mounted on ordinary directory",
		`error mounting "tmpfs" to rootfs at "/dev": mount src=tmpfs, dst=/dev, dstFd=/proc/thread-self/fd/14, flags=MS_NOSUID|MS_STRICTATIME, data=mode=0644,mode=755: not a directory`: "/dev: not a directory",
		`error mounting "/state/volumes/web+a" to rootfs at "/a": mount_setattr /a: invalid argument`:                                                                                    "",
		`error mounting "/state/volumes/web+a" to rootfs at "/a": permission denied`:                                                                                                     "",
		`exec: "a": executable file not found in $PATH`:                                                                                                                                  "",
	} {
		err := errors.New(runc + said)
		if want == "" {
			want = err.Error()
		} else {
			place, why, _ := strings.Cut(want, ": ")
			want = "nothing can be mounted on " + place + ": the image has a folder where a file belongs, a file where a folder belongs, or a link that does not lead there: " + why
		}
		if got := cannotMount(err); got.Error() != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}
