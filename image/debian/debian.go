// Package debian turns locked package names into verified files: kernels,
// modules, boot loaders and the tools that make file systems, all from one
// Debian release whatever the building machine runs.
//
// A lock names each package with its SHA-256. The cache keeps every .deb under
// that hash, so a build whose packages are cached needs no network, and a mirror
// that dropped a version does not stop it. What is missing comes through apt-get
// with a state directory of its own: the host's package system is neither read
// nor changed, nothing is installed and nothing needs root.
package debian

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// ErrGone says that no mirror has the locked version any more.
var ErrGone = errors.New("the mirror no longer has this version")

// ErrSuite says that a suite of the mirror does not load, and that the others do not have
// all that is locked.
var ErrSuite = errors.New("a suite does not load")

// Cache keeps packages and their unpacked files below one folder.
type Cache struct {
	// Dir is the folder, usually ~/.cache/kogge/debian.
	Dir string
	// Locked refuses to replace a locked version that has left the mirror.
	Locked bool
	// Without are suites to go on without: neither loaded nor missed.
	Without []string
	// Say receives one line for each step that takes time, and for each warning.
	Say func(format string, args ...any)
}

// File is a package's place in the cache.
type File struct {
	Package
	// Instead is the locked package that it was taken instead of; zero if it is the
	// locked one itself.
	Instead Package
	Deb     string // path of the .deb
	Dir     string // path of the folder it is unpacked in; read only
}

// Fetch makes sure that every package of l is in the cache, verified and
// unpacked, and returns them in the order of l. A package that is neither cached
// nor on the mirror is replaced by the mirror's newest version with a warning, if that
// is newer than the locked one; it is an error wrapping ErrGone if it is not, and if the
// cache is Locked. A suite that does not load is an error wrapping ErrSuite, unless the
// others have every missing package as it is locked.
//
// A cut at any point leaves whole packages or none: files appear by rename.
func (c Cache) Fetch(ctx context.Context, l Lock) ([]File, error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("package cache: %w", err)
	}
	unlock, err := c.lockDir()
	if err != nil {
		return nil, err
	}
	defer unlock()
	var missing []Package
	for _, p := range l.Packages {
		ok, err := c.have(p)
		if err != nil {
			return nil, err
		}
		if !ok {
			missing = append(missing, p)
		}
	}
	replaced := map[string]Package{}
	if len(missing) > 0 {
		if replaced, err = c.download(ctx, l, missing); err != nil {
			return nil, fmt.Errorf("packages of %s: %w", l.Name, err)
		}
	}
	files := make([]File, len(l.Packages))
	for i, p := range l.Packages {
		var instead Package
		if r, ok := replaced[p.Name]; ok {
			p, instead = r, p
		}
		dir, err := c.unpack(ctx, p)
		if err != nil {
			return nil, err
		}
		files[i] = File{Package: p, Instead: instead, Deb: c.deb(p), Dir: dir}
	}
	return files, nil
}

// lockDir keeps two builds from downloading into one folder at the same time.
func (c Cache) lockDir() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("package cache: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("package cache: lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

func (c Cache) deb(p Package) string {
	return filepath.Join(c.Dir, "deb", fmt.Sprintf("%x.deb", p.SHA256))
}

// have says whether p is cached. Its hash was checked when it came in; here the
// size tells a file that somebody has damaged since.
func (c Cache) have(p Package) (bool, error) {
	st, err := os.Stat(c.deb(p))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("package cache: %w", err)
	}
	return st.Size() == p.Size, nil
}

// add moves the downloaded file into the cache if its bytes are p's.
func (c Cache) add(path string, p Package) error {
	sum, size, err := hash(path)
	if err != nil {
		return err
	}
	if sum != p.SHA256 || size != p.Size {
		return fmt.Errorf("package %s: the mirror sent SHA-256 %x (%d bytes), the lock says %x (%d bytes): "+
			"the mirror or the lock is wrong; the download was not used", p, sum, size, p.SHA256, p.Size)
	}
	if err := os.MkdirAll(filepath.Dir(c.deb(p)), 0o755); err != nil {
		return fmt.Errorf("package cache: %w", err)
	}
	if err := os.Rename(path, c.deb(p)); err != nil {
		return fmt.Errorf("package cache: %w", err)
	}
	return nil
}

// unpack returns the folder with p's files. dpkg-deb reads the archive; it needs
// neither root nor the package database.
func (c Cache) unpack(ctx context.Context, p Package) (string, error) {
	dir := filepath.Join(c.Dir, "files", fmt.Sprintf("%x", p.SHA256))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	// The hash is checked once more here: from now on the files are trusted.
	sum, _, err := hash(c.deb(p))
	if err != nil {
		return "", err
	}
	if sum != p.SHA256 {
		return "", fmt.Errorf("package %s: the cached file %s is damaged; remove it and build again", p, c.deb(p))
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("package cache: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".unpack-*")
	if err != nil {
		return "", fmt.Errorf("package cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	if _, err := run(ctx, nil, "dpkg-deb", "--extract", c.deb(p), tmp); err != nil {
		return "", fmt.Errorf("package %s: unpack: %w", p, err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", fmt.Errorf("package cache: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("package cache: %w", err)
	}
	return dir, nil
}

func hash(path string) (sum [32]byte, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, 0, fmt.Errorf("package cache: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return sum, 0, fmt.Errorf("package cache: %w", err)
	}
	h.Sum(sum[:0])
	return sum, size, nil
}
