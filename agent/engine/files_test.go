package engine

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

func TestFiles(t *testing.T) {
	folder := t.TempDir()
	resolv := filepath.Join(folder, "resolv.conf")
	e := &Engine{paths: Paths{Files: filepath.Join(folder, "workload"), Resolv: resolv}}
	c := workload.Container{ID: "web", Hostname: "www.example"}
	peers := workload.View{Outside: true, Peers: []workload.Peer{{Addr: netip.MustParseAddr("10.88.0.3"), Names: []string{"db"}}, {Addr: netip.MustParseAddr("10.88.0.2"), Names: []string{"www.example", "web"}}}}
	read := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(folder, "workload", "web", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if err := e.WriteFiles(c, "web", peers); err != nil {
		t.Fatal(err)
	}
	if got := read("resolv.conf"); got != "" {
		t.Errorf("resolv.conf of a node without: %q", got)
	}
	if got, want := read("hostname"), "www.example\n"; got != want {
		t.Errorf("hostname %q", got)
	}
	if got, want := read("hosts"), "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"+
		"10.88.0.3\tdb\n10.88.0.2\twww.example web\n"; got != want {
		t.Errorf("hosts:\n%s", got)
	}

	// A running container has the file itself mounted: it must stay the same one.
	path := filepath.Join(folder, "workload", "web", "resolv.conf")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	node := "search lan\nnameserver 127.0.0.53\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.53\n"
	if err := os.WriteFile(resolv, []byte(node), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := e.WriteFiles(c, "web", peers); err != nil {
		t.Fatal(err)
	}
	if got, want := read("resolv.conf"), "nameserver 192.0.2.53\nsearch lan\n"; got != want {
		t.Errorf("resolv.conf %q, want %q", got, want)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("resolv.conf is another file now")
	}
	for range 2 {
		if err := e.RemoveFiles("web"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPatience: for how long the node waits for a dead name server is for those who ask as
// the node does, and not for those who ask the node's own, which asks others in turn.
func TestPatience(t *testing.T) {
	const node = "nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions timeout:2\n"
	own := workload.View{Outside: true, Resolver: netip.MustParseAddr("10.88.1.1")}
	host := workload.Container{ID: "web", Rights: workload.Rights{Host: []rights.Namespace{rights.HostNetwork}}}
	asks := workload.Container{ID: "web", DNSOptions: []string{"timeout:3"}}
	const servers = "nameserver 10.88.1.1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
	for _, c := range []struct {
		c    workload.Container
		v    workload.View
		want string
	}{{host, workload.View{}, node}, {workload.Container{ID: "web"}, own, servers}, {asks, own, servers + "options timeout:3\n"}} {
		if got := string(resolvConf(c.c, c.v, node)); got != c.want {
			t.Errorf("%+v: %q, want %q", c.c.Rights, got, c.want)
		}
	}
}

func TestHosts(t *testing.T) {
	c := workload.Container{ID: "web", Hostname: "web", ExtraHosts: []workload.Host{
		{Name: "db", Addr: netip.MustParseAddr("192.0.2.9")}, {Name: "six", Addr: netip.MustParseAddr("2001:db8::1")},
	}}
	peers := workload.View{Peers: []workload.Peer{{Addr: netip.MustParseAddr("10.88.0.3"), Names: []string{"db", "sql"}}, {Addr: netip.MustParseAddr("10.88.0.2"), Names: []string{"web"}}}}
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"192.0.2.9\tdb\n2001:db8::1\tsix\n10.88.0.3\tdb sql\n10.88.0.2\tweb\n"
	if got := string(hosts(c, peers)); got != want {
		t.Errorf("hosts:\n%s", got)
	}
}

// TestGiven: configs and secrets are written anew with the rights that were asked for,
// where nobody else may look, and go with the container.
func TestGiven(t *testing.T) {
	e := &Engine{paths: Paths{Files: filepath.Join(t.TempDir(), "workload"), Volumes: t.TempDir()}}
	uid, gid := os.Getuid(), os.Getgid()
	c := workload.Container{ID: "web", Files: []workload.File{
		{Target: "/run/secrets/word", UID: uid, GID: gid, Data: []byte("hush"), Secret: true},
		{Target: "/etc/app.conf", Mode: 0o664, UID: uid, GID: gid, Data: []byte("a = 1\n")},
	}}
	stat := func(path string) os.FileInfo {
		t.Helper()
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	for range 2 {
		if err := e.Prepare(c, c.ID); err != nil {
			t.Fatal(err)
		}
		if got := stat(filepath.Dir(e.given("web", 0))).Mode().Perm(); got != 0o700 {
			t.Errorf("folder has mode %o", got)
		}
		for i, want := range []os.FileMode{0o400, 0o664} {
			if got := stat(e.given("web", i)).Mode(); got != want {
				t.Errorf("file %d has mode %v", i, got)
			}
		}
		if text, err := os.ReadFile(e.given("web", 1)); err != nil || string(text) != "a = 1\n" {
			t.Errorf("%q, %v", text, err)
		}
	}
	c.Files = c.Files[:1]
	if err := e.Prepare(c, c.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(e.given("web", 1)); !os.IsNotExist(err) {
		t.Errorf("a file that is not wanted any more: %v", err)
	}
	if err := e.RemoveFiles("web"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(e.given("web", 0)); !os.IsNotExist(err) {
		t.Errorf("the secret outlives its container: %v", err)
	}
}

func TestVolumes(t *testing.T) {
	e := &Engine{paths: Paths{Volumes: filepath.Join(t.TempDir(), "volumes")}}
	c := workload.Container{ID: "db", Volumes: []workload.Volume{{Name: "data", Target: "/data"}}}
	if err := e.Volumes(c); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(e.paths.Volumes, "data", "kept")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(file), 0o750); err != nil { // as the container may
		t.Fatal(err)
	}
	if err := e.Volumes(c); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Dir(file))
	if err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("the container's rights on its volume were changed: %v, %v", st.Mode(), err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
