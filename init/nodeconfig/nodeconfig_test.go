package nodeconfig

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"kogge.example/init/rights"
	"kogge.example/update/golden"
)

// inputs returns the yaml files of a folder of testdata.
func inputs(t testing.TB, folder string) []string {
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/%s: %v", folder, err)
	}
	return files
}

// answer is the name, below testdata, of what is compared for a file of inputs.
func answer(file string) string {
	return strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".yaml") + ".txt"
}

// TestBad shows what an operator reads for each way to write the file wrong.
func TestBad(t *testing.T) {
	for _, file := range inputs(t, "bad") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse("node.yaml", data)
			var problems *Problems
			if !errors.As(err, &problems) {
				t.Fatalf("accepted, error %v", err)
			}
			if !reflect.DeepEqual(c, Config{}) {
				t.Errorf("refused, and yet it is configured: %+v", c)
			}
			golden.Compare(t, answer(file), err.Error()+"\n")
		})
	}
}

// TestGood shows the settings as "config get" does, and that they survive it.
func TestGood(t *testing.T) {
	for _, file := range inputs(t, "good") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse("node.yaml", data)
			if err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, answer(file), string(c.Marshal()))
			roundTrip(t, c)
			keepsLines(t, data, c.Workloads)
		})
	}
}

// roundTrip wants that what Marshal writes means the same.
func roundTrip(t *testing.T, c Config) {
	t.Helper()
	written := c.Marshal()
	again, err := Parse("node.yaml", written)
	if err != nil {
		t.Fatalf("own output is refused: %v\n%s", err, written)
	}
	strip := func(c Config) Config {
		c.Workloads = Workloads{Text: bytes.TrimLeft(c.Workloads.Text, "\n")}
		return c
	}
	if got, want := strip(again), strip(c); !reflect.DeepEqual(got, want) {
		t.Fatalf("not the same after Marshal:\n%+v\n%+v", want, got)
	}
}

// keepsLines wants every line of the workloads where the file has it.
func keepsLines(t *testing.T, file []byte, w Workloads) {
	t.Helper()
	if w.Text == nil {
		return
	}
	var tree yaml.Node
	if err := yaml.Load(w.Text, &tree); err != nil {
		t.Fatalf("workloads do not parse on their own: %v\n%s", err, w.Text)
	}
	if got := tree.Content[0].Line; got != w.Line {
		t.Errorf("workloads start in line %d of their text, in line %d of the file", got, w.Line)
	}
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(file))
	in := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
	for i, line := range strings.Split(string(w.Text), "\n") {
		if line != "" && line != in[i] {
			t.Errorf("line %d is %q, in the file %q", i+1, line, in[i])
		}
	}
}

func TestZeroConfigIsDHCPOnWired(t *testing.T) {
	got := Config{}.Interfaces()
	if len(got) != 1 || got[0].Match != Wired || !got[0].DHCP || got[0].IPv6 != IPv6Auto {
		t.Errorf("a node without settings: %+v", got)
	}
}

func TestSizeLimit(t *testing.T) {
	if _, err := Parse("node.yaml", bytes.Repeat([]byte("#"), MaxSize)); err != nil {
		t.Errorf("exactly 1 MiB: %v", err)
	}
	if _, err := Parse("node.yaml", bytes.Repeat([]byte("#"), MaxSize+1)); err == nil {
		t.Error("more than 1 MiB is accepted")
	}
}

// TestNested wants an answer for a file of nothing but brackets.
func TestNested(t *testing.T) {
	for _, one := range []string{"[", "{a: ", "- ", "? ", `"x", `, "\n "} {
		if _, err := Parse("node.yaml", []byte("workloads: "+strings.Repeat(one, (MaxSize-16)/len(one)))); err == nil {
			t.Errorf("a file full of %q is accepted", one)
		}
	}
}

func TestReadFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.yaml")
	if _, err := ReadFile(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(file, []byte("hostname: n07\nbogus: "+secretWord+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(file); err == nil || !strings.HasPrefix(err.Error(), "node.yaml:2:1: ") || strings.Contains(err.Error(), secretWord) {
		t.Errorf("want the file's name and line, and not what stands there: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, folder := range []string{"bad", "good"} {
		for _, file := range inputs(f, folder) {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("node.yaml", data)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without words")
			}
			return
		}
		roundTrip(t, c)
		keepsLines(t, data, c.Workloads)
	})
}

// FuzzAllowLine: the line that an error asks for in node.yaml is taken there, and means
// what it was made of.
func FuzzAllowLine(f *testing.F) {
	f.Add("shop.web", true, "NET_ADMIN", "/dev/ttyUSB0", "/state/data/media", true)
	f.Add("*", false, "ALL", "/dev/a b", "/state/data/it's: {a}, \"b\" #c\u2028\x7f", false)
	f.Add("no", false, "", "/dev/x", "/srv/\U0001F600", false)
	f.Add("7", false, "", "", "", true)
	f.Fuzz(func(t *testing.T, container string, privileged bool, capability, device, path string, readOnly bool) {
		if !utf8.ValidString(container + capability + device + path) {
			return // a Compose file is valid UTF-8
		}
		want := rights.Allow{Container: container}
		want.Privileged = privileged
		if capability != "" {
			want.Capabilities = []string{capability}
		}
		if device != "" {
			want.Devices = []string{device}
		}
		if path != "" {
			want.Binds = []rights.Bind{{Path: path, ReadOnly: readOnly}}
		}
		c, err := Parse("node.yaml", []byte("allow:\n  - "+want.String()+"\n"))
		if err != nil {
			return // no such container, capability, device or path
		}
		if len(c.Allow) != 1 || !cmp.Equal(c.Allow[0], want) {
			t.Errorf("%s\nis %+v, want %+v", want, c.Allow, want)
		}
	})
}
