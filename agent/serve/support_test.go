package serve

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/sealed"
	"kogge.example/agent/wanted"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
	"kogge.example/update/golden"
)

const planted = "hunter2-correct-horse"

// talkative is a keeper whose containers give a secret away.
type talkative struct{ *keeper }

func (talkative) Snapshot() workload.Status {
	return workload.Status{Trouble: "no " + planted, Units: []workload.UnitStatus{{
		ID: "web", State: workload.Backoff, Image: "example.org/web:1", Reason: `exec: "` + planted + `": not found`,
		Health: workload.HealthStatus{Output: "only the health check says other-secret-1"},
	}}, Leaving: []workload.UnitStatus{{ID: "shop.old", State: workload.Stopping, Reason: planted}}}
}

// plant makes a node whose files and services have a secret wherever one can be.
func plant(t *testing.T, c *Config) {
	t.Helper()
	run, state := c.Machine.Run, filepath.Join(c.Machine.Run, "state")
	c.Machine.State, c.Machine.Control, c.LogDir = state, filepath.Join(run, "pid1.sock"), filepath.Join(run, "output")
	c.Containers = func() Containers { return talkative{&keeper{}} }
	c.Images = func() Images { return &store{} }
	node := strings.ReplaceAll(`# only a comment says other-secret-2
hostname: n07
labels: {owner: SECRET}
workloads:
  x-own: [SECRET]
  services:
    web:
      image: example.org/web:1
      command: [SECRET, --password=SECRET]
      entrypoint: sh -c "echo SECRET"
      environment: {PASSWORD: SECRET, LIST: "a\nSECRET"}
      labels: [SECRET, "owner=SECRET"]
      healthcheck: {test: [CMD, SECRET]}
      working_dir: /SECRET
      extra_hosts: {SECRET: 192.0.2.1}
  configs: {motd: {content: SECRET}}
  secrets: {key: {content: SECRET}}
`, "SECRET", planted)
	project := "services:\n  db:\n    image: example.org/db:1\n    environment: [PASSWORD=" + planted + "]\n"
	sealedProject, err := sealed.Key(filepath.Join(state, wanted.KeyFile)).Seal([]byte(project))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		filepath.Join(state, "projects", "shut.yaml"):            string(sealedProject),
		filepath.Join(run, "node.yaml"):                          node,
		filepath.Join(run, "output", "web.log"):                  "I say " + planted + "\n",
		filepath.Join(run, "output", "web.log.1"):                "I said " + planted + "\n",
		filepath.Join(run, "etc", "resolv.conf"):                 "nameserver 192.0.2.53\n",
		filepath.Join(run, "workload", "env"):                    planted,
		filepath.Join(state, "kogge", "node.yaml"):               node,
		filepath.Join(state, "kogge", "update", "history.jsonl"): `{"version":1,"kind":"up","slot":"A"}` + "\n",
		filepath.Join(state, "kogge", "join.yaml"):               "token: other-secret-3\n",
		filepath.Join(state, "projects", "shop.yaml"):            project,
		filepath.Join(state, "projects", "torn.yaml"):            "{" + planted,
		filepath.Join(state, "log", "agent.log"):                 "before, agent said " + planted + "\n",
		filepath.Join(state, "identity", "node.key"):             "other-secret-4",
		filepath.Join(state, "volumes", "data", "big"):           strings.Repeat("x", 5000),
		c.Machine.Kmsg: "6,1,1000,-;kernel says " + planted + "\n",
	}
	for name, text := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", c.Machine.Control)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				out := json.NewEncoder(conn)
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					r, err := control.ParseRequest(lines.Bytes())
					switch {
					case err != nil:
						return
					case r.Op == control.OpStatus:
						_ = out.Encode(control.Response{Status: &control.Status{
							Services: []control.Service{{Name: "agent", State: "running", Text: "runs " + planted}},
							Degraded: []control.Degraded{{What: "workloads", Why: planted + " is refused"}},
						}})
					case r.Op == control.OpConfig:
						_ = out.Encode(control.Response{Config: &control.Config{State: "kept", Last: "changed"}})
					case r.Op == control.OpLogs:
						line := "agent: container web: exec " + planted
						_ = out.Encode(control.Response{Line: &line})
						_ = out.Encode(control.Response{})
					}
				}
			}()
		}
	}()
}

// unpack reads an archive from the node.
func unpack(t *testing.T, in io.Reader) map[string]string {
	t.Helper()
	unzipped, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(text)
	}
	if _, err := io.Copy(io.Discard, unzipped); err != nil { // its checksum
		t.Fatal(err)
	}
	return files
}

// TestSupport packs a node with a secret in every place, and looks for it in what comes
// out.
func TestSupport(t *testing.T) {
	address, f, _ := ready(t, func(c *Config) { plant(t, c) })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	var archive bytes.Buffer
	if err := c.PackSupport(timeout(t), true, &archive); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, &archive)
	names := []string{}
	for name, text := range files {
		if folder := strings.Split(name, "/")[1]; folder != "boot" && folder != "network" && folder != "system" {
			names = append(names, name) // those depend on this machine
		}
		for _, secret := range []string{planted, "other-secret"} {
			if strings.Contains(text, secret) {
				i := strings.Index(text, secret)
				t.Errorf("%s has the secret: …%s…", name, text[max(0, i-80):min(len(text), i+80)])
			}
		}
	}
	slices.Sort(names)
	golden.Compare(t, "support.txt", strings.Join(names, "\n")+"\n\n"+files["support/config/node.yaml"])
	for name, want := range map[string]string{
		"logs/agent.log":            "agent: container web: exec <hidden>",
		"logs/before/agent.log":     "before, agent said <hidden>",
		"output/web.log":            "I say <hidden>",
		"kernel.log":                "kernel says <hidden>",
		"containers.json":           "example.org/web:1",
		"./containers.json":         "shop.old",
		"config/projects/shop.yaml": "PASSWORD=<hidden>",
		"config/projects/shut.yaml": "PASSWORD=<hidden>",
		"config/state.json":         `"state":"kept"`,
		"boot/history.jsonl":        `"kind":"up","slot":"A"`,
		"errors.txt":                "config/projects/torn.yaml: this is not YAML",
		"system/disk.txt":           "volumes/data",
		"system/processes.txt":      "PID\tPARENT",
	} {
		if text := files[path.Join("support", name)]; !strings.Contains(text, want) {
			t.Errorf("%s lacks %q: %.300s", name, want, text)
		}
	}
	archive.Reset()
	if err := c.PackSupport(timeout(t), false, &archive); err != nil {
		t.Fatal(err)
	}
	for name := range unpack(t, &archive) {
		if strings.Contains(name, "/output/") {
			t.Errorf("%s, unasked", name)
		}
	}
}

// TestSupportBounds: however much there is, an archive has an end, and there is one at
// a time.
func TestSupportBounds(t *testing.T) {
	address, f, _ := ready(t, func(c *Config) {
		plant(t, c)
		random, noise := rand.NewChaCha8([32]byte{}), make([]byte, 300<<10)
		for i := range 180 {
			_, _ = random.Read(noise)
			if err := os.WriteFile(filepath.Join(c.LogDir, fmt.Sprintf("c%d.log", i)), noise, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	stream, err := c.UpkeepServiceClient.Support(timeout(t), connect.NewRequest(&apiv1.SupportRequest{Output: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() { // and then read no more for a while
		t.Fatal(stream.Err())
	}
	var archive bytes.Buffer
	archive.Write(stream.Msg().Part)
	other := api.Dial(address, "n1", f.Genesis, f.Certificate()) // on the same connection it would wait behind the first
	defer other.Close()
	err = other.PackSupport(timeout(t), false, io.Discard)
	has(t, err, "resource_exhausted", "for somebody else")
	for stream.Receive() {
		archive.Write(stream.Msg().Part)
	}
	if stream.Err() != nil {
		t.Fatal(stream.Err())
	}
	if size := archive.Len(); size < maxArchive/2 || size > maxArchive+1<<20 {
		t.Errorf("%d bytes", size)
	}
	if files := unpack(t, &archive); !strings.Contains(files["support/errors.txt"], "left out: the archive is full") {
		t.Errorf("errors: %.300s", files["support/errors.txt"])
	}
	// A caller who hangs up lets the next one in.
	stream, err = c.UpkeepServiceClient.Support(timeout(t), connect.NewRequest(&apiv1.SupportRequest{Output: true}))
	if err != nil || !stream.Receive() {
		t.Fatal(err)
	}
	stream.Close()
	for ctx := timeout(t); other.PackSupport(ctx, false, io.Discard) != nil; time.Sleep(20 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("nobody else gets an archive any more")
		}
	}
}
