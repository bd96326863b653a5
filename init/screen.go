package main

import (
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"kogge.example/init/console"
	"kogge.example/init/control"
	"kogge.example/init/guard"
)

// consoles writes to every console of the kernel command line. Their descriptors
// stay open for ever.
var consoles screens

type screens struct {
	once sync.Once
	fds  []int
}

// open finds the consoles; one whose hardware is missing is left out.
func (s *screens) open() {
	for _, name := range strings.Fields(string(readOptional("/sys/class/tty/console/active"))) {
		// Without O_NONBLOCK a line without carrier would stop the boot.
		fd, err := unix.Open("/dev/"+name, unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			s.fds = append(s.fds, fd)
		}
	}
}

// Write shows text on all consoles. What a console does not take at once is lost:
// nobody may stop PID 1 by holding a line.
func (s *screens) Write(text []byte) (int, error) {
	s.once.Do(s.open)
	for _, fd := range s.fds {
		rest := []byte(strings.ReplaceAll(string(text), "\n", "\r\n"))
		for len(rest) > 0 {
			n, err := unix.Write(fd, rest)
			if err != nil || n <= 0 {
				break
			}
			rest = rest[n:]
		}
	}
	return len(text), nil
}

func (s *screens) writeLine(line string) { _, _ = s.Write([]byte(line + "\n")) }

// startConsole keeps the status screen up to date. show takes each new status;
// stop ends it.
func (n *node) startConsole() (show func(control.Status), stop func()) {
	states := make(chan console.State, 1)
	guard.Go("console", func() { console.Keep(&consoles, states, 0, 0) })
	show = func(s control.Status) {
		st := console.State{
			Node: hostname(), Slot: n.boot.Slot, Release: n.boot.Version, Board: n.boot.Board,
			Fleet: fleetOf(runDir), Addresses: addresses(runDir), Status: s,
		}
		select {
		case states <- st:
		default: // the screen is busy; the next change brings it up to date
		}
	}
	return show, func() { close(states) }
}

// fleetOf reads what the agent wrote, for people.
func fleetOf(run string) string {
	fleet, err := control.ReadFleet(run)
	if err != nil {
		return "" // none, or not known yet
	}
	return fleet.String()
}

// addresses reads what the network service wrote, for people.
func addresses(run string) []string {
	status, err := control.ReadNetwork(run)
	if err != nil {
		return nil // not up yet
	}
	var all []string
	if status.Problem != "" {
		all = append(all, status.Problem)
	}
	for _, i := range status.Interfaces {
		for _, a := range i.Addresses {
			all = append(all, i.Name+" "+a.String())
		}
		if i.Problem != "" {
			all = append(all, i.Name+" "+i.Problem)
		}
	}
	return all
}
