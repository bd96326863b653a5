//go:build testport

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/control"
	"kogge.example/init/guard"
)

// testPort serves the second serial port of test images: one JSON command a line
// in, one JSON answer a line out. Tests break things with it and look at what
// nobody else may see. It exists only under the build tag testport; a release has
// none of it.
func (n *node) testPort() {
	guard.Go("test port", func() {
		tty, err := os.OpenFile(testTTY(), os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			guard.Kmsg("test port: " + err.Error())
			return
		}
		raw(int(tty.Fd()))
		n.say("kogge: test port open: this image is for tests")
		lines := bufio.NewScanner(tty)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var c testCommand
			answer := testAnswer{}
			if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
				answer.Error = err.Error()
			} else if answer.Text, err = c.run(); err != nil {
				answer.Error = err.Error()
			}
			answer.ID = c.ID
			data, _ := json.Marshal(answer)
			_, _ = tty.Write(append(data, '\n'))
		}
	})
}

// testTTY is the second serial port. On arm64 the first one is of another kind, so
// this is the first of its own.
func testTTY() string {
	if runtime.GOARCH == "arm64" {
		return "/dev/ttyS0"
	}
	return "/dev/ttyS1"
}

// raw switches off echo and translation.
func raw(fd int) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	_ = unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// testCommand is one line in. ID comes back in the answer.
type testCommand struct {
	ID     int      `json:"id"`
	Op     string   `json:"op"`
	Args   []string `json:"args"`
	Signal int      `json:"signal"`
}

type testAnswer struct {
	ID    int    `json:"id"`
	Text  string `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
}

func (c testCommand) run() (string, error) {
	arg := func(i int) string {
		if i < len(c.Args) {
			return c.Args[i]
		}
		return ""
	}
	switch c.Op {
	case "read": // a file
		data, err := os.ReadFile(arg(0))
		return string(data), err
	case "list": // a glob
		names, err := filepath.Glob(arg(0))
		return strings.Join(names, "\n"), err
	case "write": // a file, content
		return "", os.WriteFile(arg(0), []byte(arg(1)), 0o644)
	case "remove": // a file or a folder, with all in it, if it is there
		return "", os.RemoveAll(arg(0))
	case "statfs": // a folder
		return statfs(arg(0))
	case "find": // processes whose command line contains the text
		return findMatching(arg(0))
	case "status": // of the services, as PID 1 tells its clients
		return status()
	case "kill": // processes whose command line contains the text
		return killMatching(arg(0), unix.Signal(c.Signal))
	case "pause": // PID 1 itself: the answer may never come
		return "", os.WriteFile("/sys/fs/cgroup/init/cgroup.freeze", []byte("1"), 0o644)
	case "date":
		return time.Now().UTC().Format(time.RFC3339), nil
	case "sync":
		unix.Sync()
		return "", nil
	case "memory":
		return memoryReport()
	case "dmesg": // the kernel log
		buf := make([]byte, 1<<20)
		n, err := unix.Klogctl(3, buf) // SYSLOG_ACTION_READ_ALL
		return string(buf[:max(n, 0)]), err
	case "cpu": // seconds that each process and its ended children used
		return cpuReport()
	case "eat": // memory in the cgroup of a service until the kernel kills something
		return eat(arg(0), arg(1))
	case "panic":
		guard.Go("test", func() { panic("asked for by a test") })
		return "", nil
	}
	return "", fmt.Errorf("test port: unknown op %q", c.Op)
}

// statfs is a line "total N MiB, free N MiB" of the file system that has dir.
func statfs(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("statfs %s: %w", dir, err)
	}
	mib := func(blocks uint64) uint64 { return blocks * uint64(st.Bsize) >> 20 }
	return fmt.Sprintf("total %d MiB, free %d MiB", mib(st.Blocks), mib(st.Bfree)), nil
}

// findMatching is a line "PID command" for each process whose command line contains text.
func findMatching(text string) (string, error) {
	var b strings.Builder
	for _, pid := range pids() {
		if line := commandLine(pid); strings.Contains(line, text) {
			fmt.Fprintf(&b, "%d %s\n", pid, line)
		}
	}
	return b.String(), nil
}

// status is a line "NAME STATE, N starts, TEXT" for each service and a line
// "degraded WHAT: WHY" for what does not work.
func status() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := control.Dial(ctx, control.Path)
	if err != nil {
		return "", err
	}
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, s := range st.Services {
		fmt.Fprintf(&b, "%s %s, %d starts, %s\n", s.Name, s.State, s.Starts, s.Text)
	}
	for _, d := range st.Degraded {
		fmt.Fprintf(&b, "degraded %s: %s\n", d.What, d.Why)
	}
	return b.String(), nil
}

// killMatching sends a signal to every process whose command line contains text.
func killMatching(text string, sig unix.Signal) (string, error) {
	var killed []string
	for _, pid := range pids() {
		if line := commandLine(pid); pid != os.Getpid() && strings.Contains(line, text) {
			if err := unix.Kill(pid, sig); err != nil {
				return "", fmt.Errorf("kill %d (%s): %w", pid, line, err)
			}
			killed = append(killed, strconv.Itoa(pid))
		}
	}
	if len(killed) == 0 {
		return "", fmt.Errorf("no process matches %q", text)
	}
	return strings.Join(killed, " "), nil
}

func pids() []int {
	entries, _ := os.ReadDir("/proc")
	var all []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

func commandLine(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", " "))
}

// memoryReport is /proc/meminfo and a line "RSS PSS anon KiB command" for each process.
func memoryReport() (string, error) {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.Write(info)
	for _, pid := range pids() {
		line := commandLine(pid)
		if line == "" {
			continue // a kernel thread
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it has ended
		}
		field := map[string]string{}
		for l := range strings.Lines(string(data)) {
			if f := strings.Fields(l); len(f) >= 2 {
				field[f[0]] = f[1]
			}
		}
		fmt.Fprintf(&b, "process %s %s %s %s\n", field["Rss:"], field["Pss:"], field["Anonymous:"], line)
	}
	return b.String(), nil
}

// cpuReport is a line "user system user-of-children system-of-children command" in
// hundredths of seconds for each process that used any, kernel threads too.
func cpuReport() (string, error) {
	var b strings.Builder
	for _, pid := range pids() {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		name, rest, ok := strings.Cut(string(data), ") ")
		f := strings.Fields(rest)
		if !ok || len(f) < 15 || f[11]+f[12]+f[13]+f[14] == "0000" {
			continue
		}
		line := commandLine(pid)
		if line == "" {
			line = name[strings.Index(name, "(")+1:]
		}
		fmt.Fprintf(&b, "%s %s %s %s %s\n", f[11], f[12], f[13], f[14], line)
	}
	total, err := os.ReadFile("/proc/stat")
	b.WriteString(strings.SplitN(string(total), "\n", 2)[0] + "\n")
	return b.String(), err
}

// eat limits the memory of a cgroup so that the kernel has to kill in it, then
// takes the limit away.
func eat(group, limit string) (string, error) {
	file := filepath.Join("/sys/fs/cgroup", group, "memory.max")
	events := filepath.Join("/sys/fs/cgroup", group, "memory.events")
	data, err := os.ReadFile(events)
	if err != nil {
		return "", err
	}
	before := oomKills(string(data))
	if err := os.WriteFile(file, []byte(limit), 0o644); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		data, _ := os.ReadFile(events)
		if oomKills(string(data)) > before {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	data, err = os.ReadFile(events)
	return string(data), firstError(os.WriteFile(file, []byte("max"), 0o644), err, ctx.Err())
}

func oomKills(events string) int {
	for l := range strings.Lines(events) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "oom_kill "); ok {
			n, _ := strconv.Atoi(v)
			return n
		}
	}
	return 0
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
