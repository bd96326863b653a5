package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kogge.example/boards"
	"kogge.example/image/debian"
	"kogge.example/image/firmware"
	"kogge.example/qemu"
	"kogge.example/qemu/bootsector"
)

// tools is where the CLI is built to.
var tools string

func TestMain(m *testing.M) {
	var err error
	if tools, err = os.MkdirTemp("", "kogge-e2e-tools-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(tools)
	os.Exit(code)
}

// whole leaves a test to runs without -short: it starts virtual machines.
func whole(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts virtual machines: left out by -short")
	}
}

// scriptFolders are the folders of scripts by the name of their subtest. With
// KOGGE_E2E=all all of them are in the set, otherwise short alone.
var scriptFolders = map[string]string{
	"short":   "testdata",
	"node":    filepath.Join("testdata", "long", "node"),
	"updates": filepath.Join("testdata", "long", "updates"),
	"fleet":   filepath.Join("testdata", "long", "fleet"),
}

// TestScript runs each script of testdata: whole systems, two at a time on two
// processors.
func TestScript(t *testing.T) {
	whole(t)
	t.Parallel()
	names := []string{"short"}
	switch set := os.Getenv("KOGGE_E2E"); set {
	case "":
	case "all":
		names = slices.Sorted(maps.Keys(scriptFolders))
	default:
		t.Fatalf("KOGGE_E2E=%s: want all, or nothing for the short set", set)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scripts(t, scriptFolders[name])
		})
	}
}

// scripts runs the scripts of a folder.
func scripts(t *testing.T, dir string) {
	p := params(t, dir)
	boots, err := images()
	if err != nil {
		t.Fatal(err)
	}
	setup := p.Setup
	p.Setup = func(env *testscript.Env) error {
		env.Setenv("BASE", boots.base)
		env.Setenv("RECORDER", boots.recorder)
		env.Setenv("EXAMPLE_TAR", boots.exampleTar)
		env.Setenv("EXAMPLE_ARM64_TAR", boots.exampleARM)
		env.Setenv("EXAMPLE_YAML", boots.exampleYAML)
		env.Setenv("PROBER_TAR", boots.proberTar)
		env.Setenv("HOG_TAR", boots.hogTar)
		env.Setenv("SOURCE_DATE_EPOCH", strconv.Itoa(epoch))
		return setup(env)
	}
	testscript.Run(t, p)
}

// TestBench runs scripts about the bench itself, with a guest of one sector.
func TestBench(t *testing.T) {
	whole(t)
	dir := filepath.Join("testdata", "bench")
	if fails := os.Getenv("KOGGE_E2E_FAILS"); fails != "" {
		dir = fails // TestFailureReport runs us
	}
	p := params(t, dir)
	setup := p.Setup
	p.Setup = func(env *testscript.Env) error {
		if err := os.WriteFile(filepath.Join(env.WorkDir, "guest.img"), bootsector.Disk(), 0o600); err != nil {
			return err
		}
		return setup(env)
	}
	testscript.Run(t, p)
}

// TestFailureReport runs a script that fails in another process: its output has
// to name a console log that is there, and the command that runs it again.
func TestFailureReport(t *testing.T) {
	whole(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestBench$")
	cmd.Env = append(os.Environ(), "KOGGE_E2E_FAILS="+filepath.Join("testdata", "fails"), "KOGGE_E2E_LIMIT=10s")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("a script that fails passed:\n%s", out)
	}
	for _, want := range []string{
		"nothing within 10s", `wait for line "^never$"`,
		"again: go test ./qemu/e2e -count=1 -run '^TestBench$/^mute$'", "qemu-system-x86_64 -name guest=n1",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	log := regexp.MustCompile(`n1: console log (/\S+)`).FindSubmatch(out)
	if log == nil {
		t.Fatalf("the report names no console log:\n%s", out)
	}
	path := string(log[1])
	if said, err := os.ReadFile(path); err != nil || !strings.Contains(string(said), "ready") {
		t.Errorf("console log %s: %q, %v", path, said, err)
	}
	if err := qemu.Remove(filepath.Dir(path)); err != nil { // it refuses one that runs
		t.Error(err)
	}
	os.RemoveAll(filepath.Dir(filepath.Dir(path)))
}

func params(t *testing.T, dir string) testscript.Params {
	limit := 5 * time.Minute
	if text := os.Getenv("KOGGE_E2E_LIMIT"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatalf("KOGGE_E2E_LIMIT: %v", err)
		}
	}
	return testscript.Params{
		Dir:   dir,
		Setup: func(env *testscript.Env) error { return setup(env, limit) },
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"kogge": kogge, "vm": vm, "disk": disk, "programs": makePrograms, "await": await, "fleet": foundFleet, "decide": decide, "thief": stealing},
	}
}

type benchKey struct{}

// cleanupT is what testing.T has beyond testscript.T.
type cleanupT interface {
	testscript.T
	Name() string
	Failed() bool
	Cleanup(func())
}

// setup gives a script its bench, and the CLI the caches of the user who runs the
// tests: scripts otherwise have an environment of their own.
func setup(env *testscript.Env, limit time.Duration) error {
	t, ok := env.T().(cleanupT)
	if !ok {
		return errors.New("scripts run under testing.T only")
	}
	for _, name := range []string{"HOME", "GOCACHE", "GOMODCACHE", "GOPATH", "GOTOOLCHAIN", "GOFLAGS", "GOPROXY", "KOGGE_MIRROR", "KOGGE_KEYRING"} {
		if value, set := os.LookupEnv(name); set {
			env.Setenv(name, value)
		}
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	env.Setenv("KOGGE_CACHE", cache)
	env.Setenv("ROOT", root) // the source tree
	env.Setenv("KOGGE_CONFIG", filepath.Join(env.WorkDir, "config"))
	// Not below the script's own folder, which is gone when a failure is read;
	// short, because it holds sockets.
	dir, err := os.MkdirTemp("", "kogge-e2e-")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &bench{ctx: ctx, dir: dir, limit: limit, vms: map[string]*node{}}
	env.Values[benchKey{}] = b
	t.Cleanup(func() {
		for _, n := range b.vms {
			n.end()
		}
		cancel()
		if !t.Failed() && os.Getenv("KOGGE_E2E_KEEP") == "" {
			os.RemoveAll(dir)
			return
		}
		t.Log(b.obituary(t.Name()))
	})
	return nil
}

// obituary says where the logs of a failed script are and how to run it again.
func (b *bench) obituary(test string) string {
	var s strings.Builder
	for name, n := range b.vms {
		fmt.Fprintf(&s, "%s: console log %s\n", name, filepath.Join(n.dir, "console.log"))
		if n.vm != nil {
			fmt.Fprintf(&s, "%s: %s", name, strings.ReplaceAll(n.vm.CommandLine(), "\n", "\n\t"))
			s.WriteByte('\n')
		}
	}
	var anchored []string
	for _, part := range strings.Split(test, "/") {
		anchored = append(anchored, "^"+part+"$")
	}
	fmt.Fprintf(&s, "again: go test ./qemu/e2e -count=1 -run '%s'", strings.Join(anchored, "/"))
	return s.String()
}

// cacheDir is the CLI's cache, shared with it.
func cacheDir() (string, error) {
	if dir := os.Getenv("KOGGE_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "kogge"), err
}

// addFirmware completes a machine with a board's firmware from the package cache,
// which fetches it the first time.
func addFirmware(m *qemu.Machine, board boards.Board) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	files, err := firmware.Fetch(context.Background(), debian.Cache{Dir: filepath.Join(cache, "debian"), Say: say}, board)
	if err != nil {
		return err
	}
	if files.Vars == "" {
		m.BIOS = files.Code
		return nil
	}
	m.UEFI = &qemu.UEFI{Code: files.Code, Vars: files.Vars}
	return nil
}

// kogge runs the CLI of this source tree.
func kogge(ts *testscript.TestScript, neg bool, args []string) {
	program, err := cli()
	ts.Check(err)
	err = ts.Exec(program, args...)
	switch {
	case err != nil && !neg:
		ts.Fatalf("kogge %s: %v", strings.Join(args, " "), err)
	case err == nil && neg:
		ts.Fatalf("kogge %s: succeeded", strings.Join(args, " "))
	}
}
