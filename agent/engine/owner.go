package engine

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kogge.example/agent/images"
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
	ids := mappings(owner)
	return []snapshots.Opt{client.WithUserNSRemapperLabels(ids, ids)}
}

// ownRoot gives the root file system of an image without layers to the container's root. It
// is a folder, which containerd has given to the node's user of that root and shows with the
// ids mapped all the same: to the container it would be nobody's.
func (e *Engine) ownRoot(ctx context.Context, name string) error {
	mounts, err := e.client.SnapshotService(images.Snapshotter).Mounts(ctx, name)
	if err == nil && len(mounts) == 1 && mounts[0].Type == "bind" {
		err = os.Lchown(mounts[0].Source, 0, 0)
	}
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	return nil
}

// mappings are owner's ids as the specification has them.
func mappings(owner workload.Owner) (ids []specs.LinuxIDMapping) {
	for _, m := range owner.Mappings() {
		ids = append(ids, specs.LinuxIDMapping{ContainerID: m.Inside, HostID: m.Node, Size: m.Size})
	}
	return ids
}

// unmapped is an error if the process of s would be somebody, or of a group, that the user
// namespace of s does not have: the kernel's word for it is EINVAL.
func unmapped(s *oci.Spec) error {
	if s.Linux == nil || len(s.Linux.UIDMappings) == 0 {
		return nil
	}
	u := s.Process.User
	for _, id := range append([]uint32{u.UID, u.GID}, u.AdditionalGids...) {
		if !slices.ContainsFunc(s.Linux.UIDMappings, func(m specs.LinuxIDMapping) bool { return id >= m.ContainerID && id-m.ContainerID < m.Size }) {
			return fmt.Errorf("there is no ID %d in the container: above %d it has those that its image and its Compose file name", id, workload.IDs-1)
		}
	}
	return nil
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
		ids := mappings(owner)
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		if err := unmapped(s); err != nil {
			return err
		}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: owner.File})
		for i, m := range s.Mounts {
			if m.Type == "bind" && m.Destination != initTarget { // that one is everybody's
				s.Mounts[i].Options = append(m.Options, "idmap")
			}
		}
		last := ids[len(ids)-1]
		s.Linux.Sysctl["net.ipv4.ping_group_range"] = fmt.Sprintf("0 %d", last.ContainerID+(last.Size-1)) // all that there are
		return nil
	}
}
