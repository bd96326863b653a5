package debian

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// mirror is where packages come from and whose signature they need.
type mirror struct {
	uris    []string // of the main archive and, where it is known, the security archive
	keyring string
}

// hostMirror takes the mirror from the environment or from the host's apt.
func hostMirror(ctx context.Context) (mirror, error) {
	m := mirror{keyring: os.Getenv("KOGGE_KEYRING")}
	if m.keyring == "" {
		m.keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	}
	if _, err := os.Stat(m.keyring); err != nil {
		return mirror{}, fmt.Errorf("keyring of the Debian archive: %w; install debian-archive-keyring or set KOGGE_KEYRING", err)
	}
	if env := os.Getenv("KOGGE_MIRROR"); env != "" {
		m.uris = strings.Fields(env)
		return m, nil
	}
	out, err := run(ctx, nil, "apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages")
	if err != nil {
		return mirror{}, fmt.Errorf("the host's apt sources: %w", err)
	}
	m.uris = archiveURIs(string(out))
	if len(m.uris) == 0 {
		return mirror{}, errors.New("the host's apt names no Debian mirror; set KOGGE_MIRROR to one, with the security archive as a second word")
	}
	return m, nil
}

// archiveURIs picks Debian's main and security archives from lines of "URI origin".
// The origin is known only after an apt-get update, so the end of the path decides.
func archiveURIs(lines string) []string {
	seen := map[string]bool{}
	for line := range strings.Lines(lines) {
		uri, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		uri = strings.TrimRight(uri, "/")
		if strings.HasSuffix(uri, "/debian") || strings.HasSuffix(uri, "/debian-security") {
			seen[uri] = true
		}
	}
	uris := make([]string, 0, len(seen))
	for uri := range seen {
		uris = append(uris, uri)
	}
	sort.Strings(uris)
	return uris
}

// source is one suite of one archive.
type source struct{ uri, suite string }

func (s source) String() string { return s.suite + " of " + s.uri }

// Suites are what packages come from: that of the release, its updates between point
// releases, and its security updates.
func Suites() []string { return []string{Suite, Suite + "-updates", Suite + "-security"} }

// sources are the suites that the archives have, but for those left out. The security
// archive has a suite of its own; the main one has the others.
func (m mirror) sources(without []string) []source {
	var all []source
	for _, uri := range m.uris {
		security := strings.HasSuffix(strings.TrimRight(uri, "/"), "-security")
		for _, suite := range Suites() {
			if strings.HasSuffix(suite, "-security") == security && !slices.Contains(without, suite) {
				all = append(all, source{uri, suite})
			}
		}
	}
	return all
}

// list is the sources.list for the sources.
func (m mirror) list(sources []source) string {
	var b strings.Builder
	for _, s := range sources {
		fmt.Fprintf(&b, "deb [signed-by=%s] %s %s main\n", m.keyring, s.uri, s.suite)
	}
	return b.String()
}

// apt runs apt tools against a state directory of our own.
type apt struct {
	dir, conf string
	// gone are the suites that do not load, with the reason of each. Nothing comes from
	// them, but what they have is not known.
	gone []error
}

// openApt makes the state directory for one architecture and updates its lists. It is
// no error yet if only some of the suites load.
func (c Cache) openApt(ctx context.Context, arch string) (apt, error) {
	m, err := hostMirror(ctx)
	if err != nil {
		return apt{}, err
	}
	dir := filepath.Join(c.Dir, "apt-"+arch)
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return apt{}, fmt.Errorf("package cache: %w", err)
		}
	}
	a := apt{dir: dir, conf: filepath.Join(dir, "apt.conf")}
	// An empty status file: nothing counts as installed, so dependencies are whole.
	files := map[string]string{
		"state/status": "",
		"apt.conf": fmt.Sprintf(`Dir %q; Dir::State "state"; Dir::State::status %q; Dir::Cache %q; Dir::Etc "etc"; Dir::Etc::sourceparts "-";
APT::Architecture %q; APT::Architectures { %q; }; APT::Sandbox::User ""; Acquire::Languages "none"; Acquire::Retries "3"; APT::Get::AllowUnauthenticated "false";
`, dir, filepath.Join(dir, "state/status"), filepath.Join(dir, "cache"), arch, arch),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return apt{}, fmt.Errorf("package cache: %w", err)
		}
	}
	c.Say("package lists of Debian %s for %s", Suite, arch)
	if err := a.update(ctx, m, m.sources(c.Without)); err != nil {
		return apt{}, fmt.Errorf("package lists from %s: %w; is the network up? KOGGE_MIRROR names another mirror", strings.Join(m.uris, ", "), err)
	}
	return a, nil
}

// update loads the lists of the sources. If that fails it tries them one by one, and
// goes on with those that load: which of them failed is not to be read out of what apt
// says to people.
func (a *apt) update(ctx context.Context, m mirror, sources []source) error {
	err := a.load(ctx, m, sources)
	if err == nil || len(sources) < 2 {
		return err
	}
	var good []source
	for _, s := range sources {
		switch one := a.load(ctx, m, []source{s}); {
		case ctx.Err() != nil:
			return one
		case one != nil:
			a.gone = append(a.gone, fmt.Errorf("suite %s: %w", s, one))
		default:
			good = append(good, s)
		}
	}
	if len(good) == 0 {
		return err
	}
	return a.name(m, good)
}

// whole is an error if a suite does not load.
func (a apt) whole() error {
	if len(a.gone) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrSuite, errors.Join(a.gone...))
}

// load makes the sources those of apt, and updates their lists.
func (a *apt) load(ctx context.Context, m mirror, sources []source) error {
	if len(sources) == 0 {
		return errors.New("no suite is left")
	}
	if err := a.name(m, sources); err != nil {
		return err
	}
	// What was loaded for other sources stays, and is not looked at.
	_, err := a.run(ctx, "apt-get", "update", "-q", "--error-on=any", "-o", "APT::Get::List-Cleanup=false")
	return err
}

// name makes the sources those of apt.
func (a *apt) name(m mirror, sources []source) error {
	if err := os.WriteFile(filepath.Join(a.dir, "etc/sources.list"), []byte(m.list(sources)), 0o644); err != nil {
		return fmt.Errorf("package cache: %w", err)
	}
	return nil
}

func (a apt) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	return run(ctx, []string{"APT_CONFIG=" + a.conf}, name, args...)
}

// run returns a program's standard output; its error output becomes the error.
func run(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(errs.String())
		if i := strings.Index(text, "E: "); i >= 0 {
			text = text[i:]
		}
		return nil, fmt.Errorf("%s: %w: %s", name, err, text)
	}
	return out.Bytes(), nil
}

// download gets the missing packages of l. The result maps the name of each
// package that was replaced by a newer one to what came instead.
func (c Cache) download(ctx context.Context, l Lock, missing []Package) (map[string]Package, error) {
	a, err := c.openApt(ctx, nativeArch(missing))
	if err != nil {
		return nil, err
	}
	want := make([]Package, len(missing))
	replaced := map[string]Package{}
	for i, p := range missing {
		have, err := a.candidates(ctx, p, l)
		if err != nil {
			return nil, err
		}
		want[i], err = choose(p, have, c.Locked)
		switch {
		case len(a.gone) > 0 && (err != nil || want[i] != p):
			// The suite may have the locked package, or a newer one than the others.
			return nil, fmt.Errorf("package %s is not in the suites that load: %w", p, a.whole())
		case err != nil:
			return nil, err
		case want[i] != p:
			replaced[p.Name] = want[i]
			c.Say("WARNING: package %s has left the mirror; building with the newer %s, which is not in the lock. The image is unlocked: it cannot become a release. Run: kogge image lock", p, want[i])
		}
	}
	for _, err := range a.gone {
		c.Say("WARNING: %v: %v; the others have each locked package", ErrSuite, err)
	}
	for _, p := range want {
		if ok, err := c.have(p); err != nil || ok {
			if err != nil {
				return nil, err
			}
			continue
		}
		c.Say("download %s (%.1f MB)", p, float64(p.Size)/1e6)
		if err := c.downloadOne(ctx, a, p); err != nil {
			return nil, err
		}
	}
	return replaced, nil
}

// candidates lists what the mirror has that may stand for p. A kernel carries its
// version in its name, so the next one is found by the meta package in the lock.
func (a apt) candidates(ctx context.Context, p Package, l Lock) ([]Package, error) {
	have, err := a.versions(ctx, p.Name)
	if err != nil || !isKernel(p.Name) {
		return have, err
	}
	if _, err := choose(p, have, false); err == nil {
		return have, nil
	}
	for _, meta := range l.Packages {
		if strings.HasPrefix(meta.Name, "linux-image-") && !isKernel(meta.Name) {
			next, err := a.kernel(ctx, meta.Name)
			if err != nil {
				return have, nil // none of the suites that load has the meta package
			}
			more, err := a.versions(ctx, next)
			return append(have, more...), err
		}
	}
	return have, nil
}

// isKernel tells linux-image-6.12.1+deb13-amd64 from the meta package linux-image-amd64.
func isKernel(name string) bool {
	rest, ok := strings.CutPrefix(name, "linux-image-")
	return ok && rest != "" && rest[0] >= '0' && rest[0] <= '9'
}

// choose picks what to take for a locked package of what the mirror has: the package
// itself, or else the newest of those that are newer, unless only the locked one will
// do. An older one is never taken: a mirror that has fallen behind, and whoever answers
// with an old copy of it, show signatures that are as good as today's. The error wraps
// ErrGone.
func choose(want Package, have []Package, locked bool) (Package, error) {
	locks, err := parseVersion(want.Version)
	if err != nil {
		return Package{}, fmt.Errorf("package %s: %w", want, err)
	}
	var best Package
	newest, older := locks, ""
	for _, p := range have {
		if p.Version == want.Version && p.Arch == want.Arch {
			return want, nil
		}
		v, err := parseVersion(p.Version)
		if err != nil || p.Arch != want.Arch && p.Arch != "all" && want.Arch != "all" {
			continue
		}
		switch c := v.compare(newest); {
		case c > 0:
			best, newest = p, v
		case v.compare(locks) < 0:
			older = p.Version
		}
	}
	switch {
	case best != Package{} && !locked:
		return best, nil
	case best == Package{} && older != "":
		return Package{}, fmt.Errorf("package %s: %w, only %s, which is older: an older package is never taken; the mirror has fallen behind, or somebody answers with an old copy: KOGGE_MIRROR names another one", want, ErrGone, older)
	}
	return Package{}, fmt.Errorf("package %s: %w; take the current one with: kogge image lock", want, ErrGone)
}

func (c Cache) downloadOne(ctx context.Context, a apt, p Package) error {
	tmp, err := os.MkdirTemp(c.Dir, ".download-*")
	if err != nil {
		return fmt.Errorf("package cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	cmd := exec.CommandContext(ctx, "apt-get", "-q", "download", p.Name+"="+p.Version)
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "LC_ALL=C", "APT_CONFIG="+a.conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("package %s: download: %w: %s", p, err, strings.TrimSpace(string(out)))
	}
	found, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(found) != 1 {
		return fmt.Errorf("package %s: download: apt-get left %d files", p, len(found))
	}
	return c.add(found[0], p)
}

// versions lists what the mirror has of a package.
func (a apt) versions(ctx context.Context, name string) ([]Package, error) {
	out, err := a.run(ctx, "apt-cache", "show", name)
	if err != nil {
		return nil, nil // apt-cache knows no other way to say "none"
	}
	return parseShow(string(out))
}

// parseShow reads the stanzas that apt-cache show prints.
func parseShow(text string) ([]Package, error) {
	var all []Package
	for stanza := range strings.SplitSeq(text, "\n\n") {
		f := map[string]string{}
		for line := range strings.Lines(stanza) {
			if k, v, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, " ") {
				f[k] = strings.TrimSpace(v)
			}
		}
		if f["Package"] == "" {
			continue
		}
		p := Package{Name: f["Package"], Arch: f["Architecture"], Version: f["Version"]}
		sum, err := hex.DecodeString(f["SHA256"])
		if err != nil || len(sum) != len(p.SHA256) {
			return nil, fmt.Errorf("package %s: the mirror's list has no SHA-256", p)
		}
		copy(p.SHA256[:], sum)
		if p.Size, err = strconv.ParseInt(f["Size"], 10, 64); err != nil {
			return nil, fmt.Errorf("package %s: the mirror's list has no size", p)
		}
		all = append(all, p)
	}
	return all, nil
}

// nativeArch is the architecture of the first package that has one.
func nativeArch(packages []Package) string {
	for _, p := range packages {
		if p.Arch != "all" {
			return p.Arch
		}
	}
	return "amd64"
}

// Resolve looks up the current versions of a set's packages, for a new lock. A
// kernel's meta package brings the kernel it depends on.
func (c Cache) Resolve(ctx context.Context, set Set) (Lock, error) {
	name, packages := set.Name, set.Packages
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return Lock{}, fmt.Errorf("package cache: %w", err)
	}
	unlock, err := c.lockDir()
	if err != nil {
		return Lock{}, err
	}
	defer unlock()
	a, err := c.openApt(ctx, set.Arch)
	if err == nil {
		err = a.whole() // what does not load may have what is newer
	}
	if err != nil {
		return Lock{}, err
	}
	if set.Closure {
		if packages, err = a.closure(ctx, packages); err != nil {
			return Lock{}, fmt.Errorf("lock %s: %w", name, err)
		}
	}
	for _, want := range packages {
		if strings.HasPrefix(want, "linux-image-") {
			kernel, err := a.kernel(ctx, want)
			if err != nil {
				return Lock{}, fmt.Errorf("lock %s: %w", name, err)
			}
			packages = append(packages, kernel)
		}
	}
	l := Lock{Name: name}
	for _, want := range packages {
		have, err := a.versions(ctx, want)
		if err != nil {
			return Lock{}, fmt.Errorf("lock %s: %w", name, err)
		}
		if len(have) == 0 {
			return Lock{}, fmt.Errorf("lock %s: Debian %s has no package %s for %s", name, Suite, want, set.Arch)
		}
		l.Packages = append(l.Packages, have[0])
	}
	sort.Slice(l.Packages, func(i, j int) bool { return l.Packages[i].Name < l.Packages[j].Name })
	return l, nil
}

// kernel returns the package that a kernel's meta package depends on.
func (a apt) kernel(ctx context.Context, meta string) (string, error) {
	out, err := a.run(ctx, "apt-cache", "depends", "--important", meta)
	if err != nil {
		return "", fmt.Errorf("package %s: %w", meta, err)
	}
	for line := range strings.Lines(string(out)) {
		if dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(dep, "linux-image-") {
			return dep, nil
		}
	}
	return "", fmt.Errorf("package %s does not depend on a kernel", meta)
}

// closure adds all dependencies, as apt would install them on an empty system.
func (a apt) closure(ctx context.Context, packages []string) ([]string, error) {
	args := append([]string{"install", "--simulate", "-qq", "--no-install-recommends"}, packages...)
	out, err := a.run(ctx, "apt-get", args...)
	if err != nil {
		return nil, fmt.Errorf("dependencies of %s: %w", strings.Join(packages, ", "), err)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Inst" {
			all = append(all, f[1])
		}
	}
	return all, nil
}
