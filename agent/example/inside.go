package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// inside tells what a process in this container sees and may, a line each.
func inside(w io.Writer) {
	tell := func(name string, value any) { fmt.Fprintf(w, "%-11s %v\n", name, value) }
	host, err := os.Hostname()
	if err != nil {
		host = err.Error()
	}
	tell("host", host)
	tell("user", fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()))
	tell("processes", processes())
	tell("addresses", addresses())
	tell("memory", fmt.Sprintf("%s of %s bytes", limit("memory.current"), limit("memory.max")))
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tell("rights", err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); name {
		case "CapEff":
			tell("rights", "capabilities "+value)
		case "NoNewPrivs":
			tell("", map[string]string{"1": "no new ones", "0": "new ones by setuid programs"}[value])
		case "Seccomp":
			tell("", map[string]string{"2": "system calls are filtered", "0": "every system call"}[value])
		}
	}
	size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
	if err != nil {
		tell("terminal", "none")
		return
	}
	tell("terminal", fmt.Sprintf("%d x %d", size.Col, size.Row))
}

// processes are all that this one sees: "1 /app, 14 /app inside".
func processes() string {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil { // else it has ended
			text := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
			all = append(all, filepath.Base(filepath.Dir(file))+" "+text)
		}
	}
	return strings.Join(all, ", ")
}

func addresses() string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return err.Error()
	}
	var texts []string
	for _, a := range all {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, " ")
}

// limit reads a file of the container's own cgroup.
func limit(name string) string {
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", name))
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}
