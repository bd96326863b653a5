package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"kogge.example/init/cgroup"
	"kogge.example/init/guard"
)

const (
	// maxNotice is the longest sd_notify datagram that counts; longer ones are dropped.
	maxNotice = 4096
	// maxStatus is how much of a STATUS= is kept.
	maxStatus = 256
)

// notice is what one sd_notify datagram says. The zero notice says nothing.
//
// Source: sd_notify(3).
type notice struct {
	Ready, Stopping, Reloading bool
	Watchdog, Trigger          bool // WATCHDOG=1, WATCHDOG=trigger
	Status                     *string
	MainPID                    int // 0: not said
	Errno                      int // 0: not said
	// Changed says that a fact in control.RunDir is another: X_CHANGED=1, our own word.
	Changed bool
}

// parseNotice reads a datagram. What it does not know or cannot read it passes
// over: a service may be newer than PID 1, or broken.
func parseNotice(b []byte) notice {
	var n notice
	for line := range bytes.Lines(b) {
		key, value, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), "=")
		if !ok {
			continue
		}
		switch key {
		case "READY":
			n.Ready = n.Ready || value == "1"
		case "STOPPING":
			n.Stopping = n.Stopping || value == "1"
		case "RELOADING":
			n.Reloading = n.Reloading || value == "1"
		case "WATCHDOG":
			n.Watchdog = n.Watchdog || value == "1"
			n.Trigger = n.Trigger || value == "trigger"
		case "X_CHANGED":
			n.Changed = n.Changed || value == "1"
		case "STATUS":
			s := printable(value, maxStatus)
			n.Status = &s
		case "MAINPID":
			if pid, err := strconv.ParseInt(value, 10, 32); err == nil && pid > 1 {
				n.MainPID = int(pid)
			}
		case "ERRNO":
			if e, err := strconv.ParseInt(value, 10, 16); err == nil && e > 0 {
				n.Errno = int(e)
			}
		}
	}
	return n
}

// printable makes foreign text fit for a console and a JSON line: at most limit
// bytes, no control characters, valid UTF-8.
func printable(s string, limit int) string {
	var b strings.Builder
	for _, r := range s {
		if !strconv.IsPrint(r) { // of broken UTF-8, too
			r = '?'
		}
		if r == utf8.RuneError {
			r = '?'
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// message is a notice with its sender, as the kernel vouches for it.
type message struct {
	notice
	pid int
	// group and session tell whose descendant the sender is: its cgroup, and
	// where there is none its session; empty and 0 if it is gone already.
	group   string
	session int
	mark    int // of the loop's own, 0 for a service's: see settle
}

// notifySocket receives sd_notify datagrams.
type notifySocket struct {
	conn *net.UnixConn
	path string
}

func listenNotify(path string) (*notifySocket, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen for notices on %s: %w", path, err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for notices: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("listen for notices: %w", err)
	}
	var opt error
	err = raw.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	// A service that gave up root still has to reach it; who counts is decided by
	// the sender's process number, not by the mode.
	if err = errors.Join(err, opt, os.Chmod(path, 0o666)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("listen for notices on %s: %w", path, err)
	}
	return &notifySocket{conn, path}, nil
}

// receive sends each notice to out until the socket is closed or done is.
func (n *notifySocket) receive(out chan<- message, done <-chan struct{}) {
	buf := make([]byte, maxNotice+1)
	oob := make([]byte, 512)
	for {
		size, oobn, flags, _, err := n.conn.ReadMsgUnix(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			guard.Kmsg("notify: " + err.Error())
			return
		}
		pid := sender(oob[:oobn])
		if pid <= 0 || size > maxNotice || flags&unix.MSG_TRUNC != 0 {
			continue
		}
		m := message{notice: parseNotice(buf[:size]), pid: pid}
		if pid == os.Getpid() {
			m.mark = parseMark(buf[:size])
		}
		m.group, _ = cgroup.Of(pid)
		m.session, _ = unix.Getsid(pid)
		select {
		case out <- m:
		case <-done:
			return
		}
	}
}

// sender is the process that sent a datagram, 0 if the kernel does not say. It
// closes every descriptor that came along: nobody keeps theirs in PID 1, and
// closing is the answer to BARRIER=1.
func sender(oob []byte) (pid int) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range messages {
		if cred, err := syscall.ParseUnixCredentials(&messages[i]); err == nil {
			pid = int(cred.Pid)
		}
		if fds, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			for _, fd := range fds {
				syscall.Close(fd)
			}
		}
	}
	return pid
}
