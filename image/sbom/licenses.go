package sbom

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/module"

	"kogge.example/image/debian"
)

// Sources says where licence texts are found.
type Sources struct {
	Checkout    string        // with our own LICENSE
	GoRoot      string        // of the Go that built the executables
	ModuleCache string        // GOMODCACHE
	Common      []debian.File // with usr/share/common-licenses, which copyright files refer to
}

// LicensesKey names what Licenses would write: the same key, the same bytes.
func LicensesKey(modules []Module, packages []debian.File, s Sources, when time.Time) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "v1 %d\n", when.Unix())
	own, err := os.ReadFile(filepath.Join(s.Checkout, "LICENSE"))
	if err != nil {
		return "", fmt.Errorf("licences: %w", err)
	}
	h.Write(own)
	for _, m := range modules {
		fmt.Fprintln(h, m)
	}
	for _, p := range append(append([]debian.File{}, packages...), s.Common...) {
		fmt.Fprintf(h, "%x\n", p.SHA256)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:16]), nil
}

// Licenses returns a compressed tar of the licence texts: of each Debian package its
// copyright file and the common licences that it refers to, of each Go module
// the files of its tree that tell of licences. A text that several have is stored
// once, with hard links.
func Licenses(modules []Module, packages []debian.File, s Sources, when time.Time) ([]byte, error) {
	texts, err := collect(modules, packages, s)
	if err != nil {
		return nil, fmt.Errorf("licences: %w", err)
	}
	names := make([]string, 0, len(texts))
	for name := range texts {
		names = append(names, name)
	}
	sort.Strings(names)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	stored := map[[sha256.Size]byte]string{}
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, ModTime: when, Format: tar.FormatPAX, Typeflag: tar.TypeReg, Size: int64(len(texts[name]))}
		sum := sha256.Sum256(texts[name])
		first, again := stored[sum]
		if again {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		}
		stored[sum] = firstOf(first, name)
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("licences: %s: %w", name, err)
		}
		if again {
			continue
		}
		if _, err := w.Write(texts[name]); err != nil {
			return nil, fmt.Errorf("licences: %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("licences: %w", err)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("licences: %w", err)
	}
	defer z.Close()
	return z.EncodeAll(archive.Bytes(), nil), nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// commonLicense finds the texts that Debian's copyright files leave out.
var commonLicense = regexp.MustCompile(`/usr/share/common-licenses/([A-Za-z0-9][A-Za-z0-9.+-]*[A-Za-z0-9])`)

// collect maps names in the archive to texts.
func collect(modules []Module, packages []debian.File, s Sources) (map[string][]byte, error) {
	texts := map[string][]byte{}
	for _, p := range packages {
		data, err := os.ReadFile(copyrightFile(p))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		texts["debian/"+p.Name+"/copyright"] = data
		for _, m := range commonLicense.FindAllSubmatch(data, -1) {
			name := string(m[1])
			text, err := commonText(s.Common, name)
			if err != nil {
				return nil, fmt.Errorf("package %s: %w", p.Package, err)
			}
			texts["common/"+name] = text
		}
	}
	for _, m := range modules {
		dir, err := m.dir(s)
		if err != nil {
			return nil, err
		}
		n := len(texts)
		if err := moduleTexts(texts, "go/"+m.String(), dir, m.Own || m.Path == Stdlib); err != nil {
			return nil, fmt.Errorf("module %s: %w", m, err)
		}
		if len(texts) == n {
			return nil, fmt.Errorf("module %s: %s has no licence file", m, dir)
		}
	}
	return texts, nil
}

// commonText reads a common licence; GPL may be a link to the newest one.
func commonText(packages []debian.File, name string) ([]byte, error) {
	for _, p := range packages {
		dir := filepath.Join(p.Dir, "usr/share/common-licenses")
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			return data, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("there is no common licence %s in the set %s", name, debian.Licenses)
}

// dir is where a module's source is.
func (m Module) dir(s Sources) (string, error) {
	switch {
	case m.Own:
		return s.Checkout, nil
	case m.Path == Stdlib:
		return s.GoRoot, nil
	}
	p, err := module.EscapePath(m.Path)
	if err != nil {
		return "", err
	}
	v, err := module.EscapeVersion(m.Version)
	if err != nil {
		return "", err
	}
	return filepath.Join(s.ModuleCache, p+"@"+v), nil
}

// licenseFile tells the names of licence files from those of others.
var licenseFile = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying|notice|patents|copyright)([-._].*)?$`)

// moduleTexts adds the licence files of a module's tree, or of its top alone.
func moduleTexts(texts map[string][]byte, name, dir string, topOnly bool) error {
	return filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if file != dir && (topOnly || e.Name() == "testdata" || strings.HasPrefix(e.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() || !licenseFile.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			return nil
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		texts[path.Join(name, filepath.ToSlash(rel))] = data
		return nil
	})
}
