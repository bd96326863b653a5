package confine

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// limits applies Ulimits and returns what it makes.
func limits(t *testing.T, all ...workload.Ulimit) ([]specs.POSIXRlimit, error) {
	t.Helper()
	s := &oci.Spec{Process: &specs.Process{}}
	err := Ulimits(workload.Container{ID: "web", Ulimits: all})(t.Context(), nil, nil, s)
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

// bounded applies Limits for a node whose containers have 400 MiB and 24576 tasks.
func bounded(t *testing.T, c workload.Container) *specs.Spec {
	t.Helper()
	s := &oci.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	if err := Limits(c, "/workload/web", MostOf(400<<20, 24576))(t.Context(), nil, nil, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLimits: no container gets so much that nothing is left for the others, whatever it
// says or does not say.
func TestLimits(t *testing.T) {
	for _, c := range []struct{ memory, pids, wantMemory, wantPids int64 }{
		{0, workload.DefaultPids, 350 << 20, 4096},
		{64 << 20, 10, 64 << 20, 10},
		{350 << 20, 18432, 350 << 20, 18432},
		{1 << 40, 1 << 22, 350 << 20, 18432},
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
	if err := Limits(workload.Container{Pids: 7}, "/workload/web", MostOf(0, 0))(t.Context(), nil, nil, s); err != nil {
		t.Fatal(err)
	}
	if s.Linux.Resources.Memory != nil || *s.Linux.Resources.Pids.Limit != 7 {
		t.Errorf("%+v", s.Linux.Resources)
	}
}

// TestFewTerminals: they are not bound by memory, so there are few, and more on larger nodes.
func TestFewTerminals(t *testing.T) {
	for all, want := range map[int64]int64{-1: 16, 0: 16, 128: 16, 256: 32, 512: 64, 3072: 128} {
		if got := terminals(all); got != want {
			t.Errorf("%d of %d, want %d", got, all, want)
		}
	}
	s := &oci.Spec{Mounts: []specs.Mount{{Type: "devpts", Options: []string{"newinstance"}}, {Type: "tmpfs"}}}
	if err := FewTerminals(t.Context(), nil, nil, s); err != nil || strings.Join(s.Mounts[0].Options, ",") != "newinstance,max=128" || s.Mounts[1].Options != nil {
		t.Errorf("%v, %v", s.Mounts, err)
	}
}

// TestSmallest: the smallest node, of 256 MiB, runs one program of 110 MB, and leaves its shim
// and others some megabytes.
func TestSmallest(t *testing.T) {
	const all = 124 << 20 // init/cgroup/testdata/bounds.txt
	if got := MostOf(all, 0).Memory; got < 110_000_000 || got > all-(12<<20) {
		t.Errorf("one container can have %d of %d bytes", got, all)
	}
}

// TestFewFiles: no file system in memory has files without end.
func TestFewFiles(t *testing.T) {
	s := &oci.Spec{Mounts: []specs.Mount{
		{Destination: "/proc", Type: "proc", Options: []string{"size=1k"}},
		{Destination: "/dev", Type: "tmpfs", Options: []string{"nosuid", "size=65536k"}},
		{Destination: "/dev/shm", Type: "tmpfs", Options: []string{"size=65536k", "size=1g"}},
		{Destination: "/tmp", Type: "tmpfs", Options: []string{"size=4194304", "nr_inodes=7"}},
		{Destination: "/small", Type: "tmpfs", Options: []string{"size=1m"}},
		{Destination: "/all", Type: "tmpfs"},
	}}
	if err := FewFiles(t.Context(), nil, nil, s); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range s.Mounts {
		got = append(got, m.Destination+" "+strings.Join(m.Options, ","))
	}
	if all := strings.Join(got, "; "); all != "/proc size=1k; /dev nosuid,size=65536k,nr_inodes=16384; /dev/shm size=65536k,size=1g,nr_inodes=262144; /tmp size=4194304,nr_inodes=7; /small size=1m,nr_inodes=256; /all " {
		t.Error(all)
	}
	for _, size := range []string{"", "k", "-1", "1t", "1kk", "9223372036854775807k", "ten"} {
		s.Mounts = []specs.Mount{{Destination: "/x", Type: "tmpfs", Options: []string{"size=" + size}}}
		if err := FewFiles(t.Context(), nil, nil, s); err == nil || !strings.Contains(err.Error(), "mount /x: option size="+size) {
			t.Errorf("size=%s: %v", size, err)
		}
	}
}
