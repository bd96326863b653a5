package redaction

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"kogge.example/agent/compose"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

const secret = "hunter2-correct-horse"

// TestEveryKey puts a secret below every key of the Compose specification, in each
// form that YAML has, and below keys that it has not.
func TestEveryKey(t *testing.T) {
	paths := []string{"x-own", "services.*.x-own", "networks.*.x-own", "nonsense", "services.*.nonsense", "services.*.nonsense.deeper"}
	for _, k := range compose.Keys() {
		paths = append(paths, k.Path, k.Path+".x-own", k.Path+".nonsense")
	}
	shown := 0
	for _, path := range paths {
		for name, value := range map[string]any{
			"text": secret, "list": []any{secret}, "list of lists": []any{[]any{secret}}, "map": map[string]any{"key": secret},
			"key": map[string]any{secret + " ": "x"}, "list of maps": []any{map[string]any{"key": secret}}, "pair": []any{"NAME=" + secret},
			"deep": map[string]any{"a": map[string]any{"b": []any{secret}}}, "block": "one\n" + secret + "\nthree\n",
		} {
			parts := strings.Split(path, ".")
			doc := value
			for _, part := range slices.Backward(parts) {
				doc = map[string]any{strings.Replace(part, "*", "web", 1): doc}
			}
			for _, node := range []bool{false, true} {
				redact := Compose
				whole := doc
				if node {
					redact, whole = Node, map[string]any{"workloads": doc}
				}
				text, err := yaml.Dump(whole)
				if err != nil {
					t.Fatal(err)
				}
				got, err := redact(text)
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				if !strings.Contains(string(got.Shown), secret) {
					if name != "key" && !strings.Contains(strings.Join(got.Hidden, "\n"), secret) {
						t.Errorf("%s, %s: the secret is hidden, and forgotten: %q", path, name, got.Hidden)
					}
					continue
				}
				shown++
				if !slices.ContainsFunc(shownCompose, func(shown string) bool { return matches(shown, path) }) {
					t.Errorf("%s, %s is shown:\n%s", path, name, got.Shown)
				}
			}
		}
	}
	if shown == 0 {
		t.Error("nothing at all is shown")
	}
}

// matches says whether a shown path is that of a key; the names that the file gives
// may be any.
func matches(shown, path string) bool {
	a, b := strings.Split(shown, "."), strings.Split(path, ".")
	return slices.EqualFunc(a, b, func(x, y string) bool { return x == "*" || x == y })
}

// TestLists: what is shown are keys that there are.
func TestLists(t *testing.T) {
	known := map[string]bool{}
	for _, k := range compose.Keys() {
		known[k.Path] = true
	}
	for _, path := range shownCompose {
		if !known[path] && !known[strings.TrimSuffix(path, ".*")] {
			t.Errorf("%s is no key of Compose", path)
		}
	}
	for _, path := range shownNode {
		if at := reflect.TypeFor[nodeconfig.Config](); !hasKey(at, strings.Split(path, ".")) {
			t.Errorf("%s is no key of node.yaml", path)
		}
	}
}

// hasKey says whether a type has the keys of a path, one below the other.
func hasKey(t reflect.Type, path []string) bool {
	if len(path) == 0 {
		return true
	}
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name == path[0] {
			return hasKey(t.Field(i).Type, path[1:])
		}
		if t.Field(i).Anonymous && hasKey(t.Field(i).Type, path) {
			return true
		}
	}
	return false
}

// TestText shows what is left of a file as people write them.
func TestText(t *testing.T) {
	text := strings.ReplaceAll(`# The password is SECRET.
hostname: n07 # SECRET
network:
  - match: eth0
    addresses: [192.0.2.7/24]
    wifi: {ssid: home, passphrase: SECRET}
time: {servers: [192.0.2.1]}
labels: {owner: SECRET, shop: one}
workloads:
  x-base: &base
    image: example.org/base:1
    environment: {PASSWORD: SECRET}
  services:
    web:
      <<: *base
      command: [serve, --password=SECRET]
      ports: ["8080:80"]
      labels: ["auth.users=ada:SECRET", SECRET]
      healthcheck: {test: "curl -u ada:SECRET http://localhost", interval: 5s}
      networks: {back: {aliases: [SECRET]}}
    db:
      image: example.org/db:1
      environment:
        - PASSWORD=SECRET
        - "a b=SECRET"
        - SECRET
      volumes: ["data:/var/lib/db", {type: tmpfs, target: /tmp, tmpfs: {size: 1m}}]
      depends_on: [web]
      extra_hosts: ["SECRET:192.0.2.1"]
  configs:
    motd: {content: "SECRET\nand more\n"}
  secrets:
    key: {content: SECRET}
  volumes: {data: }
`, "SECRET", secret)
	got, err := Node([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(got.Shown), secret) {
		t.Error("the secret is shown")
	}
	mask := Mask(got.Hidden)
	golden.Compare(t, "text.txt", fmt.Sprintf("%s---\n%s", got.Shown,
		mask.Replace("a log says "+secret+" and --password="+secret+", port 8080\n")))
}

// TestBombs: aliases that expand without end cost no more than the limit.
func TestBombs(t *testing.T) {
	var b strings.Builder
	b.WriteString("x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 12 {
		fmt.Fprintf(&b, "x-a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	for _, text := range []string{b.String(), strings.ReplaceAll(b.String(), "x-a12", "services: {web: {ports: *a11}}\nx-a12")} {
		if got, err := Compose([]byte(text)); err == nil || len(got.Shown) > 0 {
			t.Errorf("%v, %d bytes", err, len(got.Shown))
		}
	}
	var merges strings.Builder
	merges.WriteString("x-a0: &a0 {image: x}\n")
	for i := range 12 {
		fmt.Fprintf(&merges, "x-a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	for _, text := range []string{
		merges.String() + "services: {web: {<<: *a12}}\n",
		"x-a: &a [*a]\nservices: {web: {<<: *a}}\n",
		"services: &a {web: {image: x}, <<: *a}\n",
	} {
		if got, err := Compose([]byte(text)); err == nil || len(got.Shown) > 0 {
			t.Errorf("merged without end: %v, %d bytes", err, len(got.Shown))
		}
	}
	if _, err := Compose([]byte("{" + secret)); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("no YAML: %v", err)
	}
}

// TestMask: nothing is left of a value, in whichever form a program repeats it.
func TestMask(t *testing.T) {
	mask := Mask([]string{"correct", "correct-horse battery", `quo"ted\value`, "a/b?c=d&e", "12345678", "short"})
	for text, want := range map[string]string{
		"password correct-horse battery, or correct": "password <hidden>, or <hidden>",
		`{"value":"quo\"ted\\value"}`:                `{"value":"<hidden>"}`,
		"https://ada:a%2Fb%3Fc%3Dd%26e@example.org/": "https://ada:<hidden>@example.org/",
		"?password=correct-horse+battery":            "?password=<hidden>",
		"12345678 is short":                          "12345678 is short",
	} {
		if got := mask.Replace(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func FuzzNode(f *testing.F) {
	f.Add([]byte("workloads: {services: {web: {command: [hunter2-correct-horse]}}}\n"))
	f.Add([]byte("labels: &a {x: *a}\n"))
	f.Add([]byte("a: &a [*a]\nworkloads: {<<: *a}\n"))
	f.Add([]byte("<<: {hostname: a}\n? [1]\n: 2\n"))
	f.Add([]byte("workloads:\n  services:\n    web:\n      environment:\n        - A=hunter2-correct-horse\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := Node(text)
		if err == nil {
			var again any
			if yaml.Unmarshal(got.Shown, &again) != nil {
				t.Errorf("%q became no YAML: %q", text, got.Shown)
			}
		}
		Mask(got.Hidden).Replace(string(text))
	})
}
