package download

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDialSearch connects to a name of one family where the search domain has addresses of the
// other for every name: those are of another machine, also where the name server is slow.
func TestDialSearch(t *testing.T) {
	const marker = "KOGGE_TEST_MOUNTNS"
	if os.Getenv(marker) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestDialSearch$", "-test.v", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), marker+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("in namespaces of mounts and users: %v\n%s", err, out)
		}
		return
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("search home.test\nnameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(conf, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	four, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer four.Close()
	_, port, _ := net.SplitHostPort(four.Addr().String())
	six, err := net.Listen("tcp6", net.JoinHostPort("::1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer six.Close()
	for _, l := range []net.Listener{four, six} {
		go introduce(l)
	}
	names := resolver(t, "four.test. A 127.0.0.1", "four.test.home.test. AAAA ::1", "slow.test. A 127.0.0.1", "slow.test. silent AAAA", "slow.test.home.test. AAAA ::1",
		"six.test. AAAA ::1", "six.test.home.test. A 127.0.0.1", "box.home.test. AAAA ::1", "far.lab.home.test. A 127.0.0.1")
	dial := Dial(&net.Dialer{Timeout: 5 * time.Second, Resolver: names})
	for host, want := range map[string]string{
		"four.test": "127.0.0.1", "slow.test": "127.0.0.1", "six.test": "[::1]", "box": "[::1]", "far.lab": "127.0.0.1",
	} {
		conn, err := dial(context.Background(), "tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		said, _ := io.ReadAll(conn)
		conn.Close()
		if string(said) != "this is "+want+":"+port {
			t.Errorf("%s: %s, want %s", host, said, want)
		}
	}
}
