package namespace

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRun looks around inside, mounts something there, and looks for it outside.
func TestRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	const folderEnv = "KOGGE_NAMESPACE_TEST_FOLDER"
	folder := os.Getenv(folderEnv)
	if folder == "" {
		folder = t.TempDir()
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if !Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWPID, folderEnv+"="+folder) {
		if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
			t.Errorf("a mount of the second run reached us: %v, %v", left, err)
		}
		return
	}
	if now, err := os.Getwd(); err != nil || now != here {
		t.Errorf("runs in %s, %v, want %s", now, err, here)
	}
	if links, err := net.Interfaces(); err != nil || len(links) != 1 || links[0].Name != "lo" {
		t.Errorf("network: %v, %v", links, err)
	}
	if self, err := os.Readlink("/proc/self"); err != nil || self != "1" || os.Getpid() != 1 {
		t.Errorf("process %d, /proc says %q, %v", os.Getpid(), self, err)
	}
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRunFails wants the failure of a second run to be one of the first, with its
// words in the log.
func TestRunFails(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	const failEnv = "KOGGE_NAMESPACE_TEST_FAIL"
	if os.Getenv(failEnv) != "" {
		if Run(t, unix.CLONE_NEWNS) {
			t.Fatal("as asked for")
		}
		t.Error("went on after the second run had failed")
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestRunFails$")
	cmd.Env = append(os.Environ(), failEnv+"=1")
	out, err := cmd.CombinedOutput()
	if text := string(out); err == nil || !strings.Contains(text, "as asked for") || !strings.Contains(text, "run in namespaces: exit status 1") ||
		strings.Contains(text, "went on") {
		t.Errorf("%v\n%s", err, text)
	}
}
