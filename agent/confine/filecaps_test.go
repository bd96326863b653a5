package confine

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// usual are capabilities that most containers have.
var usual = []string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_SETUID"}

// TestLackedBy: which attributes keep a file from being run.
func TestLackedBy(t *testing.T) {
	for _, c := range []struct {
		name, attribute string
		root            uint32
		bounding        []string
		want            string
	}{
		{"ping of Debian", "0100000200200000000000000000000000000000", 0, usual, "[CAP_NET_RAW]"},
		{"ping of Debian, with the right", "0100000200200000000000000000000000000000", 0, append([]string{"CAP_NET_RAW"}, usual...), "[]"},
		{"a server of low ports", "0100000200040000000000000000000000000000", 0, usual, "[]"},
		{"a server of low ports, without any right", "0100000200040000000000000000000000000000", 0, nil, "[CAP_NET_BIND_SERVICE]"},
		{"an agent", "0100000200340000000000000000000000000000", 0, usual, "[CAP_NET_ADMIN CAP_NET_RAW]"},
		{"one that helps itself", "0000000200200000000000000000000000000000", 0, usual, "[]"},
		{"what it may inherit alone", "0100000200000000002000000000000000000000", 0, usual, "[]"},
		{"one above 31", "0100000200000000000000008000000000000000", 0, usual, "[CAP_BPF]"},
		{"one that no kernel knows", "0100000200000000000000000000008000000000", 0, usual, "[]"},
		{"revision 1", "010000010020000000000000", 0, usual, "[CAP_NET_RAW]"},
		{"revision 3, of this namespace", "010000030020000000000000000000000000000000000200", 131072, usual, "[CAP_NET_RAW]"},
		{"revision 3, of another one", "0100000300200000000000000000000000000000e8030000", 131072, usual, "[]"},
		{"revision 3, of the node's", "010000030020000000000000000000000000000000000000", 0, usual, "[CAP_NET_RAW]"},
		{"nothing", "", 0, usual, "[] not a file's capabilities"},
		{"of another size", "01000002002000000000000000000000", 0, usual, "[] not a file's capabilities"},
		{"revision 4", "0100000400200000000000000000000000000000", 0, usual, "[] not a file's capabilities"},
	} {
		data, err := hex.DecodeString(c.attribute)
		if err != nil {
			t.Fatal(err)
		}
		got, err := lackedBy(data, c.root, c.bounding, nil)
		said := fmt.Sprint(got)
		if err != nil {
			said += " " + err.Error()
		}
		if said != c.want {
			t.Errorf("%s: %s, want %s", c.name, said, c.want)
		}
	}
	data, _ := hex.DecodeString("0100000200200000002000000000000000000000")
	if got, err := lackedBy(data, 0, nil, []string{"CAP_NET_RAW"}); err != nil || got != nil {
		t.Errorf("inherited: %v, %v", got, err)
	}
}

func FuzzLackedBy(f *testing.F) {
	for _, s := range []string{"0100000200200000000000000000000000000000", "010000030020000000000000000000000000000000000200", "010000010020000000000000", ""} {
		data, _ := hex.DecodeString(s)
		f.Add(data, uint32(131072))
	}
	f.Fuzz(func(t *testing.T, data []byte, root uint32) {
		if lacks, err := lackedBy(data, root, usual, usual); err != nil && lacks != nil || len(lacks) > 64 {
			t.Errorf("%x: %v, %v", data, lacks, err)
		}
	})
}

// TestUnmet: the program is found where runc finds it, and nowhere outside of the
// container.
func TestUnmet(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("run as root: it gives capabilities to a file")
	}
	folder := t.TempDir()
	program := filepath.Join(folder, "ping")
	copyOf(t, "/proc/self/exe", program)
	attribute, _ := hex.DecodeString("0100000200200000000000000000000000000000")
	if err := unix.Setxattr(program, "security.capability", attribute, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("ping", filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	spec := func(folder, path string, args ...string) *specs.Spec {
		return &specs.Spec{Process: &specs.Process{
			Args: args, Cwd: folder, Env: []string{"A=1", "PATH=" + path}, Capabilities: &specs.LinuxCapabilities{Bounding: usual},
		}}
	}
	for _, c := range []struct {
		name string
		*specs.Spec
		want bool
	}{
		{"by its path", spec("/", "", program), true},
		{"by a link", spec("/", "", filepath.Join(folder, "link")), true},
		{"from its folder", spec(folder, "", "./ping"), true},
		{"by PATH", spec("/", "/nothing:"+folder+":/bin", "ping"), true},
		{"behind another program", spec("/", folder, "/proc/self/exe", "ping"), false},
		{"that is not there", spec("/", folder, "pong"), false},
		{"that is none", spec("/", folder, folder), false},
		{"without a word", spec("/", folder), false},
	} {
		if _, missing := Unmet(uint32(os.Getpid()), c.Process.Args, c.Spec); c.want != slices.Equal(missing, []string{"CAP_NET_RAW"}) {
			t.Errorf("a program %s: %v", c.name, missing)
		}
	}
}

func copyOf(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRemedy: the error says what to write where.
func TestRemedy(t *testing.T) {
	c := workload.Container{ID: "shop.web"}
	if got := Remedy(c, []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}); !strings.HasSuffix(got, `it needs cap_add: [NET_ADMIN, NET_RAW], and under "allow:" in node.yaml the line - {container: shop.web, capabilities: [NET_ADMIN, NET_RAW]}`) {
		t.Error(got)
	}
	c.DropCaps = []string{"CAP_NET_BIND_SERVICE"}
	if got := Remedy(c, []string{"CAP_NET_BIND_SERVICE"}); !strings.HasSuffix(got, "cap_drop takes NET_BIND_SERVICE away") {
		t.Error(got)
	}
}
