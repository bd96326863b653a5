package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"kogge.example/agent/confine"
	"kogge.example/agent/volumes"
	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// defaultShm is the size of /dev/shm of a container that names none.
const defaultShm = 64 << 20

// withheld are capabilities of the usual 14 that no container has by itself: with NET_RAW
// it could speak ARP for its neighbours on the bridge, and send from their addresses.
// Ping works without.
var withheld = []string{"CAP_NET_RAW"}

// spec is what a container gets from us over containerd's plain default, which
// has own pid, ipc, uts, mount and network namespaces, no new privileges, masked
// paths and the 14 capabilities that are usual, but neither seccomp nor limits nor
// a cgroup namespace. The order counts: the image first, then what was asked for,
// then what nobody is asked about.
func (e *Engine) spec(c workload.Container, name string, img client.Image, at workload.Namespaces) []oci.SpecOpts {
	opts := []oci.SpecOpts{
		oci.WithoutRunMount, // an image may have a /run of its own
		e.withImage(c, img),
		oci.WithHostname(c.Hostname),
	}
	if c.ReadOnly {
		opts = append(opts, oci.WithRootFSReadonly())
	}
	shm := c.ShmBytes
	if shm == 0 {
		shm = defaultShm
	}
	opts = append(opts, oci.WithDevShmSize(shm/1024), confine.FewTerminals, e.withMounts(c, name, img), confine.FewFiles)
	if c.Init {
		opts = append(opts, withInit)
	}
	opts = append(opts,
		withCapabilities(c),
		withPrivileges(c, at.Owner),
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: at.Net}),
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}),
		confine.Limits(c, filepath.Join(e.paths.Cgroup, name), e.paths.Most),
		confine.Ulimits(c),
		withSettings(c),
		withRights(c),
		withOwner(at.Owner),
	)
	if !c.Without(rights.Seccomp) {
		opts = append(opts, withSeccomp) // last: it depends on the capabilities
	}
	return opts
}

func withSeccomp(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	s.Linux.Seccomp = confine.Seccomp(s)
	return nil
}

// withImage takes user, folder, environment and arguments from the image, where c has none
// of its own.
func (e *Engine) withImage(c workload.Container, img client.Image) oci.SpecOpts {
	return func(ctx context.Context, _ oci.Client, cc *containers.Container, s *oci.Spec) error {
		its, err := img.Spec(ctx)
		if err != nil {
			return err
		}
		s.Process.Env = c.Environment(its.Config.Env)
		s.Process.Cwd = cmp.Or(c.WorkingDir, its.Config.WorkingDir, "/")
		s.Process.Args = arguments(c, its.Config)
		if len(s.Process.Args) == 0 {
			return fmt.Errorf("no command: neither the image nor the project sets one")
		}
		return e.setUser(ctx, cc, s, cmp.Or(c.User, its.Config.User), c)
	}
}

// arguments are those of the first process of c: of the image what c does not replace.
func arguments(c workload.Container, image ocispec.ImageConfig) []string {
	entrypoint, command := image.Entrypoint, image.Cmd
	switch {
	case c.Entrypoint != nil:
		entrypoint, command = c.Entrypoint, c.Command
	case c.Command != nil:
		command = c.Command
	}
	if len(entrypoint) == 1 && entrypoint[0] == "" { // how one takes that of a base image away
		entrypoint = nil
	}
	return slices.Concat(entrypoint, command)
}

// withSettings sets the kernel's settings of the container's own namespaces: what c
// asks for, low ports without a capability, and ping without CAP_NET_RAW. runc refuses
// what is not the container's own.
func withSettings(c workload.Container) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Linux.Sysctl = map[string]string{
			"net.ipv4.ip_unprivileged_port_start": "0",
			"net.ipv4.ping_group_range":           "0 2147483647",
		}
		maps.Copy(s.Linux.Sysctl, c.Sysctls)
		s.Domainname = c.Domainname
		return nil
	}
}

// initTarget is where a container with [Container.Init] sees process 1: /dev is made
// anew for each, so no image has a file there and none gets one.
const initTarget = "/dev/init"

// withInit puts our process 1 before the arguments; see package shim.
func withInit(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	s.Process.Args = slices.Concat([]string{initTarget}, s.Process.Args)
	return nil
}

// withMounts mounts what c has. Its volumes are filled by then: what can be mounted in one to
// read goes by what is in it.
func (e *Engine) withMounts(c workload.Container, name string, img client.Image) oci.SpecOpts {
	return func(ctx context.Context, o oci.Client, cc *containers.Container, s *oci.Spec) error {
		if err := e.fill(ctx, c, img, s.Process.User); err != nil {
			return err
		}
		return oci.WithMounts(e.mounts(c, name))(ctx, o, cc, s)
	}
}

// mounts are the files that we write for the container, and what it asked for: the
// shorter path first, so that none hides another.
func (e *Engine) mounts(c workload.Container, name string) []specs.Mount {
	// Its own cgroup, to read: runtimes size themselves by the limits there.
	all := []specs.Mount{{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"ro", "nosuid", "nodev", "noexec", "relatime"},
	}}
	if c.Init {
		all = append(all, specs.Mount{
			Destination: initTarget, Type: "bind", Source: e.paths.Init,
			Options: []string{"bind", "ro", "nosuid", "nodev"},
		})
	}
	all = append(all, e.wanted(c, name)...)
	// Behind what is on /etc itself, which would hide them.
	for _, f := range files {
		if e.hasPlace(c, name, f) {
			all = append(all, specs.Mount{
				Destination: "/etc/" + f, Type: "bind", Source: filepath.Join(e.paths.Files, name, f),
				Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
			})
		}
	}
	return all
}

// hasPlace says whether there can be something mounted on a file of /etc: not where c has a
// folder to read there that lacks the file.
func (e *Engine) hasPlace(c workload.Container, name, file string) bool {
	there := func(folder string) bool {
		_, err := os.Lstat(filepath.Join(folder, file))
		return err == nil
	}
	for _, v := range c.Volumes {
		if v.ReadOnly && filepath.Clean(v.Target) == "/etc" {
			return there(filepath.Join(e.paths.Volumes, v.Name))
		}
	}
	for i, b := range c.Rights.Binds {
		if b.ReadOnly && filepath.Clean(b.Target) == "/etc" {
			return there(e.held(name, i))
		}
	}
	return true
}

// wanted are the mounts that c asked for.
func (e *Engine) wanted(c workload.Container, name string) []specs.Mount {
	var all []specs.Mount
	for _, t := range c.Tmpfs {
		mode := t.Mode
		if mode == 0 {
			mode = 0o1777
		}
		options := []string{"nosuid", "nodev", fmt.Sprintf("mode=%o", mode)}
		size := t.Size
		if size == 0 {
			// The kernel's default goes by the node's memory, and a file too large would end
			// the container: half of what that has.
			size = confine.AtMost(c.Memory, e.paths.Most.Memory) / 2
		}
		if size > 0 {
			options = append(options, fmt.Sprintf("size=%d", size), fmt.Sprintf("nr_inodes=%d", confine.Files(size)))
		}
		if t.UID != 0 || t.GID != 0 {
			options = append(options, fmt.Sprintf("uid=%d", t.UID), fmt.Sprintf("gid=%d", t.GID))
		}
		if t.NoExec {
			options = append(options, "noexec")
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
	for i, b := range c.Rights.Binds {
		access := "rw"
		if b.ReadOnly {
			access = "ro"
		}
		all = append(all, specs.Mount{
			Destination: b.Target, Type: "bind", Source: e.held(name, i),
			Options: []string{"bind", access, "nosuid", "nodev"},
		})
	}
	for i, f := range c.Files {
		all = append(all, specs.Mount{
			Destination: f.Target, Type: "bind", Source: e.given(name, i),
			Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
		})
	}
	slices.SortStableFunc(all, func(a, b specs.Mount) int { return cmp.Compare(depth(a.Destination), depth(b.Destination)) })
	return all
}

func depth(path string) int { return strings.Count(filepath.Clean(path), "/") }

// Prepare makes what the instance name of c needs on the node before it starts: its
// volumes, binds, configs and secrets. An earlier instance of that name is gone.
func (e *Engine) Prepare(c workload.Container, name string) error {
	if err := e.Volumes(c); err != nil {
		return err
	}
	if err := e.bindMounts(c, name); err != nil {
		return err
	}
	return e.writeConfigs(c, name)
}

// Volumes makes the folders of c's volumes. They are never removed here.
func (e *Engine) Volumes(c workload.Container) error {
	e.volumes.Lock()
	defer e.volumes.Unlock()
	for _, v := range c.Volumes {
		folder := filepath.Join(e.paths.Volumes, v.Name)
		if _, err := os.Stat(folder); err == nil {
			continue
		}
		if err := volumes.Make(folder); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}
