package main

import (
	"archive/tar"
	"bytes"
	"errors"
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
	// In a user namespace it has the right to start containers in theirs, wherever it runs.
	if !namespace.Run(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWPID, binEnv+"="+bin) {
		return
	}
	folder, err := os.MkdirTemp("/tmp", "i")
	must(t, err)
	t.Cleanup(func() { must(t, errors.Join(unix.Unmount(folder, unix.MNT_DETACH), os.Remove(folder))) })
	must(t, unix.Mount("tmpfs", folder, "tmpfs", 0, "mode=711")) // one whose owners can be mapped
	n := newNodeIn(t, bin, folder)
	n.config(t, "\n  services: {}\n")
	i := &imaged{stored: stored{n: n}}
	e := &execs{node: n, fleet: n.invite(t)}
	n.start(t, "containerd")
	n.start(t, "agent")
	e.adopt(t).Close()
	nodes := fmt.Sprintf(`{"n1": {"address": %q, "adopted": "2026-11-25T00:00:00Z"}}`, apiAddress)
	must(t, os.WriteFile(filepath.Join(n.folder, "hanse", "nodes.json"), []byte(nodes), 0o600))
	i.testFound(t)
	i.testIDs(t)
	i.testCapabilities(t)
	i.testTag(t)
	i.testForged(t)
	i.testVolumes(t)
	i.testSibling(t)
	i.testForeign(t)
	i.testStopSignals(t)
	i.testDeaf(t)
	i.testEtc(t)
	i.testStrange(t)
	i.testLongLines(t)
	i.testSetUserID(t)
	i.testPipes(t)
	n.stop(t, "agent")
	n.stop(t, "containerd")
}

// imaged is a node for images of the test's own.
type imaged struct {
	stored
	services int
}

// load gives the node the image example.invalid/NAME:1: the prober at /bin/app, at /bin/ping
// with the capabilities net_raw and net_bind_service, at /bin/server with the latter alone,
// and what else is in its layers.
func (i *imaged) load(t *testing.T, name string, config map[string]any, more ...tar.Header) {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(i.n.bin, "prober"))
	must(t, err)
	layers := [][]byte{accounts(t), layerOf(t, string(program), tar.Header{Name: "bin/app", Mode: 0o755}, tar.Header{
		Name: "bin/ping", Mode: 0o755, PAXRecords: map[string]string{capabilityRecord: "\x01\x00\x00\x02\x00\x24\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
	}, tar.Header{
		Name: "bin/server", Mode: 0o755, PAXRecords: map[string]string{capabilityRecord: "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
	})}
	if len(more) > 0 {
		layers = append(layers, layerOf(t, "hush", more...))
	}
	file := filepath.Join(i.n.folder, name+".tar")
	i.n.imageWith(t, file, "example.invalid/"+name+":1", config, layers...)
	i.kogge(t, "example.invalid/"+name+":1", "images", "load", file)
}

// accounts is a layer with users and groups.
func accounts(t *testing.T) []byte {
	t.Helper()
	return tarOf(t, map[string][]byte{
		"etc/passwd": []byte("root:x:0:0::/root:/bin/sh\napp:x:1000:50::/home/app:/bin/sh\n"),
		"etc/group":  []byte("root:x:0:\nstaff:x:50:\naudio:x:29:app\nvideo:x:44:app\n"),
	})
}

// capabilityRecord is how a layer has the capabilities of a file.
const capabilityRecord = "SCHILY.xattr.security.capability"

// layerOf has files, all with the same text, folders: those whose names end in a slash, and
// what says itself what it is.
func layerOf(t *testing.T, text string, all ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range all {
		switch {
		case h.Typeflag != 0:
		case strings.HasSuffix(h.Name, "/"):
			h.Typeflag = tar.TypeDir
		default:
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
	file, declared := i.volume("pg.out", service), []string{"out"}
	for entry := range strings.SplitSeq(volumes, ", ") {
		if name, _, ok := strings.Cut(entry, ":"); ok {
			declared = append(declared, name)
		}
	}
	i.apply(t, service, "image: example.invalid/"+image+":1, command: [app, found, /out/"+service+", "+strings.Join(paths, ", ")+"], restart: 'no', volumes: [out:/out"+volumes+"]"+text, declared...)
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

// line says whether kogge ps has a line of the container with this text in it.
func (i *imaged) line(t *testing.T, container, text string) bool {
	t.Helper()
	for line := range strings.Lines(i.kogge(t, "", "ps")) {
		if strings.HasPrefix(line, container+" ") && strings.Contains(line, text) {
			return true
		}
	}
	return false
}

// says waits until a container has ended, and returns what it has said.
func (i *imaged) says(t *testing.T, text string) string {
	t.Helper()
	i.services++
	service := fmt.Sprintf("s%d", i.services)
	i.apply(t, service, text)
	until(t, service+" to end", func() bool { return i.line(t, "pg."+service, " ended ") })
	return i.kogge(t, "", "logs", service)
}

// testFound: environment, user, folder and volumes of an image.
func (i *imaged) testFound(t *testing.T) {
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	i.load(t, "bare", map[string]any{"Env": []string{"FOO=bar"}, "WorkingDir": "/made/here"},
		tar.Header{Name: "var/log/", Mode: 0o755}, tar.Header{Name: "root/.ssh/", Mode: 0o700}, tar.Header{Name: "root/.ssh/key", Mode: 0o600},
		tar.Header{Name: "var/db/", Mode: 0o2750, Uid: 1000, Gid: 50})
	got := i.finds(t, "bare", "", "", "/made/here")
	if want := "env FOO=bar HOME=/root HOSTNAME=s1 " + path + "\nuser 0:0 [0]\nin /made/here\n/made/here 040755 0:0\n"; got != want {
		t.Errorf("of an image with little to say:\n%swant:\n%s", got, want)
	}
	got = i.finds(t, "bare", "", ", log:/var/log, ssh:/root/.ssh, db:/var/db, new:/new", "/var/log", "/root/.ssh", "/root/.ssh/key", "/var/db", "/new")
	if want := "/var/log 040755 0:0\n/root/.ssh 040700 0:0\n/root/.ssh/key 100600 0:0 \"hush\"\n/var/db 042750 1000:50\n/new 040755 0:0\n"; !strings.HasSuffix(got, want) {
		t.Errorf("volumes on folders of the image:\n%swant:\n%s", got, want)
	}
	for _, c := range []struct{ user, more, want string }{
		{"app", "", "HOME=/home/app HOSTNAME=here " + path + "\nuser 1000:50 [29 44 50]\nin /made/there\n/made/there 040755 0:0\n"},
		{"app:audio", "", "\nuser 1000:29 [29]\n"},
		{"1000", "", "\nuser 1000:50 [29 44 50]\n"},
		{"1000:0", "", "\nuser 1000:0 [0]\n"},
		{"2000", "", "\nuser 2000:0 [0]\n"},
		{"app", ", user: root", "\nuser 0:0 [0]\n"},
		{"root", ", user: 'app:video', working_dir: /tmp", "\nuser 1000:44 [44]\nin /tmp\n"},
		{"root", ", user: app, group_add: [root]", "\nuser 1000:50 [0 29 44 50]\n"},
	} {
		i.load(t, "user", map[string]any{"User": c.user, "WorkingDir": "/made/there", "Env": []string{"HOSTNAME=here"}, "Entrypoint": []string{"app", "found", "-"}, "Cmd": []string{"/made/there"}},
			tar.Header{Name: "out/", Mode: 0o777})
		got := i.says(t, "image: example.invalid/user:1, restart: 'no', read_only: true"+c.more)
		if !strings.Contains(got, c.want) {
			t.Errorf("user %q%s of an image: %swant %s", c.user, c.more, got, c.want)
		}
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
			data, err1 := os.ReadFile(i.volume("pg.db+data", "n"))
			own, err2 := os.ReadFile(i.volume("pg.db+var-lib-own", "n"))
			return err1 == nil && err2 == nil && min(len(data), len(own)) >= bytes
		}
	}
	until(t, "the volumes to outlive three starts", atLeast(3))
	if text, err := os.ReadFile(i.volume("pg.db+data", "seed")); err != nil || string(text) != "hush" {
		t.Errorf("what the image has in its volume: %q, %v", text, err)
	}
	info, err := os.Stat(i.volume("pg.db+data", ""))
	if err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the image's volume: %v, %v", info, err)
	}
	i.row(t, "volumes ls", "pg.db+data", "pg.db")
	i.row(t, "volumes ls", "pg.db+var-lib-own", "pg.db")
	if all := i.kogge(t, "", "volumes", "ls"); strings.Contains(all, "pg.db+named") || strings.Contains(all, "pg.db+proc") {
		t.Errorf("volumes that are none of the image's: %s", all)
	}

	t.Log("kill -9 of both, and another image")
	i.n.kill(t, "agent")
	i.n.kill(t, "containerd")
	i.n.start(t, "containerd")
	i.n.start(t, "agent")
	data, err := os.ReadFile(i.volume("pg.db+data", "n"))
	must(t, err)
	declared["Labels"] = map[string]string{"another": "one"}
	i.load(t, "kept", declared)
	i.apply(t, "db", "image: example.invalid/kept:1, restart: always, stop_grace_period: 0s, volumes: [mine:/named]", "mine")
	until(t, "the volumes to be there for another image", atLeast(len(data)+2))

	i.kogge(t, "", "stop", "pg.db")
	i.fails(t, "volume pg.db+data: in use: by pg.db", "kogge rm PROJECT", "volumes", "rm", "pg.db+data")
	i.kogge(t, "", "rm", "pg")
	until(t, "the volumes to be free", func() bool { return !strings.Contains(i.kogge(t, "", "volumes", "ls"), "pg.db\n") })
	for _, name := range []string{"pg.db+data", "pg.db+var-lib-own", "pg.mine"} {
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
		if said := i.kogge(t, "pg.tagged", "apply", "-f", file); !strings.Contains(said, "pg.tagged  "+change) {
			t.Errorf("%q, want %s", said, change)
		}
	}
	i.load(t, "tag", map[string]any{"Cmd": []string{"app", "hang"}})
	i.apply(t, "tagged", service)
	until(t, "it to run", func() bool { return i.line(t, "pg.tagged", " running ") })
	says("unchanged")
	i.load(t, "tag", map[string]any{"Cmd": []string{"app", "hang"}, "Labels": map[string]string{"another": "one"}})
	says("replaced")
	until(t, "it to run from the other one", func() bool {
		return i.line(t, "pg.tagged", " running ") && strings.Contains(i.kogge(t, "", "apply", "-f", filepath.Join(i.n.folder, "compose.yaml")), "unchanged")
	})
}

// testForged: words of an image with lines and columns in them are one cell of kogge ps, and
// no line of an error or of the events.
func (i *imaged) testForged(t *testing.T) {
	const forged = "x\npg.db  example.invalid/db:1  running\n2026-11-30 03:00:00  operator   bob   revoked (ada)"
	for name, config := range map[string]map[string]any{
		"cmd":    {"Cmd": []string{"/" + forged}},
		"user":   {"Cmd": []string{"/bin/app"}, "User": forged},
		"folder": {"Cmd": []string{"/bin/app"}, "WorkingDir": "/bin/app/" + forged},
	} {
		i.load(t, "forged", config)
		i.apply(t, "forged", "image: example.invalid/forged:1, restart: always, stop_grace_period: 0s")
		until(t, name+" to be refused", func() bool { return i.line(t, "pg.forged", " backoff ") })
		_, errs, err := i.run(t, []string{"apply", "-f", filepath.Join(i.n.folder, "compose.yaml")})
		if err == nil {
			t.Errorf("%s: it runs", name)
		}
		for what, text := range map[string]string{"ps": i.kogge(t, "", "ps"), "apply": errs, "events": i.kogge(t, "", "events")} {
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "pg.db") || strings.HasPrefix(line, "2026-11-30 03:00:00") {
					t.Errorf("%s: the image wrote a line of %s:\n%s", name, what, text)
					break
				}
			}
		}
		i.kogge(t, "", "rm", "pg")
	}
}

// testCapabilities: a program whose file has more capabilities than the container is not
// run by the kernel, and the node says which.
func (i *imaged) testCapabilities(t *testing.T) {
	i.load(t, "capable", map[string]any{"Cmd": []string{"ping", "hang"}})
	i.apply(t, "web", "image: example.invalid/capable:1, stop_grace_period: 0s")
	const why = "/bin/ping: the file has the capability NET_RAW (setcap), which the container does not have"
	until(t, "the capability to be named", func() bool {
		return strings.Contains(i.kogge(t, "", "ps"), why+`, and the kernel runs it only with all of them: it needs cap_add: [NET_RAW], and under "allow:" in node.yaml the line - {container: pg.web, capabilities: [NET_RAW]}`)
	})
	i.apply(t, "server", "image: example.invalid/capable:1, command: [server, hang], stop_grace_period: 0s")
	until(t, "a server to run", func() bool { return i.line(t, "pg.server", " running ") })
	i.fails(t, why, "", "exec", "server", "ping", "whoami")
	i.kogge(t, "0", "exec", "server", "server", "whoami")
}

// testIDs: ids beyond those that every container has, of files, of users and groups of the
// image, and of the Compose file. Each is itself inside, and nobody on the node.
func (i *imaged) testIDs(t *testing.T) {
	const far = 1516583083 // as directories of companies have them
	i.load(t, "far", map[string]any{"User": "0:70001", "Volumes": map[string]any{"/kept": struct{}{}}},
		tar.Header{Name: "srv/data", Mode: 0o640, Uid: far, Gid: far}, tar.Header{Name: "srv/app", Mode: 0o700, Uid: 100000, Gid: 0},
		tar.Header{Name: "kept/", Mode: 0o750, Uid: far, Gid: 65536}, tar.Header{Name: "kept/seed", Mode: 0o600, Uid: far, Gid: 65536})
	got := i.finds(t, "far", "", ", far:/own, shared:/kept", "/srv/data", "/srv/app", "/kept", "/kept/seed", "/proc/self/uid_map")
	for _, want := range []string{
		"user 0:70001 [70001]\n",
		"/srv/data 100640 1516583083:1516583083 \"hush\"\n", "/srv/app 100700 100000:0 \"hush\"\n",
		"/kept 040750 1516583083:65536\n", "/kept/seed 100600 1516583083:65536 \"hush\"\n", "     65536 ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("an image of far ids: %s\nwant %s", got, want)
		}
	}
	// On the disk a volume has the ids that the container sees, whatever it is mapped to.
	for volume, want := range map[string]string{"pg.shared": "1516583083:65536", "pg.far": "0:70001"} {
		var st unix.Stat_t
		must(t, unix.Stat(i.volume(volume, ""), &st))
		if got := fmt.Sprintf("%d:%d", st.Uid, st.Gid); got != want {
			t.Errorf("volume %s is of %s, want %s", volume, got, want)
		}
	}
	i.apply(t, "box", "image: example.invalid/far:1, user: '0:65536', group_add: ['80000'], command: [app, hang], stop_grace_period: 0s, volumes: [shared:/kept]", "shared")
	until(t, "it to run", func() bool { return i.line(t, "pg.box", " running ") })
	pid := processes(t, "app")
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", pid[0]))
	if f := strings.Fields(string(table)); err != nil || len(pid) != 1 || len(f) < 6 || f[0] != "0" || f[1] == "0" {
		t.Errorf("root of a container with user 0:65536: %s, %v", table, err)
	}
	// Another container, and another user in it: the volume is as it was.
	got = i.kogge(t, "", "exec", "--user", "100000:65536", "box", "app", "found", "-", "/kept", "/kept/seed", "/srv/app")
	for _, want := range []string{"user 100000:65536 [65536]\n", "/kept 040750 1516583083:65536\n", "/kept/seed 100600 1516583083:65536 open /kept/seed: permission denied\n", "/srv/app 100700 100000:0 \"hush\"\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("another user: %s\nwant %s", got, want)
		}
	}
	if got := i.kogge(t, "", "exec", "box", "app", "found", "-", "/kept/seed"); !strings.Contains(got, "user 0:65536 [65536 80000]\n") || !strings.Contains(got, `"hush"`) {
		t.Errorf("its root: %s", got)
	}
	i.fails(t, `user "90000": there is no ID 90000 in the container: above 65535 it has those that its image and its Compose file name`, "", "exec", "--user", "90000", "box", "app", "whoami")

	var many []tar.Header
	for n := range 301 { // with a table that is nearly as long as the kernel takes it
		uid := 100_000 + n
		if n < 160 {
			uid = 100_000_000 + n*10_000_019
		}
		many = append(many, tar.Header{Name: fmt.Sprintf("srv/%d", n), Mode: 0o600, Uid: uid})
	}
	i.load(t, "many", map[string]any{"Cmd": []string{"app", "hang"}}, many...)
	i.apply(t, "many", "image: example.invalid/many:1, stop_grace_period: 0s")
	until(t, "the right to be named", func() bool {
		return strings.Contains(i.kogge(t, "", "ps"), `it has more user and group IDs above 65535 than a node can map: 300, and fewer where they are far apart: not allowed by the node's node.yaml, which would need under "allow:" the line - {container: pg.many, host: [user]}`)
	})
	i.load(t, "many", map[string]any{"Cmd": []string{"app", "hang"}}, many[:300]...)
	until(t, "300 to be mapped", func() bool { return i.line(t, "pg.many", " running ") })
	got = i.kogge(t, "", "exec", "many", "app", "found", "-", "/srv/0", "/srv/159", "/srv/299")
	for _, want := range []string{"/srv/0 100600 100000000:0 \"hush\"\n", "/srv/159 100600 1690003021:0 \"hush\"\n", "/srv/299 100600 100299:0 \"hush\"\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("300 ids: %s\nwant %s", got, want)
		}
	}
}
