package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"kogge.example/image/debian"
)

// imageOfProgram is one image that the command programs makes.
type imageOfProgram struct {
	name   string
	binary string // of the module in the folder programs, its whole content
	config v1.Config
	fill   func(ctx context.Context, t *tree) error // beside the binary; nil: nothing
}

// programs are images as their makers have them: programs of Go with nothing else in
// them, and a database from Debian with a shell script in front of it.
var programs = []imageOfProgram{
	{name: "caddy", binary: "github.com/caddyserver/caddy/v2/cmd/caddy", config: v1.Config{Entrypoint: []string{"/caddy"}, Cmd: []string{"run"}}},
	{name: "nats", binary: "github.com/nats-io/nats-server/v2", config: v1.Config{Entrypoint: []string{"/nats-server"}}},
	{name: "shop", binary: "./shop", config: v1.Config{Entrypoint: []string{"/shop"}, User: "10001:10001"}},
	{name: "postgres", fill: postgres, config: v1.Config{
		Entrypoint: []string{"/entrypoint"}, Cmd: []string{"postgres"}, User: "postgres", StopSignal: "SIGINT",
		Env:     []string{"PATH=/usr/lib/postgresql/17/bin:/usr/bin", "PGDATA=/var/lib/postgresql/data"},
		Volumes: map[string]struct{}{"/var/lib/postgresql/data": {}},
	}},
}

// makePrograms is a command of the scripts; doc.go describes it.
func makePrograms(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: programs TAG NAME...")
	}
	b := ts.Value(benchKey{}).(*bench)
	for _, name := range args[1:] {
		i := slices.IndexFunc(programs, func(p imageOfProgram) bool { return p.name == name })
		if i < 0 {
			ts.Fatalf("programs: there is no %s", name)
		}
		ts.Check(programs[i].save(b.ctx, args[0], ts.MkAbs(name+".tar")))
	}
	ts.Setenv("SHOP", filepath.Join(tools, "shop"))
}

// save writes the image to a file.
func (p imageOfProgram) save(ctx context.Context, tag, file string) error {
	var t tree
	t.folder("tmp", 0o1777)
	if p.binary != "" {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", tools+string(filepath.Separator), p.binary)
		cmd.Dir, cmd.Env = "programs", append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", p.name, err, out)
		}
		built := p.config.Entrypoint[0][1:]
		data, err := os.ReadFile(filepath.Join(tools, built))
		if err != nil {
			return err
		}
		t.file(built, 0o755, data)
	}
	if p.fill != nil {
		if err := p.fill(ctx, &t); err != nil {
			return fmt.Errorf("image %s: %w", p.name, err)
		}
	}
	layer, err := t.tar()
	if err != nil {
		return fmt.Errorf("image %s: %w", p.name, err)
	}
	config := p.config
	config.Labels = map[string]string{"tag": tag}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: config, RootFS: v1.RootFS{Type: "layers"}})
	if err == nil {
		image, err = mutate.AppendLayers(image, static.NewLayer(layer, types.DockerUncompressedLayer))
	}
	if err != nil {
		return err
	}
	ref, err := name.NewTag("kogge.local/" + p.name + ":" + tag)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(file, ref, image)
}

// tree is what goes into a layer.
type tree struct {
	files map[string]*tar.Header
	data  map[string][]byte
}

func (t *tree) add(h *tar.Header, data []byte) {
	if t.files == nil {
		t.files, t.data = map[string]*tar.Header{}, map[string][]byte{}
	}
	h.Name, h.Size, h.ModTime = strings.TrimSuffix(h.Name, "/"), int64(len(data)), time.Unix(epoch, 0)
	t.files[h.Name], t.data[h.Name] = h, data
}

func (t *tree) file(name string, mode int64, data []byte) {
	t.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, data)
}

func (t *tree) folder(name string, mode int64) {
	t.add(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil)
}

func (t *tree) link(name, target string) {
	t.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Mode: 0o777, Linkname: target}, nil)
}

// owned gives what is there to somebody.
func (t *tree) owned(name string, uid, gid int) { t.files[name].Uid, t.files[name].Gid = uid, gid }

// merge adds what a package has unpacked, with /bin and the like below /usr.
func (t *tree) merge(folder string, leave ...string) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at, err := filepath.Rel(folder, path)
		if err != nil || at == "." {
			return err
		}
		for _, merged := range []string{"bin", "sbin", "lib", "lib64"} {
			if at == merged || strings.HasPrefix(at, merged+"/") {
				at = "usr/" + at
			}
		}
		for _, l := range leave {
			if strings.HasPrefix(at, l) {
				return nil
			}
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			t.folder(at, int64(info.Mode().Perm()))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			t.link(at, target)
			return err
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			t.file(at, int64(info.Mode().Perm()), data)
			return err
		}
		return nil
	})
}

// tar is the layer.
func (t *tree) tar() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	names := make([]string, 0, len(t.files))
	for name := range t.files {
		names = append(names, name)
	}
	slices.Sort(names) // a folder before what is in it
	for _, name := range names {
		if err := w.WriteHeader(t.files[name]); err != nil {
			return nil, err
		}
		if _, err := w.Write(t.data[name]); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// postgresPackages are what the database, its script and pg_isready need.
var postgresPackages = []string{
	"postgresql-17", "postgresql-client-17", "libpq5", "dash", "coreutils", "tzdata", "libc6", "libgcc-s1", "libstdc++6", "zlib1g",
	"libacl1", "libattr1", "libgmp10", "libselinux1", "libpcre2-8-0", "libcap2", "libssl3t64", "liblz4-1", "libzstd1", "libxml2", "liblzma5",
	"libicu76", "libpam0g", "libaudit1", "libcap-ng0", "libgssapi-krb5-2", "libkrb5-3", "libk5crypto3", "libkrb5support0", "libcom-err2",
	"libkeyutils1", "libldap2", "libsasl2-2", "libsystemd0", "libuuid1", "libxxhash0", "libnuma1", "liburing2",
}

// entrypoint is as the images of databases have it.
const entrypoint = `#!/bin/sh
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	initdb --username=shop --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 --auth-local=trust --no-locale --encoding=UTF8
	echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
	echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
fi
exec "$@"
`

func postgres(ctx context.Context, t *tree) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	packages := debian.Cache{Dir: filepath.Join(cache, "debian"), Say: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	lock, err := packages.Resolve(ctx, debian.Set{Name: "postgres", Arch: "amd64", Packages: postgresPackages})
	if err != nil {
		return err
	}
	files, err := packages.Fetch(ctx, lock)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := t.merge(f.Dir, "usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/lib/postgresql/17/lib/bitcode", "usr/lib/postgresql/17/lib/llvmjit", "usr/share/zoneinfo/right", "usr/lib/x86_64-linux-gnu/gconv"); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		t.link(name, "usr/"+name)
	}
	t.link("usr/bin/sh", "dash")
	t.file("entrypoint", 0o755, []byte(entrypoint))
	t.file("etc/passwd", 0o644, []byte("root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n"))
	t.file("etc/group", 0o644, []byte("root:x:0:\npostgres:x:999:\n"))
	for name, mode := range map[string]int64{"var": 0o755, "var/lib": 0o755, "var/lib/postgresql": 0o755, "var/lib/postgresql/data": 0o700, "var/run": 0o755, "var/run/postgresql": 0o755} {
		t.folder(name, mode)
	}
	t.owned("var/lib/postgresql/data", 999, 999)
	t.owned("var/run/postgresql", 999, 999)
	return nil
}
