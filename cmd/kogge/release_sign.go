package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	layout "kogge.example/update/release"
	"kogge.example/update/release/keys"
)

// signFlags say whose keys sign.
type signFlags struct {
	set    string
	files  []string
	secret passphraseFlags
}

func (f *signFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.set, "keys", "", "`NAME` of the key set (default: the set default, or the only one)")
	completeFlag(cmd, "keys", completeKeysFlag)
	cmd.Flags().StringArrayVar(&f.files, "key", nil, "`FILE` of a private key to sign with, instead of those of the set (repeatable)")
	f.secret.register(cmd)
}

// sign signs with the keys that the flags name. The bundle has its roots already.
func (f *signFlags) sign(ctx context.Context, b *layout.Bundle, set *keys.Set) error {
	signers, err := f.signers(ctx, set)
	if err != nil {
		return err
	}
	raw := b.NewestRoot()
	if raw == nil {
		return errors.New("sign: the release has no root.json, and there is no key set to add one")
	}
	root, err := layout.ParseRoot(raw)
	if err != nil {
		return err
	}
	for _, key := range signers {
		id, err := layout.KeyID(key.Public().(ed25519.PublicKey))
		if err != nil {
			return err
		}
		if _, ok := root.Keys(layout.RoleTargets)[id]; !ok {
			return hinted{fmt.Errorf("sign: key %.12s is not a targets key of root.json %d", id, root.Version), "kogge release keys list shows the targets keys"}
		}
		if err := b.Sign(key); err != nil {
			return err
		}
	}
	return nil
}

// signers are the private keys that the flags name.
func (f *signFlags) signers(ctx context.Context, set *keys.Set) ([]ed25519.PrivateKey, error) {
	if len(f.files) > 0 {
		return readKeys(ctx, f.files, &f.secret)
	}
	if set == nil {
		return nil, hinted{errors.New("sign: no key"), "add: --key FILE"}
	}
	signers, err := set.Private(layout.RoleTargets, func() (string, error) { return f.secret.known(ctx, "the release keys in "+set.Dir) })
	if err == nil && len(signers) == 0 {
		err = hinted{fmt.Errorf("sign: %s has no private targets key", set.Dir), "add: --key FILE"}
	}
	return signers, err
}

// readKeys reads private keys from files, each with a passphrase of its own unless a
// file has that.
func readKeys(ctx context.Context, files []string, secret *passphraseFlags) ([]ed25519.PrivateKey, error) {
	var all []ed25519.PrivateKey
	for _, file := range files {
		key, err := keys.Read(file, func() (string, error) { return secret.known(ctx, file) })
		if err != nil {
			return nil, err
		}
		all = append(all, key)
	}
	return all, nil
}

// tellSignatures says how many signatures there are, and how many there have to be.
func tellSignatures(out io.Writer, b *layout.Bundle) error {
	root, err := layout.ParseRoot(b.NewestRoot())
	if err != nil {
		return err
	}
	t := b.Signatures(root)[0]
	fmt.Fprintf(out, "It has %s, good until %s.\n", t, b.Expires().Format(time.DateOnly))
	if t.Have < t.Want {
		fmt.Fprintf(out, "No node installs it before %d more of the %d keys have signed.\n", t.Want-t.Have, t.Of)
	}
	return nil
}

func releaseSignCommand() *cobra.Command {
	var f signFlags
	cmd := &cobra.Command{
		Use: "sign RELEASE", Short: "Add your signature to a release", Args: exactly("RELEASE"),
		Long: "Signs a release with the keys of a set, or with the keys that --key names; other signatures stay. It also adds\n" +
			"every root.json of the set, which leads nodes from the keys that they know to those that sign.",
		Example: "  kogge release sign 1.1.oci\n  kogge release sign 1.1.tar --key bob.key.age",
		RunE: func(cmd *cobra.Command, args []string) error {
			return releaseHint(signRelease(cmd.Context(), args[0], &f, cmd.OutOrStdout()))
		},
	}
	f.register(cmd)
	return cmd
}

func signRelease(ctx context.Context, name string, f *signFlags, out io.Writer) error {
	src, b, err := openStored(ctx, name)
	if err != nil {
		return fmt.Errorf("release sign: %w", err)
	}
	defer src.Close()
	set, err := openKeys(f.set)
	if errors.Is(err, keys.ErrNoSet) && len(f.files) > 0 && f.set == "" {
		set, err = nil, nil // the release has roots of its own
	}
	if err != nil {
		return err
	}
	if set != nil && (len(f.files) == 0 || f.set != "") {
		if err := b.AddRoots(set.Roots); err != nil {
			return fmt.Errorf("release sign: %s: %w", name, err)
		}
	}
	if err := f.sign(ctx, b, set); err != nil {
		return err
	}
	if err := b.Write(ctx, name); err != nil {
		return fmt.Errorf("release sign: %s: %w", name, err)
	}
	return tellSignatures(out, b)
}
