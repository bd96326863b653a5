package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// rights are what a container can do that was asked for in its Compose file.
var rights = []attempt{
	{name: "capabilities", try: fewCapabilities},
	{name: "no new privileges", try: field("NoNewPrivs")},
	{name: "seccomp mode", try: field("Seccomp")},
	{name: "mount a tmpfs", try: func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") }},
	{name: "/proc/sys can be written", try: open("/proc/sys/kernel/domainname", os.O_WRONLY)},
	{name: "write the device that it got (/dev/log)", try: open("/dev/log", os.O_WRONLY)},
	{name: "read that device", try: open("/dev/log", os.O_RDONLY)},
	{name: "open another device (10:229, /dev/fuse)", try: opened(unix.S_IFCHR, 10, 229)},
	{name: "links", try: links},
	{name: "take another address", try: address},
	{name: "a raw IP socket", try: socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)},
	{name: "processes that are not its own", try: others},
	{name: "host name", try: line("/proc/sys/kernel/hostname")},
	{name: "shared memory", try: shared},
	{name: "the cgroup that it sees itself in", try: ownGroup},
	{name: "read a folder of the node", try: read("/given/word")},
	{name: "write a folder of the node", try: write("/given/word", "x")},
}

// allowed is the table of rights.
func allowed() string {
	var b strings.Builder
	for _, a := range rights {
		a.why = "asked for"
		fmt.Fprintf(&b, "  %-58s %s\n", a.name, a.outcome())
	}
	return b.String()
}

// fewCapabilities are those by name, unless it has about all that there are: how many
// these are is the kernel's matter.
func fewCapabilities() error {
	var told contained
	if err := capabilities(); !errors.As(err, &told) {
		return err
	}
	if len(strings.Fields(string(told))) > 30 {
		return contained("more than 30")
	}
	return told
}

// links says whose network this is: containers' bridges are only on the node's.
func links() error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range all {
		if strings.HasPrefix(l.Name, "kogge") {
			return contained("the node's")
		}
	}
	return contained("its own")
}

// shared says whose shared memory this is: the test has left a segment in the node's.
func shared() error {
	_, err := unix.SysvShmGet(0x6b6f, 4096, 0)
	if errors.Is(err, unix.ENOENT) {
		return contained("its own")
	}
	if err == nil {
		return contained("the node's")
	}
	return err
}

// ownGroup is / unless it sees the node's groups.
func ownGroup() error {
	var told contained
	if err := cgroup(); !errors.As(err, &told) {
		return err
	}
	if told == "/" {
		return told
	}
	return contained("one of the node's")
}
