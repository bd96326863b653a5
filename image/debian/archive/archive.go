// Package archive is for tests: a Debian archive in a folder, signed by a key of the
// test's own. apt reads it as any other one. In come names and versions of packages, which
// have no files; it needs dpkg-deb, gpg and apt.
package archive

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

	"kogge.example/image/debian"
)

// Archive is one, with a folder for security updates of its own.
type Archive struct {
	dir, gpg string
	packages map[string]debian.Package // by "NAME_VERSION"
}

// New makes the key, and has [debian.Cache] take everything from the archive, in which no
// suite is yet.
func New(t *testing.T) *Archive {
	// The key's sockets need a short path.
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	a := &Archive{dir: t.TempDir(), gpg: home, packages: map[string]debian.Package{}}
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

func (a *Archive) tool(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+a.gpg)
	return cmd
}

func (a *Archive) run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := a.tool(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// uri is the folder of the archive that has a suite.
func (a *Archive) uri(suite string) string {
	if strings.HasSuffix(suite, "-security") {
		return filepath.Join(a.dir, "debian-security")
	}
	return filepath.Join(a.dir, "debian")
}

// Package makes a package, once, and says what a lock of it is. It is nowhere yet.
func (a *Archive) Package(t *testing.T, name, version string) debian.Package {
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
	p := debian.Package{Name: name, Arch: "amd64", Version: version, SHA256: sha256.Sum256(data), Size: int64(len(data))}
	a.packages[key] = p
	return p
}

// Publish writes and signs a suite with these packages, "NAME VERSION [DEPENDS]" each.
// What was there of that suite goes.
func (a *Archive) Publish(t *testing.T, suite string, packages ...string) {
	t.Helper()
	top := a.uri(suite)
	var index bytes.Buffer
	for _, text := range packages {
		f := append(strings.Fields(text), "")
		p := a.Package(t, f[0], f[1])
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

// Remove removes a suite.
func (a *Archive) Remove(t *testing.T, suite string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(a.uri(suite), "dists", suite)); err != nil {
		t.Fatal(err)
	}
}

// Forge changes what was signed of a suite.
func (a *Archive) Forge(t *testing.T, suite string) {
	t.Helper()
	file := filepath.Join(a.uri(suite), "dists", suite, "InRelease")
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
