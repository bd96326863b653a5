// Package machine is what a node knows of itself, for the API: its boot, clock, links,
// services, memory and disk, and what groups of processes have used.
//
// In come the kernel's files, PID 1's control socket and what the node's programs leave in
// /run/kogge; out go the API's messages. What cannot be read is one more degraded thing.
// It changes nothing.
package machine

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"

	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/init/control"
)

// Machine is where the facts of the machine lie; the zero value is a node's.
type Machine struct {
	Control string // PID 1's socket; default: control.Path
	Run     string // facts and etc/; default: control.RunDir
	State   string // default: /state
	Kmsg    string // default: /dev/kmsg
	Cgroups string // where they are mounted; default: /sys/fs/cgroup
	// Workload is the cgroup of the containers. Default: workload.
	Workload string
	// Twin says that another machine is this node too; nil, or a nil error: none is known.
	Twin func() error
	// Names says where containers cannot ask for names; nil, or a nil error: everywhere they can.
	Names func() error
	// Ledger says why the fleet's ledger is not to be relied on; nil, or a nil error: it is.
	Ledger func() error
}

// Folder is where the node's programs leave what they tell others.
func (m Machine) Folder() string { return cmp.Or(m.Run, control.RunDir) }

func (m Machine) RunFile(name string) string { return filepath.Join(m.Folder(), name) }

func (m Machine) StateDir() string {
	if m.State == "" {
		return "/state"
	}
	return m.State
}

func (m Machine) KernelLog() string {
	if m.Kmsg == "" {
		return "/dev/kmsg"
	}
	return m.Kmsg
}

// Groups are the groups of processes of the node.
func (m Machine) Groups() Groups { return OpenGroups(cmp.Or(m.Cgroups, "/sys/fs/cgroup")) }

// ContainerGroup is the cgroup of a container's instance.
func (m Machine) ContainerGroup(instance string) string {
	return path.Join(cmp.Or(m.Workload, "workload"), instance)
}

// Pid1 connects to PID 1.
func (m Machine) Pid1(ctx context.Context) (*control.Client, error) {
	path := m.Control
	if path == "" {
		path = control.Path
	}
	return control.Dial(ctx, path)
}

// Status gathers what the machine knows of itself. What cannot be read is one more
// degraded thing: somebody who asks needs the rest all the more.
func (m Machine) Status(ctx context.Context) *apiv1.StatusResponse {
	s := &apiv1.StatusResponse{Time: timestamppb.Now(), Boot: &apiv1.Boot{}, Memory: &apiv1.Memory{}, State: &apiv1.Disk{}, Clock: &apiv1.Clock{}}
	lacking := func(what string, err error) {
		if err != nil {
			s.Degraded = append(s.Degraded, &apiv1.Degraded{What: what, Why: err.Error()})
		}
	}
	s.Hostname = m.Hostname()
	s.MachineId = ReadLine(m.RunFile("etc/machine-id"))
	s.Kernel = ReadLine("/proc/sys/kernel/osrelease")
	lacking("supervisor", m.services(ctx, s))
	lacking("boot facts", m.boot(s.Boot))
	lacking("boot assessment", m.assessment(s.Boot))
	lacking("network", m.links(s))
	lacking("clock", m.clock(s.Clock))
	lacking("memory", memory("/proc/meminfo", s.Memory))
	lacking("STATE", m.disk(s.State))
	if m.Twin != nil {
		lacking("identity", m.Twin())
	}
	if m.Names != nil {
		lacking("names", m.Names())
	}
	if m.Ledger != nil {
		lacking("ledger", m.Ledger())
	}
	return s
}

// Hostname is the node's name as the kernel knows it; "" if it does not.
func (m Machine) Hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// services asks PID 1.
func (m Machine) services(ctx context.Context, s *apiv1.StatusResponse) error {
	c, err := m.Pid1(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	s.UptimeSeconds, s.Ending = status.UptimeSeconds, status.Ending
	for _, one := range status.Services {
		s.Services = append(s.Services, &apiv1.Service{
			Name: one.Name, State: one.State, Since: timestamppb.New(one.Since), Pid: int32(one.PID), Vital: one.Vital,
			Failing: one.Failing, Exits: int32(one.Exits), Starts: int32(one.Starts), LastExit: one.LastExit, Text: one.Text,
		})
	}
	for _, one := range status.Degraded {
		s.Degraded = append(s.Degraded, &apiv1.Degraded{What: one.What, Why: one.Why})
	}
	return nil
}

// HandOver writes a text where PID 1 looks for it: it is too long for its socket.
func (m Machine) HandOver(text []byte) (string, error) {
	f, err := os.CreateTemp(m.RunFile(""), "for-init-*") // for root alone
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
