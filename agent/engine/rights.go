package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kogge.example/agent/volumes"
	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// withCapabilities is the usual set without what nobody gets and what c drops, and with
// what it adds.
func withCapabilities(c workload.Container) oci.SpecOpts {
	added := c.Rights.Capabilities
	set := []oci.SpecOpts{oci.WithDroppedCapabilities(withheld)}
	if slices.Contains(added, "ALL") {
		set = []oci.SpecOpts{oci.WithAllCurrentCapabilities}
		added = nil
	}
	if len(c.DropCaps) == 1 && c.DropCaps[0] == "ALL" {
		set = []oci.SpecOpts{oci.WithCapabilities(nil)}
	} else {
		set = append(set, oci.WithDroppedCapabilities(c.DropCaps))
	}
	return oci.Compose(append(set, oci.WithAddedCapabilities(added))...)
}

// withPrivileges lets programs of c have what their files have, if c wants that: in a user
// namespace of its own this is no more than its root has in any case.
func withPrivileges(c workload.Container, owner workload.Owner) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		if c.NewPrivileges && owner.File == "" && !c.Rights.Privileged {
			return errors.New("security_opt: no-new-privileges:false: only a container in a user namespace of its own can have it")
		}
		s.Process.NoNewPrivileges = !c.NewPrivileges
		return nil
	}
}

// sharedNamespaces are what the specification calls those that a container can share.
var sharedNamespaces = map[rights.Namespace]specs.LinuxNamespaceType{
	rights.HostNetwork: specs.NetworkNamespace, rights.HostPID: specs.PIDNamespace,
	rights.HostIPC: specs.IPCNamespace, rights.HostUTS: specs.UTSNamespace,
	rights.HostCgroup: specs.CgroupNamespace, rights.HostUser: specs.UserNamespace,
}

// withRights takes away of what keeps a container in what c may be without. Somebody has
// asked [workload.Denied].
func withRights(c workload.Container) oci.SpecOpts {
	var all []oci.SpecOpts
	for _, n := range c.Rights.Host {
		all = append(all, oci.WithHostNamespace(sharedNamespaces[n]))
	}
	all = append(all, withoutOwn(c))
	for _, d := range c.Rights.Devices {
		all = append(all, withDevice(d))
	}
	switch {
	case c.Rights.Privileged:
		all = append(all, oci.WithPrivileged, oci.WithAllDevicesAllowed, oci.WithHostDevices, oci.WithNewPrivileges)
	case c.Without(rights.SystemPaths):
		all = append(all, oci.WithMaskedPaths(nil), oci.WithReadonlyPaths(nil))
	}
	return oci.Compose(all...)
}

// withoutOwn takes out what only makes sense in a namespace of the container's own.
func withoutOwn(c workload.Container) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		if c.Shares(rights.HostNetwork) {
			for name := range s.Linux.Sysctl {
				if strings.HasPrefix(name, "net.") {
					delete(s.Linux.Sysctl, name)
				}
			}
		}
		if c.Shares(rights.HostUTS) {
			s.Hostname, s.Domainname = "", ""
		}
		if c.Shares(rights.HostIPC) {
			for i, m := range s.Mounts {
				if m.Destination == "/dev/shm" {
					s.Mounts[i] = specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Destination, Options: []string{"bind", "rw", "nosuid", "nodev", "noexec"}}
				}
			}
		}
		return nil
	}
}

func withDevice(d workload.Device) oci.SpecOpts {
	return func(ctx context.Context, cl oci.Client, cc *containers.Container, s *oci.Spec) error {
		if err := free(d.Path); err != nil {
			return fmt.Errorf("device %s: %w", d.Path, err)
		}
		if err := oci.WithDevices(d.Path, d.Target, d.Access)(ctx, cl, cc, s); err != nil {
			return fmt.Errorf("device %s: %w", d.Path, err)
		}
		return nil
	}
}

// errInUse means that a container would get what the node itself runs from.
var errInUse = errors.New("the node itself runs from it: no container may have it")

// free is an error unless the node does without the device, or each of the folder.
func free(path string) error {
	return filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice {
			return err // a block device is of interest
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		for _, p := range []string{path, disk(st.Rdev)} {
			if p == "" {
				continue
			}
			// The kernel gives a disk, or a part of it, to one alone: what is mounted
			// or mapped it gives to nobody else.
			fd, err := unix.Open(p, unix.O_RDONLY|unix.O_EXCL|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if errors.Is(err, unix.EBUSY) {
				return errInUse
			}
			if err == nil {
				unix.Close(fd)
			}
		}
		return nil
	})
}

// disk is the one that the partition dev is of; "" if it is none.
func disk(dev uint64) string {
	folder, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(folder, "partition")); err != nil {
		return ""
	}
	return "/dev/" + filepath.Base(filepath.Dir(folder))
}

// held is where the n-th of an instance's binds is held.
func (e *Engine) held(name string, n int) string {
	return filepath.Join(e.paths.Binds, name, strconv.Itoa(n))
}

// bindMounts finds the files and folders of the node that c gets and mounts them at places of
// ours, from where runc takes them: whatever another container that may write there does
// to the path meanwhile, it is what was found, and no symbolic link was on the way.
func (e *Engine) bindMounts(c workload.Container, name string) error {
	if err := e.unmountBinds(name); err != nil {
		return err
	}
	for i, b := range c.Rights.Binds {
		if err := e.bindMount(b.Path, e.held(name, i)); err != nil {
			return fmt.Errorf("bind of %s: %w", b.Path, err)
		}
	}
	return nil
}

func (e *Engine) bindMount(path, place string) error {
	if why := rights.Bindable(path); why != "" {
		return errors.New(why)
	}
	fd, err := e.find(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(place, 0o700)
	} else {
		err = os.WriteFile(place, nil, 0o600)
	}
	if err != nil {
		return err
	}
	// Without what is mounted below: that is not what was allowed.
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), place, "", unix.MS_BIND, "")
}

// find opens path, which has no symbolic link on its way. What is missing below
// [nodeconfig.Data] is made, as a folder.
func (e *Engine) find(path string) (int, error) {
	rest, data := strings.CutPrefix(path+"/", rights.Data+"/")
	if !data {
		return open(unix.AT_FDCWD, path)
	}
	if err := os.MkdirAll(e.paths.Data, 0o755); err != nil {
		return -1, err
	}
	if err := volumes.Count(e.paths.Data); err != nil {
		return -1, err
	}
	fd, err := open(unix.AT_FDCWD, e.paths.Data)
	for part := range strings.SplitSeq(rest, "/") {
		if err != nil || part == "" {
			continue
		}
		parent := fd
		if fd, err = open(parent, part); errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(parent, part, 0o755); err == nil || errors.Is(err, unix.EEXIST) {
				fd, err = open(parent, part)
			}
		}
		unix.Close(parent)
	}
	return fd, err
}

// open opens path below the folder at, by itself and by no link.
func open(at int, path string) (int, error) {
	fd, err := unix.Openat2(at, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		return -1, errors.New("its path has a symbolic link")
	}
	return fd, err
}

// unmountBinds lets go of what hold mounted for an instance. Nothing is removed but our own
// places: what is still mounted on one stops it.
func (e *Engine) unmountBinds(name string) error {
	folder := filepath.Join(e.paths.Binds, name)
	places, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range places {
		place := filepath.Join(folder, p.Name())
		for unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
		}
		if err := os.Remove(place); err != nil {
			return fmt.Errorf("release a bind mount: %w", err)
		}
	}
	return os.Remove(folder)
}
