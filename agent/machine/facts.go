package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/init/control"
)

// assessment reads how PID 1 judges this boot.
func (m Machine) assessment(b *apiv1.Boot) error {
	a, err := control.ReadAssessment(m.Folder())
	if err != nil {
		return err
	}
	b.Assessment, b.Why, b.Since = a.State, a.Why, timestamppb.New(a.Since)
	return nil
}

// boot says what stage 0 found out about this boot.
func (m Machine) boot(b *apiv1.Boot) error {
	facts, err := control.ReadBoot(m.Folder())
	if err != nil {
		return err
	}
	b.Slot, b.Version, b.Board, b.Trial = facts.Slot, facts.Version, facts.Board, facts.Trial
	b.Disk, b.Loader, b.TriesLeft = facts.Disk, facts.Loader, int32(facts.TriesLeft)
	b.Marks = facts.Marks
	return nil
}

// links reads what the network service says.
func (m Machine) links(s *apiv1.StatusResponse) error {
	status, err := control.ReadNetwork(m.Folder())
	if err != nil {
		return err
	}
	if status.Problem != "" {
		s.Degraded = append(s.Degraded, &apiv1.Degraded{What: "network", Why: status.Problem})
	}
	for _, i := range status.Interfaces {
		link := &apiv1.Link{Name: i.Name, State: "no carrier"}
		if i.Carrier {
			link.State = "up"
		}
		if i.Problem != "" {
			link.State += ", " + i.Problem
			s.Degraded = append(s.Degraded, &apiv1.Degraded{What: "link " + i.Name, Why: i.Problem})
		}
		for _, a := range i.Addresses {
			link.Addresses = append(link.Addresses, a.String())
		}
		s.Links = append(s.Links, link)
	}
	return nil
}

// clock says in short what the clock service says.
func (m Machine) clock(c *apiv1.Clock) error {
	facts, err := control.ReadClock(m.Folder())
	if err == nil {
		c.Sure, c.Text = facts.Synced, clockText(facts)
	}
	return err
}

// ClockSure says whether time servers agree on the node's clock.
func (m Machine) ClockSure() bool {
	var c apiv1.Clock
	return m.clock(&c) == nil && c.Sure
}

// ClockFloor is the earliest that the time can be: it has passed for sure. Zero: not known.
func (m Machine) ClockFloor() time.Time {
	facts, err := control.ReadClock(m.Folder())
	if err != nil {
		return time.Time{}
	}
	return facts.Floor
}

// memory reads total and available memory.
func memory(file string, into *apiv1.Memory) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			into.Total = kib << 10
		case "MemAvailable:":
			into.Available = kib << 10
		}
	}
	if into.Total == 0 {
		return fmt.Errorf("%s has no MemTotal", file)
	}
	return nil
}

// disk asks how full STATE is, and whether it can be written to.
func (m Machine) disk(into *apiv1.Disk) error {
	path := m.StateDir()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	into.Total, into.Available = st.Blocks*uint64(st.Bsize), st.Bavail*uint64(st.Bsize)
	into.Files, into.FilesAvailable = st.Files, st.Ffree
	return Writable(path)
}

// ReadLine reads a file of one line; "" if it is not there.
func ReadLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
