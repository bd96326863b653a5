package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/image"
	layout "kogge.example/update/release"
	"kogge.example/update/release/keys"
)

func releaseCommand() *cobra.Command {
	return group("release", "Build, sign and distribute releases",
		releaseCreateCommand(), releaseSignCommand(), releaseInspectCommand(), releaseVerifyCommand(),
		releasePushCommand(), releasePullCommand(),
		group("keys", "Manage the keys that sign releases",
			keysCreateCommand(), keysListCommand(), keysMakeCommand(), keysAddCommand(), keysRotateCommand()))
}

// signatureLife is how long the signatures of a release are good, counted from its
// commit.
const signatureLife = 365 * 24 * time.Hour

// createFlags are those of kogge release create.
type createFlags struct {
	build   buildFlags
	boards  []string
	counter uint64
	expires string
	noSign  bool
	signer  signFlags
	out     string
}

func releaseCreateCommand() *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create -o RELEASE",
		Short: "Build a release from this source tree, and sign it",
		Long: `Builds a release: for each board the kernel and the root file system, in one OCI image layout. The
layout is a folder, or a tar if the name ends in .tar. The same commit gives the same bytes, whoever
builds it.

The release is signed with the keys of the set that kogge release keys create made. A node installs it if
enough keys of the set whose root.json is in the node's image have signed (kogge image build --trust).

The counter keeps a node from going back below a release that it has passed. It is the time of the commit,
in seconds since 1970, unless --counter gives another number.`,
		Example: "  kogge release create --board pc-x86_64 --version 1.1 -o 1.1.oci\n  kogge release create --board pc-x86_64 --board qemu-x86_64 --no-sign -o 1.1.tar",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.out == "" {
				return usage{hinted{errors.New("release create: no output"), "add: -o 1.1.oci"}}
			}
			return releaseHint(f.create(cmd.Context(), cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringArrayVar(&f.boards, "board", []string{"qemu-x86_64"}, "`BOARD` to build for (repeatable; kogge boards list)")
	completeFlag(cmd, "board", completeBoardFlag)
	cmd.Flags().StringVar(&f.build.version, "version", "", "version of the release (default: from git)")
	cmd.Flags().Uint64Var(&f.counter, "counter", 0, "release counter (default: time of the commit in seconds)")
	cmd.Flags().StringVar(&f.expires, "expires", "", "`DATE` from which nodes no longer install it (default: a year after the commit)")
	cmd.Flags().BoolVar(&f.build.locked, "locked", false, "fail if a pinned package has left the mirror, instead of taking the current one")
	cmd.Flags().StringVar(&f.build.trust, "trust", "", "root.json for the root file system: a `FILE` or the name of a key set (default: of the keys that sign)")
	cmd.Flags().StringVar(&f.build.tags, "tags", "", "further Go build tags of init and agent")
	cmd.Flags().StringVar(&f.build.fault, "fault", "", "what the release breaks at each boot")
	for _, name := range []string{"tags", "fault"} { // for the project's own tests
		_ = cmd.Flags().MarkHidden(name)
	}
	cmd.Flags().BoolVar(&f.noSign, "no-sign", false, "do not sign; kogge release sign does it later")
	cmd.Flags().StringVarP(&f.out, "output", "o", "", "folder to write, or tar if its name ends in .tar")
	f.signer.register(cmd)
	return cmd
}

func (f *createFlags) create(ctx context.Context, out io.Writer) error {
	start := time.Now()
	if err := checkRelease(ctx, f.out); err != nil {
		return fmt.Errorf("release create: output: %w", err)
	}
	var set *keys.Set
	var err error
	if !f.noSign {
		if set, err = openKeys(f.signer.set); err != nil {
			return err
		}
	}
	b, expires, err := f.bundle(ctx, set)
	if err != nil {
		return err
	}
	var roots [][]byte
	if set != nil {
		roots = set.Roots
	}
	if err := b.Prepare(expires, roots); err != nil {
		return err
	}
	if !f.noSign {
		if err := f.signer.sign(ctx, b, set); err != nil {
			return fmt.Errorf("release create: %w", err)
		}
	}
	if err := b.Write(ctx, f.out); err != nil {
		return fmt.Errorf("release create: %s: %w", f.out, err)
	}
	for _, facts := range b.Facts() {
		fmt.Fprintf(out, "%s: release %s for %s, %.1f MB, %s\n", f.out, facts.Version, facts.Board, float64(facts.Size())/1e6, b.Digest(facts.Board))
	}
	if f.noSign {
		fmt.Fprintf(out, "It is not signed. Sign it with a targets key: kogge release sign %s\n", f.out)
	} else if err := tellSignatures(out, b); err != nil {
		return err
	}
	say("in %.1f s", time.Since(start).Seconds())
	return nil
}

// bundle builds all boards.
func (f *createFlags) bundle(ctx context.Context, set *keys.Set) (*layout.Bundle, time.Time, error) {
	var contents []layout.Content
	var expires time.Time
	for _, board := range f.boards {
		f.build.board = board
		o, err := f.build.options(ctx)
		if err != nil {
			return nil, expires, err
		}
		o.Counter = f.counter
		if f.build.trust == "" && set != nil {
			o.Trust = set.Newest()
		}
		if expires, err = expiry(f.expires, o.When); err != nil {
			return nil, expires, err
		}
		if f.counter != 0 {
			if err := layout.CheckCounter(f.counter); err != nil {
				return nil, expires, err
			}
		}
		if err := layout.CheckVersion(o.Version); err != nil {
			return nil, expires, err
		}
		c, err := image.Parts(ctx, o)
		if err != nil {
			return nil, expires, err
		}
		contents = append(contents, c)
	}
	b, err := layout.New(contents)
	return b, expires, err
}

// expiry is until when signatures are good.
func expiry(text string, commit time.Time) (time.Time, error) {
	until := commit.Add(signatureLife)
	if text != "" {
		var err error
		if until, err = time.ParseInLocation(time.DateOnly, text, time.UTC); err != nil {
			return until, fmt.Errorf("--expires %q: write it like %s", text, time.Now().AddDate(1, 0, 0).Format(time.DateOnly))
		}
	}
	if !until.After(time.Now()) {
		return until, hinted{fmt.Errorf("signatures would have expired on %s already", until.Format(time.DateOnly)), "add: --expires " + time.Now().AddDate(1, 0, 0).Format(time.DateOnly)}
	}
	return until, nil
}

// checkRelease refuses a place where no release can be written, before the minutes
// that a build takes.
func checkRelease(ctx context.Context, out string) error {
	st, err := os.Stat(out)
	switch {
	case err != nil:
		if st, err := os.Stat(filepath.Dir(out)); err != nil {
			return hinted{err, "mkdir -p " + filepath.Dir(out)}
		} else if !st.IsDir() {
			return fmt.Errorf("%s is not a folder", filepath.Dir(out))
		}
		return nil
	case layout.IsTar(out) && !st.Mode().IsRegular():
		return fmt.Errorf("%s exists and is not a file", out)
	case layout.IsTar(out):
		return nil
	case !st.IsDir():
		return hinted{fmt.Errorf("%s is a file; a name that ends in .tar is for a tar, any other for a folder", out), "-o " + out + ".tar"}
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(out, "oci-layout")); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s holds something that is not a release", out)
	}
	if _, err := os.Stat(filepath.Join(out, "index.json")); err != nil {
		return nil // empty, or of a run that was cut
	}
	// What is there is replaced: other tools keep images in such folders, too.
	src, _, err := openStored(ctx, out)
	if err != nil {
		return fmt.Errorf("%s holds an OCI layout that is not a release: %w", out, err)
	}
	return src.Close()
}

// openStored opens a release on this computer and reads its documents.
func openStored(ctx context.Context, name string) (layout.Stored, *layout.Bundle, error) {
	src, err := layout.Open(name)
	if err != nil {
		return nil, nil, err
	}
	b, err := layout.Read(ctx, src)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", name, err), src.Close())
	}
	return src, b, nil
}

// releaseFacts are what kogge release inspect says.
type releaseFacts struct {
	Version    string         `json:"version"`
	Counter    uint64         `json:"counter"`
	Created    time.Time      `json:"created"`
	Expires    *time.Time     `json:"expires,omitempty"`
	Root       int64          `json:"root"` // newest version of root.json; 0 without one
	Signatures []layout.Tally `json:"signatures"`
	Boards     []releaseBoard `json:"boards"`
}

type releaseBoard struct {
	layout.Facts
	Digest string `json:"digest"`
	Bytes  int64  `json:"bytes"`
}

func newReleaseFacts(b *layout.Bundle) (releaseFacts, error) {
	f := releaseFacts{Signatures: []layout.Tally{}, Boards: []releaseBoard{}}
	for _, facts := range b.Facts() {
		f.Version, f.Counter, f.Created = facts.Version, facts.Counter, facts.Created
		f.Boards = append(f.Boards, releaseBoard{facts, b.Digest(facts.Board), facts.Size()})
	}
	if until := b.Expires(); !until.IsZero() {
		f.Expires = &until
	}
	raw := b.NewestRoot()
	if raw == nil {
		return f, nil
	}
	root, err := layout.ParseRoot(raw)
	if err != nil {
		return f, err
	}
	f.Root, f.Signatures = root.Version, b.Signatures(root)
	return f, nil
}

func releaseInspectCommand() *cobra.Command {
	var asJSON, sizes bool
	cmd := &cobra.Command{
		Use: "inspect RELEASE", Short: "Show the content of a release", Args: exactly("RELEASE"),
		Long: "Shows what a release says about itself: version, counter, boards and signers. Only its completeness is\n" +
			"checked; kogge release verify checks the signatures.",
		Example: "  kogge release inspect 1.1.oci\n  kogge release inspect 1.1.tar --sizes",
		RunE: func(cmd *cobra.Command, args []string) error {
			src, b, err := openStored(cmd.Context(), args[0])
			if err != nil {
				return releaseHint(fmt.Errorf("release inspect: %w", err))
			}
			defer src.Close()
			f, err := newReleaseFacts(b)
			if err != nil {
				return fmt.Errorf("release inspect: %w", err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), f)
			}
			return f.print(cmd.OutOrStdout(), sizes)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&sizes, "sizes", false, "show each part, with its size")
	return cmd
}

func (f releaseFacts) print(out io.Writer, sizes bool) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "version\t%s\ncounter\t%d\ncommit\t%s\n", f.Version, f.Counter, f.Created.Format(time.DateTime))
	switch {
	case f.Root == 0:
		fmt.Fprintln(w, "signed\tby nobody")
	default:
		said := make([]string, len(f.Signatures))
		for i, t := range f.Signatures {
			said[i] = t.String()
		}
		fmt.Fprintf(w, "signed\t%s (by root.json %d, which it brings along)\n", strings.Join(said, ", "), f.Root)
		if f.Expires != nil {
			fmt.Fprintf(w, "good until\t%s\n", f.Expires.Format(time.DateOnly))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if !sizes {
		fmt.Fprintln(w, "BOARD\tARCH\tSIZE\tDIGEST")
		for _, b := range f.Boards {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", b.Board, b.Arch, iec(uint64(b.Bytes)), b.Digest)
		}
		return w.Flush()
	}
	fmt.Fprintln(w, "BOARD\tPART\tBYTES\tSIZE")
	for _, b := range f.Boards {
		for _, p := range b.Parts {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", b.Board, p.Name, p.Size, iec(uint64(p.Size)))
		}
		fmt.Fprintf(w, "%s\tall\t%d\t%s\n", b.Board, b.Bytes, iec(uint64(b.Bytes)))
	}
	return w.Flush()
}

// releaseHint adds what to do about an error of a release or its keys.
func releaseHint(err error) error {
	hints := []struct {
		is   error
		hint string
	}{
		{keys.ErrNoSet, "kogge release keys create makes one; kogge release keys list lists the sets"},
		{keys.ErrExists, "kogge release keys list shows it"},
		{keys.ErrTooFew, "name the others: --key FILE, once for each; they may be on other media"},
		{layout.ErrSignatures, "kogge release inspect shows who has signed; kogge release sign adds a signature"},
		{layout.ErrExpired, "make it again: kogge release create"},
		{layout.ErrTrust, "name a root.json or a key set: --trust"},
		{layout.ErrNoLayout, "a release is a folder or tar that kogge release create made"},
		{layout.ErrLayout, "copy it again, or make it again: a release is a folder or tar that kogge release create made"},
		{errNoTerminal, "add: --passphrase-file FILE"},
	}
	if err == nil || errors.As(err, new(hinted)) || errors.As(err, new(usage)) {
		return err // who was closer knew better
	}
	for _, h := range hints {
		if errors.Is(err, h.is) {
			return hinted{err, h.hint}
		}
	}
	return err
}

// keysDir is where the key sets are.
func keysDir() (string, error) {
	dir, err := configDir()
	return filepath.Join(dir, releaseFolder), err
}

// releaseFolder lies beside the folders of the fleets.
const releaseFolder = "release"

const (
	defaultKeys = "default"
	devKeys     = "dev" // those of the VMs on this computer, as the fleet dev is
)

// openKeys opens a key set: the one called name, or, if that is "", the one called
// default, or the only one that there is.
func openKeys(name string) (*keys.Set, error) {
	dir, err := keysDir()
	if err != nil {
		return nil, err
	}
	if name == "" {
		names, err := keySets()
		if err != nil {
			return nil, err
		}
		name = defaultKeys
		if len(names) == 1 {
			name = names[0]
		}
	}
	if err := checkKeysName(name); err != nil {
		return nil, err
	}
	set, err := keys.Open(filepath.Join(dir, name))
	if errors.Is(err, keys.ErrNoSet) {
		return nil, releaseHint(fmt.Errorf("key set %s: %w", name, err))
	}
	return set, err
}

// keySets are the names of the key sets, sorted.
func keySets() ([]string, error) {
	dir, err := keysDir()
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", "1.root.json"))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(found))
	for i, file := range found {
		names[i] = filepath.Base(filepath.Dir(file))
	}
	return names, nil
}

// readTrust is the root.json that a --trust names: a file, or the newest one of a key
// set. "" is the set called default, or nothing if there is none.
func readTrust(name string) ([]byte, error) {
	if name != "" {
		if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
			raw, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("trust: %w", err)
			}
			if _, err := layout.ParseRoot(raw); err != nil {
				return nil, fmt.Errorf("trust: %s: %w", name, err)
			}
			return raw, nil
		}
	}
	if strings.ContainsAny(name, "/.") {
		return nil, fmt.Errorf("trust: %s is not a file", name)
	}
	set, err := openKeys(cmp.Or(name, defaultKeys))
	if errors.Is(err, keys.ErrNoSet) && name == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return set.Newest(), nil
}
