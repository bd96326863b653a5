package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kogge.example/boards"
	"kogge.example/update/golden"
)

const hexSum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestParseLock prints what each line of a lock is taken for.
func TestParseLock(t *testing.T) {
	var b strings.Builder
	for _, text := range []string{
		"", "# nothing", "ovmf all 2025.02-8 " + hexSum + " 100", "  ovmf\tall 1:2.0~rc1+b1 " + hexSum + " 1 # why",
		"ovmf all 2025.02-8 " + hexSum, "ovmf all 2 " + hexSum + " 100 more",
		"ovmf all 2 " + hexSum[1:] + " 100", "ovmf all 2 " + hexSum[1:] + "g 100", "ovmf all 2 " + hexSum + " 0",
		"ovmf all 2 " + hexSum + " -5", "ovmf all 2 " + hexSum + " 99999999999999999999",
		"-ovmf all 2 " + hexSum + " 1", "../x all 2 " + hexSum + " 1", "a/b all 2 " + hexSum + " 1", "ovmf $(x) 2 " + hexSum + " 1",
		strings.Repeat("x", 70_000),
	} {
		l, err := ParseLock("test", []byte(text))
		if len(text) > 60 {
			text = text[:30] + "…" + text[len(text)-10:]
		}
		fmt.Fprintf(&b, "%q\n  %v %v\n", text, l.Packages, err)
	}
	golden.Compare(t, "locks.txt", b.String())
}

func FuzzParseLock(f *testing.F) {
	f.Add([]byte("ovmf all 2025.02-8 " + hexSum + " 100\n"))
	f.Add([]byte("# x\n\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLock("fuzz", data)
		if err != nil {
			return
		}
		again, err := ParseLock("fuzz", l.Format())
		if err != nil {
			t.Fatalf("what Format wrote is refused: %v", err)
		}
		if diff := cmp.Diff(l.Packages, again.Packages); diff != "" {
			t.Error(diff)
		}
	})
}

// TestLocks checks the locks of this source tree: each set has one, and it reads.
func TestLocks(t *testing.T) {
	names := map[string]bool{}
	sets, err := Sets(boards.All)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sets {
		names[s.Name] = true
		l, err := LoadLock(s.Name)
		if err != nil {
			t.Error(err)
			continue
		}
		data, err := locks.ReadFile("lock/" + s.Name + ".lock")
		if err != nil || !bytes.Equal(data, l.Format()) {
			t.Errorf("lock %s is not in the form that kogge image lock writes (%v)", s.Name, err)
		}
		for _, want := range s.Packages {
			if _, err := l.Find(want); err != nil {
				t.Error(err)
			}
		}
		for _, p := range l.Packages {
			if p.Arch != "all" && p.Arch != s.Arch {
				t.Errorf("lock %s: package %s is for another architecture than %s", s.Name, p, s.Arch)
			}
		}
	}
	entries, err := locks.ReadDir("lock")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !names[strings.TrimSuffix(e.Name(), ".lock")] {
			t.Errorf("lock %s belongs to no set", e.Name())
		}
	}
	if _, err := LoadLock("no-such"); err == nil || !strings.Contains(err.Error(), "kogge image lock no-such") {
		t.Errorf("a lock that is not there: %v", err)
	}
}

func TestArchiveURIs(t *testing.T) {
	for lines, want := range map[string][]string{
		"": {},
		"http://deb.example/debian/ Debian\nhttp://deb.example/debian/ Debian\nhttp://sec.example/debian-security Debian\n": {"http://deb.example/debian", "http://sec.example/debian-security"},
		"http://mirror.example/debian \n":                               {"http://mirror.example/debian"},
		"https://download.example/linux/debian/dists/ Docker\n":         {},
		"http://ppa.example/ubuntu/ Ubuntu\nfile:/srv/debian/ Debian\n": {"file:/srv/debian"},
	} {
		if diff := cmp.Diff(want, archiveURIs(lines)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", lines, diff)
		}
	}
	m := mirror{uris: []string{"http://a/debian", "http://b/debian-security"}, keyring: "/k"}
	want := "deb [signed-by=/k] http://a/debian trixie main\ndeb [signed-by=/k] http://a/debian trixie-updates main\n" +
		"deb [signed-by=/k] http://b/debian-security trixie-security main\n"
	if diff := cmp.Diff(want, m.list(m.sources(nil))); diff != "" {
		t.Error(diff)
	}
	if got := fmt.Sprint(m.sources([]string{"trixie-updates", "trixie-security"})); got != "[trixie of http://a/debian]" {
		t.Errorf("without two suites: %s", got)
	}
}

func TestParseShow(t *testing.T) {
	stanza := func(version, extra string) string {
		return "Package: ovmf\nArchitecture: all\nVersion: " + version + "\nDescription: firmware\n Package: not this\n SHA256: nor this\n" + extra
	}
	sum := "SHA256: " + hexSum + "\n"
	for _, c := range []struct {
		text, want string
	}{
		{"", "[] <nil>"},
		{"\n\n\n", "[] <nil>"},
		{stanza("2", sum+"Size: 5\n") + "\n" + stanza("1", sum+"Size: 4\n"), "[ovmf=2:all ovmf=1:all] <nil>"},
		{stanza("2", "Size: 5\n"), "[] package ovmf=2:all: the mirror's list has no SHA-256"},
		{stanza("2", "SHA256: 00\nSize: 5\n"), "[] package ovmf=2:all: the mirror's list has no SHA-256"},
		{stanza("2", sum), "[] package ovmf=2:all: the mirror's list has no size"},
		{stanza("2", sum+"Size: many\n"), "[] package ovmf=2:all: the mirror's list has no size"},
	} {
		got, err := parseShow(c.text)
		if text := fmt.Sprint(got, " ", err); text != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.text, text, c.want)
		}
	}
}

// TestChoose asks what is taken of what a mirror has; TestMirrors asks real ones.
func TestChoose(t *testing.T) {
	p := func(version, arch string) Package { return Package{Name: "ovmf", Arch: arch, Version: version} }
	for _, c := range []struct {
		want   Package
		have   []Package
		locked bool
		got    Package
		err    error
	}{
		{p("1", "all"), []Package{p("2", "all"), p("1", "all")}, true, p("1", "all"), nil},
		{p("1", "all"), []Package{p("2", "all"), p("1", "all")}, false, p("1", "all"), nil},
		{p("1", "all"), []Package{p("2", "all")}, false, p("2", "all"), nil},
		{p("1", "all"), []Package{p("2", "all")}, true, Package{}, ErrGone},
		{p("1", "amd64"), []Package{p("1", "arm64")}, true, Package{}, ErrGone},
		{p("1", "amd64"), []Package{p("2", "arm64")}, false, Package{}, ErrGone},
		{p("1", "amd64"), []Package{p("2", "all")}, false, p("2", "all"), nil},
		{p("1", "all"), []Package{p("2", "amd64")}, false, p("2", "amd64"), nil},
		{p("1", "all"), nil, false, Package{}, ErrGone},
		{p("1", "all"), nil, true, Package{}, ErrGone},
		{p("9", "all"), []Package{p("8", "all"), p("10", "all"), p("9.1", "all")}, false, p("10", "all"), nil},
		{p("9", "all"), []Package{p("8", "all"), p("9~rc", "all")}, false, Package{}, ErrGone},
		{p("9", "all"), []Package{p("9-0", "all")}, false, Package{}, ErrGone}, // equal by dpkg's order, and other bytes
		{p("9", "all"), []Package{p("v10", "all"), p("", "all")}, false, Package{}, ErrGone},
	} {
		if got, err := choose(c.want, c.have, c.locked); got != c.got || !errors.Is(err, c.err) {
			t.Errorf("%v of %v locked=%v: got %v, %v", c.want, c.have, c.locked, got, err)
		}
	}
	if got, err := choose(p("v1", "all"), []Package{p("2", "all")}, false); err == nil {
		t.Errorf("instead of what is no version: %v", got)
	}
}

func TestIsKernel(t *testing.T) {
	for name, want := range map[string]bool{
		"linux-image-6.12.117+deb13-amd64": true, "linux-image-amd64": false, "linux-image-": false, "linux-image": false, "ovmf": false,
	} {
		if isKernel(name) != want {
			t.Errorf("isKernel(%q) = %v", name, !want)
		}
	}
}

// TestCacheHash feeds the cache with other bytes than the lock names.
func TestCacheHash(t *testing.T) {
	c := Cache{Dir: t.TempDir(), Say: func(string, ...any) {}}
	content := []byte("this is no package")
	p := Package{Name: "ovmf", Arch: "all", Version: "1", SHA256: sha256.Sum256(content), Size: int64(len(content))}
	put := func(data []byte) string {
		path := filepath.Join(t.TempDir(), "download.deb")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	err := c.add(put([]byte("something else")), p)
	if err == nil || !strings.Contains(err.Error(), "the download was not used") || !strings.Contains(err.Error(), hexOf(p)) {
		t.Errorf("wrong bytes from the mirror: %v", err)
	}
	if ok, err := c.have(p); ok || err != nil {
		t.Fatalf("they are in the cache: %v", err)
	}
	if err := c.add(put(content), p); err != nil {
		t.Fatal(err)
	}
	// A byte flips on the disk of the building machine.
	damaged := bytes.Clone(content)
	damaged[3] ^= 1
	if err := os.WriteFile(c.deb(p), damaged, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = c.Fetch(context.Background(), Lock{Name: "test", Packages: []Package{p}})
	if err == nil || !strings.Contains(err.Error(), "is damaged; remove it") || !strings.Contains(err.Error(), c.deb(p)) {
		t.Errorf("damaged package: %v", err)
	}
	// One that was cut short counts as missing.
	if err := os.Truncate(c.deb(p), 3); err != nil {
		t.Fatal(err)
	}
	if ok, err := c.have(p); ok || err != nil {
		t.Errorf("a cut package counts as there: %v, %v", ok, err)
	}
	// Right bytes, but dpkg-deb cannot read them: nothing half-unpacked stays.
	if err := os.WriteFile(c.deb(p), content, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Fetch(context.Background(), Lock{Name: "test", Packages: []Package{p}}); err == nil {
		t.Error("text was unpacked as a package")
	}
	left, err := os.ReadDir(filepath.Join(c.Dir, "files"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the cache: %v %v", left, err)
	}
}

func hexOf(p Package) string { return fmt.Sprintf("%x", p.SHA256) }

func TestToolboxWithoutLoader(t *testing.T) {
	if _, err := OpenTools([]File{{Dir: t.TempDir()}}); err == nil {
		t.Error("a toolbox without a program loader")
	}
}
