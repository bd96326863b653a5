package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProjectName: what a node refuses as a name is refused before it is sent.
func TestProjectName(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	const services = "services:\n  web:\n    image: nginx:1.27\n"
	for _, test := range []struct{ name, flag, want string }{
		{"shop", "", ""}, {"", "", ""}, {"", "shop-2_b", ""}, {"A", "shop", ""}, {"~", "", ""},
		{"Foo Bar", "", "f.yaml:1:7: name: a project name"}, {"node", "", "f.yaml:1:7: name: a project name"}, {"../../x", "", "f.yaml:1:7: name: a project name"},
		{strings.Repeat("x", 64), "", "f.yaml:1:7: name: a project name"}, {`"a\tb"`, "", "f.yaml:1:7: name: a project name"},
		{"shop", "Foo Bar", "a project name has"}, {"shop", "node.yaml", "a project name has"}, {"shop", "node", "a project name has"}, {"shop", "-", "a project name has"},
	} {
		text := services
		if test.name != "" {
			text = "name: " + test.name + "\n" + services
		}
		must(t, os.WriteFile("f.yaml", []byte(text), 0o600))
		args := []string{"apply", "--check", "-f", "f.yaml"}
		if test.flag != "" {
			args = append(args, "-p", test.flag)
		}
		out, err := typed(t, args...)
		said := out
		if err != nil {
			said += err.Error()
		}
		if (err == nil) != (test.want == "") || !strings.Contains(said, test.want) || err != nil && strings.Contains(out, "done:") {
			t.Errorf("name: %q, -p %q: %v, %s", test.name, test.flag, err, out)
		}
	}
	if _, err := typed(t, "apply", "--check", "-f", "f.yaml", "-p", ""); exitCode(err) != 2 {
		t.Errorf(`-p "": %v`, err)
	}
	must(t, os.WriteFile("f.yaml", []byte(services), 0o600))
	for folder, ok := range map[string]bool{"node": false, strings.Repeat("y", 64): false, "Shop 2": true} {
		must(t, os.Mkdir(folder, 0o700))
		must(t, os.Rename("f.yaml", filepath.Join(folder, "f.yaml")))
		if out, err := typed(t, "apply", "--check", "-f", filepath.Join(folder, "f.yaml")); (err == nil) != ok || !strings.Contains(out, "nginx") {
			t.Errorf("in folder %s: %v, %s", folder, err, out)
		}
		must(t, os.Rename(filepath.Join(folder, "f.yaml"), "f.yaml"))
	}
}

// typed is what a command line writes.
func typed(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	root := rootCommand()
	root.SetOut(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}
