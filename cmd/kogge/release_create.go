package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/image"
	layout "kogge.example/update/release"
	"kogge.example/update/release/keys"
)

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
builds it. So each Debian package is the one in the lock; if one has left the mirror, make a new lock with
kogge image lock.

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
			return releaseHint(buildHint(f.create(cmd.Context(), cmd.OutOrStdout())))
		},
	}
	cmd.Flags().StringArrayVar(&f.boards, "board", []string{"qemu-x86_64"}, "`BOARD` to build for (repeatable; kogge boards list)")
	completeFlag(cmd, "board", completeBoardFlag)
	cmd.Flags().StringVar(&f.build.version, "version", "", "version of the release (default: from git)")
	cmd.Flags().Uint64Var(&f.counter, "counter", 0, "release counter (default: time of the commit in seconds)")
	cmd.Flags().StringVar(&f.expires, "expires", "", "`DATE` from which nodes no longer install it (default: a year after the commit)")
	cmd.Flags().BoolVar(&f.build.locked, "locked", true, "it always fails if a pinned package has left the mirror")
	f.build.registerWithout(cmd)
	cmd.Flags().StringVar(&f.build.trust, "trust", "", "root.json for the root file system: a `FILE` or the name of a key set (default: of the keys that sign)")
	cmd.Flags().StringVar(&f.build.tags, "tags", "", "further Go build tags of init and agent")
	cmd.Flags().StringVar(&f.build.fault, "fault", "", "what the release breaks at each boot")
	// tags and fault are for the project's own tests; the others are never another way.
	for _, name := range []string{"tags", "fault", "locked", "without-suite"} {
		_ = cmd.Flags().MarkHidden(name)
	}
	cmd.Flags().BoolVar(&f.noSign, "no-sign", false, "do not sign; kogge release sign does it later")
	cmd.Flags().StringVarP(&f.out, "output", "o", "", "folder to write, or tar if its name ends in .tar")
	f.signer.register(cmd)
	return cmd
}

func (f *createFlags) create(ctx context.Context, out io.Writer) error {
	start := time.Now()
	f.build.locked = true // what two people build of one commit has to be the same bytes
	if len(f.build.without) > 0 {
		return fmt.Errorf("release create: --without-suite %s: %w: others could not build the same", strings.Join(f.build.without, " "), image.ErrMarked)
	}
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

// signatureLife is how long the signatures of a release are good, counted from its
// commit.
const signatureLife = 365 * 24 * time.Hour
