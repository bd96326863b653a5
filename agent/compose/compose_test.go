package compose

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

// TestParse shows what becomes of each file of testdata: containers, warnings, or
// what the operator gets to read.
func TestParse(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Base(file)
			golden.Compare(t, strings.TrimSuffix(name, ".yaml")+".golden", show(t, name, text))
		})
	}
}

func show(t *testing.T, name string, text []byte) string {
	t.Helper()
	containers, warnings, err := Parse("shop", name, text)
	var b strings.Builder
	if err != nil {
		fmt.Fprintf(&b, "refused:\n%v\n", err)
		if len(containers) > 0 {
			t.Error("refused, and containers all the same")
		}
	}
	for _, w := range warnings {
		fmt.Fprintf(&b, "warning: %v\n", w)
	}
	for _, c := range containers {
		data, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n", data)
	}
	return b.String()
}

// TestLinesOfNodeConfig: the section of node.yaml keeps the lines of the file.
func TestLinesOfNodeConfig(t *testing.T) {
	c, err := nodeconfig.Parse("node.yaml", []byte("hostname: n07\nworkloads:\n  services:\n    web:\n      imag: a\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = Parse("", c.Workloads.File, c.Workloads.Text)
	var p *nodeconfig.Problems
	if !errors.As(err, &p) || p.List[0].Line != 5 || p.List[0].File != "node.yaml" {
		t.Errorf("got %v", err)
	}
}

// FuzzParse: whatever comes in, there is an answer, and an accepted file is the
// same twice.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("services: {web: {image: a, ports: [\"1-99999:1-99999\"]}}"))
	f.Add([]byte("services: &a\n  web: *a\n"))
	f.Add([]byte("a: &a {<<: *a}\nservices: {web: *a}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		taken, _, takenErr := ParseTaken("shop", "fuzz.yaml", text)
		for _, c := range taken {
			for _, p := range c.Ports {
				if _, own := workload.NodeOwns(p.Protocol, p.HostPort); own {
					t.Errorf("%s publishes the node's own port %d", c.ID, p.HostPort)
				}
			}
		}
		one, _, err := Parse("shop", "fuzz.yaml", text)
		if err == nil && (takenErr != nil || !reflect.DeepEqual(one, taken)) {
			t.Errorf("refused or different where it was taken before: %v", takenErr)
		}
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a word")
			}
			return
		}
		two, _, err := Parse("shop", "fuzz.yaml", text)
		if err != nil {
			t.Fatalf("refused the second time: %v", err)
		}
		if !reflect.DeepEqual(one, two) {
			t.Errorf("differs the second time:\n%+v\n%+v", one, two)
		}
		for _, c := range one {
			if c.ID == "" || c.Image == "" || c.Pids <= 0 || c.Hash() == "" {
				t.Errorf("incomplete container %+v", c)
			}
		}
	})
}

// TestOwnPorts: a node publishes none of its own ports. A file that it has taken before,
// of an earlier release, is no reason to run nothing: it is told, and left out.
func TestOwnPorts(t *testing.T) {
	for _, own := range workload.NodePorts {
		beside := 0 // of the node's own, next to it and itself
		for port := own.Port - 1; port <= own.Port+1; port++ {
			if _, is := workload.NodeOwns(own.Protocol, port); is {
				beside++
			}
		}
		for spelled, owned := range map[string]int{
			fmt.Sprintf("%d:80/%s", own.Port, own.Protocol):                           1,
			fmt.Sprintf("192.0.2.7:%d:80/%s", own.Port, own.Protocol):                 1,
			fmt.Sprintf("%d-%d:%[1]d-%d/%[3]s", own.Port-1, own.Port+1, own.Protocol): beside,
		} {
			text := fmt.Appendf(nil, "services:\n  web:\n    image: a\n    ports:\n      - %q\n", spelled)
			containers, _, err := Parse("shop", "shop.yaml", text)
			if want := fmt.Sprintf("shop.yaml:5:9: port %d/%s of the node is its own (%s)", own.Port, own.Protocol, own.What); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, %v, want %s", spelled, containers, err, want)
			}
			containers, warnings, err := ParseTaken("shop", "shop.yaml", text)
			if err != nil || len(containers) != 1 || len(warnings) != owned || warnings[0].Line != 5 {
				t.Errorf("%s, taken before: %v, %v, %v", spelled, containers, warnings, err)
				continue
			}
			for _, p := range containers[0].Ports {
				if p.HostPort == own.Port {
					t.Errorf("%s, taken before: is published", spelled)
				}
			}
		}
	}
}
