package engine

import (
	"context"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// CanSetApart says whether containers can be started in user namespaces: runc, which has
// the capabilities of this process, sets limits of a process that is another user's. On a
// node it can.
func CanSetApart() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return err == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// remapped has the root file system show the node's ids of owner for those of the image.
func remapped(owner workload.Owner) []snapshots.Opt {
	if owner.File == "" {
		return nil
	}
	return []snapshots.Opt{client.WithRemapperLabels(0, owner.First, 0, owner.First, workload.IDs)}
}

// withOwner puts the container into the user namespace, which by then owns its network.
// What is mounted keeps its owners, as the container sees them: on the disk a file of
// the container's user 1000 is one of user 1000.
func withOwner(owner workload.Owner) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		if owner.File == "" {
			return nil
		}
		// The mappings again, as containerd lets nobody else into the folder of the root
		// file system.
		ids := []specs.LinuxIDMapping{{HostID: owner.First, Size: workload.IDs}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: owner.File})
		for i, m := range s.Mounts {
			if m.Type == "bind" && m.Destination != initTarget { // that one is everybody's
				s.Mounts[i].Options = append(m.Options, "idmap")
			}
		}
		s.Linux.Sysctl["net.ipv4.ping_group_range"] = "0 65535" // all that there are
		return nil
	}
}
