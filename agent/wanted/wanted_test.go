package wanted

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kogge.example/agent/sealed"
	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
	"kogge.example/init/rights"
)

const web = "services:\n  web:\n    image: example.org/web:1\n    ports: [\"80:8080\"]\n"
const db = "services:\n  db:\n    image: example.org/db:1\n"

func store(t *testing.T, own ...workload.Container) *Store {
	return Open(filepath.Join(t.TempDir(), "projects"), own)
}

func ids(t *testing.T, s *Store) string {
	t.Helper()
	all, err := s.Containers()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range all {
		names = append(names, c.ID)
	}
	return strings.Join(names, " ")
}

// TestSealed looks for a secret where projects lie: it is not there in the clear, unless the
// other slot's release reads nothing else.
func TestSealed(t *testing.T) {
	const secret = "hunter2-hunter2"
	const text = "services:\n  web: {image: example.org/web:1, environment: {PASSWORD: " + secret + "}, secrets: [key]}\nsecrets: {key: {content: " + secret + "}}\n"
	state := t.TempDir()
	open := func(seal bool) *Store {
		s := Open(filepath.Join(state, "projects"), nil)
		s.Key, s.Seal = sealed.Key(filepath.Join(state, KeyFile)), seal
		return s
	}
	runs := func(what string, s *Store) {
		t.Helper()
		all, err := s.Containers()
		if err != nil || len(all) == 0 {
			t.Fatalf("%s: %v, %v", what, all, err)
		}
		for _, c := range all {
			if len(c.Files) != 1 || string(c.Files[0].Data) != secret || !slices.Contains(c.Env, "PASSWORD="+secret) {
				t.Errorf("%s: %s has %+v", what, c.ID, c)
			}
		}
	}
	clear := func() (names []string) {
		t.Helper()
		err := filepath.WalkDir(state, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			if strings.Contains(string(raw), secret) {
				names = append(names, e.Name())
			}
			if st, err := e.Info(); err != nil || st.Mode() != 0o600 {
				t.Errorf("%s: %v, %v", path, st.Mode(), err)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	apply := func(s *Store, project string) {
		t.Helper()
		if _, _, err := s.Apply(project, []byte(text), false); err != nil {
			t.Fatal(err)
		}
	}
	old := open(false)
	apply(old, "old")
	runs("in the clear", old)
	if got := clear(); fmt.Sprint(got) != "[old.yaml]" {
		t.Errorf("in the clear: %v", got)
	}
	now := open(true)
	apply(now, "new")
	runs("sealed", now)
	if got := clear(); got != nil { // the one from before is sealed when it is read
		t.Errorf("in the clear: %v", got)
	}
	runs("after a restart", open(true))
	back := open(false) // the other slot has an older release again
	runs("sealed, and not to be any more", back)
	apply(back, "new")
	if got := clear(); fmt.Sprint(got) != "[new.yaml]" {
		t.Errorf("in the clear: %v", got)
	}
	apply(open(true), "new")
	// Without its key a project cannot be read. It can be applied anew, and removed.
	if err := os.Remove(filepath.Join(state, KeyFile)); err != nil {
		t.Fatal(err)
	}
	lost := open(true)
	if _, err := lost.Containers(); !errors.Is(err, sealed.ErrLocked) || strings.Contains(err.Error(), secret) {
		t.Errorf("without the key: %v", err)
	}
	if _, err := lost.Remove("old"); err != nil {
		t.Error(err)
	}
	apply(lost, "new")
	runs("applied anew", lost)
	if got := clear(); got != nil {
		t.Errorf("in the clear: %v", got)
	}
}

// TestApply walks a node through a day of applies.
func TestApply(t *testing.T) {
	s := store(t, workload.Container{ID: "own"})
	apply := func(project, text, plan, wanted string) {
		t.Helper()
		got, _, err := s.Apply(project, []byte(text), false)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != plan {
			t.Errorf("plan %v, want %s", got, plan)
		}
		if all := ids(t, s); all != wanted {
			t.Errorf("wanted %s, want %s", all, wanted)
		}
		select {
		case <-s.Changed():
		default:
			t.Error("nobody was told")
		}
	}
	apply("shop", web+"  cache:\n    image: example.org/cache:1\n", "[{shop.cache example.org/cache:1 new} {shop.web example.org/web:1 new}]", "own shop.cache shop.web")
	apply("data", db, "[{data.db example.org/db:1 new}]", "data.db own shop.cache shop.web")
	apply("shop", strings.Replace(web, "web:1", "web:2", 1), "[{shop.cache  gone} {shop.web example.org/web:2 replaced}]", "data.db own shop.web")
	apply("shop", strings.Replace(web, "web:1", "web:2", 1), "[{shop.web example.org/web:2 unchanged}]", "data.db own shop.web")
	again := Open(s.dir, []workload.Container{{ID: "own"}})
	if got := ids(t, again); got != "data.db own shop.web" {
		t.Errorf("after a restart: %s", got)
	}
	plan, err := s.Remove("shop")
	if err != nil || fmt.Sprint(plan) != "[{shop.web  gone}]" || ids(t, s) != "data.db own" {
		t.Errorf("%v, %v, %s", plan, err, ids(t, s))
	}
	if _, err := s.Remove("shop"); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
	if names, err := s.Projects(); err != nil || fmt.Sprint(names) != "[data]" {
		t.Errorf("%v, %v", names, err)
	}
}

// TestApplyOutdated: a container that is wanted as before is replaced where its image's name
// stands for another one by now, and the plan says so.
func TestApplyOutdated(t *testing.T) {
	s := store(t, workload.Container{ID: "own", Image: "example.org/own:1"})
	var asked []string
	s.Outdated = func(all []workload.Container) map[string]bool {
		for _, c := range all {
			asked = append(asked, c.ID)
		}
		return map[string]bool{"shop.web": true, "own": true, "shop.cache": true}
	}
	for _, want := range []string{
		"[{shop.cache example.org/cache:1 new} {shop.web example.org/web:1 new}]",
		"[{shop.cache example.org/cache:1 replaced} {shop.web example.org/web:1 replaced}]",
	} {
		plan, _, err := s.Apply("shop", []byte(web+"  cache:\n    image: example.org/cache:1\n"), false)
		if err != nil || fmt.Sprint(plan) != want {
			t.Errorf("%v, %v, want %s", plan, err, want)
		}
	}
	if plan, _, err := s.Apply("shop", []byte(web), true); err != nil || fmt.Sprint(plan) != "[{shop.cache  gone} {shop.web example.org/web:1 replaced}]" {
		t.Errorf("checked: %v, %v", plan, err)
	}
	if plan, err := s.Check([]workload.Container{{ID: "own", Image: "example.org/own:1"}}); err != nil || fmt.Sprint(plan) != "[{own example.org/own:1 replaced}]" {
		t.Errorf("node.yaml: %v, %v", plan, err)
	}
	if got := strings.Join(asked, " "); got != "shop.cache shop.web shop.cache shop.web shop.web own" {
		t.Errorf("asked of %s", got)
	}
}

// TestApplyRestarted: what goes by a container that is replaced starts anew with it, and what
// goes by that one; the plan says so, and what the operator reads as unchanged runs on.
func TestApplyRestarted(t *testing.T) {
	project := func(version int) []byte {
		return fmt.Appendf(nil, `services:
  db: {image: 'example.org/db:%d'}
  web: {image: 'example.org/web:1', depends_on: {db: {condition: service_started, restart: true}}}
  proxy: {image: 'example.org/proxy:1', depends_on: {web: {condition: service_started, restart: true, required: false}}}
  cron: {image: 'example.org/cron:1', depends_on: [db]}
`, version)
	}
	outdated := map[string]bool{}
	s := store(t)
	s.Outdated = func([]workload.Container) map[string]bool { return outdated }
	apply := func(version int, want string) {
		t.Helper()
		for _, check := range []bool{true, false} {
			plan, _, err := s.Apply("shop", project(version), check)
			if got := strings.NewReplacer("example.org/", "", "shop.", "").Replace(fmt.Sprint(plan)); err != nil || got != want {
				t.Errorf("version %d: %s, %v, want %s", version, got, err, want)
			}
		}
	}
	apply(1, "[{cron cron:1 new} {db db:1 new} {proxy proxy:1 new} {web web:1 new}]")
	apply(1, "[{cron cron:1 unchanged} {db db:1 unchanged} {proxy proxy:1 unchanged} {web web:1 unchanged}]")
	apply(2, "[{cron cron:1 unchanged} {db db:2 replaced} {proxy proxy:1 restarted} {web web:1 restarted}]")
	outdated["shop.web"] = true // its image's name stands for another one
	apply(2, "[{cron cron:1 unchanged} {db db:2 unchanged} {proxy proxy:1 restarted} {web web:1 replaced}]")
}

// TestApplyRefused leaves everything as it was.
func TestApplyRefused(t *testing.T) {
	s := store(t, workload.Container{ID: "own", Ports: []workload.Port{{HostPort: 443, Protocol: "tcp"}}})
	if _, _, err := s.Apply("shop", []byte(web), false); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		project, text string
		want          error
		words         string
	}{
		{"other", web, ErrConflict, "port 80/tcp of project other: another project has it: shop"},
		{"other", strings.Replace(db, "image", "ports: [\"80:1\"]\n    image", 1), ErrConflict, "port 80/tcp"},
		{"other", strings.Replace(db, "image", "ports: [\"443:1\"]\n    image", 1), ErrConflict, "node.yaml"},
		{"other", db + "    privileged: true\n    pid: host\n", workload.ErrNotAllowed, "container other.db: not allowed by the node's node.yaml, which would need under \"allow:\" the line - {container: other.db, privileged: true, host: [pid]}"},
		{"", db, ErrName, ""},
		{"../x", db, ErrName, ""},
		{"node", db, ErrName, ""},
		{"Shop", db, ErrName, ""},
		{strings.Repeat("x", 64), db, ErrName, ""},
		{"other", "# " + strings.Repeat("x", MaxText), ErrSize, ""},
		{"other", "services:\n  db:\n    build: .\n", nil, "other.yaml:3:5"},
		{"other", "nonsense: [", nil, "other.yaml"},
	} {
		_, _, err := s.Apply(test.project, []byte(test.text), false)
		var problems *nodeconfig.Problems
		if err == nil || test.want != nil && !errors.Is(err, test.want) || test.want == nil && !errors.As(err, &problems) || !strings.Contains(err.Error(), test.words) {
			t.Errorf("%s: got %v, want %v and %q", test.project, err, test.want, test.words)
		}
		if got := ids(t, s); got != "own shop.web" {
			t.Fatalf("%s: wanted %s afterwards", test.project, got)
		}
	}
	if _, _, err := s.Apply("more", []byte(db), true); err != nil || ids(t, s) != "own shop.web" {
		t.Errorf("a check changed something, or failed: %v", err)
	}
}

// TestSameService: projects do not know of each other's names.
func TestSameService(t *testing.T) {
	s := store(t, workload.Container{ID: "db"})
	for _, project := range []string{"shop", "blog"} {
		if _, _, err := s.Apply(project, []byte(db), false); err != nil {
			t.Error(err)
		}
	}
	if got := ids(t, s); got != "blog.db db shop.db" {
		t.Errorf("wanted %s", got)
	}
}

// TestSharedNetwork: projects on one network agree on where it leads, and fit in.
func TestSharedNetwork(t *testing.T) {
	s := store(t)
	file := func(network string, services int) []byte {
		var b strings.Builder
		b.WriteString("networks: {default: {" + network + "}}\nservices:\n")
		for i := range services {
			fmt.Fprintf(&b, "  s%d: {image: a}\n", i)
		}
		return []byte(b.String())
	}
	for _, step := range []struct {
		project, network string
		services         int
		want             string
	}{
		{"a", "name: lan, internal: true", 1, ""},
		{"b", "name: lan", 1, "network lan of project b, internal or not: another project has it: a"},
		{"b", "name: lan, external: true", 1, ""},
		{"c", "name: lan, internal: true", workload.MaxOnNetwork, "network lan of project c: at most 120 containers"},
		{"c", "name: lan, internal: true", workload.MaxOnNetwork - 2, ""},
		{"d", "", workload.MaxOnNetwork, ""},
	} {
		_, _, err := s.Apply(step.project, file(step.network, step.services), false)
		if (err == nil) != (step.want == "") || err != nil && !strings.Contains(err.Error(), step.want) {
			t.Errorf("%s on %s: %v, want %q", step.project, step.network, err, step.want)
		}
	}
}

// TestBrokenProject: what an older release took and this one refuses is an error,
// not an order to stop what runs.
func TestBrokenProject(t *testing.T) {
	s := store(t)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"shop.yaml": "services: {web: {nonsense: 1}}", "README": "no project", ".x.yaml": "{"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Containers(); err == nil || !strings.Contains(err.Error(), "project shop") {
		t.Errorf("%v", err)
	}
	if _, _, err := s.Apply("data", []byte(db), false); err == nil || !strings.Contains(err.Error(), "project shop") {
		t.Errorf("applied beside what cannot be read: %v", err)
	}
	if _, _, err := s.Apply("shop", []byte(web), false); err != nil || ids(t, s) != "shop.web" {
		t.Errorf("a better file does not help: %v", err)
	}
}

// TestHushed: what this node keeps of a project's file, in its log and for whoever asks about
// something else, has the place, the key and the reason, and no value: more people read that
// than the file.
func TestHushed(t *testing.T) {
	const secret = "hunter2"
	s := store(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(s.dir, 0o700))
	warned := "services:\n  web: {image: 'a/b:1', environment: {PW: " + secret + "}, stop_signal: SIGTERM, pull_policy: always}\n"
	must(os.WriteFile(filepath.Join(s.dir, "shop.yaml"), []byte(warned), 0o600))
	var b bytes.Buffer
	log.SetOutput(&b)
	defer log.SetOutput(os.Stderr)
	_, err := s.Containers()
	must(err)
	if got := b.String(); strings.Contains(got, secret) || !strings.Contains(got, "project shop: shop.yaml:2:") || !strings.Contains(got, "pull_policy") {
		t.Errorf("the log of warnings: %s", got)
	}
	b.Reset()
	refused := "services:\n  web: {image: 'a/b:1', environment: {PW: " + secret + "}, nonsense: 1}\n"
	must(os.WriteFile(filepath.Join(s.dir, "shop.yaml"), []byte(refused), 0o600))
	s = Open(s.dir, nil)
	_, all := s.Containers()
	_, _, other := s.Apply("data", []byte(db), false)
	_, own := s.Check(nil)
	for what, err := range map[string]error{"all": all, "another project": other, "node.yaml": own} {
		var problems *nodeconfig.Problems
		if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "project shop: shop.yaml:2:") || !errors.As(err, &problems) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Whoever hands the file in is told with his own words.
	if _, _, err := s.Apply("shop", []byte(refused), false); err == nil || !strings.Contains(err.Error(), secret) {
		t.Errorf("its own apply: %v", err)
	}
	if strings.Contains(b.String(), secret) {
		t.Errorf("the log: %s", &b)
	}
}

// TestApplyAllowed: what node.yaml allows one project's container it allows no other's.
func TestApplyAllowed(t *testing.T) {
	s := store(t)
	s.Allow = []rights.Allow{{Container: "data.db", Rights: rights.Rights{Host: []rights.Namespace{rights.HostNetwork}}}}
	text := []byte(db + "    network_mode: host\n")
	if _, _, err := s.Apply("data", text, false); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Apply("shop", text, true); !errors.Is(err, workload.ErrNotAllowed) {
		t.Errorf("a check of another project: %v", err)
	}
	if got := ids(t, s); got != "data.db" {
		t.Errorf("wanted %s", got)
	}
}

// TestParsedOnce: a file is parsed when it is applied, or at the first look after a
// start, and not again for each question.
func TestParsedOnce(t *testing.T) {
	first := store(t)
	for _, project := range []string{"shop", "blog"} {
		if _, _, err := first.Apply(project, []byte(db), false); err != nil {
			t.Fatal(err)
		}
	}
	s := Open(first.dir, nil)
	if got := ids(t, s); got != "blog.db shop.db" {
		t.Fatalf("wanted %s", got)
	}
	for _, store := range []*Store{first, s} {
		for _, project := range []string{"shop", "blog"} { // whoever reads them now fails
			if err := os.WriteFile(s.path(project), []byte("nonsense: ["), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := store.Apply("data", []byte(db), false); err != nil {
			t.Error(err)
		}
		if got := ids(t, store); got != "blog.db data.db shop.db" {
			t.Errorf("wanted %s", got)
		}
	}
}

// TestMany: no more containers than the node has memory for, but what is there may be
// changed, and made less, whatever their number.
func TestMany(t *testing.T) {
	dir := t.TempDir()
	file := func(services ...string) []byte {
		text := "services:\n"
		for _, name := range services {
			text += "  " + name + ": {image: example.org/a:1}\n"
		}
		return []byte(text)
	}
	s := Open(dir, nil)
	s.Most = 3
	for _, step := range []struct {
		project  string
		services []string
		full     bool
	}{
		{"one", []string{"a", "b"}, false}, {"two", []string{"a", "b"}, true}, {"two", []string{"a"}, false},
		{"three", []string{"a"}, true}, {"one", []string{"a", "c"}, false}, {"one", []string{"a", "b", "c"}, true},
		{"one", []string{"a"}, false}, {"three", []string{"a"}, false},
	} {
		_, _, err := s.Apply(step.project, file(step.services...), false)
		if errors.Is(err, ErrMany) != step.full || !step.full && err != nil {
			t.Errorf("%s of %q: %v", step.project, step.services, err)
		}
	}
	// A node that has less memory than before runs what was wanted, and lets it be changed.
	s = Open(dir, nil)
	s.Most = 1
	if all, err := s.Containers(); err != nil || len(all) != 3 {
		t.Errorf("%d containers, %v", len(all), err)
	}
	if _, _, err := s.Apply("one", file("b"), false); err != nil {
		t.Error(err)
	}
	for memory, want := range map[uint64]int{0: 0, 124 << 20: 15, 347 << 20: 43, 1 << 40: 4096} {
		if got := MostOf(memory); got != want {
			t.Errorf("%d bytes: %d containers, want %d", memory, got, want)
		}
	}
}

// TestOwnPorts: an apply that would publish the node's API is refused; a file that an
// earlier release has taken keeps no other project from running, nor its own container.
func TestOwnPorts(t *testing.T) {
	const takes = "services:\n  web:\n    image: example.org/web:1\n    ports: [\"7443:8080\", \"80:8080\"]\n"
	s := store(t)
	var p *nodeconfig.Problems
	if _, _, err := s.Apply("shop", []byte(takes), false); !errors.As(err, &p) || p.List[0].Line != 4 {
		t.Errorf("applied: %v", err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("shop"), []byte(takes), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := Open(s.dir, nil).Containers()
	if err != nil || len(all) != 1 || len(all[0].Ports) != 1 || all[0].Ports[0].HostPort != 80 {
		t.Errorf("taken before: %+v, %v", all, err)
	}
}

// TestDamagedKey: without the key of sealed projects, whatever has become of it, the others
// and the node's own containers are wanted still, each project that cannot be read is named,
// and all can be applied anew, one by one.
func TestDamagedKey(t *testing.T) {
	damages := map[string]func(key string) error{
		"cut short": func(key string) error { return os.WriteFile(key, []byte("AGE-SECRET-KEY-1"), 0o600) },
		"empty":     func(key string) error { return os.WriteFile(key, nil, 0o600) },
		"noise":     func(key string) error { return os.WriteFile(key, bytes.Repeat([]byte{0xff}, 5000), 0o600) },
		"a folder":  func(key string) error { return errors.Join(os.Remove(key), os.Mkdir(key, 0o700)) },
		"gone":      os.Remove,
		"another's": func(key string) error {
			_, err := sealed.Key(key + ".x").Make()
			return errors.Join(err, os.Rename(key+".x", key))
		},
	}
	for what, damage := range damages {
		state := t.TempDir()
		key := filepath.Join(state, KeyFile)
		open := func(seal bool) *Store {
			s := Open(filepath.Join(state, "projects"), []workload.Container{{ID: "own"}})
			s.Key, s.Seal = sealed.Key(key), seal
			return s
		}
		readable := func(s *Store) string {
			t.Helper()
			all, locked, err := s.Readable()
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			var names []string
			for _, c := range all {
				names = append(names, c.ID)
			}
			for _, name := range slices.Sorted(maps.Keys(locked)) {
				names = append(names, "-"+name)
			}
			return strings.Join(names, " ")
		}
		apply := func(s *Store, project, text string) {
			t.Helper()
			if _, _, err := s.Apply(project, []byte(text), false); err != nil {
				t.Errorf("%s: %s: %v", what, project, err)
			}
		}
		s := open(true)
		apply(s, "shop", web)
		apply(s, "blog", db)
		if got := readable(s); got != "blog.db own shop.web" {
			t.Fatalf("%s: before: %s", what, got)
		}
		apply(open(false), "clear", db)
		before, err := os.ReadFile(key)
		if err := errors.Join(err, damage(key)); err != nil {
			t.Fatal(err)
		}
		s = open(false)
		if got := readable(s); got != "clear.db own -blog -shop" {
			t.Errorf("%s: %s", what, got)
		}
		if _, err := s.Containers(); err == nil || !strings.Contains(err.Error(), "project blog") {
			t.Errorf("%s: what nobody can list is listed: %v", what, err)
		}
		s = open(true) // seals the one in the clear, if it has a key
		if got := readable(s); got != "clear.db own -blog -shop" {
			t.Errorf("%s: %s", what, got)
		}
		apply(s, "more", db)
		apply(s, "shop", web)
		if got := readable(s); got != "clear.db more.db own shop.web -blog" {
			t.Errorf("%s: one applied anew: %s", what, got)
		}
		if got := readable(open(true)); got != "clear.db more.db own shop.web -blog" {
			t.Errorf("%s: after a restart: %s", what, got)
		}
		apply(s, "blog", db)
		if got := ids(t, open(true)); got != "blog.db clear.db more.db own shop.web" {
			t.Errorf("%s: all applied anew: %s", what, got)
		}
		after, err := os.ReadFile(key)
		if err != nil || bytes.Equal(before, after) {
			t.Errorf("%s: the key is as before, %v", what, err)
		}
	}
}
