package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kogge.example/init/cgroup"
)

// starter forks services. Its fields are the same for all of them.
type starter struct {
	self    string      // our own binary, for the launcher
	cgroups cgroup.Tree // may be none
	notify  string      // path of the sd_notify socket
	null    *os.File
}

// fork starts one process of s with its output in the descriptor out and the
// listening sockets. It returns its number; degraded says that it runs, but not
// in its own cgroup, and why.
func (st starter) fork(s Service, out int, sockets []*os.File) (pid int, degraded, err error) {
	files := []uintptr{st.null.Fd(), uintptr(out), uintptr(out)}
	path, args := s.Path, append([]string{s.Path}, s.Args...)
	o, needed := st.order(s)
	if needed {
		if path, args, err = st.launcher(o); err != nil {
			return 0, nil, err
		}
		for _, f := range sockets {
			raw, err := f.SyscallConn()
			if err != nil {
				return 0, nil, err
			}
			// Not f.Fd(): it would make the socket blocking for every holder.
			if err := raw.Control(func(fd uintptr) { files = append(files, fd) }); err != nil {
				return 0, nil, err
			}
		}
	}
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   st.environ(s),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if st.cgroups.None() {
		pid, err := syscall.ForkExec(path, args, attr)
		return pid, nil, err
	}
	return st.into(groupOf(s.Name), path, args, attr, o)
}

// launcher is the program and its arguments that carry out o.
func (st starter) launcher(o order) (path string, args []string, err error) {
	b, err := json.Marshal(o)
	return st.self, []string{"/init", "launch", string(b)}, err
}

// into is ForkExec into a cgroup. Where the process cannot be born there, because
// what was killed in it is not gone yet, its launcher moves there before it becomes
// the service: a process moved from outside may have children by then, who stay behind.
func (st starter) into(group, path string, args []string, attr *syscall.ProcAttr, o order) (pid int, degraded, err error) {
	if st.cgroups.Renew(group) == nil {
		fd, err := st.cgroups.OpenGroup(group)
		if err == nil {
			attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
			pid, err = syscall.ForkExec(path, args, attr)
			syscall.Close(fd)
			if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
				return pid, nil, err
			}
			attr.Sys.UseCgroupFD = false
		}
	}
	made := st.cgroups.Make(group)
	o.Cgroups, o.Group = st.cgroups, group
	if path, args, err = st.launcher(o); err != nil {
		return 0, nil, err
	}
	if pid, err = syscall.ForkExec(path, args, attr); err != nil {
		return 0, nil, err
	}
	// The launcher has nobody to tell, so we try the same.
	if err := errors.Join(made, st.cgroups.Put(group, pid)); err != nil {
		degraded = fmt.Errorf("runs outside its cgroup: %w", err)
	}
	return pid, degraded, nil
}

// adjust sets from outside what needs no launcher.
func adjust(pid int, s Service) error {
	if s.OOMScoreAdj == 0 {
		return nil
	}
	name := filepath.Join("/proc", strconv.Itoa(pid), "oom_score_adj")
	if err := os.WriteFile(name, []byte(strconv.Itoa(s.OOMScoreAdj)), 0); err != nil {
		return fmt.Errorf("service %s: set oom_score_adj %d: %w", s.Name, s.OOMScoreAdj, err)
	}
	return nil
}

// environ is the whole environment of s: PID 1's own carries what the kernel
// made of its command line, which is no service's business.
func (st starter) environ(s Service) []string {
	env := []string{
		"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/", "TERM=dumb",
		"NOTIFY_SOCKET=" + st.notify,
	}
	if s.WatchdogTimeout > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(int64(s.WatchdogTimeout/time.Microsecond), 10))
	}
	return append(env, s.Env...)
}

// order is what the launcher is to do before it executes s, and whether there is
// anything at all: a launcher costs one more exec.
func (st starter) order(s Service) (order, bool) {
	o := order{
		Path: s.Path, Args: append([]string{s.Path}, s.Args...),
		NoFile: s.NoFile, UID: s.UID, GID: s.GID, Limit: s.Limit, Keep: s.Keep,
	}
	for _, sock := range s.Sockets {
		name := sock.Name
		if name == "" {
			name = s.Name
		}
		o.Sockets = append(o.Sockets, name)
	}
	return o, len(o.Sockets) > 0 || o.NoFile > 0 || o.UID != 0 || o.GID != 0 || o.Limit
}

// groupOf is the cgroup of a service.
func groupOf(name string) string { return cgroup.System + "/" + name }

// listen opens one socket and returns a descriptor that outlives every process
// of the service.
func listen(s Socket) (*os.File, error) {
	unixPath := strings.HasPrefix(s.Network, "unix")
	if unixPath {
		if err := os.Remove(s.Address); err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("listen on %s: %w", s.Address, err)
		}
	}
	f, err := listenFile(s.Network, s.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s %s: %w", s.Network, s.Address, err)
	}
	if unixPath {
		mode := s.Mode
		if mode == 0 {
			mode = 0o600
		}
		if err := os.Chmod(s.Address, os.FileMode(mode)); err != nil {
			f.Close()
			return nil, fmt.Errorf("listen on %s: %w", s.Address, err)
		}
	}
	return f, nil
}

func listenFile(network, address string) (*os.File, error) {
	switch network {
	case "udp", "unixgram":
		c, err := net.ListenPacket(network, address)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if u, ok := c.(*net.UnixConn); ok {
			return u.File()
		}
		return c.(*net.UDPConn).File()
	case "tcp", "unix":
		l, err := net.Listen(network, address)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
			return u.File()
		}
		return l.(*net.TCPListener).File()
	}
	return nil, fmt.Errorf("network %q is not tcp, udp, unix or unixgram", network)
}
