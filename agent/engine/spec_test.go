package engine

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"kogge.example/agent/confine"
	"kogge.example/agent/workload"
)

// TestTmpfsBound: a file system in memory is bounded in bytes and in files; one that names
// no size by the container's memory.
func TestTmpfsBound(t *testing.T) {
	e := &Engine{paths: Paths{Most: confine.MostOf(400<<20, 0)}}
	for _, c := range []struct {
		memory, size int64
		want         string
	}{
		{0, 0, "nosuid,nodev,mode=1777,size=183500800,nr_inodes=44800"},
		{8 << 20, 0, "nosuid,nodev,mode=1777,size=4194304,nr_inodes=1024"},
		{0, 5 << 20, "nosuid,nodev,mode=1777,size=5242880,nr_inodes=1280"},
		{0, 4096, "nosuid,nodev,mode=1777,size=4096,nr_inodes=64"},
	} {
		all := e.wanted(workload.Container{Memory: c.memory, Tmpfs: []workload.Tmpfs{{Target: "/tmp", Size: c.size}}}, "web")
		if got := strings.Join(all[0].Options, ","); got != c.want {
			t.Errorf("%d bytes of memory, size %d: %s, want %s", c.memory, c.size, got, c.want)
		}
	}
}

// TestArguments: what is empty in a Compose file takes the image's away, what is not there
// does not.
func TestArguments(t *testing.T) {
	image := ocispec.ImageConfig{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}}
	some, none := []string{"own"}, []string{}
	for _, c := range []struct {
		entrypoint, command []string
		want                string
	}{
		{nil, nil, "entry cmd"}, {nil, some, "entry own"}, {nil, none, "entry"},
		{some, nil, "own"}, {some, some, "own own"}, {none, nil, ""}, {none, some, "own"}, {none, none, ""},
	} {
		if got := strings.Join(arguments(workload.Container{Entrypoint: c.entrypoint, Command: c.command}, image), " "); got != c.want {
			t.Errorf("entrypoint %v, command %v: %q, want %q", c.entrypoint, c.command, got, c.want)
		}
	}
	// One that is exactly one empty word is none, as Docker has it.
	reset := []string{""}
	for _, c := range []struct {
		image, entrypoint, command []string
		want                       string
	}{
		{reset, nil, nil, "cmd"}, {reset, nil, some, "own"}, {reset, some, nil, "own"}, {image.Entrypoint, reset, some, "own"}, {reset, reset, nil, ""}, {[]string{"", "x"}, nil, some, " x own"},
	} {
		if got := strings.Join(arguments(workload.Container{Entrypoint: c.entrypoint, Command: c.command}, ocispec.ImageConfig{Entrypoint: c.image, Cmd: image.Cmd}), " "); got != c.want {
			t.Errorf("entry point %q of the image, %q, command %q: %q, want %q", c.image, c.entrypoint, c.command, got, c.want)
		}
	}
	if (workload.Container{Command: none}).Hash() == (workload.Container{}).Hash() {
		t.Error("an empty command is no change")
	}
}

// TestPrivileges: nobody gets more by a file than by being its own root.
func TestPrivileges(t *testing.T) {
	apart := workload.Owner{File: "/run/netns/user", First: 1 << 16}
	for _, c := range []struct {
		wants, all bool
		owner      workload.Owner
		none, err  bool
	}{
		{none: true}, {owner: apart, none: true}, {wants: true, owner: apart}, {wants: true, err: true}, {wants: true, all: true},
	} {
		s := &oci.Spec{Process: &specs.Process{NoNewPrivileges: true}}
		got := withPrivileges(workload.Container{NewPrivileges: c.wants, Rights: workload.Rights{Privileged: c.all}}, c.owner)(t.Context(), nil, nil, s)
		if (got != nil) != c.err || got == nil && s.Process.NoNewPrivileges != c.none {
			t.Errorf("%+v: %v, %v", c, s.Process.NoNewPrivileges, got)
		}
	}
}

// TestMounts: what lies deeper is mounted later, whatever kind it is of.
func TestMounts(t *testing.T) {
	e := &Engine{paths: Paths{Files: "/run/kogge/workload", Volumes: "/state/volumes", Init: "/bin/shim"}}
	c := workload.Container{
		ID: "web", Init: true,
		Tmpfs:   []workload.Tmpfs{{Target: "/data/cache/"}},
		Volumes: []workload.Volume{{Name: "deep", Target: "/data/cache/deep"}, {Name: "data", Target: "/data", ReadOnly: true}},
		Files:   []workload.File{{Target: "/data/app.conf"}},
	}
	var got strings.Builder
	for _, m := range e.mounts(c, "web") {
		got.WriteString(m.Destination + " " + m.Source + " " + strings.Join(m.Options, ",") + "\n")
	}
	const want = `/sys/fs/cgroup cgroup ro,nosuid,nodev,noexec,relatime
/dev/init /bin/shim bind,ro,nosuid,nodev
/data /state/volumes/data bind,ro,nosuid,nodev
/data/cache/ tmpfs nosuid,nodev,mode=1777
/data/app.conf /run/kogge/workload/web/given/0 bind,ro,nosuid,nodev,noexec
/data/cache/deep /state/volumes/deep bind,rw,nosuid,nodev
/etc/resolv.conf /run/kogge/workload/web/resolv.conf bind,ro,nosuid,nodev,noexec
/etc/hosts /run/kogge/workload/web/hosts bind,ro,nosuid,nodev,noexec
/etc/hostname /run/kogge/workload/web/hostname bind,ro,nosuid,nodev,noexec
`
	if got.String() != want {
		t.Errorf("mounts:\n%s", got.String())
	}
}
