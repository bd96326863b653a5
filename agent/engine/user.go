package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"kogge.example/agent/accounts"
	"kogge.example/agent/images"
	"kogge.example/agent/workload"
)

// annotationHome marks a specification whose HOME is ours: what says nothing of it gets
// that of its user.
const annotationHome = "kogge.example/home"

// setUser makes the process of c, which does not run yet, one of the user that c or else
// its image says.
func (e *Engine) setUser(ctx context.Context, cc *containers.Container, s *oci.Spec, user string, c workload.Container) error {
	mounts, err := e.client.SnapshotService(cc.Snapshotter).Mounts(ctx, cc.SnapshotKey)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	var known accounts.Accounts
	err = images.Look(ctx, mounts, func(root string) error {
		known = accounts.Read(root)
		return nil
	})
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	u, err := known.Find(user)
	if err != nil {
		return fmt.Errorf("in the image: %w", err)
	}
	more, err := known.Groups(c.GroupAdd)
	if err != nil {
		return fmt.Errorf("in the image: %w", err)
	}
	s.Process.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: append(u.Groups, more...)}
	// Without one runc would look for it in a file of the container's, at each start of
	// anything in it, and wait for as long as the container likes.
	if at := slices.IndexFunc(s.Process.Env, isHome); at < 0 || s.Process.Env[at] == "HOME=" {
		setHome(s, u.Home)
	}
	return nil
}

// changeUser makes the process of s, a container that runs with process pid, another user's.
func changeUser(s *oci.Spec, pid uint32, user string) error {
	u, err := accounts.Read(fmt.Sprintf("/proc/%d/root", pid)).Find(user)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoUser, err)
	}
	s.Process.User.UID, s.Process.User.GID, s.Process.User.AdditionalGids = u.UID, u.GID, u.Groups
	if err := unmapped(s); err != nil {
		return fmt.Errorf("%w: user %q: %w", ErrNoUser, user, err)
	}
	if s.Annotations[annotationHome] != "" {
		setHome(s, u.Home)
	}
	return nil
}

func setHome(s *oci.Spec, home string) {
	s.Process.Env = append(slices.DeleteFunc(s.Process.Env, isHome), "HOME="+home)
	s.Annotations = map[string]string{annotationHome: home}
}

func isHome(variable string) bool { return strings.HasPrefix(variable, "HOME=") }
