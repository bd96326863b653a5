package main

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// testForeign: an archive of an image for others is refused as one.
func (i *imaged) testForeign(t *testing.T) {
	file := filepath.Join(i.n.folder, "foreign.tar")
	for _, p := range [][2]string{{"linux", "s390x"}, {"windows", runtime.GOARCH}} {
		i.n.imageFor(t, p[0], p[1], file, "example.invalid/foreign:1", nil, accounts(t))
		i.fails(t, "image example.invalid/foreign:1: image is for another platform: it is for "+p[0]+"/"+p[1]+", this node is linux/"+runtime.GOARCH, "", "images", "load", file)
	}
	i.n.imageWith(t, file, "", nil, accounts(t))
	i.fails(t, "it has no image with a name: save it by name and tag", "", "images", "load", file)
}

// testStopSignals: what is no signal stops nothing, and keeps nobody from ending a container.
func (i *imaged) testStopSignals(t *testing.T) {
	for _, c := range []struct{ image, more string }{
		{"999", ""}, {"-1", ""}, {"SIGNOTHING", ""}, {"", "labels: {io.containerd.image.config.stop-signal: '999'}, "},
	} {
		i.load(t, "sig", map[string]any{"StopSignal": c.image, "Cmd": []string{"app", "hang"}})
		i.apply(t, "sig", "image: example.invalid/sig:1, "+c.more+"stop_grace_period: 1s")
		until(t, "it to run", func() bool { return i.line(t, "pg.sig", " running ") && len(processes(t, "app")) == 1 })
		i.kogge(t, "", "rm", "pg")
		until(t, "nothing to be left of a container with the stop signal "+c.image+c.more, func() bool { return len(processes(t, "app")) == 0 })
	}
}

// testEtc: what is mounted on /etc hides none of the node's three files there.
func (i *imaged) testEtc(t *testing.T) {
	for _, more := range []string{", conf:/etc", ""} {
		text := ""
		if more == "" {
			text = ", tmpfs: /etc"
		}
		got := i.finds(t, "bare", text, more, "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
		if strings.Contains(got, "no such file") || !strings.Contains(got, "/etc/resolv.conf 100644") {
			t.Errorf("with a mount on /etc%s: %s", text, got)
		}
	}
	// Where one cannot write and there are no such files, nothing can be mounted on them.
	if got := i.finds(t, "bare", "", ", lacking:/etc:ro", "/etc/passwd"); !strings.Contains(got, "/etc/passwd 100755") {
		t.Errorf("with a volume on /etc to read: %s", got)
	}
	// A new one has by then what the image has, and that is no reason to show it.
	i.load(t, "etcful", nil, tar.Header{Name: "etc/hosts", Mode: 0o600}, tar.Header{Name: "etc/resolv.conf", Mode: 0o600})
	for n := range 2 {
		if got := i.finds(t, "etcful", "", ", fresh:/etc:ro", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/etc/passwd"); strings.Contains(got, "hush") || !strings.Contains(got, "/etc/hosts 100644") || !strings.Contains(got, "/etc/hostname no such file") || !strings.Contains(got, "/etc/passwd 1") {
			t.Errorf("start %d with a new volume on /etc to read: %s", n+1, got)
		}
	}
	if got := i.finds(t, "bare", "", ", conf:/etc:ro", "/etc/hostname"); !strings.Contains(got, "/etc/hostname 100644") {
		t.Errorf("with a volume on /etc to read that has the files: %s", got)
	}
}

// testStrange: images that say odd things run, or the node says what is odd.
func (i *imaged) testStrange(t *testing.T) {
	i.load(t, "reset", map[string]any{"Entrypoint": []string{""}, "Cmd": []string{"app", "whoami"}})
	if got := i.says(t, "image: example.invalid/reset:1, restart: 'no'"); got != "0\n" {
		t.Errorf("with an empty entry point: %s", got)
	}
	// Without layers there is what is mounted.
	file := filepath.Join(i.n.folder, "none.tar")
	i.n.imageWith(t, file, "example.invalid/none:1", map[string]any{"Cmd": []string{"/own/app", "found", "-", "/", "/made"}, "WorkingDir": "/made"})
	i.kogge(t, "", "images", "load", file)
	program, err := os.ReadFile(filepath.Join(i.n.bin, "prober"))
	must(t, err)
	must(t, os.MkdirAll(i.volume("pg.own", ""), 0o755))
	must(t, os.WriteFile(i.volume("pg.own", "app"), program, 0o755))
	i.services++
	service := fmt.Sprintf("s%d", i.services)
	i.apply(t, service, "image: example.invalid/none:1, restart: 'no', volumes: [own:/own]", "own")
	until(t, "an image without layers to run", func() bool {
		if i.line(t, "pg."+service, " backoff ") {
			t.Fatal(i.kogge(t, "", "ps"))
		}
		return i.line(t, "pg."+service, " ended ")
	})
	if got := i.kogge(t, "", "logs", service); !strings.Contains(got, "/ 040755 0:0\n/made 040755 0:0\n") {
		t.Errorf("of an image without layers: %s", got)
	}
	i.load(t, "odd", map[string]any{"Cmd": []string{"app", "hang"}}, tar.Header{Name: "etc/resolv.conf/", Mode: 0o755})
	i.apply(t, "odd", "image: example.invalid/odd:1, restart: always, stop_grace_period: 0s")
	until(t, "the place to be named", func() bool { return i.line(t, "pg.odd", "nothing can be mounted on /etc/resolv.conf: ") })
}

// testLongLines: users and groups are found also where a line is long, and where the file
// is behind a link that says where it leads from the image's root.
func (i *imaged) testLongLines(t *testing.T) {
	group := "big:x:9999:" + strings.Repeat("somebody,", 8000) + "app\nfar:x:70007:app\n"
	passwd := "root:x:0:0::/root:/bin/sh\napp:x:70001:70002::/far:/bin/sh\n"
	layer := tarOf(t, map[string][]byte{"store/passwd": []byte(passwd), "store/group": []byte(group)})
	program, err := os.ReadFile(filepath.Join(i.n.bin, "prober"))
	must(t, err)
	file := filepath.Join(i.n.folder, "long.tar")
	i.n.imageWith(t, file, "example.invalid/long:1", map[string]any{"User": "app", "Cmd": []string{"/app", "found", "-"}}, layer,
		layerOf(t, string(program), tar.Header{Name: "app", Mode: 0o755}),
		layerOf(t, "", tar.Header{Name: "etc/", Mode: 0o755}, tar.Header{Name: "etc/passwd", Typeflag: tar.TypeSymlink, Linkname: "/store/passwd"},
			tar.Header{Name: "etc/group", Typeflag: tar.TypeSymlink, Linkname: "../../../store/group"}))
	i.kogge(t, "", "images", "load", file)
	if got := i.says(t, "image: example.invalid/long:1, restart: 'no', read_only: true"); !strings.Contains(got, " HOME=/far ") || !strings.Contains(got, "user 70001:70002 [9999 70002 70007]\n") {
		t.Errorf("of long lines behind links: %s", got)
	}
}

// testSetUserID: a program with a set-user-ID bit, and one with capabilities of its file that
// another one starts, runs without them, unless the Compose file wants them.
func (i *imaged) testSetUserID(t *testing.T) {
	program, err := os.ReadFile(filepath.Join(i.n.bin, "prober"))
	must(t, err)
	file := filepath.Join(i.n.folder, "su.tar")
	i.n.imageWith(t, file, "example.invalid/su:1", map[string]any{"User": "app"}, accounts(t),
		layerOf(t, string(program), tar.Header{Name: "tmp/", Mode: 0o1777}, tar.Header{Name: "bin/app", Mode: 0o755}, tar.Header{Name: "bin/su", Mode: 0o4755}, tar.Header{
			Name: "bin/server", Mode: 0o755, PAXRecords: map[string]string{capabilityRecord: "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		}))
	i.kogge(t, "", "images", "load", file)
	for option, want := range map[string][2]string{
		"": {"1000", "0000000000000000"}, "no-new-privileges": {"1000", "0000000000000000"}, "no-new-privileges:false": {"0", "0000000000000400"},
	} {
		for n, command := range []string{"[su, whoami]", "[app, become, /bin/server, command, self]"} {
			got := i.says(t, "image: example.invalid/su:1, restart: 'no', command: "+command+", security_opt: ['"+option+"']")
			if n == 1 {
				_, got, _ = strings.Cut(got, "CapEff:")
				got, _, _ = strings.Cut(strings.TrimSpace(got), "\n")
			}
			if strings.TrimSpace(got) != want[n] {
				t.Errorf("%s with %q: %q, want %q", command, option, got, want[n])
			}
		}
	}
}

// testPipes: a pipe where an image has its users, or its groups, keeps nobody: its
// container runs, what is asked inside is answered, and so are all others.
func (i *imaged) testPipes(t *testing.T) {
	for _, c := range []struct{ name, file, user, want string }{
		{"passwd", "etc/passwd", "1000", "user 1000:0 [0]\n"}, {"group", "etc/group", "app", "user 1000:50 [50]\n"}, {"groups", "etc/group", "", "user 0:0 [0]\n"},
	} {
		i.load(t, "pipe", map[string]any{"User": c.user, "Cmd": []string{"app", "hang"}}, tar.Header{Name: c.file, Typeflag: tar.TypeFifo, Mode: 0o644})
		i.apply(t, c.name, "image: example.invalid/pipe:1, stop_grace_period: 0s, healthcheck: {test: [CMD, app, whoami], interval: 1s}")
		until(t, "a container to run where "+c.file+" is a pipe", func() bool { return i.line(t, "pg."+c.name, " healthy") })
		if got := i.kogge(t, "", "exec", c.name, "app", "found", "-"); !strings.Contains(got, c.want) {
			t.Errorf("%s is a pipe: %s, want %s", c.file, got, c.want)
		}
	}
	i.load(t, "pipe", map[string]any{"Cmd": []string{"app", "hang"}}, tar.Header{Name: "etc/passwd", Typeflag: tar.TypeFifo, Mode: 0o644})
	i.apply(t, "pipe", "image: example.invalid/pipe:1, stop_grace_period: 0s")
	until(t, "it to run", func() bool { return i.line(t, "pg.pipe", " running ") })
	for range 5 {
		i.fails(t, `in the container: user "app": /etc/passwd is no regular file`, "", "exec", "--user", "app", "pipe", "app", "whoami")
	}
	i.kogge(t, "user 7:0 [0]", "exec", "--user", "7", "pipe", "app", "found", "-")
	i.apply(t, "named", "image: example.invalid/pipe:1, user: app, stop_grace_period: 0s")
	until(t, "the pipe to be named", func() bool {
		return strings.Contains(i.kogge(t, "", "ps"), `in the image: user "app": /etc/passwd is no regular file`)
	})
}
