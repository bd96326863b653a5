package engine

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// limits applies withUlimits and returns what it makes.
func limits(t *testing.T, all ...workload.Ulimit) ([]specs.POSIXRlimit, error) {
	t.Helper()
	s := &oci.Spec{Process: &specs.Process{}}
	err := withUlimits(workload.Container{ID: "web", Ulimits: all})(t.Context(), nil, nil, s)
	return s.Process.Rlimits, err
}

func TestUlimits(t *testing.T) {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	got, err := limits(t)
	if err != nil || len(got) != len(defaultUlimits) || got[0] != (specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: min(1024, own.Max), Hard: min(65536, own.Max)}) {
		t.Errorf("without: %v, %v", got, err)
	}
	for _, r := range got { // the node's programs have no limit there
		if r.Hard == unix.RLIM_INFINITY {
			t.Errorf("%s is unlimited", r.Type)
		}
	}
	got, err = limits(t, workload.Ulimit{Name: "core", Soft: 0, Hard: 0}, workload.Ulimit{Name: "nofile", Soft: 10, Hard: 20})
	if err != nil || len(got) != 1+len(defaultUlimits) || got[0].Type != "RLIMIT_CORE" || got[1] != (specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 20}) {
		t.Errorf("two: %v, %v", got, err)
	}
	// Unlimited is as much as this process may have itself, never more.
	got, err = limits(t, workload.Ulimit{Name: "nofile", Soft: -1, Hard: -1})
	if err != nil || got[0].Soft != own.Max || got[0].Hard != own.Max {
		t.Errorf("unlimited: %v, %v, own %d", got, err, own.Max)
	}
	for _, u := range []workload.Ulimit{{Name: "files", Soft: 1, Hard: 1}, {Name: "nofile", Soft: 20, Hard: 10}} {
		if got, err := limits(t, u); err == nil || !strings.Contains(err.Error(), "ulimit "+u.Name) {
			t.Errorf("%v: %v, %v", u, got, err)
		}
	}
}

// bounded applies withLimits for a node whose containers have 400 MiB and 24576 tasks.
func bounded(t *testing.T, c workload.Container) *specs.Spec {
	t.Helper()
	s := &oci.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	if err := withLimits(c, "/workload/web", MostOf(400<<20, 24576))(t.Context(), nil, nil, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLimits: no container gets so much that nothing is left for the others, whatever it
// says or does not say.
func TestLimits(t *testing.T) {
	for _, c := range []struct{ memory, pids, wantMemory, wantPids int64 }{
		{0, workload.DefaultPids, 300 << 20, 4096},
		{64 << 20, 10, 64 << 20, 10},
		{300 << 20, 18432, 300 << 20, 18432},
		{1 << 40, 1 << 22, 300 << 20, 18432},
	} {
		s := bounded(t, workload.Container{ID: "web", Memory: c.memory, Pids: c.pids})
		r := s.Linux.Resources
		if r.Memory == nil || *r.Memory.Limit != c.wantMemory || *r.Memory.Swap != c.wantMemory || *r.Pids.Limit != c.wantPids {
			t.Errorf("%d bytes, %d tasks: %+v, %+v", c.memory, c.pids, r.Memory, r.Pids)
		}
		if *s.Process.OOMScoreAdj <= 0 {
			t.Errorf("OOM score %d: the node's services would go first", *s.Process.OOMScoreAdj)
		}
	}
	// A machine without such bounds, as that of the tests, sets none.
	s := &oci.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	if err := withLimits(workload.Container{Pids: 7}, "/workload/web", MostOf(0, 0))(t.Context(), nil, nil, s); err != nil {
		t.Fatal(err)
	}
	if s.Linux.Resources.Memory != nil || *s.Linux.Resources.Pids.Limit != 7 {
		t.Errorf("%+v", s.Linux.Resources)
	}
}

// TestTmpfsBound: a file system in memory that names no size is bounded by the container's
// memory, in bytes and in files, and terminals are few.
func TestTmpfsBound(t *testing.T) {
	e := &Engine{paths: Paths{Most: MostOf(400<<20, 0)}}
	for _, c := range []struct {
		memory, size int64
		want         string
	}{
		{0, 0, "nosuid,nodev,mode=1777,size=157286400,nr_inodes=38400"},
		{8 << 20, 0, "nosuid,nodev,mode=1777,size=4194304,nr_inodes=1024"},
		{0, 5 << 20, "nosuid,nodev,mode=1777,size=5242880"},
	} {
		all := e.wanted(workload.Container{Memory: c.memory, Tmpfs: []workload.Tmpfs{{Target: "/tmp", Size: c.size}}}, "web")
		if got := strings.Join(all[0].Options, ","); got != c.want {
			t.Errorf("%d bytes of memory, size %d: %s, want %s", c.memory, c.size, got, c.want)
		}
	}
	s := &oci.Spec{Mounts: []specs.Mount{{Type: "devpts", Options: []string{"newinstance"}}, {Type: "tmpfs"}}}
	if err := withFewTerminals(t.Context(), nil, nil, s); err != nil || strings.Join(s.Mounts[0].Options, ",") != "newinstance,max=128" || s.Mounts[1].Options != nil {
		t.Errorf("%v, %v", s.Mounts, err)
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
/etc/resolv.conf /run/kogge/workload/web/resolv.conf bind,ro,nosuid,nodev,noexec
/etc/hosts /run/kogge/workload/web/hosts bind,ro,nosuid,nodev,noexec
/etc/hostname /run/kogge/workload/web/hostname bind,ro,nosuid,nodev,noexec
/dev/init /bin/shim bind,ro,nosuid,nodev
/data /state/volumes/data bind,ro,nosuid,nodev
/data/cache/ tmpfs nosuid,nodev,mode=1777
/data/app.conf /run/kogge/workload/web/given/0 bind,ro,nosuid,nodev,noexec
/data/cache/deep /state/volumes/deep bind,rw,nosuid,nodev
`
	if got.String() != want {
		t.Errorf("mounts:\n%s", got.String())
	}
}
