package compose

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/agent/workload"
)

// schema is a JSON schema, as far as keys are concerned.
type schema struct {
	Ref                  string             `json:"$ref"`
	Properties           map[string]*schema `json:"properties"`
	PatternProperties    map[string]*schema `json:"patternProperties"`
	AdditionalProperties json.RawMessage    `json:"additionalProperties"`
	Items                *schema            `json:"items"`
	OneOf                []*schema          `json:"oneOf"`
	AnyOf                []*schema          `json:"anyOf"`
	AllOf                []*schema          `json:"allOf"`
	Definitions          map[string]*schema `json:"$defs"`
	Older                map[string]*schema `json:"definitions"`
}

// specification is the schema that compose-go has of the Compose specification.
func specification(t *testing.T) *schema {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/compose-spec/compose-go/v2").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "schema", "compose-spec.json"))
	if err != nil {
		t.Fatal(err)
	}
	s := &schema{}
	if err := json.Unmarshal(text, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// walk calls each with the path of every key below s, as in [Key], as long as each
// wants to see what is below. Some come more than once.
func (s *schema) walk(root *schema, path string, each func(path string) bool) {
	if s == nil {
		return
	}
	if s.Ref != "" {
		name := s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
		target := root.Definitions[name]
		if target == nil {
			target = root.Older[name]
		}
		if target == nil {
			panic("the schema has no " + s.Ref)
		}
		target.walk(root, path, each)
	}
	for _, many := range [][]*schema{s.OneOf, s.AnyOf, s.AllOf, {s.Items}} {
		for _, one := range many {
			one.walk(root, path, each)
		}
	}
	for name, below := range s.Properties {
		if key := strings.TrimPrefix(path+"."+name, "."); each(key) {
			below.walk(root, key, each)
		}
	}
	for pattern, below := range s.PatternProperties {
		if pattern != "^x-" {
			below.walk(root, path+".*", each)
		}
	}
	below := &schema{}
	if json.Unmarshal(s.AdditionalProperties, below) == nil { // and no boolean
		below.walk(root, path+".*", each)
	}
}

// TestEveryKey: the table of keys and the specification have the same ones.
func TestEveryKey(t *testing.T) {
	in := make(map[string]bool)
	root := specification(t)
	root.walk(root, "", func(path string) bool {
		row, known := byPath()[path]
		if !known && !in[path] {
			t.Errorf("no row for key %s of the specification", path)
		}
		in[path] = true
		return !row.Whole
	})
	if len(in) < 200 {
		t.Fatalf("the specification has only %d keys", len(in))
	}
	seen := make(map[string]bool)
	for _, k := range Keys() {
		if seen[k.Path] {
			t.Errorf("two rows for %s", k.Path)
		}
		seen[k.Path] = true
		if in[k.Path] == k.Own {
			t.Errorf("row %s: the specification has it: %v", k.Path, in[k.Path])
		}
		if k.Verdict != Done && k.Note == "" {
			t.Errorf("row %s: %s, and not a word why", k.Path, k.Verdict)
		}
		for _, other := range Keys() {
			if k.Whole && strings.HasPrefix(other.Path, k.Path+".") {
				t.Errorf("row %s is below %s, which is for all", other.Path, k.Path)
			}
		}
	}
}

// TestReaders: what is read is what the table calls done.
func TestReaders(t *testing.T) {
	s := &service{parser: &parser{}, Container: workload.Container{}}
	for k := range s.keys() {
		row, known := byPath()["services.*."+k]
		if !known || row.Verdict != Done && k != "logging" {
			t.Errorf("services.*.%s is read, and the table says %q", k, row.Verdict)
		}
	}
	for _, k := range Keys() {
		name, in := strings.CutPrefix(k.Path, "services.*.")
		if !in || strings.Contains(name, ".") || k.Verdict != Done || name == "expose" {
			continue
		}
		if s.keys()[name] == nil {
			t.Errorf("%s is done, and nobody reads it", k.Path)
		}
	}
}
