package project

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/agent/compose"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

// TestLoad shows what becomes of Compose files as people write them, each in a
// folder of testdata with the files beside it, and options in options.json.
func TestLoad(t *testing.T) {
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, folder := e.Name(), filepath.Join("testdata", e.Name())
		if !e.IsDir() || name == "fuzz" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			files, o := options(t, folder)
			answer, err := Load(context.Background(), files, o)
			golden.Compare(t, name+".golden", show(answer, err))
			if err == nil {
				standsAlone(t, answer)
			}
		})
	}
}

// options are the files and options of a folder of testdata.
func options(t *testing.T, folder string) ([]string, Options) {
	t.Helper()
	var o struct {
		Options
		Files []string
	}
	text, err := os.ReadFile(filepath.Join(folder, "options.json"))
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for i, file := range o.EnvFiles {
		o.EnvFiles[i] = filepath.Join(folder, file)
	}
	for i, file := range o.Files {
		o.Files[i] = filepath.Join(folder, file)
	}
	if len(o.Files) == 0 {
		for _, name := range []string{"compose.yaml", "compose.yml", "docker-compose.yml", "compose.json"} {
			if _, err := os.Stat(filepath.Join(folder, name)); err == nil {
				o.Files = []string{filepath.Join(folder, name)}
			}
		}
	}
	return o.Files, o.Options
}

func show(a *Answer, err error) string {
	var b strings.Builder
	if err != nil {
		fmt.Fprintf(&b, "refused:\n%v\n", err)
	}
	if a == nil {
		return b.String()
	}
	for _, w := range a.Warnings {
		fmt.Fprintf(&b, "warning: %v\n", w)
	}
	if err == nil {
		fmt.Fprintf(&b, "%d containers\n---\n%s", len(a.Containers), a.Text)
	}
	return b.String()
}

// standsAlone: the text gives a node the same containers as the files.
func standsAlone(t *testing.T, a *Answer) {
	t.Helper()
	got, _, err := compose.Parse("", "text", a.Text)
	if err != nil {
		t.Fatalf("the text is refused: %v", err)
	}
	if len(got) != len(a.Containers) {
		t.Fatalf("%d containers of the text, %d of the files", len(got), len(a.Containers))
	}
	for i := range got {
		if got[i].Hash() != a.Containers[i].Hash() {
			t.Errorf("%s differs: %+v, of the files %+v", got[i].ID, got[i], a.Containers[i])
		}
	}
}

// write makes files in a new folder and returns the path of compose.yaml there.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "compose.yaml")
}

// TestTooMuch: files that mean far more than they say are refused, and say why.
func TestTooMuch(t *testing.T) {
	many := func(n int, line string) string {
		var b strings.Builder
		b.WriteString("services:\n")
		for i := range n {
			fmt.Fprintf(&b, "  s%d: "+line+"\n", i)
		}
		return b.String()
	}
	fat := "services:\n  fat:\n    image: a\n    environment:\n" + strings.Repeat("      - A=1\n", 10_000)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"services", map[string]string{"compose.yaml": many(10_000, "{image: a}")}, "10000 services: at most 1000"},
		{"services of several files", map[string]string{
			"compose.yaml": "include: [a.yaml]\n" + many(999, "{image: a}"), "a.yaml": "services: {a: {image: a}, b: {image: b}}",
		}, "1001 services"},
		{"bytes", map[string]string{"compose.yaml": "services: {a: {image: a}}\n#" + strings.Repeat("x", 1<<20)}, "larger than 1 MiB"},
		{"bytes of an included file", map[string]string{
			"compose.yaml": "include: [a.yaml]\n", "a.yaml": strings.Repeat("#", 1<<21),
		}, "larger than 1 MiB"},
		{"extends", map[string]string{"compose.yaml": fat + strings.TrimPrefix(many(500, "{extends: fat}"), "services:\n")}, "more than 1000000 keys and values"},
		{"variables", map[string]string{
			".env": "A=" + strings.Repeat("x", 100_000), "compose.yaml": "services: {a: {image: a, command: \"" + strings.Repeat("$A", 1000) + "\"}}",
		}, "expand to more than 16 MiB"},
		{"variables of an environment file", map[string]string{".env": doubling(), "compose.yaml": "services: {a: {image: a}}"}, "expand to more than 16 MiB"},
		{"variables of a service", map[string]string{"a.env": doubling(), "compose.yaml": "services: {a: {image: a, env_file: a.env}}"}, "expand to more than 16 MiB"},
		{"aliases", map[string]string{"compose.yaml": bomb()}, "those behind aliases counted each time"},
		{"secret", map[string]string{
			"compose.yaml": "services: {a: {image: a, secrets: [s]}}\nsecrets: {s: {file: s}}", "s": strings.Repeat("x", 1<<20+1),
		}, "larger than 1 MiB"},
		{"nesting", map[string]string{"compose.yaml": "services: {a: {image: a, x-a: " + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}}"}, "compose.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(context.Background(), []string{write(t, c.files)}, Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %.300v, want %q", err, c.want)
			}
		})
	}
}

// doubling are variables each of which is the one before, twice.
func doubling() string {
	text := "A0=xxxxxxxx\n"
	for i := 1; i < 60; i++ {
		text += fmt.Sprintf("A%d=$A%d$A%d\n", i, i-1, i-1)
	}
	return text
}

func bomb() string {
	text := "x-a0: &a0 {a: 1}\n"
	for i := 1; i < 30; i++ {
		text += fmt.Sprintf("x-a%d: &a%d {l: *a%d, r: *a%d}\n", i, i, i-1, i-1)
	}
	return text + "services: {a: {image: a, labels: *a29}}\n"
}

// TestManyServices: a thousand are well within what a file may have.
func TestManyServices(t *testing.T) {
	text := "services:\n"
	for i := range maxServices {
		text += fmt.Sprintf("  s%d: {image: a, environment: {A: %d}, tty: true, networks: [n%d]}\n", i, i, i%10)
	}
	text += "networks: {n0: , n1: , n2: , n3: , n4: , n5: , n6: , n7: , n8: , n9: }\n"
	a, err := Load(context.Background(), []string{write(t, map[string]string{"compose.yaml": text})}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Containers) != maxServices || len(a.Warnings) != maxServices {
		t.Fatalf("%d containers, %d warnings", len(a.Containers), len(a.Warnings))
	}
	for i, w := range a.Warnings {
		if w.Line != i+2 {
			t.Fatalf("warning %d is of line %d", i, w.Line)
		}
	}
}

// FuzzLoad: whatever the files say, there is an answer, every problem has a file,
// and what is accepted stands alone.
func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.y*ml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, []byte("A=1\nB=${A}\n"))
	}
	f.Add([]byte("include: 3\nservices: [a]\n"), []byte("A"))
	f.Add([]byte("services: {a: {extends: {file: 3, service: b}}}"), []byte("export"))
	f.Add([]byte("include: [{path: [3, {}]}]\nservices: {a: {image: a, profiles: 3, env_file: [[]], secrets: {}}}"), []byte(""))
	f.Fuzz(func(t *testing.T, text, env []byte) {
		path := write(t, map[string]string{"compose.yaml": string(text), ".env": string(env), "b.yaml": string(text)})
		a, err := Load(context.Background(), []string{path}, Options{Profiles: []string{"debug"}})
		var p *nodeconfig.Problems
		switch {
		case err == nil:
			standsAlone(t, a)
		case errors.As(err, &p):
			for _, one := range p.List {
				if cmp.Or(one.File, one.Message) == "" || one.File == "" {
					t.Errorf("nobody knows where: %+v", one)
				}
			}
		case err.Error() == "":
			t.Error("refused without a word")
		}
	})
}
