package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// facts is what this container got of what it may ask for.
func facts() string {
	var b strings.Builder
	show := func(name string, value any, err error) {
		if err != nil {
			value = err
		}
		fmt.Fprintf(&b, "%-24s %v\n", name, value)
	}
	for _, path := range []string{"/etc/hosts", "/etc/hostname", "/proc/sys/net/core/somaxconn", "/proc/sys/kernel/shmmni", "/proc/sys/kernel/domainname"} {
		text, err := os.ReadFile(path)
		show(path, strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n"+strings.Repeat(" ", 25)), err)
	}
	for _, l := range []struct {
		name string
		id   int
	}{{"nofile", unix.RLIMIT_NOFILE}, {"nproc", unix.RLIMIT_NPROC}, {"core", unix.RLIMIT_CORE}} {
		var r unix.Rlimit
		err := unix.Getrlimit(l.id, &r)
		show("limit "+l.name, r.Max, err) // Go's runtime raises its own soft one
	}
	groups, err := os.Getgroups()
	slices.Sort(groups)
	show("groups", groups, err)
	for _, path := range []string{"/run/secrets/word", "/etc/app.conf"} {
		text, err := os.ReadFile(path)
		show(path, fmt.Sprintf("%q", text), err)
		var st unix.Stat_t
		err = unix.Stat(path, &st)
		show("", fmt.Sprintf("mode %o, owner %d:%d", st.Mode&0o7777, st.Uid, st.Gid), err)
		var fs unix.Statfs_t
		err = unix.Statfs(path, &fs)
		var options []string
		for _, o := range []struct {
			bit  int64
			name string
		}{{unix.ST_RDONLY, "ro"}, {unix.ST_NOSUID, "nosuid"}, {unix.ST_NODEV, "nodev"}, {unix.ST_NOEXEC, "noexec"}} {
			if int64(fs.Flags)&o.bit != 0 {
				options = append(options, o.name)
			}
		}
		show("", "mounted "+strings.Join(options, ","), err)
	}
	first, err := os.ReadFile("/proc/1/cmdline")
	show("process 1", strings.Join(strings.Split(strings.TrimRight(string(first), "\x00"), "\x00"), " "), err)
	return b.String()
}

// hang waits until it is killed, without what the Go runtime calls a deadlock.
func hang() {
	for {
		time.Sleep(time.Hour)
	}
}

// orphan leaves process 1 a child of a child, and returns 7 once that has been reaped
// or 8 if nobody does.
func orphan() int {
	text, err := exec.Command("/proc/self/exe", "parent").Output()
	if err != nil {
		log.Print(err)
		return 8
	}
	for range 1000 {
		if _, err := os.Stat("/proc/" + string(text)); err != nil {
			return 7
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 8
}

// parent starts a process, prints its number and does not wait for it.
func parent() {
	child := exec.Command("/proc/self/exe", whoami)
	if err := child.Start(); err != nil {
		log.Fatal(err)
	}
	fmt.Print(child.Process.Pid)
}
