package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func capabilities() error {
	var header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	names := []string{"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
		"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module",
		"sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time",
		"sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap"}
	var has []string
	for i, name := range names {
		if data[0].Effective&(1<<i) != 0 {
			has = append(has, name)
		}
	}
	if data[1].Effective != 0 {
		has = append(has, fmt.Sprintf("and %x of the upper ones", data[1].Effective))
	}
	return contained(fmt.Sprintf("%d: %s", len(has), strings.Join(has, " ")))
}

// rootThere says who the root of this user namespace is outside of it.
func rootThere() error {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	if f := strings.Fields(string(text)); len(f) == 3 && f[1] != "0" {
		return contained("nobody there, with " + f[2] + " ids of its own")
	}
	return contained("root")
}

// setuid copies this program, makes it set-uid and has user 1000 ask who it is.
func setuid() error {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile("/setuid", program, 0o755), os.Chmod("/setuid", 0o755|os.ModeSetuid)); err != nil {
		return err
	}
	cmd := exec.Command("/setuid", whoami)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	if string(out) == "0" {
		return nil
	}
	return contained("it stays user " + string(out))
}

func realtime() error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
}

func setns(kind string) func() error {
	return func() error {
		f, err := os.Open("/proc/1/ns/" + kind)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Setns(int(f.Fd()), 0)
	}
}

// unshare does it in a thread that ends afterwards.
func unshare(flags int) func() error {
	return func() error {
		result := make(chan error)
		go func() {
			runtime.LockOSThread()
			result <- unix.Unshare(flags)
		}()
		return <-result
	}
}

func clone(flags uintptr) func() error {
	return func() error {
		cmd := exec.Command("/proc/self/exe", whoami)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		return cmd.Run()
	}
}

func closed(fd int, err error) error {
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// chroot is the classical way out of one: a descriptor of a folder above it.
func chroot() error {
	if err := os.MkdirAll("/jail", 0o755); err != nil {
		return err
	}
	var before, after unix.Stat_t
	if err := unix.Stat("/", &before); err != nil {
		return err
	}
	top, err := unix.Open("/", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	if err := unix.Chroot("/jail"); err != nil {
		return err
	}
	if err := unix.Fchdir(top); err != nil {
		return err
	}
	for range 64 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Stat("/", &after); err != nil {
		return err
	}
	if before.Dev == after.Dev && before.Ino == after.Ino {
		return contained("ends in its own root")
	}
	return nil
}

// mounted lists the mount points, but for those that only mask: which of them there
// are depends on the kernel.
func mounted() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if point := f[4]; !strings.HasPrefix(point, "/proc/") && !strings.HasPrefix(point, "/sys/") || point == "/sys/fs/cgroup" {
			points = append(points, point)
		}
	}
	slices.Sort(points)
	return contained(strings.Join(points, " "))
}

func list(folder string) func() error {
	return func() error {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return err
		}
		var names []string
		for _, e := range entries {
			if e.Name() != "core" { // a link to /proc/kcore, where there is one
				names = append(names, e.Name())
			}
		}
		return contained(strings.Join(names, " "))
	}
}

func node(kind uint32, major, minor uint32, path string) func() error {
	return func() error { return unix.Mknod(path, kind|0o600, int(unix.Mkdev(major, minor))) }
}

func open(path string, mode int) func() error {
	return func() error {
		f, err := os.OpenFile(path, mode|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		return f.Close()
	}
}

// opened makes a device node and opens it.
func opened(kind, major, minor uint32) func() error {
	return func() error {
		path := fmt.Sprintf("/node-%d-%d", major, minor)
		if err := node(kind, major, minor, path)(); err != nil {
			return err
		}
		return open(path, os.O_RDWR)()
	}
}

// tun asks for a link of its own.
func tun() error {
	if err := node(unix.S_IFCHR, 10, 200, "/tun")(); err != nil {
		return err
	}
	f, err := os.OpenFile("/tun", os.O_RDWR, 0)
	if err == nil {
		defer f.Close()
		var r *unix.Ifreq
		if r, err = unix.NewIfreq("tun0"); err == nil {
			r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, r)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO): // no such driver
		return contained("no link")
	}
	return err
}

// optional is for a file that some kernels do not have.
func optional(try func() error) func() error {
	return func() error {
		err := try()
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOENT) {
			return contained("cannot be written")
		}
		return err
	}
}

// kallsyms looks for an address among the kernel's symbols.
func kallsyms() error {
	text, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if address, _, _ := strings.Cut(line, " "); strings.Trim(address, "0") != "" {
			return nil
		}
	}
	return contained("none of them")
}

// sys tries every file of /sys that has a bit for writing, up to a thousand.
func sys() error {
	var last error
	count := 0
	err := filepath.WalkDir("/sys", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() {
			return nil // what cannot be looked at cannot be written
		}
		if info, err := d.Info(); err != nil || info.Mode()&0o222 == 0 {
			return nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
			return fmt.Errorf("%s can be opened for writing", path)
		}
		last = err
		if count++; count == 1000 {
			return filepath.SkipAll
		}
		return nil
	})
	if err != nil {
		return contained("ALLOWED: " + err.Error())
	}
	return last
}

// handle is how a container once read any file of the host's disk.
func handle() error {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/etc/hosts", 0)
	if err != nil {
		return err
	}
	return closed(unix.OpenByHandleAt(unix.AT_FDCWD, h, unix.O_RDONLY))
}

// others looks for processes that are neither this one nor its children.
func others() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if f := strings.Fields(string(stat)); err == nil && len(f) > 3 && f[3] == strconv.Itoa(os.Getpid()) {
			continue
		}
		return nil
	}
	return contained("sees none")
}

func parentless() error {
	if os.Getppid() == 0 {
		return contained("out of sight")
	}
	return nil
}

// abstract looks for the sockets that have no place in the file system.
func abstract() error {
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 7 && strings.HasPrefix(f[7], "@") {
			return nil
		}
	}
	return contained("sees none")
}

func sameRoot(path string) func() error {
	return func() error {
		var root, there unix.Stat_t
		if err := errors.Join(unix.Stat("/", &root), unix.Stat(path, &there)); err != nil {
			return err
		}
		if root.Dev == there.Dev && root.Ino == there.Ino {
			return contained("to its own root")
		}
		return nil
	}
}

// link puts a symbolic link in the place of a mount point: a node that follows it
// when it next writes there would write elsewhere.
func link(path string) func() error {
	return func() error {
		if err := os.Symlink("/state", "/link"); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return os.Rename("/link", path)
	}
}

// cgroupFiles tries what would lift a limit, move a process out or run a program of
// the container on the node.
func cgroupFiles() error {
	names := []string{"cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type", "cgroup.subtree_control",
		"memory.max", "memory.high", "pids.max", "cpu.max", "io.max",
		"tasks", "memory.limit_in_bytes", "release_agent", "notify_on_release", "devices.allow"}
	var last error
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err != nil || !slices.Contains(names, filepath.Base(path)) {
			return nil
		}
		if last = open(path, os.O_WRONLY)(); last == nil {
			return fmt.Errorf("%s can be opened for writing", path)
		}
		return nil
	})
	if err != nil {
		return contained("ALLOWED: " + err.Error())
	}
	return last
}

// subgroup makes a group in the first hierarchy that there is.
func subgroup() error {
	made := errors.New("sees no cgroup")
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "cgroup.procs" {
			made = os.Mkdir(filepath.Join(filepath.Dir(path), "escape"), 0o755)
			return filepath.SkipAll
		}
		return nil
	})
	return errors.Join(made, err)
}

// cgroup is its own path, which is / if it cannot see what is above.
func cgroup() error {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 && parts[2] != "/" {
			return contained(line)
		}
	}
	return contained("/")
}

func socket(family, kind, protocol int) func() error {
	return func() error { return closed(unix.Socket(family, kind, protocol)) }
}

// narrow tries a door of another width in a process of its own: a kernel that lacks it may
// kill who knocks.
func narrow(door string) func() error {
	return func() error {
		said, err := exec.Command("/proc/self/exe", "compat", door).Output()
		var killed *exec.ExitError
		switch {
		case errors.As(err, &killed) && killed.ExitCode() < 0, string(said) == "ENOSYS", string(said) == "EPERM":
			return contained("refused")
		case err != nil:
			return err
		}
		return contained(said)
	}
}

func foreign() error {
	c, err := net.ListenPacket("udp4", "10.88.0.1:0")
	if err == nil {
		c.Close()
	}
	return err
}

// freebind needs no right to bind a foreign address; sending from it is another matter.
func freebind() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 88, 0, 250}}); err != nil {
		return err
	}
	err = unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Addr: [4]byte{10, 88, 0, 1}, Port: 9})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENETUNREACH) { // it depends on the kernel
		return contained("nothing is sent")
	}
	return err
}

// transparent would bind what belongs to others, for connections to them.
func transparent() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
}

// connect calls somebody whom a container has no business with.
func connect(address string) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp4", address, time.Second)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return contained("no answer")
		}
		if err != nil {
			return err
		}
		return c.Close()
	}
}

func listen() error {
	l, err := net.Listen("tcp4", ":80")
	if err == nil {
		l.Close()
	}
	return err
}

// address asks the kernel for the address 10.88.0.99 on the second link (RTM_NEWADDR).
func address() error {
	body := []byte{unix.AF_INET, 24, 0, 0, 2, 0, 0, 0}
	body = append(body, 8, 0, unix.IFA_LOCAL, 0, 10, 88, 0, 99)
	return netlink(unix.NETLINK_ROUTE, unix.RTM_NEWADDR, unix.NLM_F_CREATE, body...)
}

// netlink sends one message and returns what the kernel says to it.
func netlink(family int, kind uint16, flags uint16, body ...byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, family)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if len(body) == 0 {
		body = make([]byte, 4)
	}
	header := unix.NlMsghdr{Len: uint32(unix.SizeofNlMsghdr + len(body)), Type: kind, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags, Seq: 1}
	message := append(unsafe.Slice((*byte)(unsafe.Pointer(&header)), unix.SizeofNlMsghdr), body...)
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return io.ErrUnexpectedEOF
	}
	if errno := *(*int32)(unsafe.Pointer(&answer[unix.SizeofNlMsghdr])); errno != 0 {
		return syscall.Errno(-errno)
	}
	return nil
}

// ifreq asks to change eth0 into what it is already.
func ifreq(request uint) func() error {
	return func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		r, err := unix.NewIfreq("eth0")
		if err != nil {
			return err
		}
		r.SetUint16(unix.IFF_UP | unix.IFF_PROMISC)
		return unix.IoctlIfreq(fd, request, r)
	}
}
