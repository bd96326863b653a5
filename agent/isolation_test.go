package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/agent/bridge"
	"kogge.example/agent/engine"
	"kogge.example/agent/keeper"
	"kogge.example/agent/workload"
	"kogge.example/init/rights"
	"kogge.example/update/golden"
)

// The tables of testIsolation, written inside, compared outside.
var tables = []string{"isolation.txt", "facts.txt", "rights.txt"}

// compareTables holds what the prober wrote against testdata. It runs outside the
// namespaces, where -update is known.
func compareTables(t *testing.T, folder string) {
	t.Helper()
	for _, name := range tables {
		text, err := os.ReadFile(filepath.Join(folder, name))
		must(t, err)
		golden.Compare(t, name, string(text))
	}
}

// testIsolation runs containers by a Keeper of its own, on the containerd that is
// there: one that tries everything that is forbidden, and some that ask for everything
// that is allowed.
func (n *node) testIsolation(t *testing.T) {
	folder := filepath.Join(n.folder, "probers")
	must(t, os.Mkdir(folder, 0o755))
	n.imageOf(t, folder, "prober", "prober")
	n.imageOf(t, folder, "example", "web")
	outside := filepath.Join(n.folder, "outside")
	trap := filepath.Join(n.folder, "state", "volumes", "trap")
	must(t, os.MkdirAll(outside, 0o755))
	must(t, os.MkdirAll(trap, 0o755))
	must(t, os.Symlink(outside, filepath.Join(trap, "link"))) // as a container may have left it

	api, err := net.Listen("tcp4", ":7443") // somebody who would answer
	must(t, err)
	defer api.Close()

	k := n.keep(t, folder, nil,
		probing("prober", "attempts", "/data/isolation.txt"),
		asking(probing("facts", "facts", "/data/facts.txt")),
		trapped(probing("trapped", "whoami")),
		initial(probing("orphan", "orphan")),
		workload.Container{ID: "platform", Image: "example.invalid/prober:1", Platform: "linux/s390x", StopGrace: time.Second},
		tested(probing("good", "hang"), "whoami", 5*time.Second),
		tested(probing("bad", "hang"), "nonsense", 5*time.Second),
		tested(probing("slow", "hang"), "hang", time.Second),
		after(probing("late", "whoami"), workload.Dependency{ID: "good", Condition: workload.WhenHealthy},
			workload.Dependency{ID: "orphan", Condition: workload.WhenStarted}),
	)
	got := k.wait(t, "every prober to end", func(s map[string]workload.UnitStatus) bool {
		ended := func(id string) bool { return s[id].State == workload.Ended }
		health := func(id string) workload.HealthState { return s[id].Health.State }
		return ended("prober") && ended("facts") && ended("trapped") && ended("orphan") && ended("late") &&
			health("good") == workload.Healthy && health("bad") == workload.Unhealthy && health("slow") == workload.Unhealthy
	})
	for id, want := range map[string]string{
		"prober": "exit code 0", "facts": "exit code 0", "trapped": "exit code 0", "late": "exit code 0",
		"orphan":   "exit code 7",
		"platform": "image is for another platform: linux/s390x was requested, this node is linux/" + runtime.GOARCH,
	} {
		if !strings.HasPrefix(got[id].Reason, want) {
			t.Errorf("%s: %q, want %q", id, got[id].Reason, want)
		}
	}
	for id, want := range map[string]string{
		"good": "0\n", "bad": "exit code 1", "slow": "health check: no answer within 1s",
	} {
		if text := got[id].Health.Output; !strings.HasSuffix(text, want) {
			t.Errorf("health of %s: %q, want %q", id, text, want)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("a link in a volume led out of the container: %v, %v", left, err)
	}
	data := filepath.Join(n.folder, "state", "volumes", "data-of-probers")
	for _, name := range tables[:2] {
		text, err := os.ReadFile(filepath.Join(data, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(n.bin, name), text, 0o644))
	}
	n.testRequests(t, k)
	n.testStart(t, k)
	k.end()
	n.testRights(t, folder)
	n.testAbandoned(t)
}

// asked are what containers ask for, one thing each.
var asked = []struct {
	id string
	workload.Rights
}{
	{"bind", workload.Rights{Binds: []workload.Bind{{Path: rights.Data + "/shared/deep", Target: "/given"}}}},
	{"bind-to-read", workload.Rights{Binds: []workload.Bind{{Path: rights.Data + "/shared/deep", Target: "/given", ReadOnly: true}}}},
	{"capability", workload.Rights{Capabilities: []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}}},
	{"cgroup", workload.Rights{Host: []rights.Namespace{rights.HostCgroup}}},
	{"device", workload.Rights{Devices: []workload.Device{{Path: "/dev/kmsg", Target: "/dev/log", Access: "w"}}}},
	{"every-capability", workload.Rights{Capabilities: []string{"ALL"}}},
	{"ipc", workload.Rights{Host: []rights.Namespace{rights.HostIPC}}},
	{"network", workload.Rights{Host: []rights.Namespace{rights.HostNetwork}}},
	{"pid", workload.Rights{Host: []rights.Namespace{rights.HostPID}}},
	{"privileged", workload.Rights{Privileged: true}},
	{"unconfined", workload.Rights{Unconfined: rights.Profiles}},
	{"uts", workload.Rights{Host: []rights.Namespace{rights.HostUTS}}},
}

// testRights runs containers that ask for what only node.yaml allows: as long as it does
// not, none of them runs.
func (n *node) testRights(t *testing.T, images string) {
	must(t, unix.Sethostname([]byte("n07")))
	segment, err := unix.SysvShmGet(0x6b6f, 4096, unix.IPC_CREAT|0o600)
	must(t, err)
	defer unix.SysvShmCtl(segment, unix.IPC_RMID, nil)
	data := filepath.Join(n.folder, "state", "data")
	must(t, os.MkdirAll(filepath.Join(data, "shared", "deep"), 0o755))
	must(t, os.WriteFile(filepath.Join(data, "shared", "deep", "word"), []byte("hush"), 0o600))
	must(t, os.Symlink(n.folder, filepath.Join(data, "out"))) // as a container may have left it

	wanted := []workload.Container{
		linked(probing("linked", "whoami"), "/out/state"), linked(probing("linked-at-the-end", "whoami"), "/out"),
		linked(probing("made", "whoami"), "/new/folder"),
	}
	allow := []rights.Allow{{Container: "*", Rights: rights.Rights{Binds: []rights.Bind{
		{Path: rights.Data + "/out/state"}, {Path: rights.Data + "/out"}, {Path: rights.Data + "/new/folder"},
	}}}}
	wanted = append(wanted, probing("nothing", "rights", "/data/rights-of-nothing"))
	for _, r := range asked {
		c := probing(r.id, "rights", "/data/rights-of-"+r.id)
		c.Hostname, c.Rights = "nothing", r.Rights
		wanted = append(wanted, c)
		if needs := c.Needs(); !needs.None() {
			allow = append(allow, rights.Allow{Container: c.ID, Rights: needs})
		}
	}

	k := n.keep(t, images, nil, wanted...)
	k.wait(t, "the one that asks for nothing to end, and the others to wait", func(s map[string]workload.UnitStatus) bool {
		for _, c := range wanted {
			if c.ID != "nothing" && (s[c.ID].State != workload.Backoff || !strings.Contains(s[c.ID].Reason, "not allowed by the node's node.yaml")) {
				return false
			}
		}
		return s["nothing"].State == workload.Ended
	})
	k.end()

	k = n.keep(t, images, allow, wanted...)
	got := k.wait(t, "every one to end", func(s map[string]workload.UnitStatus) bool {
		for _, r := range asked {
			if s[r.id].State != workload.Ended {
				return false
			}
		}
		return s["linked"].Reason != "" && s["linked-at-the-end"].Reason != "" && s["made"].State == workload.Ended
	})
	var table strings.Builder
	usual := n.rightsOf(t, "nothing")
	fmt.Fprintf(&table, "nothing\n%s\n", strings.Join(usual, ""))
	for _, r := range asked {
		fmt.Fprintf(&table, "%s\n", r.id)
		for i, line := range n.rightsOf(t, r.id) {
			if line != usual[i] {
				table.WriteString(line)
			}
		}
		table.WriteString("\n")
	}
	must(t, os.WriteFile(filepath.Join(n.bin, "rights.txt"), []byte(table.String()), 0o644))
	for _, id := range []string{"linked", "linked-at-the-end"} {
		if why := got[id].Reason; !strings.HasSuffix(why, "its path has a symbolic link") {
			t.Errorf("%s: %q", id, why)
		}
	}
	k.end()
	k = n.keep(t, images, nil)
	until(t, "no bind to be held for nobody", func() bool {
		left, err := os.ReadDir(filepath.Join(n.folder, "run", "binds"))
		return err == nil && len(left) == 0
	})
	k.end()
	if text, err := os.ReadFile(filepath.Join(data, "shared", "deep", "word")); err != nil || string(text) != "xush" {
		t.Errorf("what was bound has %q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(data, "new", "folder")); err != nil || !info.IsDir() {
		t.Errorf("a folder that was missing: %v, %v", info, err)
	}
}

// rightsOf is the table that the container id wrote, by line.
func (n *node) rightsOf(t *testing.T, id string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.folder, "state", "volumes", "data-of-probers", "rights-of-"+id))
	must(t, err)
	return strings.SplitAfter(string(text), "\n")
}

// linked asks for a bind below the folder of the node's data.
func linked(c workload.Container, path string) workload.Container {
	c.Rights.Binds = []workload.Bind{{Path: rights.Data + path, Target: "/given"}}
	return c
}

// testRequests stops and restarts real containers.
func (n *node) testRequests(t *testing.T, k *keeping) {
	secret := filepath.Join(n.folder, "run", "workload", "slow", "given", "0")
	if text, err := os.ReadFile(secret); err != nil || string(text) != "hush" {
		t.Errorf("secret of slow: %q, %v", text, err)
	}
	must(t, k.keeper.Request(t.Context(), "slow", workload.WantStopped))
	must(t, k.keeper.Request(t.Context(), "good", workload.WantRestarted))
	k.wait(t, "slow to stop and good to come back", func(s map[string]workload.UnitStatus) bool {
		return s["slow"].State == workload.Stopped && s["good"].Restarts == 1 && s["good"].Health.State == workload.Healthy
	})
	if _, err := os.Stat(secret); !os.IsNotExist(err) {
		t.Errorf("the secret is still there: %v", err)
	}
	if left := hanging(t); len(left) != 2 {
		t.Errorf("processes %v hang: want those of good and bad, and no test of slow", left)
	}
}

// testAbandoned kills the agent during a health check: the next one does not leave the
// process, nor let it be in its way.
func (n *node) testAbandoned(t *testing.T) {
	n.config(t, `
  services:
    sick:
      image: example.invalid/prober:1
      entrypoint: [/app, hang]
      healthcheck: {test: [CMD, /app, hang], interval: 1s, timeout: 1h}
      stop_grace_period: 0s
`)
	n.start(t, "agent")
	until(t, "a test to hang", func() bool { return len(hanging(t)) == 2 })
	before := hanging(t)
	n.kill(t, "agent")
	n.start(t, "agent")
	until(t, "another test in its place", func() bool {
		after := hanging(t)
		return len(after) == 2 && after[0] == before[0] && after[1] != before[1]
	})
	n.kill(t, "agent")
}

// hanging are the processes that hang, the oldest first.
func hanging(t *testing.T) []int {
	t.Helper()
	var pids []int
	for _, pid := range processes(t, "/app") {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && string(line) == "/app\x00hang\x00" {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// probing is a container as any other, restarted never.
func probing(id string, args ...string) workload.Container {
	return workload.Container{
		ID: id, Image: "example.invalid/prober:1", Hostname: id, Entrypoint: append([]string{"/app"}, args...),
		Restart: workload.Restart{Policy: workload.No}, Pids: 100, StopGrace: 0, Networks: []workload.Attachment{{Network: "default"}},
		Volumes: []workload.Volume{{Name: "data-of-probers", Target: "/data"}},
		Files:   []workload.File{{Target: "/run/secrets/word", Mode: 0o400, Data: []byte("hush"), Secret: true}},
	}
}

// asking asks for everything.
func asking(c workload.Container) workload.Container {
	c.Init = true
	c.Domainname = "example"
	c.GroupAdd = []string{"5000", "6000"}
	c.ExtraHosts = []workload.Host{{Name: "elsewhere", Addr: netip.MustParseAddr("192.0.2.7")}}
	c.Ulimits = []workload.Ulimit{{Name: "core", Soft: 0, Hard: 0}, {Name: "nofile", Soft: 2000, Hard: 3000}, {Name: "nproc", Soft: 50, Hard: 60}}
	c.Sysctls = map[string]string{"net.core.somaxconn": "300", "kernel.shmmni": "77"}
	c.Files = append(c.Files, workload.File{Target: "/etc/app.conf", Mode: 0o640, UID: 10, GID: 20, Data: []byte("a = 1\n")})
	return c
}

// trapped has a file mounted below a link that leads to the node's own folder.
func trapped(c workload.Container) workload.Container {
	c.Volumes = append(c.Volumes, workload.Volume{Name: "trap", Target: "/trap"})
	c.Files = append(c.Files, workload.File{Target: "/trap/link/word", Mode: 0o400, Data: []byte("x")})
	return c
}

func initial(c workload.Container) workload.Container {
	c.Init = true
	return c
}

func tested(c workload.Container, verb string, limit time.Duration) workload.Container {
	c.Health = &workload.Health{Test: []string{"/app", verb}, Interval: time.Millisecond, Timeout: limit, Retries: 1}
	return c
}

func after(c workload.Container, deps ...workload.Dependency) workload.Container {
	c.After = deps
	return c
}

// keeping is a Keeper that runs in this process.
type keeping struct {
	keeper *keeper.Keeper
	end    func() // stops it and its containers, and leaves nothing
}

func (n *node) keep(t *testing.T, images string, allow []rights.Allow, wanted ...workload.Container) *keeping {
	t.Helper()
	run, state := filepath.Join(n.folder, "run"), filepath.Join(n.folder, "state")
	containerd, err := engine.Connect(engine.Paths{
		Socket: run + "/containerd.sock", Runc: n.bin + "/runc", Init: n.bin + "/containerd-shim-runc-v2",
		State: run + "/runc", Logs: run + "/log", Files: run + "/workload", Volumes: state + "/volumes",
		Data: state + "/data", Binds: run + "/binds",
		Resolv: run + "/etc/resolv.conf", Cgroup: n.cgroup,
	}, "this-boot")
	must(t, err)
	_, err = containerd.Preload(t.Context(), images)
	must(t, err)
	network, err := bridge.Open(n.folder + "/netns")
	must(t, err)
	k := &keeping{keeper: &keeper.Keeper{Engine: containerd, Network: network, Allow: allow}}
	must(t, k.keeper.Want(wanted, 0))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.keeper.Run(ctx)
	}()
	k.end = func() {
		cancel()
		<-done
		k.keeper.Stop(context.Background())
		must(t, containerd.Close())
	}
	return k
}

// wait returns the first status, by name, that ok likes.
func (k *keeping) wait(t *testing.T, what string, ok func(map[string]workload.UnitStatus) bool) map[string]workload.UnitStatus {
	t.Helper()
	units := map[string]workload.UnitStatus{}
	defer func() {
		if t.Failed() {
			t.Logf("status: %s", k.keeper.Snapshot())
		}
	}()
	until(t, what, func() bool {
		for _, u := range k.keeper.Snapshot().Units {
			units[u.ID] = u
		}
		return ok(units)
	})
	return units
}

// imageOf writes what `docker save` writes, around one program of n.bin.
func (n *node) imageOf(t *testing.T, folder, program, name string) {
	t.Helper()
	binary, err := os.ReadFile(filepath.Join(n.bin, program))
	must(t, err)
	n.imageWith(t, filepath.Join(folder, name+".tar"), "example.invalid/"+name+":1", map[string]any{"Cmd": []string{"/app"}}, tarOf(t, map[string][]byte{"app": binary}))
}

// imageWith writes what `docker save` writes of an image with this name, configuration
// and layers, to file.
func (n *node) imageWith(t *testing.T, file, name string, config map[string]any, layers ...[]byte) {
	t.Helper()
	n.imageFor(t, "linux", runtime.GOARCH, file, name, config, layers...)
}

// imageFor is imageWith for any platform.
func (n *node) imageFor(t *testing.T, system, architecture, file, name string, config map[string]any, layers ...[]byte) {
	t.Helper()
	files := map[string][]byte{}
	var sums, names []string
	for i, layer := range layers {
		sums = append(sums, fmt.Sprintf("sha256:%x", sha256.Sum256(layer)))
		names = append(names, fmt.Sprintf("layer%d.tar", i))
		files[names[i]] = layer
	}
	text, err := json.Marshal(map[string]any{
		"architecture": architecture, "os": system, "config": config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": sums},
	})
	must(t, err)
	configFile := fmt.Sprintf("%x.json", sha256.Sum256(text))
	files[configFile] = text
	var tags []string // none: as of an image that was saved by its ID
	if name != "" {
		tags = append(tags, name)
	}
	files["manifest.json"], err = json.Marshal([]map[string]any{{"Config": configFile, "RepoTags": tags, "Layers": names}})
	must(t, err)
	must(t, os.WriteFile(file, tarOf(t, files), 0o644))
}
