package workload

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultShm is the size of /dev/shm of a container that names none.
const defaultShm = 64 << 20

// spec is what a container gets from us over containerd's plain default, which
// has own pid, ipc, uts, mount and network namespaces, no new privileges, masked
// paths and the 14 capabilities that are usual, but neither seccomp nor limits nor
// a cgroup namespace. The order counts: the image first, then what was asked for,
// then what nobody is asked about.
func (e *Engine) spec(c Container, img client.Image, netns string) []oci.SpecOpts {
	opts := []oci.SpecOpts{
		oci.WithoutRunMount, // an image may have a /run of its own
		withImage(c, img),
		oci.WithHostname(c.Hostname),
		oci.WithEnv([]string{"HOSTNAME=" + c.Hostname}),
		oci.WithEnv(c.Env),
	}
	if c.WorkingDir != "" {
		opts = append(opts, oci.WithProcessCwd(c.WorkingDir))
	}
	if c.User != "" {
		opts = append(opts, oci.WithUser(c.User), oci.WithAdditionalGIDs(c.User))
	}
	if c.ReadOnly {
		opts = append(opts, oci.WithRootFSReadonly())
	}
	shm := c.ShmBytes
	if shm == 0 {
		shm = defaultShm
	}
	opts = append(opts, oci.WithDevShmSize(shm/1024), oci.WithMounts(e.mounts(c)))
	if len(c.DropCaps) == 1 && c.DropCaps[0] == "ALL" {
		opts = append(opts, oci.WithCapabilities(nil))
	} else {
		opts = append(opts, oci.WithDroppedCapabilities(c.DropCaps))
	}
	return append(opts,
		oci.WithNoNewPrivileges,
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: netns}),
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}),
		withLimits(c, filepath.Join(e.paths.Cgroup, c.ID)),
		withRest,
		// Last: the profile depends on the capabilities.
		seccomp.WithDefaultProfile(),
	)
}

// withImage takes user, folder, environment and arguments from the image, and the
// arguments from c where it has any.
func withImage(c Container, img client.Image) oci.SpecOpts {
	return func(ctx context.Context, cl oci.Client, cc *containers.Container, s *oci.Spec) error {
		if err := oci.WithImageConfigArgs(img, c.Command)(ctx, cl, cc, s); err != nil {
			return err
		}
		if c.Entrypoint != nil {
			s.Process.Args = slices.Concat(c.Entrypoint, c.Command)
		}
		if len(s.Process.Args) == 0 {
			return fmt.Errorf("neither the image nor the workload says what to run")
		}
		return nil
	}
}

func withLimits(c Container, cgroup string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Linux.CgroupsPath = cgroup
		r := s.Linux.Resources
		pids := c.Pids
		r.Pids = &specs.LinuxPids{Limit: &pids}
		if c.Memory > 0 {
			// Memory and swap in one: a node with swap must not give more of it.
			memory := c.Memory
			r.Memory = &specs.LinuxMemory{Limit: &memory, Swap: &memory}
		}
		if c.CPUs > 0 {
			period := uint64(100_000) // microseconds; the kernel's default
			quota := max(int64(float64(c.CPUs)*float64(period)), 1_000)
			r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
		}
		return nil
	}
}

// withRest is what every container gets: low ports without a capability, since
// only its own network is concerned, and enough file descriptors.
func withRest(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	if s.Linux.Sysctl == nil {
		s.Linux.Sysctl = make(map[string]string)
	}
	s.Linux.Sysctl["net.ipv4.ip_unprivileged_port_start"] = "0"
	// Not more than we have: on a node that is enough for any container.
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: min(1024, own.Max), Hard: min(524288, own.Max)}}
	return nil
}

// mounts are the files that we write for the container, and what it asked for.
func (e *Engine) mounts(c Container) []specs.Mount {
	// Its own cgroup, to read: runtimes size themselves by the limits there.
	all := []specs.Mount{{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"ro", "nosuid", "nodev", "noexec", "relatime"},
	}}
	for _, f := range files {
		all = append(all, specs.Mount{
			Destination: "/etc/" + f, Type: "bind", Source: filepath.Join(e.paths.Files, c.ID, f),
			Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
		})
	}
	for _, t := range c.Tmpfs {
		mode := t.Mode
		if mode == 0 {
			mode = 0o1777
		}
		options := []string{"nosuid", "nodev", fmt.Sprintf("mode=%o", mode)}
		if t.Size > 0 {
			options = append(options, fmt.Sprintf("size=%d", t.Size))
		}
		all = append(all, specs.Mount{Destination: t.Target, Type: "tmpfs", Source: "tmpfs", Options: options})
	}
	for _, v := range c.Volumes {
		access := "rw"
		if v.ReadOnly {
			access = "ro"
		}
		all = append(all, specs.Mount{
			Destination: v.Target, Type: "bind", Source: filepath.Join(e.paths.Volumes, v.Name),
			Options: []string{"bind", access, "nosuid", "nodev"},
		})
	}
	return all
}

// Volumes makes the folders of c's volumes. They are never removed here.
func (e *Engine) Volumes(c Container) error {
	for _, v := range c.Volumes {
		// Any user: the container's is not known yet, and the parent is root's.
		folder := filepath.Join(e.paths.Volumes, v.Name)
		if _, err := os.Stat(folder); err == nil {
			continue
		}
		if err := os.MkdirAll(folder, 0o777); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		if err := os.Chmod(folder, 0o1777); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}
