package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// field is one line of /proc/self/status in a service's log.
func field(log, name string) string {
	for line := range strings.Lines(log) {
		if _, rest, ok := strings.Cut(line, " "+name+":"); ok { // after the time stamp
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	return ""
}

// TestLimit starts services with less than PID 1 may. Without root there is
// nothing to give up, and the launcher has to say so.
func TestLimit(t *testing.T) {
	clock := as("clock", service("status"))
	clock.Notify, clock.Limit, clock.Keep = true, true, []int{unix.CAP_SYS_TIME}
	network := as("network", service("status"))
	network.Notify, network.Limit, network.UID, network.GID = true, true, 4711, 4712
	network.Keep = []int{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE}
	files := as("files", service("status"))
	files.Notify, files.NoFile, files.OOMScoreAdj = true, 3000, 500
	for _, s := range []*Service{&clock, &network, &files} {
		s.Path = forEverybody(t)
	}
	n := run(t, func(c *Config) { must(os.Chmod(c.Dir, 0o711)) }, clock, network, files)

	n.reaches("files", Running)
	if got := field(n.log("files"), "NoFile"); got != "3000" {
		t.Errorf("files: open files %s", got)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", n.one("files").PID)); err != nil || strings.TrimSpace(string(b)) != "500" {
		t.Errorf("files: oom_score_adj %q, %v", b, err)
	}
	if os.Geteuid() != 0 {
		n.until("complaint", func() bool {
			return strings.Contains(n.log("clock"), "drop capability 0: operation not permitted")
		})
		return
	}
	n.reaches("clock", Running)
	n.reaches("network", Running)
	for _, c := range []struct{ service, field, want string }{
		{"clock", "CapBnd", "0000000002000000"},
		{"clock", "CapEff", "0000000002000000"},
		{"clock", "NoNewPrivs", "1"},
		{"clock", "Uid", "0 0 0 0"},
		{"network", "CapBnd", "0000000000003400"},
		{"network", "CapEff", "0000000000003400"},
		{"network", "Groups", ""},
		{"network", "Uid", "4711 4711 4711 4711"},
		{"network", "Gid", "4712 4712 4712 4712"},
	} {
		if got := field(n.log(c.service), c.field); got != c.want {
			t.Errorf("%s: %s is %q, want %q", c.service, c.field, got, c.want)
		}
	}
}

// forEverybody copies this test binary to where every user may execute it.
func forEverybody(t *testing.T) string {
	self, err := os.ReadFile("/proc/self/exe")
	must(err)
	dir, err := os.MkdirTemp("", "kogge")
	must(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "service")
	must(os.WriteFile(path, self, 0o755))
	return path
}

// TestLaunchRefuses gives the launcher orders that are none.
func TestLaunchRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {}, {"a", "b"}, {""}, {"{"}, {"{}"}, {`{"Path":"/bin/true"}`}, {`{"Bath":1}`}, {`{"Path":"/no/such","Args":["x"]}`}} {
		if err := Launch(args); err == nil {
			t.Errorf("Launch(%q) returned without an error", args)
		}
	}
}
