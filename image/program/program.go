// Package program builds the programs that run on a node from this source tree:
// the checkout and an architecture in, static executables out, the same bytes
// wherever the checkout lies. The Go tool's cache makes an unchanged build quick.
package program

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"kogge.example/image/debian"
)

// Module is the path of this module, and how a checkout is recognised.
const Module = "kogge.example"

// Toolchain builds what runs on a node, whichever Go there is on this computer: another
// one makes other bytes. The Makefile names the same.
const Toolchain = "go1.26.8"

// Go is the go command of [Toolchain].
func Go(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN="+Toolchain)
	return cmd
}

// Names of the executables in Set.Dir.
const (
	Init  = "init"
	Agent = "agent"
	Shim  = "containerd-shim-runc-v2"
	Runc  = "runc"
)

// Set is the folder that holds the built executables.
type Set struct{ Dir string }

// Path returns the path of one executable.
func (s Set) Path(name string) string { return filepath.Join(s.Dir, name) }

// Source returns the top of the checkout that the current folder is in.
func Source(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}} {{.Dir}}")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("source tree: go list: %w; images are built from a checkout: change into it", err)
	}
	for line := range strings.Lines(string(out)) {
		if mod, dir, ok := strings.Cut(strings.TrimSpace(line), " "); ok && mod == Module {
			return dir, nil
		}
	}
	return "", errors.New("source tree: this folder is not in a checkout of Kogge; change into one")
}

// target is one run of the Go compiler.
type target struct {
	name string // of the executable
	pkg  string
	tags string
	env  []string
	ld   string
}

// compiler is the host's C compiler and linker for one architecture.
type compiler struct {
	cc, ld string // programs
	deb    string // the package that has them
	libs   string // Debian's name of the folder of libraries
}

// compilerFor returns the native compiler where the architecture is this machine's,
// otherwise Debian's cross compiler.
func compilerFor(arch string) (compiler, error) {
	triples := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
	triple, ok := triples[arch]
	switch {
	case !ok:
		return compiler{}, fmt.Errorf("program %s: no C compiler is known for architecture %q", Runc, arch)
	case arch == runtime.GOARCH:
		return compiler{cc: "gcc", ld: "ld", deb: "gcc", libs: triple}, nil
	}
	return compiler{cc: triple + "-gcc", ld: triple + "-ld", deb: "gcc-" + strings.ReplaceAll(triple, "_", "-"), libs: triple}, nil
}

// version returns what one of the compiler's programs says about itself.
func (c compiler) version(ctx context.Context, program string) (string, error) {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("program %s: the C compiler %s is missing; install it: apt-get install %s", Runc, program, c.deb)
	}
	if err != nil {
		return "", fmt.Errorf("program %s: %s: %w", Runc, program, err)
	}
	return string(out), nil
}

// Options say what to build.
type Options struct {
	Source string // top of the checkout
	Cache  string // folder for the results
	Arch   string // Go's name
	// Sysroot is the C library that runc is linked with (debian.RuncSet), the only
	// C on a node.
	Sysroot []debian.File
	Tags    string // further build tags of init and agent
}

// Build compiles all programs. The Go tool rebuilds what changed; runc is kept by
// everything that its bytes depend on, because linking it takes seconds.
func Build(ctx context.Context, o Options) (Set, error) {
	dir, err := filepath.Abs(filepath.Join(o.Cache, o.Arch, strings.ReplaceAll("with "+o.Tags, " ", "-")))
	if err != nil {
		return Set{}, fmt.Errorf("programs: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Set{}, fmt.Errorf("programs: %w", err)
	}
	// The C compiler comes last, so it is looked for first.
	key, err := runcKey(ctx, o)
	if err != nil {
		return Set{}, err
	}
	pure := []string{"CGO_ENABLED=0"}
	base := strings.TrimSpace("netgo osusergo grpcnotrace " + o.Tags)
	targets := []target{
		{name: Init, pkg: "./init", tags: base, env: pure},
		{name: Agent, pkg: "./agent", tags: base + " no_rdt", env: pure}, // no classes of cache and bandwidth of Intel
		{name: Shim, pkg: "./agent/shim", tags: base + " no_grpc", env: pure},
	}
	var g errgroup.Group
	for _, t := range targets {
		g.Go(func() error { return t.build(ctx, o.Source, filepath.Join(dir, t.name), o.Arch) })
	}
	g.Go(func() error { return buildRunc(ctx, o, key, filepath.Join(dir, Runc)) })
	return Set{Dir: dir}, g.Wait()
}

// BuildExample compiles the program of the example container and returns its path.
func BuildExample(ctx context.Context, o Options) (string, error) {
	out, err := filepath.Abs(filepath.Join(o.Cache, o.Arch, "example"))
	if err != nil {
		return "", fmt.Errorf("programs: %w", err)
	}
	t := target{name: "example", pkg: "./agent/example", tags: "netgo osusergo", env: []string{"CGO_ENABLED=0"}}
	return out, t.build(ctx, o.Source, out, o.Arch)
}

func (t target) build(ctx context.Context, source, out, arch string) error {
	cmd := Go(ctx, "build", "-trimpath", "-buildvcs=false", "-tags", t.tags, "-ldflags", strings.TrimSpace("-s -w "+t.ld), "-o", out, t.pkg)
	cmd.Dir = source
	// GOFLAGS and its like could change the bytes; they are the host's affair.
	cmd.Env = append(cmd.Env, "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0")
	cmd.Env = append(cmd.Env, t.env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("program %s: go build: %w\n%s", t.name, err, strings.TrimSpace(errs.String()))
	}
	return nil
}

// buildRunc compiles runc, static and with seccomp, against the C library of the
// sysroot. The C compiler is the host's: it is part of the key and of the SBOM.
func buildRunc(ctx context.Context, o Options, key, out string) error {
	cc, err := compilerFor(o.Arch)
	if err != nil {
		return err
	}
	kept := filepath.Join(o.Cache, "runc", key)
	if _, err := os.Stat(kept); err != nil {
		root, err := mergeSysroot(o.Sysroot, filepath.Join(o.Cache, "sysroot-"+o.Arch))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
			return fmt.Errorf("program %s: %w", Runc, err)
		}
		if err := runcTarget(cc, root).build(ctx, o.Source, kept+".new", o.Arch); err != nil {
			return err
		}
		if err := os.Rename(kept+".new", kept); err != nil {
			return fmt.Errorf("program %s: %w", Runc, err)
		}
	}
	data, err := os.ReadFile(kept)
	if err != nil {
		return fmt.Errorf("program %s: %w", Runc, err)
	}
	if err := os.WriteFile(out, data, 0o755); err != nil {
		return fmt.Errorf("program %s: %w", Runc, err)
	}
	return nil
}

// runcTarget is how runc is compiled against the C library at root.
func runcTarget(cc compiler, root string) target {
	return target{
		name: Runc, pkg: "github.com/opencontainers/runc", tags: "netgo osusergo seccomp urfave_cli_no_docs runc_nocriu", env: cc.env(root),
		// No build ids: they would hold a hash of the folder that the cache is in.
		ld: "-buildid= -linkmode external -extldflags '-static " + cc.link(root) + " -Wl,--build-id=none'",
	}
}

// Compiler says which C compiler links runc for an architecture, as it says itself.
func Compiler(ctx context.Context, arch string) (string, error) {
	cc, err := compilerFor(arch)
	if err != nil {
		return "", err
	}
	text, err := cc.version(ctx, cc.cc)
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSpace(line), err
}

// runcKey names everything that runc's bytes depend on.
func runcKey(ctx context.Context, o Options) (string, error) {
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(o.Source, name))
		if err != nil {
			return "", fmt.Errorf("program %s: %w", Runc, err)
		}
		h.Write(data)
	}
	out, err := Go(ctx, "version").Output()
	if err != nil {
		return "", fmt.Errorf("program %s: go version: %w", Runc, err)
	}
	h.Write(out)
	cc, err := compilerFor(o.Arch)
	if err != nil {
		return "", err
	}
	for _, tool := range []string{cc.cc, cc.ld} {
		text, err := cc.version(ctx, tool)
		if err != nil {
			return "", err
		}
		h.Write([]byte(text))
	}
	fmt.Fprintln(h, o.Arch, runcTarget(cc, "/sysroot"))
	for _, f := range o.Sysroot {
		fmt.Fprintf(h, "%x\n", f.SHA256)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:16]), nil
}

// mergeSysroot links the packages' usr folders into one tree, as the C compiler
// expects it. The paths inside do not reach the executable.
func mergeSysroot(files []debian.File, dir string) (string, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("sysroot: %w", err)
	}
	var stamp strings.Builder
	for _, f := range files {
		fmt.Fprintf(&stamp, "%x\n", f.SHA256)
	}
	stampFile := filepath.Join(root, "made-from")
	if old, err := os.ReadFile(stampFile); err == nil && string(old) == stamp.String() {
		return root, nil
	}
	if err := os.RemoveAll(root); err != nil {
		return "", fmt.Errorf("sysroot: %w", err)
	}
	for _, f := range files {
		if err := os.CopyFS(root, os.DirFS(f.Dir)); err != nil && !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("sysroot: package %s: %w", f.Package, err)
		}
	}
	for _, lib := range []string{"lib", "lib64"} {
		if _, err := os.Lstat(filepath.Join(root, lib)); errors.Is(err, os.ErrNotExist) {
			if err := os.Symlink("usr/"+lib, filepath.Join(root, lib)); err != nil {
				return "", fmt.Errorf("sysroot: %w", err)
			}
		}
	}
	return root, os.WriteFile(stampFile, []byte(stamp.String()), 0o644)
}

// env points the compiler at the sysroot and at nothing of the host's. A cross
// compiler looks into folders of its own, /usr/aarch64-linux-gnu for one, before it
// looks into the sysroot: so those of the sysroot are named, and come first.
func (c compiler) env(root string) []string {
	lib := filepath.Join(root, "usr/lib", c.libs)
	cflags := "-O2 -g0 --sysroot=" + root + " -ffile-prefix-map=" + root + "=/sysroot"
	if c.cc != "gcc" {
		include := filepath.Join(root, "usr/include")
		cflags += " -isystem " + filepath.Join(include, c.libs) + " -isystem " + include
	}
	return []string{
		"CGO_ENABLED=1", "CC=" + c.cc,
		"CGO_CFLAGS=" + cflags,
		"CGO_LDFLAGS=" + c.link(root),
		"PKG_CONFIG_LIBDIR=" + filepath.Join(lib, "pkgconfig"),
		"PKG_CONFIG_SYSROOT_DIR=" + root,
	}
}

// link are the flags with which the compiler links against the sysroot.
func (c compiler) link(root string) string {
	if c.cc == "gcc" {
		return "--sysroot=" + root
	}
	return "--sysroot=" + root + " -B" + filepath.Join(root, "usr/lib", c.libs)
}
