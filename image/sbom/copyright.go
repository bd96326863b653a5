package sbom

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"kogge.example/image/debian"
)

// copyrightFile is where a Debian package has its copyright file.
func copyrightFile(p debian.File) string {
	return filepath.Join(p.Dir, "usr/share/doc", p.Name, "copyright")
}

// debianLicense is the declared licence of a Debian package as an SPDX expression:
// what all stanzas of a machine-readable copyright file say, joined by AND.
func (d *builder) debianLicense(p debian.File) (string, error) {
	data, err := os.ReadFile(copyrightFile(p))
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil // a link to another package's, such as a meta package has
	}
	if err != nil {
		return "", fmt.Errorf("package %s: %w", p.Package, err)
	}
	names := stanzaLicenses(string(data))
	if len(names) == 0 {
		return none, nil
	}
	var all []string
	seen := map[string]bool{}
	for _, name := range names {
		e := d.expression(name)
		if !seen[e] {
			seen[e] = true
			all = append(all, e)
		}
	}
	sort.Strings(all)
	return strings.Join(all, " AND "), nil
}

// stanzaLicenses returns the License fields of the Files stanzas of a copyright
// file, nil if it is not machine readable.
//
// Source: debian.org/doc/packaging-manuals/copyright-format/1.0
func stanzaLicenses(text string) []string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	first, _, _ := strings.Cut(text, "\n\n")
	if !strings.Contains(first, "copyright-format/1.0") {
		return nil
	}
	var names []string
	for stanza := range strings.SplitSeq(text, "\n\n") {
		files, license := false, ""
		for line := range strings.Lines(stanza) {
			key, value, ok := strings.Cut(line, ":")
			switch {
			case !ok || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			case strings.EqualFold(key, "Files"):
				files = true
			case strings.EqualFold(key, "License"):
				license = strings.Join(strings.Fields(value), " ")
			}
		}
		if files && license != "" {
			names = append(names, license)
		}
	}
	return names
}

// expression turns a licence name of Debian's into an SPDX expression. "and" binds
// closer than "or"; a comma, which changes that, makes the whole a name of its own.
func (d *builder) expression(name string) string {
	if strings.Contains(name, ",") {
		return d.reference(name)
	}
	var either []string
	for alternative := range strings.SplitSeq(name, " or ") {
		var both []string
		for part := range strings.SplitSeq(alternative, " and ") {
			part = strings.TrimSpace(part)
			if id, ok := spdxNames[strings.ToLower(part)]; ok {
				both = append(both, id)
			} else {
				both = append(both, d.reference(part))
			}
		}
		either = append(either, strings.Join(both, " AND "))
	}
	if len(either) > 1 {
		return "(" + strings.Join(either, " OR ") + ")"
	}
	return either[0]
}

// reference names a licence that SPDX has no identifier for.
func (d *builder) reference(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			b.WriteRune(r)
		} else if r == '+' {
			b.WriteString("-or-later")
		} else {
			b.WriteByte('-')
		}
	}
	ref := "LicenseRef-Debian-" + b.String()
	d.licenses[ref] = name
	return ref
}

// spdxNames maps the names that Debian's copyright files use, in lower case, to
// identifiers of the SPDX licence list. A name that stands for different texts in
// different packages (MIT, BSD-like …) is not in it.
var spdxNames = map[string]string{
	"0bsd": "0BSD", "apache-2": "Apache-2.0", "apache-2.0": "Apache-2.0",
	"bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause", "bsl-1.0": "BSL-1.0", "cc0-1.0": "CC0-1.0",
	"bsd-2-clause-patent": "BSD-2-Clause-Patent", "expat": "MIT", "fsfap": "FSFAP", "fsfullr": "FSFULLR",
	"gpl-1": "GPL-1.0-only", "gpl-1+": "GPL-1.0-or-later",
	"gpl-2": "GPL-2.0-only", "gpl-2.0": "GPL-2.0-only", "gpl-2+": "GPL-2.0-or-later",
	"gpl-3": "GPL-3.0-only", "gpl-3+": "GPL-3.0-or-later",
	"gpl-2 with linux-syscall-note exception": "GPL-2.0-only WITH Linux-syscall-note",
	"isc": "ISC", "latex2e": "Latex2e",
	"lgpl-2": "LGPL-2.0-only", "lgpl-2+": "LGPL-2.0-or-later",
	"lgpl-2.1": "LGPL-2.1-only", "lgpl-2.1+": "LGPL-2.1-or-later",
	"lgpl-3": "LGPL-3.0-only", "lgpl-3+": "LGPL-3.0-or-later",
	"mpl-2.0": "MPL-2.0", "openssl": "OpenSSL", "sunpro": "SunPro", "unicode-dfs-2016": "Unicode-DFS-2016", "zlib": "Zlib",
}
