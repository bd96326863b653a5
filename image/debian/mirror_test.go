package debian

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// archive is a Debian archive in a folder, signed by a key of the test's own: apt reads
// it as any other one.
type archive struct {
	dir, gpg string
	packages map[string]Package // by "NAME_VERSION"
}

// newArchive makes the key, and has the builder take everything from the archive.
func newArchive(t *testing.T) *archive {
	// The key's sockets need a short path.
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{dir: t.TempDir(), gpg: home, packages: map[string]Package{}}
	t.Cleanup(func() {
		if err := a.tool("gpgconf", "--kill", "all").Run(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	a.run(t, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "archive@kogge.example", "ed25519", "sign", "never")
	keyring := filepath.Join(a.dir, "keyring.gpg")
	a.run(t, "gpg", "--batch", "--quiet", "--output", keyring, "--export")
	t.Setenv("KOGGE_KEYRING", keyring)
	t.Setenv("KOGGE_MIRROR", "file:"+a.uri("trixie")+" file:"+a.uri("trixie-security"))
	return a
}

func (a *archive) tool(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+a.gpg)
	return cmd
}

func (a *archive) run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := a.tool(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// uri is the folder of the archive that has a suite.
func (a *archive) uri(suite string) string {
	if strings.HasSuffix(suite, "-security") {
		return filepath.Join(a.dir, "debian-security")
	}
	return filepath.Join(a.dir, "debian")
}

// build makes a package without files, once, and says what a lock of it is. What it
// depends on stands in the archive's index alone.
func (a *archive) build(t *testing.T, name, version string) Package {
	t.Helper()
	key := name + "_" + version
	if p, ok := a.packages[key]; ok {
		return p
	}
	tree := t.TempDir()
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: nobody <nobody@kogge.example>\nDescription: for a test\n", name, version)
	put(t, filepath.Join(tree, "DEBIAN/control"), control)
	deb := filepath.Join(a.dir, "all", key+".deb")
	if err := os.MkdirAll(filepath.Dir(deb), 0o755); err != nil {
		t.Fatal(err)
	}
	a.run(t, "dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, deb)
	data, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	p := Package{Name: name, Arch: "amd64", Version: version, SHA256: sha256.Sum256(data), Size: int64(len(data))}
	a.packages[key] = p
	return p
}

// publish writes and signs a suite with these packages, "NAME VERSION [DEPENDS]" each.
func (a *archive) publish(t *testing.T, suite string, packages ...string) {
	t.Helper()
	top := a.uri(suite)
	var index bytes.Buffer
	for _, text := range packages {
		f := append(strings.Fields(text), "")
		p := a.build(t, f[0], f[1])
		path := fmt.Sprintf("pool/%x.deb", p.SHA256)
		if err := os.MkdirAll(filepath.Join(top, "pool"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(filepath.Join(a.dir, "all", f[0]+"_"+f[1]+".deb"), filepath.Join(top, path)); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
		fmt.Fprintf(&index, "Package: %s\nVersion: %s\nArchitecture: amd64\nFilename: %s\nSize: %d\nSHA256: %x\nDescription: for a test\n", p.Name, p.Version, path, p.Size, p.SHA256)
		if f[2] != "" {
			fmt.Fprintf(&index, "Depends: %s\n", f[2])
		}
		fmt.Fprintln(&index)
	}
	dist := filepath.Join(top, "dists", suite)
	put(t, filepath.Join(dist, "main/binary-amd64/Packages"), index.String())
	put(t, filepath.Join(dist, "Release"), fmt.Sprintf("Origin: Debian\nSuite: %s\nCodename: %[1]s\nDate: %s\nArchitectures: amd64\nComponents: main\nSHA256:\n %x %d main/binary-amd64/Packages\n",
		suite, time.Now().UTC().Format(time.RFC1123), sha256.Sum256(index.Bytes()), index.Len()))
	_ = os.Remove(filepath.Join(dist, "InRelease"))
	a.run(t, "gpg", "--batch", "--quiet", "--clearsign", "--output", filepath.Join(dist, "InRelease"), filepath.Join(dist, "Release"))
	if err := os.Remove(filepath.Join(dist, "Release")); err != nil {
		t.Fatal(err)
	}
}

// spoil removes a suite, or changes what was signed.
func (a *archive) spoil(t *testing.T, suite string, remove bool) {
	t.Helper()
	file := filepath.Join(a.uri(suite), "dists", suite, "InRelease")
	if remove {
		if err := os.RemoveAll(filepath.Dir(file)); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	put(t, file, strings.Replace(string(text), "Origin: Debian", "Origin: Nobody", 1))
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestMirrors builds from mirrors that have moved on, that have fallen behind and that are
// there in part. apt is the real one, and so are the signatures.
func TestMirrors(t *testing.T) {
	a := newArchive(t)
	const tool, kernel, meta = "kogge-tool", "linux-image-6.12.5-amd64", "linux-image-amd64"
	for _, c := range []struct {
		name                    string
		main, updates, security []string // what the suites have
		gone, forged            string   // suites that are not there, or signed by nobody
		lock                    []string // "NAME VERSION"
		locked                  bool
		without                 []string
		want                    string // what came
		err                     string // a part of it
		said                    string // a part of the warning; "": none, but for packages that came instead
	}{
		{name: "as locked", main: []string{tool + " 2-1"}, lock: []string{tool + " 2-1"}, want: tool + "=2-1:amd64"},
		{name: "as locked beside a newer one", main: []string{tool + " 2-1"}, security: []string{tool + " 2-1+deb13u1"}, lock: []string{tool + " 2-1"}, want: tool + "=2-1:amd64"},
		{name: "an old mirror", main: []string{tool + " 257.7-1"}, lock: []string{tool + " 257.13-1~deb13u2"}, err: "the mirror no longer has this version, only 257.7-1, which is older"},
		{name: "an old mirror, locked", main: []string{tool + " 257.7-1"}, lock: []string{tool + " 257.13-1~deb13u2"}, locked: true, err: "only 257.7-1, which is older"},
		{name: "before the release candidate", main: []string{tool + " 2~rc1-1"}, lock: []string{tool + " 2-1"}, err: "only 2~rc1-1, which is older"},
		{name: "an epoch less", main: []string{tool + " 9.0-1"}, lock: []string{tool + " 1:2-1"}, err: "only 9.0-1, which is older"},
		{name: "newer", main: []string{tool + " 10-1"}, lock: []string{tool + " 9-1"}, want: tool + "=10-1:amd64 instead of " + tool + "=9-1:amd64", said: "The image is unlocked"},
		{name: "newer, locked", main: []string{tool + " 10-1"}, lock: []string{tool + " 9-1"}, locked: true, err: "take the current one with: kogge image lock"},
		{name: "the newest of three", main: []string{tool + " 9-1"}, updates: []string{tool + " 11-1"}, security: []string{tool + " 10-1"}, lock: []string{tool + " 8-1"}, want: tool + "=11-1:amd64 instead of " + tool + "=8-1:amd64"},
		{name: "older in one, newer in another", main: []string{tool + " 1-1"}, security: []string{tool + " 3-1"}, lock: []string{tool + " 2-1"}, want: tool + "=3-1:amd64 instead of " + tool + "=2-1:amd64"},
		{name: "not there", main: []string{"other 1"}, lock: []string{tool + " 2-1"}, err: "the mirror no longer has this version; take"},
		{name: "no security, as locked", main: []string{tool + " 2-1"}, gone: "trixie-security", lock: []string{tool + " 2-1"}, want: tool + "=2-1:amd64", said: "suite trixie-security of file:"},
		{name: "no security, as locked, locked", main: []string{tool + " 2-1"}, gone: "trixie-security", lock: []string{tool + " 2-1"}, locked: true, want: tool + "=2-1:amd64", said: "suite trixie-security of file:"},
		{name: "no security, newer", main: []string{tool + " 3-1"}, gone: "trixie-security", lock: []string{tool + " 2-1"}, err: "is not in the suites that load: suite trixie-security of file:"},
		{name: "no security, one of two", main: []string{tool + " 2-1", "other 2"}, gone: "trixie-security", lock: []string{tool + " 2-1", "other 1"}, err: "package other=1:amd64 is not in the suites that load"},
		{name: "no security, older", main: []string{tool + " 1-1"}, gone: "trixie-security", lock: []string{tool + " 2-1"}, err: "is not in the suites that load"},
		{name: "no security, on purpose", main: []string{tool + " 3-1"}, gone: "trixie-security", without: []string{"trixie-security"}, lock: []string{tool + " 2-1"}, want: tool + "=3-1:amd64 instead of " + tool + "=2-1:amd64"},
		{name: "without security, which has it", main: []string{tool + " 2-1"}, security: []string{tool + " 3-1"}, without: []string{"trixie-security"}, lock: []string{tool + " 3-1"}, err: "only 2-1, which is older"},
		{name: "another one is gone", main: []string{tool + " 3-1"}, gone: "trixie-updates", without: []string{"trixie-security"}, lock: []string{tool + " 2-1"}, err: "suite trixie-updates of file:"},
		{name: "without any", main: []string{tool + " 2-1"}, without: []string{"trixie", "trixie-updates", "trixie-security"}, lock: []string{tool + " 2-1"}, err: "no suite is left"},
		{name: "forged security, as locked", main: []string{tool + " 2-1"}, forged: "trixie-security", lock: []string{tool + " 2-1"}, want: tool + "=2-1:amd64", said: "suite trixie-security of file:"},
		{name: "forged security, newer", security: []string{tool + " 3-1"}, forged: "trixie-security", lock: []string{tool + " 2-1"}, err: "is not in the suites that load: suite trixie-security of file:"},
		{name: "no main", security: []string{tool + " 2-1"}, gone: "trixie", lock: []string{tool + " 2-1"}, want: tool + "=2-1:amd64", said: "suite trixie of file:"},
		{
			name: "the next kernel", main: []string{"linux-image-6.12.12-amd64 6.12.12-1", meta + " 6.12.12-1 linux-image-6.12.12-amd64"}, lock: []string{kernel + " 6.12.5-1", meta + " 6.12.5-1"},
			want: "linux-image-6.12.12-amd64=6.12.12-1:amd64 instead of " + kernel + "=6.12.5-1:amd64, " + meta + "=6.12.12-1:amd64 instead of " + meta + "=6.12.5-1:amd64",
		},
		{
			name: "the kernel before", main: []string{"linux-image-6.12.4-amd64 6.12.4-1", meta + " 6.12.4-1 linux-image-6.12.4-amd64"}, lock: []string{kernel + " 6.12.5-1", meta + " 6.12.5-1"},
			err: "package " + kernel + "=6.12.5-1:amd64: the mirror no longer has this version, only 6.12.4-1, which is older",
		},
		{
			name: "the kernel is older under its name, the next one is not", main: []string{kernel + " 6.12.5-1~a", "linux-image-6.12.12-amd64 6.12.12-1", meta + " 6.12.12-1 linux-image-6.12.12-amd64"}, lock: []string{kernel + " 6.12.5-1", meta + " 6.12.12-1"},
			want: "linux-image-6.12.12-amd64=6.12.12-1:amd64 instead of " + kernel + "=6.12.5-1:amd64, " + meta + "=6.12.12-1:amd64",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, folder := range []string{"debian", "debian-security"} {
				if err := os.RemoveAll(filepath.Join(a.dir, folder)); err != nil {
					t.Fatal(err)
				}
			}
			a.publish(t, "trixie", c.main...)
			a.publish(t, "trixie-updates", c.updates...)
			a.publish(t, "trixie-security", c.security...)
			if c.gone != "" {
				a.spoil(t, c.gone, true)
			}
			if c.forged != "" {
				a.spoil(t, c.forged, false)
			}
			l := Lock{Name: "test"}
			for _, text := range c.lock {
				name, version, _ := strings.Cut(text, " ")
				l.Packages = append(l.Packages, a.build(t, name, version))
			}
			var said []string
			cache := Cache{Dir: t.TempDir(), Locked: c.locked, Without: c.without, Say: func(format string, args ...any) {
				if text := fmt.Sprintf(format, args...); strings.HasPrefix(text, "WARNING") {
					said = append(said, text)
				}
			}}
			files, err := cache.Fetch(t.Context(), l)
			var got []string
			for _, f := range files {
				text := f.String()
				if f.Instead != (Package{}) {
					text += " instead of " + f.Instead.String()
				}
				got = append(got, text)
			}
			if text := strings.Join(got, ", "); text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if older := strings.Contains(c.err, "which is older"); older && !errors.Is(err, ErrGone) {
				t.Errorf("%v is not ErrGone", err)
			}
			if left, glob := filepath.Glob(filepath.Join(cache.Dir, "deb", "*")); glob != nil || err != nil && len(left) > 0 {
				t.Errorf("it was fetched in part: %v, %v", left, glob)
			}
			all := strings.Join(said, "\n")
			if !strings.Contains(all, c.said) || c.said == "" && all != "" && !strings.Contains(c.want, "instead") {
				t.Errorf("said %q, want %q", all, c.said)
			}
		})
	}
}

// TestMirrorWithOtherBytes is a mirror whose package of the locked version is another one.
func TestMirrorWithOtherBytes(t *testing.T) {
	a := newArchive(t)
	for _, suite := range Suites() {
		a.publish(t, suite, "kogge-tool 2-1")
	}
	p := a.packages["kogge-tool_2-1"]
	p.SHA256[0] ^= 1
	c := Cache{Dir: t.TempDir(), Say: func(string, ...any) {}}
	if _, err := c.Fetch(t.Context(), Lock{Name: "test", Packages: []Package{p}}); err == nil || !strings.Contains(err.Error(), "the mirror or the lock is wrong") {
		t.Errorf("other bytes: %v", err)
	}
	// What is in the cache needs no mirror.
	p = a.packages["kogge-tool_2-1"]
	l := Lock{Name: "test", Packages: []Package{p}}
	if _, err := c.Fetch(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KOGGE_MIRROR", "file:"+t.TempDir()+"/debian")
	if files, err := c.Fetch(t.Context(), l); err != nil || files[0].Package != p {
		t.Errorf("from the cache: %v, %v", files, err)
	}
}

// TestMirrorsOldLists has the lists of a suite that does not load any more.
func TestMirrorsOldLists(t *testing.T) {
	a := newArchive(t)
	a.publish(t, "trixie", "kogge-tool 2-1")
	a.publish(t, "trixie-updates")
	a.publish(t, "trixie-security", "other 2")
	other := Lock{Name: "test", Packages: []Package{a.build(t, "other", "1")}}
	c := Cache{Dir: t.TempDir(), Locked: true, Say: func(string, ...any) {}}
	if _, err := c.Fetch(t.Context(), other); !errors.Is(err, ErrGone) {
		t.Fatalf("the lists: %v", err)
	}
	a.spoil(t, "trixie-security", true)
	if _, err := c.Fetch(t.Context(), Lock{Name: "test", Packages: []Package{a.packages["kogge-tool_2-1"]}}); err != nil {
		t.Fatal(err)
	}
	c.Locked = false
	if files, err := c.Fetch(t.Context(), other); err == nil || !strings.Contains(err.Error(), "other=1:amd64 is not in the suites that load") {
		t.Errorf("out of old lists came %v, %v", files, err)
	}
	c.Without = []string{Suite + "-security"}
	if files, err := c.Fetch(t.Context(), other); !errors.Is(err, ErrGone) {
		t.Errorf("out of old lists came %v, %v", files, err)
	}
}

// TestLockDoesNotGoBack makes a lock from a mirror that has fallen behind.
func TestLockDoesNotGoBack(t *testing.T) {
	a := newArchive(t)
	for _, suite := range Suites() {
		a.publish(t, suite, "kogge-tool 10-1")
	}
	c := Cache{Dir: t.TempDir(), Say: func(string, ...any) {}}
	set := Set{Name: "test", Arch: "amd64", Packages: []string{"kogge-tool"}}
	newer, err := c.Resolve(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	a.publish(t, "trixie", "kogge-tool 9-1")
	a.publish(t, "trixie-updates")
	a.publish(t, "trixie-security")
	older, err := c.Resolve(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	if err := older.NotBefore(newer); err == nil || !strings.Contains(err.Error(), "kogge-tool=9-1:amd64 is older than the locked 10-1") {
		t.Errorf("back: %v", err)
	}
	if err := errors.Join(newer.NotBefore(older), newer.NotBefore(newer), newer.NotBefore(Lock{})); err != nil {
		t.Errorf("forward: %v", err)
	}
	a.spoil(t, "trixie-security", true)
	if _, err := c.Resolve(t.Context(), set); err == nil || !strings.Contains(err.Error(), "suite trixie-security") {
		t.Errorf("a lock without security updates: %v", err)
	}
}

// TestLockKernel compares kernels, whose names change with their versions.
func TestLockKernel(t *testing.T) {
	lock := func(names ...string) Lock {
		l := Lock{Name: "test"}
		for _, n := range names {
			name, version, _ := strings.Cut(n, "=")
			l.Packages = append(l.Packages, Package{Name: name, Arch: "amd64", Version: version})
		}
		return l
	}
	five, twelve := lock("linux-image-6.12.5-amd64=6.12.5-1", "x=1"), lock("linux-image-6.12.12-amd64=6.12.12-1", "x=1")
	if err := twelve.NotBefore(five); err != nil {
		t.Error(err)
	}
	if err := five.NotBefore(twelve); err == nil || !strings.Contains(err.Error(), "linux-image-6.12.5-amd64=6.12.5-1:amd64 is older than the locked 6.12.12-1") {
		t.Error(err)
	}
	if err := lock("x=1").NotBefore(lock("x=broken")); err == nil {
		t.Error("a lock that cannot be compared is passed over")
	}
}
