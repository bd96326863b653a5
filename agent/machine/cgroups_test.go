package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/update/golden"
)

// groupsV2 and groupsV1 are one group each, as the kernel shows it.
var (
	groupsV2 = map[string]string{
		"cgroup.controllers":             "cpu memory pids\n",
		"workload/db/memory.current":     "5000000\n",
		"workload/db/memory.stat":        "anon 3000000\ninactive_file 1500000\n",
		"workload/db/memory.max":         "67108864\n",
		"workload/db/cpu.stat":           "usage_usec 1500000\nuser_usec 1\n",
		"workload/db/pids.current":       "7\n",
		"workload/db/pids.max":           "4096\n",
		"system/agent/memory.current":    "100\n",
		"system/agent/memory.stat":       "inactive_file 200\n", // read later than the other
		"system/agent/memory.max":        "max\n",
		"system/agent/cpu.stat":          "usage_usec 9\n",
		"system/agent/pids.max":          "max\n",
		"system/cgroup.procs":            "",
		"init/memory.current":            "42\n",
		"init/cpu.stat":                  "",
		"system/containerd/cpu.stat":     "usage_usec 9\n",
		"system/gone/memory.current":     "",
		"workload/.shims/memory.current": "700\n",
		"workload/web/memory.stat":       "",
		"workload/web/memory.pressure":   "",
	}
	groupsV1 = map[string]string{
		"memory/workload/db/memory.usage_in_bytes":  "5000000\n",
		"memory/workload/db/memory.stat":            "inactive_file 1\ntotal_inactive_file 1500000\n",
		"memory/workload/db/memory.limit_in_bytes":  "67108864\n",
		"cpuacct/workload/db/cpuacct.usage":         "1500000000\n",
		"pids/workload/db/pids.current":             "7\n",
		"pids/workload/db/pids.max":                 "4096\n",
		"memory/system/agent/memory.usage_in_bytes": "100\n",
		"memory/system/agent/memory.limit_in_bytes": "9223372036854771712\n",
		"pids/system/agent/pids.max":                "max\n",
	}
)

func writeGroups(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestCgroups reads groups of both versions, and what is not there or half there.
func TestCgroups(t *testing.T) {
	var table strings.Builder
	for _, v := range []struct {
		name  string
		files map[string]string
	}{{"version 2", groupsV2}, {"version 1", groupsV1}} {
		c := OpenGroups(writeGroups(t, v.files))
		fmt.Fprintf(&table, "%s, services %v\n", v.name, c.Services())
		for _, group := range []string{"workload/db", "workload/web", "system/agent", "system/containerd", "system/gone", "init"} {
			u, ok := c.Of(group)
			fmt.Fprintf(&table, "  %-18s %v %+v\n", group, ok, u)
		}
	}
	golden.Compare(t, "cgroups.txt", table.String())
}

func TestTraffic(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dev")
	text := `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1000       3    0    0    0     0          0         0     1000       3    0    0    0     0       0          0
  eth0:    2000       3    0    0    0     0          0         0     3000       3    0    0    0     0       0          0
  eth1:      20       3    0    0    0     0          0         0       30       3    0    0    0     0       0          0
 veth1:       1       3    0    0    0     0          0         0        1       3    0    0    0     0       0          0
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in, out := traffic(file, func(name string) bool { return name != "veth1" })
	if in != 2020 || out != 3030 {
		t.Errorf("%d received, %d sent", in, out)
	}
	if in, out := traffic(file+".none", nil); in != 0 || out != 0 {
		t.Errorf("%d, %d of nothing", in, out)
	}
}

func TestBusy(t *testing.T) {
	d, err := busy("cpu  100 20 3 50000 600 7 8 9 5 5\ncpu0 1 2 3\n")
	if want := 1470 * time.Millisecond; err != nil || d != want {
		t.Errorf("%s, %v, want %s", d, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6 7 8 9", "cpu a b c d e f g h"} {
		if _, err := busy(bad); err == nil {
			t.Errorf("%q is one", bad)
		}
	}
	if n := threads("0.20 0.18 0.12 1/80 11206"); n != 80 {
		t.Errorf("%d threads", n)
	}
}
