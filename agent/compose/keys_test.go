package compose

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kogge.example/agent/workload"
	"kogge.example/update/golden"
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

// TestPage: README.md says what the table says.
func TestPage(t *testing.T) { golden.Compare(t, "../README.md", page()) }

// page is the documentation of [Keys].
func page() string {
	var b strings.Builder
	b.WriteString(`# What of Compose works

<!-- Made of keys.go by: go test ./agent/compose -run '^TestPage$' -update -->

` + "`kogge apply --check -f compose.yaml`" + ` says of a file what would be done, warned of and refused, without a node.
A key that is not in this table is refused as unknown; keys that begin with ` + "`x-`" + ` are nobody's and are passed over.

| word | meaning |
|---|---|
| done | the node does what the specification says, as far as the note goes |
| by apply | done by ` + "`kogge apply`" + ` on your machine; refused in a node's own node.yaml, which stands alone |
| warned | it changes nothing here, and you are told so |
| **refused** | the file is not accepted with it, unless it is empty or false |

"and below" stands for every key inside of that one.
`)
	section := "-"
	for _, k := range Keys() {
		top, _, nested := strings.Cut(k.Path, ".")
		if top == "services" && !nested {
			continue
		}
		title := "Top level"
		switch {
		case nested && top == "services":
			title = "Of a service"
		case k.Path == "jobs":
			title = "Networks, volumes, configs, secrets and others"
		case section == "Networks, volumes, configs, secrets and others":
			title = section
		}
		if title != section {
			section = title
			fmt.Fprintf(&b, "\n## %s\n\n| key | | note |\n|---|---|---|\n", title)
		}
		shown := strings.ReplaceAll(strings.TrimPrefix(k.Path, "services.*."), ".*", ".NAME")
		shown = "`" + shown + "`"
		if k.Whole {
			shown += " and below"
		}
		if k.Own {
			shown += " (Kogge's own)"
		}
		verdict := string(k.Verdict)
		switch k.Verdict {
		case Resolved:
			verdict = "by apply"
		case Refused:
			verdict = "**refused**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", shown, verdict, k.Note)
	}
	b.WriteString(`
## What a node.yaml allows

Some keys take away what keeps a container in. A node runs a container with them only where its own node.yaml allows
exactly that, by the container's name as ` + "`kogge ps`" + ` shows it, or ` + "`\"*\"`" + ` for every container:

` + "```yaml" + `
allow:
  - container: shop.web
    capabilities: [NET_ADMIN]     # cap_add; ALL is every one
    devices: [/dev/ttyUSB0]       # devices
    binds:                        # volumes; what is written here, not what lies below it
      - {path: /state/data/media, readOnly: true}
    host: [network]               # network_mode, pid, ipc, uts, cgroup; user is userns_mode
    unconfined: [seccomp]         # security_opt; also systempaths
  - container: shop.tool
    privileged: true              # all capabilities, devices and profiles: it can do what the node can
` + "```" + `

` + "`kogge apply`" + ` says which line is missing. Whatever a file says, no container gets a bind of ` + "`/`" + `, of the kernel's
folders (` + "`/proc`, `/sys`, `/dev`" + `), of ` + "`/run`, `/boot` and `/tmp`" + `, nor of anything in ` + "`/state`" + ` but volumes and what is
below ` + "`/state/data`" + `; no symbolic link leads a bind elsewhere. Nor does it get the memory, the watchdog or the disk that
the node runs from as a device. A privileged container is beyond all of that.

A container's root is nobody on its node: each runs in a user namespace with 65536 ids of its own, and what it writes to
a volume has the owners that it sees. Not so a container that is privileged, has a device, shares a namespace, has a
capability that counts on the node alone (all that are added but NET_ADMIN and NET_RAW), goes without systempaths, or
whose ` + "`user`" + ` is 65536 or higher.
`)
	b.WriteString("\n## Sysctls\n\nA container can set those of its own network and IPC namespaces:\n\n")
	groups := make(map[string][]string)
	for _, name := range Sysctls() {
		group := strings.Join(strings.Split(name, ".")[:2], ".")
		if !strings.HasPrefix(name, "net.") {
			group, _, _ = strings.Cut(name, ".")
		}
		groups[group] = append(groups[group], strings.TrimPrefix(name, group+"."))
	}
	var order []string
	for group := range groups {
		order = append(order, group)
	}
	slices.Sort(order)
	for _, group := range order {
		fmt.Fprintf(&b, "- `%s.`: %s\n", group, strings.Join(groups[group], ", "))
	}
	return b.String()
}
