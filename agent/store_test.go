package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
)

// deepen makes a chain of folders below folder, each in the one before.
func deepen(t *testing.T, folder string, levels int) {
	t.Helper()
	at, err := unix.Open(folder, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(at, "d", 0o700))
		next, err := unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		unix.Close(at)
		at = next
	}
	unix.Close(at)
}

// TestStore goes the way of an operator whose images are in a registry with a password,
// by kogge's command line and a real agent: login, pull, apply, volumes, prune.
func TestStore(t *testing.T) {
	bin := os.Getenv(binEnv)
	if bin == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root: makes containers")
		}
		if testing.Short() {
			t.Skip("builds agent, shim and runc: left out by -short")
		}
		bin = programs(t)
	}
	if !namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWPID, binEnv+"="+bin) {
		return
	}
	n := newNode(t, bin)
	n.imageOf(t, filepath.Join(n.folder, "state", "preload"), "prober", "prober")
	n.config(t, `
  services:
    web:
      image: example.invalid/prober:1
      entrypoint: [/app, hang]
      volumes: ["data:/data"]
      stop_grace_period: 0s
  volumes: {data: }
`)
	s := &stored{n: n}
	e := &execs{node: n, fleet: n.invite(t)}
	n.start(t, "containerd")
	n.start(t, "agent")
	e.adopt(t).Close()
	nodes := fmt.Sprintf(`{"n1": {"address": %q, "adopted": "2026-11-25T00:00:00Z"}}`, apiAddress)
	must(t, os.WriteFile(filepath.Join(n.folder, "hanse", "nodes.json"), []byte(nodes), 0o600))
	images := newLibrary(t)
	program, err := os.ReadFile(filepath.Join(bin, "prober"))
	must(t, err)
	images.push(t, "a/app:1", goruntime.GOARCH, static.NewLayer(tarOf(t, map[string][]byte{"app": program, "more": make([]byte, 4<<20)}), types.OCIUncompressedLayer))
	images.push(t, "a/spare:1", goruntime.GOARCH, random(t, 80, 1<<20))
	images.push(t, "a/foreign:1", other, random(t, 81, 1000))
	r := images.host

	s.fails(t, r+": tls: failed to verify certificate", "", "images", "pull", r+"/a/app:1") // HTTPS, on loopback too
	must(t, os.WriteFile(filepath.Join(n.folder, "ca.pem"), []byte(images.ca), 0o600))
	s.kogge(t, "", "registry", "set", r, "--ca", filepath.Join(n.folder, "ca.pem"))
	s.fails(t, r+": access denied", "kogge registry login", "images", "pull", r+"/a/app:1")
	s.input = password + "\n"
	s.kogge(t, "keeps a password of "+user+" for "+r, "registry", "login", r, "-u", user, "--password-stdin")
	s.kogge(t, "system, own CA", "registry", "ls")
	s.secretive(t)

	s.kogge(t, " from "+r, "images", "pull", r+"/a/spare:1")
	s.kogge(t, `"done":"`, "images", "pull", r+"/a/spare:1", "--json")
	s.fails(t, "image is for another platform: it is for linux/"+other+", but this node is linux/"+goruntime.GOARCH, "", "images", "pull", r+"/a/foreign:1")
	s.fails(t, "linux/"+other+" was requested", "", "images", "pull", r+"/a/spare:1", "--platform", "linux/"+other)
	s.fails(t, "not in the registry", "", "images", "pull", r+"/a/none:1")

	// While the image of a container comes, ps shows how far it is.
	hold := make(chan struct{})
	images.bends(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || r.Header.Get("Range") != "" {
			return false
		}
		images.proxy.ServeHTTP(&held{w, 1 << 20, hold}, r)
		return true
	})
	compose := filepath.Join(n.folder, "compose.yaml")
	must(t, os.WriteFile(compose, []byte("name: shop\nservices:\n  app:\n    image: "+r+"/a/app:1\n    entrypoint: [/app, hang]\n    volumes: [\"db:/db\"]\n    stop_grace_period: 0s\nvolumes: {db: }\n"), 0o600))
	s.kogge(t, "shop.app", "apply", "-f", compose, "--no-wait")
	until(t, "ps to show the pull", func() bool {
		return strings.Contains(s.kogge(t, "", "ps"), " pulling ") && strings.Contains(s.kogge(t, "", "ps"), "%")
	})
	images.bends(nil)
	close(hold)
	until(t, "shop.app to run", func() bool {
		for line := range strings.Lines(s.kogge(t, "", "ps")) {
			if strings.HasPrefix(line, "shop.app ") && strings.Contains(line, " running ") {
				return true
			}
		}
		return false
	})
	s.row(t, "images ls", r+"/a/app:1", "now", "shop.app")
	s.row(t, "images ls", r+"/a/spare:1", "never", "-")
	s.row(t, "images ls", "example.invalid/prober:1", "now", "web")
	s.row(t, "volumes ls", "data", "web")
	s.row(t, "volumes ls", "shop.db", "shop.app")

	s.fails(t, "image "+r+"/a/app:1 is in use by shop.app", "--force", "images", "rm", r+"/a/app:1")
	s.fails(t, "volume shop.db: in use: by shop.app", "kogge rm PROJECT", "volumes", "rm", "shop.db")
	s.fails(t, "no such volume", "kogge volumes ls", "volumes", "rm", "../data")
	if got := s.kogge(t, "", "images", "prune", "--check"); got != r+"/a/spare:1\n" {
		t.Errorf("prune --check: %q", got)
	}
	s.kogge(t, " freed", "images", "prune")
	// What a container leaves goes with it: its output, and folders of any depth.
	output := filepath.Join(n.folder, "run", "log")
	must(t, os.WriteFile(filepath.Join(output, "shop.app.log.1"), []byte("said long ago\n"), 0o600))
	kept := filepath.Join(output, "web.log.1")
	must(t, os.WriteFile(kept, []byte("said by another\n"), 0o600))
	uppers, err := filepath.Glob(filepath.Join(n.folder, "state", "containerd", "io.containerd.snapshotter.v1.overlayfs", "snapshots", "*", "fs", "data"))
	if must(t, err); len(uppers) != 1 {
		t.Fatalf("root file systems with a place for web's volume: %q", uppers)
	}
	for _, folder := range []string{filepath.Join(n.folder, "state", "volumes", "shop.db"), uppers[0]} {
		deepen(t, folder, 3000)
	}
	s.kogge(t, "", "rm", "shop")
	until(t, "the output of the container to go with it", func() bool {
		all, err := filepath.Glob(filepath.Join(output, "shop.app*"))
		return err == nil && len(all) == 0
	})
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("the output of another container: %v", err)
	}
	until(t, "the volume to be free", func() bool {
		return strings.Contains(s.kogge(t, "", "volumes", "ls"), "\nshop.db") && !strings.Contains(s.kogge(t, "", "volumes", "ls"), "shop.app")
	})
	s.kogge(t, "", "volumes", "rm", "shop.db")
	until(t, "the files of the volume to be gone", func() bool {
		left, err := os.ReadDir(filepath.Join(n.folder, "state", "volumes"))
		return err == nil && len(left) == 1 && left[0].Name() == "data"
	})
	s.kogge(t, r+"/a/app:1\n", "images", "prune")
	if got := s.kogge(t, "", "images", "ls"); strings.Contains(got, r) || !strings.Contains(got, "example.invalid/prober:1") {
		t.Errorf("after prune: %s", got)
	}
	s.kogge(t, "", "registry", "logout", r)
	s.fails(t, r+": access denied", "kogge registry login", "images", "pull", r+"/a/app:1")
	s.secretive(t)
	n.stop(t, "agent")
	n.stop(t, "containerd")
}

// stored is a node and its operator's command line.
type stored struct {
	n     *node
	input string // for the next command
}

// run types a command and returns what it says.
func (s *stored) run(t *testing.T, args []string) (out, errs string, err error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.n.bin, "kogge"), args...)
	cmd.Env = append(os.Environ(), "KOGGE_CONFIG="+s.n.folder, "KOGGE_FLEET=hanse", "KOGGE_NODE=n1")
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(s.input), &o, &e
	s.input = ""
	err = cmd.Run()
	if text := o.String() + e.String(); strings.Contains(text, password) {
		t.Errorf("the password is in %s", text)
	}
	return o.String(), e.String(), err
}

func (s *stored) kogge(t *testing.T, want string, args ...string) string {
	t.Helper()
	out, errs, err := s.run(t, args)
	if err != nil || !strings.Contains(out, want) {
		t.Fatalf("kogge %s: %v\n%s%s, want %q", strings.Join(args, " "), err, out, errs, want)
	}
	return out
}

func (s *stored) fails(t *testing.T, want, hint string, args ...string) {
	t.Helper()
	out, errs, err := s.run(t, args)
	if err == nil || !strings.Contains(errs, want) || !strings.Contains(errs, hint) {
		t.Errorf("kogge %s: %v\n%s%s, want %q and %q", strings.Join(args, " "), err, out, errs, want, hint)
	}
}

// row wants a line of a table to begin with name and to have all of the words.
func (s *stored) row(t *testing.T, table, name string, words ...string) {
	t.Helper()
	out := s.kogge(t, "", strings.Fields(table)...)
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != name {
			continue
		}
		for _, w := range words {
			if !strings.Contains(line, w) {
				t.Errorf("kogge %s: %q, want %q in it", table, line, w)
			}
		}
		return
	}
	t.Errorf("kogge %s: %s has no line for %s", table, out, name)
}

// secretive wants that no file of the node says the password: settings, logs, output,
// what PID 1 was told.
func (s *stored) secretive(t *testing.T) {
	t.Helper()
	must(t, filepath.WalkDir(s.n.folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // it went while we looked
		}
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, []byte(password)) {
			t.Errorf("the password is in %s", path)
		}
		return nil
	}))
	if said := strings.Join(s.n.notes.since(0), "\n"); strings.Contains(said, password) {
		t.Errorf("the password is in what PID 1 was told: %s", said)
	}
}
