package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/update/fleet"
	"kogge.example/update/locked"
	layout "kogge.example/update/release"
	"kogge.example/update/release/keys"
)

// checkKeysName says what is wrong with the name of a key set.
func checkKeysName(name string) error {
	if err := fleet.CheckName(name); err != nil {
		return fmt.Errorf("key set: %w", err)
	}
	return nil
}

// oneName takes a name, or none: default is meant then.
func oneName(args []string) string {
	if len(args) == 0 {
		return defaultKeys
	}
	return args[0]
}

func completeKeysFlag(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, _ := keySets() // nobody reads errors in the middle of typing
	return names, cobra.ShellCompDirectiveNoFileComp
}

func completeKeys(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeKeysFlag(cmd, args, toComplete)
}

func keysCreateCommand() *cobra.Command {
	var secret newPassphrase
	root, targets := "2/3", "1/1"
	cmd := &cobra.Command{
		Use: "create [NAME]", Short: "Create a set of keys that sign releases",
		Long: `Creates a set of keys in a folder of its own below ~/.config/kogge/release (or $KOGGE_CONFIG/release).
Targets keys sign releases. Root keys say which keys those are, and are needed only to replace keys: put
their files away, on media of their own, and keep root.json. NAME is default unless another is given.

K/N means that K of N keys have to sign. With more than one targets key, several people sign, each on their
own computer: kogge release keys make makes a key there, kogge release keys add adds it to the set.`,
		Example: "  kogge release keys create\n  kogge release keys create shop --root 3/5 --targets 2/3\n  kogge release keys create try --no-passphrase",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return releaseHint(createKeys(cmd.Context(), oneName(args), root, targets, secret, cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVar(&root, "root", root, "`K/N`: K of N root keys have to sign")
	cmd.Flags().StringVar(&targets, "targets", targets, "`K/N`: K of N targets keys have to sign")
	secret.register(cmd)
	return cmd
}

func createKeys(ctx context.Context, name, root, targets string, secret newPassphrase, out io.Writer) error {
	if err := checkKeysName(name); err != nil {
		return err
	}
	dir, err := keysDir()
	if err != nil {
		return err
	}
	dir = filepath.Join(dir, name)
	var p keys.Plan
	if p.Root, err = keys.ParseQuota(root); err != nil {
		return usage{fmt.Errorf("release keys create: --root: %w", err)}
	}
	if p.Targets, err = keys.ParseQuota(targets); err != nil {
		return usage{fmt.Errorf("release keys create: --targets: %w", err)}
	}
	if _, err := keys.Open(dir); !errors.Is(err, keys.ErrNoSet) { // before anybody thinks of a passphrase; Create makes sure
		return errors.Join(fmt.Errorf("%s: %w", dir, keys.ErrExists), err)
	}
	if p.Passphrase, err = newKeyPassphrase(ctx, &secret); err != nil {
		return err
	}
	set, err := keys.Create(dir, p, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Key set %s is created: %s root keys, %s targets keys.\n  folder  %s\n\n", name, p.Root, p.Targets, dir)
	if p.Root.N > 1 {
		fmt.Fprintf(out, "Put the private root keys away, each on a medium of its own; releases do not need them:\n")
		all, err := set.Keys()
		if err != nil {
			return err
		}
		for _, k := range all {
			if k.Role == layout.RoleRoot {
				fmt.Fprintf(out, "  %s\n", k.File)
			}
		}
		fmt.Fprintln(out)
	}
	if p.Passphrase == "" {
		fmt.Fprintf(out, "The keys are not encrypted: whoever can read the folder can sign releases.\n\n")
	}
	fmt.Fprintf(out, "Next, an image that trusts them, and a release:\n  kogge image build --board BOARD --trust %[1]s -o kogge.img\n  kogge release create --board BOARD --keys %[1]s --version 1.1 -o 1.1.oci\n", name)
	return nil
}

// newKeyPassphrase is a new passphrase for keys of releases, "" for none.
func newKeyPassphrase(ctx context.Context, secret *newPassphrase) (string, error) {
	if secret.none {
		return "", nil
	}
	passphrase, err := secret.fresh(ctx, "the release keys")
	if errors.Is(err, errNoTerminal) {
		err = hinted{err, "add: --passphrase-file FILE, or --no-passphrase to store the keys unencrypted"}
	}
	return passphrase, err
}

// keyRow is what kogge release keys list says of a key.
type keyRow struct {
	Set  string      `json:"set"`
	Role layout.Role `json:"role"`
	Name string      `json:"name,omitempty"` // "" if the folder has nothing of it
	ID   string      `json:"id"`
	// Private is where the private key is: open, locked, or elsewhere.
	Private   string    `json:"private"`
	Threshold int       `json:"threshold"` // of the role
	Root      int64     `json:"root"`      // version of root.json
	Expires   time.Time `json:"expires"`   // of root.json
}

func keysListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list [NAME]", Short: "List the keys that sign releases", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeKeys,
		Long:    "Lists the keys of one set or of all: their roles, and whether this computer can sign with them.",
		Example: "  kogge release keys list\n  kogge release keys list shop --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			names := args
			if len(args) == 0 {
				var err error
				if names, err = keySets(); err != nil {
					return err
				}
			}
			rows := []keyRow{}
			for _, name := range names {
				more, err := listKeys(name)
				if err != nil {
					return releaseHint(err)
				}
				rows = append(rows, more...)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			if len(rows) == 0 {
				say("there are no release keys yet; kogge release keys create makes a set")
				return nil
			}
			w := newTable(cmd.OutOrStdout())
			w.head("SET\tROLE\tSIGN\tNAME\tPRIVATE KEY\tID\tROOT.JSON\tUNTIL")
			for _, r := range rows {
				w.row("%s\t%s\t%d\t%s\t%s\t%.12s\t%d\t%s\n", r.Set, r.Role, r.Threshold, cmp.Or(r.Name, "-"), r.Private, r.ID, r.Root, r.Expires.Format(time.DateOnly))
			}
			return w.Flush()
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func listKeys(name string) ([]keyRow, error) {
	set, err := openKeys(name)
	if err != nil {
		return nil, err
	}
	all, err := set.Keys()
	if err != nil {
		return nil, err
	}
	var rows []keyRow
	for _, k := range all {
		row := keyRow{Set: name, Role: k.Role, Name: k.Name, ID: k.ID, Private: "open", Threshold: set.Root.Threshold(k.Role), Root: set.Root.Version, Expires: set.Root.Expires}
		switch {
		case k.File == "":
			row.Private = "elsewhere"
		case k.Locked:
			row.Private = "locked"
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func keysMakeCommand() *cobra.Command {
	var secret newPassphrase
	cmd := &cobra.Command{
		Use: "make FILE", Short: "Make a key of your own, for somebody else's set",
		Long: "Makes a key: FILE.key (FILE.key.age if it is encrypted) and FILE.pub. Give FILE.pub to the keeper of the set,\n" +
			"who adds it with kogge release keys add. Here, sign with it: kogge release sign --key.",
		Example: "  kogge release keys make bob", Args: exactly("FILE"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := strings.TrimSuffix(args[0], ".key")
			for _, suffix := range []string{".key", ".key.age", ".pub"} {
				if _, err := os.Lstat(name + suffix); err == nil {
					return fmt.Errorf("release keys make: %s exists already", name+suffix)
				}
			}
			passphrase, err := newKeyPassphrase(cmd.Context(), &secret)
			if err != nil {
				return err
			}
			key, err := keys.Make(name, passphrase, locked.Work)
			if err != nil {
				return fmt.Errorf("release keys make: %w", err)
			}
			id, err := layout.KeyID(key.Public().(ed25519.PublicKey))
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Key %.12s is made. Give %s.pub to the keeper of the set:\n  kogge release keys add --public %s.pub\n", id, name, filepath.Base(name))
			return nil
		},
	}
	secret.register(cmd)
	return cmd
}

// rotateFlags are what keys add and keys rotate have in common: whose root keys sign.
type rotateFlags struct {
	role      string
	threshold int
	files     []string
	secret    newPassphrase
}

func (f *rotateFlags) register(cmd *cobra.Command) {
	cmd.Flags().IntVar(&f.threshold, "threshold", 0, "number of keys of the role that have to sign from now on (default: as before)")
	cmd.Flags().StringArrayVar(&f.files, "key", nil, "`FILE` of a private root key that is not in the folder (repeatable)")
	f.secret.register(cmd)
}

// change makes the next root.json of a set. A new key is made if made says so.
func (f *rotateFlags) change(ctx context.Context, set *keys.Set, c keys.Change, made string, out io.Writer) error {
	if f.threshold < 0 {
		return usage{fmt.Errorf("release keys: --threshold %d: at least one key has to sign", f.threshold)}
	}
	c.K = f.threshold
	known := func() (string, error) { return f.secret.known(ctx, "the release keys in "+set.Dir) }
	if f.secret.none {
		known = func() (string, error) { return "", errors.New("--no-passphrase, but a key is encrypted") }
	}
	signers, err := set.Private(layout.RoleRoot, known)
	if err != nil {
		return err
	}
	more, err := readKeys(ctx, f.files, &f.secret.passphraseFlags)
	if err != nil {
		return err
	}
	signers = append(signers, more...)
	if made != "" {
		passphrase, err := newKeyPassphrase(ctx, &f.secret)
		if err != nil {
			return err
		}
		key, err := keys.Make(made, passphrase, set.Work)
		if err != nil {
			return err
		}
		c.Add = append(c.Add, key.Public().(ed25519.PublicKey))
		if c.Role == layout.RoleRoot {
			signers = append(signers, key)
		}
	}
	before := set.Root.Version
	if err := set.Rotate(c, signers, time.Now()); err != nil {
		if made != "" && set.Root.Version == before { // it counts nowhere
			for _, suffix := range []string{".key", ".key.age", ".pub"} {
				if gone := os.Remove(made + suffix); gone != nil && !errors.Is(gone, os.ErrNotExist) {
					err = errors.Join(err, gone)
				}
			}
		}
		return err
	}
	fmt.Fprintf(out, "Version %d of root.json is made: %d of %d root keys, %d of %d targets keys, good until %s.\n", set.Root.Version,
		set.Root.Threshold(layout.RoleRoot), len(set.Root.Keys(layout.RoleRoot)), set.Root.Threshold(layout.RoleTargets), len(set.Root.Keys(layout.RoleTargets)), set.Root.Expires.Format(time.DateOnly))
	fmt.Fprintf(out, "Releases that are signed from now on bring it to the nodes.\n")
	return nil
}

func keysAddCommand() *cobra.Command {
	var f rotateFlags
	var public string
	cmd := &cobra.Command{
		Use: "add [NAME]", Short: "Add a key to a set", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeKeys,
		Long: "Adds a key to a set: one that somebody made elsewhere (--public), or a new one in this folder. As many root\n" +
			"keys have to sign as root.json asks for; name those that are elsewhere with --key.",
		Example: "  kogge release keys add --public bob.pub --threshold 2\n  kogge release keys add shop --role root --key /media/stick/root-2.key.age",
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := openKeys(oneName(args))
			if err != nil {
				return releaseHint(err)
			}
			c := keys.Change{Role: layout.Role(f.role)}
			if c.Role != layout.RoleRoot && c.Role != layout.RoleTargets {
				return usage{hinted{fmt.Errorf("release keys add: role %q is unknown", f.role), "use root or targets"}}
			}
			made := ""
			if public == "" {
				made = set.FreeName(c.Role)
			} else {
				key, err := keys.ReadPublic(public)
				if err != nil {
					return fmt.Errorf("release keys add: %w", err)
				}
				c.Add = []ed25519.PublicKey{key}
			}
			return releaseHint(f.change(cmd.Context(), set, c, made, cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVar(&f.role, "role", string(layout.RoleTargets), "targets (signs releases) or root (says which keys count)")
	completeFlag(cmd, "role", cobra.FixedCompletions([]string{string(layout.RoleRoot), string(layout.RoleTargets)}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().StringVar(&public, "public", "", "`FILE` with the public key (default: make one)")
	f.register(cmd)
	return cmd
}

func keysRotateCommand() *cobra.Command {
	var f rotateFlags
	var old, role string
	var drop bool
	cmd := &cobra.Command{
		Use: "rotate [NAME] [--replace KEY]", Short: "Replace a key of a set, or renew its root.json", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeKeys,
		Long: "Makes the next root.json of a set, signed by enough root keys of the old version and of the new one. With\n" +
			"--replace a new key takes the place of an old one, which no longer counts; with --drop as well, there is no\n" +
			"new key. Without --replace only the expiry date of root.json changes.",
		Example: "  kogge release keys rotate\n  kogge release keys rotate --replace targets-1\n  kogge release keys rotate shop --replace 5ce9d3508aa1 --drop --threshold 1",
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := openKeys(oneName(args))
			if err != nil {
				return releaseHint(err)
			}
			var c keys.Change
			made := ""
			if drop && old == "" {
				return usage{hinted{errors.New("release keys rotate: --drop without a key"), "add: --replace KEY"}}
			}
			if old == "" && cmd.Flags().Changed("threshold") {
				if c.Role = layout.Role(role); c.Role != layout.RoleRoot && c.Role != layout.RoleTargets {
					return usage{hinted{fmt.Errorf("release keys rotate: --threshold for role %q", role), "add: --role targets, or --role root"}}
				}
			}
			if old != "" {
				key, err := findKey(set, old)
				if err != nil {
					return err
				}
				if cmd.Flags().Changed("role") && layout.Role(role) != key.Role {
					return usage{fmt.Errorf("release keys rotate: key %s is a %s key, but --role is %s", old, key.Role, role)}
				}
				c.Role, c.Drop = key.Role, []ed25519.PublicKey{key.Public}
				if !drop {
					made = set.FreeName(key.Role)
				}
			}
			return releaseHint(f.change(cmd.Context(), set, c, made, cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVar(&old, "replace", "", "`KEY` that no longer counts: its name, or the first digits of its id")
	cmd.Flags().BoolVar(&drop, "drop", false, "do not make a new key in its place")
	cmd.Flags().StringVar(&role, "role", string(layout.RoleTargets), "role whose --threshold changes: targets or root (with --replace: that key's)")
	completeFlag(cmd, "role", cobra.FixedCompletions([]string{string(layout.RoleRoot), string(layout.RoleTargets)}, cobra.ShellCompDirectiveNoFileComp))
	f.register(cmd)
	return cmd
}

// findKey is the key of a set that has a name, or an id that begins so.
func findKey(set *keys.Set, name string) (keys.Key, error) {
	all, err := set.Keys()
	if err != nil {
		return keys.Key{}, err
	}
	all = slices.DeleteFunc(all, func(k keys.Key) bool {
		return k.Name != name && (len(name) < 8 || !strings.HasPrefix(k.ID, name))
	})
	const hint = "kogge release keys list shows names and ids"
	switch len(all) {
	case 0:
		return keys.Key{}, hinted{fmt.Errorf("release keys rotate: the set has no key %s", name), hint}
	case 1:
		return all[0], nil
	}
	return keys.Key{}, hinted{fmt.Errorf("release keys rotate: %s begins the ids of %d keys", name, len(all)), hint}
}

// devTrust is the root.json of the VMs on this computer; its keys are made when they
// are absent: no passphrase, since nobody was asked for one.
func devTrust() ([]byte, error) {
	set, err := openKeys(devKeys)
	if !errors.Is(err, keys.ErrNoSet) {
		if err != nil {
			return nil, err
		}
		return set.Newest(), nil
	}
	dir, err := keysDir()
	if err != nil {
		return nil, err
	}
	if set, err = keys.Create(filepath.Join(dir, devKeys), keys.Plan{Root: keys.Quota{K: 1, N: 1}, Targets: keys.Quota{K: 1, N: 1}}, time.Now()); err != nil {
		return nil, err
	}
	say("release keys %s are created for the VMs of this computer: %s", devKeys, set.Dir)
	return set.Newest(), nil
}
