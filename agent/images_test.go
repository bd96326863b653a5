package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
)

// TestImages runs images that say much and images that say little, and wants of each what
// Docker makes of it.
func TestImages(t *testing.T) {
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
	n.config(t, "\n  services: {}\n")
	i := &imaged{stored: stored{n: n}}
	e := &execs{node: n, fleet: n.invite(t)}
	n.start(t, "containerd")
	n.start(t, "agent")
	e.adopt(t).Close()
	nodes := fmt.Sprintf(`{"n1": {"address": %q, "adopted": "2026-11-25T00:00:00Z"}}`, apiAddress)
	must(t, os.WriteFile(filepath.Join(n.folder, "hanse", "nodes.json"), []byte(nodes), 0o600))
	i.testFound(t)
	i.testTag(t)
	i.testVolumes(t)
	n.stop(t, "agent")
	n.stop(t, "containerd")
}

// imaged is a node for images of the test's own.
type imaged struct {
	stored
	services int
}

// load gives the node the image example.invalid/NAME:1: the prober at /bin/app, and what
// else is in its layers.
func (i *imaged) load(t *testing.T, name string, config map[string]any, more ...tar.Header) {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(i.n.bin, "prober"))
	must(t, err)
	layers := [][]byte{layerOf(t, string(program), tar.Header{Name: "bin/app", Mode: 0o755})}
	if len(more) > 0 {
		layers = append(layers, layerOf(t, "hush", more...))
	}
	file := filepath.Join(i.n.folder, name+".tar")
	i.n.imageWith(t, file, "example.invalid/"+name+":1", config, layers...)
	i.kogge(t, "example.invalid/"+name+":1", "images", "load", file)
}

// layerOf has files, all with the same text, and folders: those whose names end in a slash.
func layerOf(t *testing.T, text string, all ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range all {
		h.Typeflag = tar.TypeDir
		if !strings.HasSuffix(h.Name, "/") {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(text))
		}
		must(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write([]byte(text))
			must(t, err)
		}
	}
	must(t, w.Close())
	return b.Bytes()
}

// apply gives the node the project pg with one service, in the short form of YAML, and
// returns what kogge says.
func (i *imaged) apply(t *testing.T, service, text string, volumes ...string) string {
	t.Helper()
	file := filepath.Join(i.n.folder, "compose.yaml")
	declared := ""
	for _, v := range volumes {
		declared += v + ": , "
	}
	must(t, os.WriteFile(file, []byte("name: pg\nservices:\n  "+service+": {"+text+"}\nvolumes: {"+declared+"}\n"), 0o600))
	return i.kogge(t, "pg."+service, "apply", "-f", file, "--no-wait")
}

// volume is what is at path in a volume, as the disk has it.
func (i *imaged) volume(name, path string) string {
	return filepath.Join(i.n.folder, "state", "volumes", name, path)
}

// finds waits until a container with this image has said what it finds of the paths.
func (i *imaged) finds(t *testing.T, image, text, volumes string, paths ...string) string {
	t.Helper()
	i.services++
	service := fmt.Sprintf("s%d", i.services)
	file := i.volume("pg.out", service)
	i.apply(t, service, "image: example.invalid/"+image+":1, command: [app, found, /out/"+service+", "+strings.Join(paths, ", ")+"], restart: 'no', volumes: [out:/out"+volumes+"]"+text, "out", "log", "ssh", "db", "new", "own")
	until(t, image+" to say what it finds", func() bool {
		_, err := os.Stat(file)
		if err != nil && strings.Contains(i.kogge(t, "", "ps"), " backoff ") {
			t.Fatalf("it does not start:\n%s", i.kogge(t, "", "ps"))
		}
		return err == nil
	})
	said, err := os.ReadFile(file)
	must(t, err)
	return string(said)
}

// testFound: environment, user, folder and volumes of an image.
func (i *imaged) testFound(t *testing.T) {
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	i.load(t, "bare", map[string]any{"Env": []string{"FOO=bar"}, "WorkingDir": "/made/here"},
		tar.Header{Name: "var/log/", Mode: 0o755}, tar.Header{Name: "root/.ssh/", Mode: 0o700}, tar.Header{Name: "root/.ssh/key", Mode: 0o600},
		tar.Header{Name: "var/db/", Mode: 0o2750, Uid: 1000, Gid: 50})
	got := i.finds(t, "bare", "", "", "/made/here")
	if want := "env FOO=bar HOME=/ HOSTNAME=s1 " + path + "\nuser 0:0 [0]\nin /made/here\n/made/here 040755 0:0\n"; got != want {
		t.Errorf("of an image with little to say:\n%swant:\n%s", got, want)
	}
	got = i.finds(t, "bare", "", ", log:/var/log, ssh:/root/.ssh, db:/var/db, new:/new", "/var/log", "/root/.ssh", "/root/.ssh/key", "/var/db", "/new")
	if want := "/var/log 040755 0:0\n/root/.ssh 040700 0:0\n/root/.ssh/key 100600 0:0 \"hush\"\n/var/db 042750 1000:50\n/new 040755 0:0\n"; !strings.HasSuffix(got, want) {
		t.Errorf("volumes on folders of the image:\n%swant:\n%s", got, want)
	}
	got = i.finds(t, "bare", ", user: '0:7'", ", own:/own", "/own")
	if want := "/own 040755 0:7\n"; !strings.HasSuffix(got, want) {
		t.Errorf("a volume on no folder of the image: %s", got)
	}
}

// testVolumes: what an image declares as its volumes lasts, from one start to the next and
// to that of another image, and is removed as all volumes are.
func (i *imaged) testVolumes(t *testing.T) {
	declared := map[string]any{"Volumes": map[string]any{"/data": struct{}{}, "var/lib/own/": struct{}{}, "/named": struct{}{}, "/proc": struct{}{}}, "Cmd": []string{"app", "starts", "/data/n", "/var/lib/own/n", "/n"}}
	i.load(t, "kept", declared, tar.Header{Name: "data/", Mode: 0o750}, tar.Header{Name: "data/seed", Mode: 0o600}, tar.Header{Name: "var/lib/own/", Mode: 0o755, Uid: 1000, Gid: 50})
	i.apply(t, "db", "image: example.invalid/kept:1, restart: always, stop_grace_period: 0s, volumes: [mine:/named]", "mine")
	atLeast := func(bytes int) func() bool {
		return func() bool {
			data, err1 := os.ReadFile(i.volume("pg.db-data", "n"))
			own, err2 := os.ReadFile(i.volume("pg.db-var-lib-own", "n"))
			return err1 == nil && err2 == nil && min(len(data), len(own)) >= bytes
		}
	}
	until(t, "the volumes to outlive three starts", atLeast(3))
	if text, err := os.ReadFile(i.volume("pg.db-data", "seed")); err != nil || string(text) != "hush" {
		t.Errorf("what the image has in its volume: %q, %v", text, err)
	}
	info, err := os.Stat(i.volume("pg.db-data", ""))
	if err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the image's volume: %v, %v", info, err)
	}
	i.row(t, "volumes ls", "pg.db-data", "pg.db")
	i.row(t, "volumes ls", "pg.db-var-lib-own", "pg.db")
	if all := i.kogge(t, "", "volumes", "ls"); strings.Contains(all, "pg.db-named") || strings.Contains(all, "pg.db-proc") {
		t.Errorf("volumes that are none of the image's: %s", all)
	}

	t.Log("kill -9 of both, and another image")
	i.n.kill(t, "agent")
	i.n.kill(t, "containerd")
	i.n.start(t, "containerd")
	i.n.start(t, "agent")
	data, err := os.ReadFile(i.volume("pg.db-data", "n"))
	must(t, err)
	declared["Labels"] = map[string]string{"another": "one"}
	i.load(t, "kept", declared)
	i.apply(t, "db", "image: example.invalid/kept:1, restart: always, stop_grace_period: 0s, volumes: [mine:/named]", "mine")
	until(t, "the volumes to be there for another image", atLeast(len(data)+2))

	i.kogge(t, "", "stop", "pg.db")
	i.fails(t, "volume pg.db-data: in use: by pg.db", "kogge rm PROJECT", "volumes", "rm", "pg.db-data")
	i.kogge(t, "", "rm", "pg")
	until(t, "the volumes to be free", func() bool { return !strings.Contains(i.kogge(t, "", "volumes", "ls"), "pg.db\n") })
	for _, name := range []string{"pg.db-data", "pg.db-var-lib-own", "pg.mine"} {
		i.kogge(t, "", "volumes", "rm", name)
	}
}

// testTag: what runs from an image whose name stands for another one by now is replaced, and
// said to be.
func (i *imaged) testTag(t *testing.T) {
	const service = "image: example.invalid/tag:1, restart: always, stop_grace_period: 0s"
	says := func(change string) {
		t.Helper()
		file := filepath.Join(i.n.folder, "compose.yaml")
		if said := i.kogge(t, "pg.web", "apply", "-f", file); !strings.Contains(said, "pg.web  "+change) {
			t.Errorf("%q, want %s", said, change)
		}
	}
	i.load(t, "tag", map[string]any{"Cmd": []string{"app", "hang"}})
	i.apply(t, "web", service)
	until(t, "it to run", func() bool { return strings.Contains(i.kogge(t, "", "ps"), " running ") })
	says("unchanged")
	i.load(t, "tag", map[string]any{"Cmd": []string{"app", "hang"}, "Labels": map[string]string{"another": "one"}})
	says("replaced")
	until(t, "it to run from the other one", func() bool {
		return strings.Contains(i.kogge(t, "", "ps"), " running ") && strings.Contains(i.kogge(t, "", "apply", "-f", filepath.Join(i.n.folder, "compose.yaml")), "unchanged")
	})
}
