package seed

import (
	"strings"
	"testing"
	"unicode"
)

// TestMisnamed: a file that somebody meant is never passed over in silence, and what
// computers leave is no reason to complain.
func TestMisnamed(t *testing.T) {
	for _, c := range []struct{ root, folder, want string }{
		{"EFI kogge System\u00a0Volume\u00a0Information .Spotlight-V100 loader", "node.yaml join.yaml reset-state README.TXT boots.rec reset-begun", ""},
		{"", "NODE.YAML ._node.yaml .DS_Store desktop.ini Thumbs.db Join.Yaml", ""},
		{"", "node.yaml.txt", "kogge/node.yaml.txt is not read: call it kogge/node.yaml if it is meant"},
		{"", "Node.yml", "kogge/Node.yml is not read: call it kogge/node.yaml if it is meant"},
		{"", "node(1).yaml join.yaml.bak", "kogge/node(1).yaml is not read: call it kogge/node.yaml if it is meant\nkogge/join.yaml.bak is not read: call it kogge/join.yaml if it is meant"},
		{"", "reset-state.txt reset_state", "kogge/reset-state.txt is not read: call it kogge/reset-state if it is meant\nkogge/reset_state is not read: call it kogge/reset-state if it is meant"},
		{"node.yaml nodes.txt", "", "node.yaml is not read: call it kogge/node.yaml if it is meant"},
		{"", "wifi.conf", "kogge/wifi.conf is not read: no file of that name is known"},
		{"", "\x1b[2Jx", "kogge/?[2Jx is not read: no file of that name is known"},
		{"", "node.yaml\u202etxt", "kogge/node.yaml?txt is not read: call it kogge/node.yaml if it is meant"},
		{"", "\u200bx\u2060\ufeff\u2066", "kogge/?x??? is not read: no file of that name is known"},
		{"", "größe-日本", "kogge/größe-日本 is not read: no file of that name is known"},
		{"", "a b c d e f g h", "kogge/a is not read: no file of that name is known\nkogge/b is not read: no file of that name is known\nkogge/c is not read: no file of that name is known\nkogge/d is not read: no file of that name is known\nkogge/e is not read: no file of that name is known\nand more"},
	} {
		got := ""
		if err := Misnamed(strings.Fields(c.root), strings.Fields(c.folder)); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q, %q: %q, want %q", c.root, c.folder, got, c.want)
		}
	}
}

// FuzzMisnamed: whatever the names are, a line has nothing in it but what can be seen, and
// says which file.
func FuzzMisnamed(f *testing.F) {
	f.Add("node.yaml.txt", "node.yaml")
	f.Add("\xff\x1b", strings.Repeat("ä", 300))
	f.Add("node.yaml\u2028node n1: ready", "node\u202e.yaml")
	f.Fuzz(func(t *testing.T, a, b string) {
		err := Misnamed([]string{a, b}, []string{a, b, "node.yaml"})
		if err == nil {
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) || len(line) > 500 {
				t.Errorf("%q", line)
			}
		}
	})
}
