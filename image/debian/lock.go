package debian

import (
	"bufio"
	"bytes"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strconv"
	"strings"
)

// Suite is the Debian release that every package comes from.
const Suite = "trixie"

// Package is one locked package: exactly these bytes.
type Package struct {
	Name    string
	Arch    string // Debian's name; "all" for packages without machine code
	Version string
	SHA256  [32]byte
	Size    int64 // bytes of the .deb
}

// String is name=version:arch, as people write it.
func (p Package) String() string { return p.Name + "=" + p.Version + ":" + p.Arch }

// Lock is a named set of packages. The sets are one for each board, "tools" for
// the programs that the builder runs, and "firmware" for virtual machines.
type Lock struct {
	Name     string
	Packages []Package // sorted by name
}

// Find returns the package called name.
func (l Lock) Find(name string) (Package, error) {
	for _, p := range l.Packages {
		if p.Name == name {
			return p, nil
		}
	}
	return Package{}, fmt.Errorf("lock %s: package %s is not in it", l.Name, name)
}

// Only is the lock with nothing but the package called name.
func (l Lock) Only(name string) (Lock, error) {
	p, err := l.Find(name)
	return Lock{Name: l.Name, Packages: []Package{p}}, err
}

//go:embed lock/*.lock
var locks embed.FS

// LoadLock returns the lock called name that is part of this source tree.
func LoadLock(name string) (Lock, error) {
	data, err := locks.ReadFile("lock/" + name + ".lock")
	if errors.Is(err, fs.ErrNotExist) {
		return Lock{}, fmt.Errorf("lock %s: there is none yet; make it with: kogge image lock %s", name, name)
	}
	if err != nil {
		return Lock{}, fmt.Errorf("lock %s: %w", name, err)
	}
	return ParseLock(name, data)
}

// ParseLock reads a lock file: a line for each package with name, architecture,
// version, SHA-256 and size, separated by blanks; # starts a comment.
func ParseLock(name string, data []byte) (Lock, error) {
	l := Lock{Name: name}
	sc := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; sc.Scan(); n++ {
		text, _, _ := strings.Cut(sc.Text(), "#")
		f := strings.Fields(text)
		if len(f) == 0 {
			continue
		}
		if len(f) != 5 {
			return Lock{}, fmt.Errorf("lock %s: line %d: %d words, want name, architecture, version, SHA-256, size", name, n, len(f))
		}
		p := Package{Name: f[0], Arch: f[1], Version: f[2]}
		if !plain(p.Name) || !plain(p.Arch) || !plain(p.Version) {
			return Lock{}, fmt.Errorf("lock %s: line %d: %q is not a package name, architecture or version", name, n, text)
		}
		sum, err := hex.DecodeString(f[3])
		if err != nil || len(sum) != len(p.SHA256) {
			return Lock{}, fmt.Errorf("lock %s: line %d: %q is not a SHA-256", name, n, f[3])
		}
		copy(p.SHA256[:], sum)
		if p.Size, err = strconv.ParseInt(f[4], 10, 64); err != nil || p.Size <= 0 {
			return Lock{}, fmt.Errorf("lock %s: line %d: %q is not a size", name, n, f[4])
		}
		l.Packages = append(l.Packages, p)
	}
	if err := sc.Err(); err != nil {
		return Lock{}, fmt.Errorf("lock %s: %w", name, err)
	}
	return l, nil
}

// NotBefore says which package of l is older than it was in another lock of the same
// set: the mirror that l was made from has fallen behind, or somebody answers with an
// old copy of it.
func (l Lock) NotBefore(old Lock) error {
	for _, p := range l.Packages {
		for _, was := range old.Packages {
			// Kernels follow each other under different names.
			if was.Name != p.Name && !(isKernel(was.Name) && isKernel(p.Name)) {
				continue
			}
			v, err := parseVersion(p.Version)
			w, other := parseVersion(was.Version)
			if err := errors.Join(err, other); err != nil {
				return fmt.Errorf("lock %s: package %s: %w", l.Name, p.Name, err)
			}
			if v.compare(w) < 0 {
				return fmt.Errorf("lock %s: package %s is older than the locked %s", l.Name, p, was.Version)
			}
		}
	}
	return nil
}

// plain says whether s is safe as a word of a command and of a file name.
func plain(s string) bool {
	if s == "" || strings.ContainsAny(s[:1], "-.+~") || strings.Contains(s, "..") {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("+-.~:_", r) {
			return false
		}
	}
	return true
}

// Format is the inverse of ParseLock, sorted by name.
func (l Lock) Format() []byte {
	sort.Slice(l.Packages, func(i, j int) bool { return l.Packages[i].Name < l.Packages[j].Name })
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Debian %s packages of %q: name, architecture, version, SHA-256, size.\n# Made by: kogge image lock %s\n", Suite, l.Name, l.Name)
	for _, p := range l.Packages {
		fmt.Fprintf(&b, "%s %s %s %x %d\n", p.Name, p.Arch, p.Version, p.SHA256, p.Size)
	}
	return b.Bytes()
}
