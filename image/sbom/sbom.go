// Package sbom says what an image is made of: entries of the root file system and
// the packages behind them go in, three files for the image come out: an SPDX
// document, the licence texts, and a manifest of every file. The same input gives
// the same bytes. It reads packages, executables and the Go module cache, and
// changes none of them.
package sbom

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"

	"kogge.example/image/debian"
	"kogge.example/image/rootfs"
)

// Input is what the three files tell of.
type Input struct {
	Board, Arch, Version string
	When                 time.Time
	// Entries of the root file system, without the three files.
	Entries []rootfs.Entry
	// Packages are the Debian packages of which the image holds files or code.
	Packages []debian.File
	// Origin returns the names of the Debian packages that an entry was made from.
	Origin func(path string) []string
	// Compiler is what the C compiler says its version is, for CompilerUses.
	Compiler string
	// CompilerUses are the paths of the executables that hold its code.
	CompilerUses []string
}

// none is what SPDX writes where nobody claims to know.
const none = "NOASSERTION"

// Document returns the SPDX 2.3 document as JSON.
//
// Source: spdx.github.io/spdx-spec/v2.3
func Document(in Input, files []File) ([]byte, error) {
	d := builder{in: in, ids: map[string]bool{}, licenses: map[string]string{}, modules: map[string]string{}, debs: map[string]string{}}
	if err := d.build(files); err != nil {
		return nil, fmt.Errorf("SBOM: %w", err)
	}
	doc := &spdx.Document{
		SPDXVersion:    spdx.Version,
		DataLicense:    spdx.DataLicense,
		SPDXIdentifier: "DOCUMENT",
		DocumentName:   "kogge-" + in.Board + "-" + in.Version,
		CreationInfo: &spdx.CreationInfo{
			Created:  in.When.UTC().Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "kogge-" + in.Version}},
		},
		Packages: d.packages, Files: d.files, Relationships: d.relations, OtherLicenses: d.others(),
	}
	// The namespace must be unique to the content: it is the content's hash.
	content, err := encode(doc)
	if err != nil {
		return nil, err
	}
	doc.DocumentNamespace = fmt.Sprintf("https://kogge.example/spdx/%s/%x", doc.DocumentName, sha256.Sum256(content))
	return encode(doc)
}

func encode(doc *spdx.Document) ([]byte, error) {
	var b bytes.Buffer
	if err := spdxjson.Write(doc, &b, spdxjson.Indent("\t"), spdxjson.EscapeHTML(false)); err != nil {
		return nil, fmt.Errorf("SBOM: %w", err)
	}
	return b.Bytes(), nil
}

// builder collects the elements of a document.
type builder struct {
	in        Input
	packages  []*spdx.Package
	files     []*spdx.File
	relations []*spdx.Relationship
	ids       map[string]bool
	licenses  map[string]string // LicenseRef → what it stands for
	modules   map[string]string // Go module@version → id
	debs      map[string]string // Debian package → id
}

func (d *builder) build(files []File) error {
	image := d.add(&spdx.Package{
		PackageName: "kogge-" + d.in.Board, PackageVersion: d.in.Version, PackageLicenseDeclared: none,
		PackageComment: "the root file system and the boot files of one release", PrimaryPackagePurpose: "OPERATING-SYSTEM",
	}, "Image")
	d.relate("DOCUMENT", common.TypeRelationshipDescribe, image)
	for _, p := range d.in.Packages {
		id, err := d.debian(p)
		if err != nil {
			return err
		}
		d.debs[p.Name] = id
		d.relate(image, common.TypeRelationshipContains, id)
	}
	var compiler string
	if d.in.Compiler != "" {
		compiler = d.add(&spdx.Package{
			PackageName: "gcc", PackageVersion: d.in.Compiler, PackageLicenseDeclared: "GPL-3.0-or-later WITH GCC-exception-3.1",
			PackageComment: "the C compiler of the building machine; its run-time library is linked into what it builds",
		}, "Compiler")
	}
	for _, f := range files {
		if !f.elf {
			continue
		}
		id := d.file(f)
		d.relate(image, common.TypeRelationshipContains, id)
		made, err := d.origins(f)
		if err != nil {
			return err
		}
		for _, from := range made {
			d.relate(id, common.TypeRelationshipGeneratedFrom, from)
		}
		for _, path := range d.in.CompilerUses {
			if path == f.Path && compiler != "" {
				d.relate(compiler, common.TypeRelationshipBuildToolOf, id)
			}
		}
	}
	for _, key := range sortedKeys(d.modules) {
		d.relate(image, common.TypeRelationshipContains, d.modules[key])
	}
	return nil
}

// origins returns the ids of what an executable or a kernel module was made from.
func (d *builder) origins(f File) ([]string, error) {
	var ids []string
	for _, name := range d.in.Origin(f.Path) {
		id, ok := d.debs[name]
		if !ok {
			return nil, fmt.Errorf("%s: package %s is not part of the image", f.Path, name)
		}
		ids = append(ids, id)
	}
	for _, m := range f.modules {
		ids = append(ids, d.module(m))
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%s: the source of this executable is unknown", f.Path)
	}
	return ids, nil
}

// debian adds a Debian package.
func (d *builder) debian(p debian.File) (string, error) {
	expression, err := d.debianLicense(p)
	if err != nil {
		return "", err
	}
	return d.add(&spdx.Package{
		PackageName: p.Name, PackageVersion: p.Version, PackageLicenseDeclared: expression,
		PackageSupplier:  &common.Supplier{SupplierType: "Organization", Supplier: "Debian"},
		PackageChecksums: []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(p.SHA256[:])}},
		PackageExternalReferences: purl(fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=%s",
			p.Name, purlEscape(p.Version), p.Arch, debian.Suite)),
	}, "Deb-"+p.Name), nil
}

// module adds a Go module, once.
func (d *builder) module(m Module) string {
	if id, ok := d.modules[m.String()]; ok {
		return id
	}
	p := &spdx.Package{PackageName: m.Path, PackageVersion: m.Version, PackageLicenseDeclared: none}
	switch {
	case m.Own:
		p.PackageVersion, p.PackageLicenseDeclared = d.in.Version, "Apache-2.0"
	case m.Path == Stdlib:
		p.PackageLicenseDeclared = "BSD-3-Clause"
		p.PackageExternalReferences = purl("pkg:golang/std@" + purlEscape(strings.TrimPrefix(m.Version, "go")))
	default:
		p.PackageExternalReferences = purl("pkg:golang/" + m.Path + "@" + purlEscape(m.Version))
	}
	if m.Sum != "" {
		p.PackageSourceInfo = "go.sum: " + m.Sum
	}
	id := d.add(p, "Go-"+m.String())
	d.modules[m.String()] = id
	return id
}

func purl(locator string) []*spdx.PackageExternalReference {
	return []*spdx.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: locator}}
}

// purlEscape writes a version as a package URL wants it.
//
// Source: github.com/package-url/purl-spec
func purlEscape(s string) string {
	return strings.NewReplacer("%", "%25", "+", "%2B", ":", "%3A", "@", "%40", "/", "%2F", " ", "%20").Replace(s)
}

// add completes a package and returns its id.
func (d *builder) add(p *spdx.Package, name string) string {
	id := d.id("Package-" + name)
	p.PackageSPDXIdentifier = common.ElementID(id)
	p.PackageDownloadLocation = none
	p.PackageLicenseConcluded = none
	p.PackageCopyrightText = none
	d.packages = append(d.packages, p)
	return id
}

func (d *builder) file(f File) string {
	id := d.id("File-" + strings.TrimPrefix(f.Path, "/"))
	d.files = append(d.files, &spdx.File{
		FileName: "." + f.Path, FileSPDXIdentifier: common.ElementID(id), FileTypes: []string{"BINARY"},
		// SPDX 2.3 wants the SHA-1 of every file; nothing here trusts it.
		Checksums: []common.Checksum{
			{Algorithm: common.SHA1, Value: fmt.Sprintf("%x", f.sha1)},
			{Algorithm: common.SHA256, Value: f.SHA256},
		},
		LicenseConcluded: none, LicenseInfoInFiles: []string{none}, FileCopyrightText: none,
	})
	return id
}

// id makes a name into an identifier: letters, digits, dots and hyphens, unique in
// the document.
func (d *builder) id(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			b.WriteRune(r)
		} else {
			b.WriteByte('-')
		}
	}
	id := b.String()
	for n := 2; d.ids[id]; n++ {
		id = fmt.Sprintf("%s-%d", b.String(), n)
	}
	d.ids[id] = true
	return id
}

func (d *builder) relate(a, kind, b string) {
	d.relations = append(d.relations, &spdx.Relationship{
		RefA: common.MakeDocElementID("", a), RefB: common.MakeDocElementID("", b), Relationship: kind,
	})
}

// others lists the licences that SPDX has no name for.
func (d *builder) others() []*spdx.OtherLicense {
	var list []*spdx.OtherLicense
	for _, ref := range sortedKeys(d.licenses) {
		list = append(list, &spdx.OtherLicense{
			LicenseIdentifier: ref, LicenseName: d.licenses[ref],
			ExtractedText: fmt.Sprintf("What Debian's copyright file calls %q; its text is in %s.", d.licenses[ref], LicensesPath),
		})
	}
	return list
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// isELF says whether content is an executable or a kernel module.
func isELF(content io.ReaderAt) (bool, error) {
	magic := make([]byte, len(elf.ELFMAG))
	n, err := content.ReadAt(magic, 0)
	if err == io.EOF {
		err = nil
	}
	return string(magic[:n]) == elf.ELFMAG, err
}

// hashes reads content once for both sums.
func hashes(content io.Reader) (sum256 [sha256.Size]byte, sum1 [sha1.Size]byte, size int64, err error) {
	h256, h1 := sha256.New(), sha1.New()
	size, err = io.Copy(io.MultiWriter(h256, h1), content)
	h256.Sum(sum256[:0])
	h1.Sum(sum1[:0])
	return sum256, sum1, size, err
}
