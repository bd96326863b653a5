package supervise

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kogge.example/init/cgroup"
)

// order tells the launcher what to do before it becomes the service.
type order struct {
	Path     string
	Args     []string // argv[0] included
	Sockets  []string `json:",omitempty"` // names of descriptors 3, 4, …
	NoFile   uint64   `json:",omitempty"`
	UID, GID uint32   `json:",omitempty"`
	Limit    bool     `json:",omitempty"`
	Keep     []int    `json:",omitempty"`

	Cgroups cgroup.Tree `json:",omitempty"`
	Group   string      `json:",omitempty"` // to join; empty: it is there
}

// Launch is the role "launch" of the init binary: the moment between fork and
// exec that Go does not give. It runs in the child, so it knows the final process
// number for LISTEN_PID, and what it gives up (capabilities, identity) is given up
// by the child alone. args is one JSON object, made by this package. Launch returns
// only with an error; the caller prints it and exits with status 1.
func Launch(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("launch: want one argument, got %d", len(args))
	}
	var o order
	dec := json.NewDecoder(bytes.NewReader([]byte(args[0])))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		return fmt.Errorf("launch: read order: %w", err)
	}
	if o.Path == "" || len(o.Args) == 0 {
		return fmt.Errorf("launch: order names no program")
	}
	if o.Group != "" {
		if err := o.Cgroups.Put(o.Group, os.Getpid()); err != nil {
			fmt.Fprintf(os.Stderr, "launch %s: %v\n", o.Path, err) // it runs outside: PID 1 knows
		}
	}
	// Capabilities belong to a thread, and exec takes those of its caller.
	runtime.LockOSThread()
	if o.NoFile > 0 {
		lim := syscall.Rlimit{Cur: min(o.NoFile, softNoFile), Max: o.NoFile}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
			return fmt.Errorf("launch %s: limit open files to %d: %w", o.Path, o.NoFile, err)
		}
	}
	if err := o.limit(); err != nil {
		return fmt.Errorf("launch %s: %w", o.Path, err)
	}
	env := os.Environ()
	if len(o.Sockets) > 0 {
		env = append(env,
			"LISTEN_PID="+strconv.Itoa(os.Getpid()),
			"LISTEN_FDS="+strconv.Itoa(len(o.Sockets)),
			"LISTEN_FDNAMES="+strings.Join(o.Sockets, ":"))
	}
	return fmt.Errorf("launch %s: %w", o.Path, syscall.Exec(o.Path, o.Args, env))
}

// limit gives up identity and capabilities, in the order in which each step is
// still allowed.
func (o order) limit() error {
	if o.Limit {
		for c := range unix.CAP_LAST_CAP + 1 {
			if slices.Contains(o.Keep, c) {
				continue
			}
			// EINVAL: an older kernel does not know the capability.
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && err != unix.EINVAL {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	if o.UID == 0 && o.GID == 0 {
		return nil // root gets what the bounding set holds, at exec
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := this(unix.SYS_SETGROUPS, 0, 0, 0); err != nil {
		return fmt.Errorf("drop groups: %w", err)
	}
	if err := this(unix.SYS_SETRESGID, o.GID, o.GID, o.GID); err != nil {
		return fmt.Errorf("set group %d: %w", o.GID, err)
	}
	if err := this(unix.SYS_SETRESUID, o.UID, o.UID, o.UID); err != nil {
		return fmt.Errorf("set user %d: %w", o.UID, err)
	}
	return raise(o.Keep)
}

// this makes a system call for this thread alone. On 32-bit ARM and x86 the
// plain names mean 16-bit numbers, which hold every id that PID 1's source gives.
func this(call uintptr, a, b, c uint32) error {
	if _, _, errno := unix.RawSyscall(call, uintptr(a), uintptr(b), uintptr(c)); errno != 0 {
		return errno
	}
	return nil
}

// raise makes keep survive the exec of somebody who is not root.
func raise(keep []int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := capabilities(keep)
	for i := range data {
		data[i].Inheritable = data[i].Permitted
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	for _, c := range keep {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("raise capability %d: %w", c, err)
		}
	}
	return nil
}
