package debian_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/image/debian"
	"kogge.example/image/debian/archive"
)

// TestMirrors builds from mirrors that have moved on, that have fallen behind and that are
// there in part. apt is the real one, and so are the signatures.
func TestMirrors(t *testing.T) {
	a := archive.New(t)
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
		{name: "no security, newer", main: []string{tool + " 3-1"}, gone: "trixie-security", lock: []string{tool + " 2-1"}, err: "is not in the suites that load: a suite does not load: suite trixie-security of file:"},
		{name: "no security, one of two", main: []string{tool + " 2-1", "other 2"}, gone: "trixie-security", lock: []string{tool + " 2-1", "other 1"}, err: "package other=1:amd64 is not in the suites that load"},
		{name: "no security, older", main: []string{tool + " 1-1"}, gone: "trixie-security", lock: []string{tool + " 2-1"}, err: "is not in the suites that load"},
		{name: "no security, on purpose", main: []string{tool + " 3-1"}, gone: "trixie-security", without: []string{"trixie-security"}, lock: []string{tool + " 2-1"}, want: tool + "=3-1:amd64 instead of " + tool + "=2-1:amd64"},
		{name: "without security, which has it", main: []string{tool + " 2-1"}, security: []string{tool + " 3-1"}, without: []string{"trixie-security"}, lock: []string{tool + " 3-1"}, err: "only 2-1, which is older"},
		{name: "another one is gone", main: []string{tool + " 3-1"}, gone: "trixie-updates", without: []string{"trixie-security"}, lock: []string{tool + " 2-1"}, err: "suites that load: a suite does not load: suite trixie-updates of file:"},
		{name: "without any", main: []string{tool + " 2-1"}, without: []string{"trixie", "trixie-updates", "trixie-security"}, lock: []string{tool + " 2-1"}, err: "no suite is left"},
		{name: "forged security, as locked", main: []string{tool + " 2-1"}, forged: "trixie-security", lock: []string{tool + " 2-1"}, want: tool + "=2-1:amd64", said: "suite trixie-security of file:"},
		{name: "forged security, newer", security: []string{tool + " 3-1"}, forged: "trixie-security", lock: []string{tool + " 2-1"}, err: "is not in the suites that load: a suite does not load: suite trixie-security of file:"},
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
			a.Publish(t, "trixie", c.main...)
			a.Publish(t, "trixie-updates", c.updates...)
			a.Publish(t, "trixie-security", c.security...)
			if c.gone != "" {
				a.Remove(t, c.gone)
			}
			if c.forged != "" {
				a.Forge(t, c.forged)
			}
			l := debian.Lock{Name: "test"}
			for _, text := range c.lock {
				name, version, _ := strings.Cut(text, " ")
				l.Packages = append(l.Packages, a.Package(t, name, version))
			}
			var said []string
			cache := debian.Cache{Dir: t.TempDir(), Locked: c.locked, Without: c.without, Say: func(format string, args ...any) {
				if text := fmt.Sprintf(format, args...); strings.HasPrefix(text, "WARNING") {
					said = append(said, text)
				}
			}}
			files, err := cache.Fetch(t.Context(), l)
			var got []string
			for _, f := range files {
				text := f.String()
				if f.Instead != (debian.Package{}) {
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
			if unloaded := strings.Contains(c.err, "suites that load"); unloaded != errors.Is(err, debian.ErrSuite) {
				t.Errorf("%v: ErrSuite %v", err, !unloaded)
			}
			if older := strings.Contains(c.err, "which is older"); older && !errors.Is(err, debian.ErrGone) {
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
	a := archive.New(t)
	for _, suite := range debian.Suites() {
		a.Publish(t, suite, "kogge-tool 2-1")
	}
	p := a.Package(t, "kogge-tool", "2-1")
	p.SHA256[0] ^= 1
	c := debian.Cache{Dir: t.TempDir(), Say: func(string, ...any) {}}
	if _, err := c.Fetch(t.Context(), debian.Lock{Name: "test", Packages: []debian.Package{p}}); err == nil || !strings.Contains(err.Error(), "the mirror or the lock is wrong") {
		t.Errorf("other bytes: %v", err)
	}
	// What is in the cache needs no mirror.
	p = a.Package(t, "kogge-tool", "2-1")
	l := debian.Lock{Name: "test", Packages: []debian.Package{p}}
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
	a := archive.New(t)
	a.Publish(t, "trixie", "kogge-tool 2-1")
	a.Publish(t, "trixie-updates")
	a.Publish(t, "trixie-security", "other 2")
	other := debian.Lock{Name: "test", Packages: []debian.Package{a.Package(t, "other", "1")}}
	c := debian.Cache{Dir: t.TempDir(), Locked: true, Say: func(string, ...any) {}}
	if _, err := c.Fetch(t.Context(), other); !errors.Is(err, debian.ErrGone) {
		t.Fatalf("the lists: %v", err)
	}
	a.Remove(t, "trixie-security")
	if _, err := c.Fetch(t.Context(), debian.Lock{Name: "test", Packages: []debian.Package{a.Package(t, "kogge-tool", "2-1")}}); err != nil {
		t.Fatal(err)
	}
	c.Locked = false
	if files, err := c.Fetch(t.Context(), other); err == nil || !strings.Contains(err.Error(), "other=1:amd64 is not in the suites that load") {
		t.Errorf("out of old lists came %v, %v", files, err)
	}
	c.Without = []string{debian.Suite + "-security"}
	if files, err := c.Fetch(t.Context(), other); !errors.Is(err, debian.ErrGone) {
		t.Errorf("out of old lists came %v, %v", files, err)
	}
}

// TestLockDoesNotGoBack makes a lock from a mirror that has fallen behind.
func TestLockDoesNotGoBack(t *testing.T) {
	a := archive.New(t)
	for _, suite := range debian.Suites() {
		a.Publish(t, suite, "kogge-tool 10-1")
	}
	c := debian.Cache{Dir: t.TempDir(), Say: func(string, ...any) {}}
	set := debian.Set{Name: "test", Arch: "amd64", Packages: []string{"kogge-tool"}}
	newer, err := c.Resolve(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	a.Publish(t, "trixie", "kogge-tool 9-1")
	a.Publish(t, "trixie-updates")
	a.Publish(t, "trixie-security")
	older, err := c.Resolve(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	if err := older.NotBefore(newer); err == nil || !strings.Contains(err.Error(), "kogge-tool=9-1:amd64 is older than the locked 10-1") {
		t.Errorf("back: %v", err)
	}
	if err := errors.Join(newer.NotBefore(older), newer.NotBefore(newer), newer.NotBefore(debian.Lock{})); err != nil {
		t.Errorf("forward: %v", err)
	}
	a.Remove(t, "trixie-security")
	if _, err := c.Resolve(t.Context(), set); err == nil || !strings.Contains(err.Error(), "suite trixie-security") {
		t.Errorf("a lock without security updates: %v", err)
	}
}

// TestLockKernel compares kernels, whose names change with their versions.
func TestLockKernel(t *testing.T) {
	lock := func(names ...string) debian.Lock {
		l := debian.Lock{Name: "test"}
		for _, n := range names {
			name, version, _ := strings.Cut(n, "=")
			l.Packages = append(l.Packages, debian.Package{Name: name, Arch: "amd64", Version: version})
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
