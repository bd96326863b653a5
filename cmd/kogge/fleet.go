package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/identity"
)

func fleetCommand() *cobra.Command {
	return group("fleet", "Create fleets, and let nodes into them",
		fleetCreateCommand(), fleetListCommand(), fleetShowCommand(), fleetTokenCommand(), fleetRenewCommand(), fleetRecoverCommand())
}

// configDir is where the folders of the fleets are.
func configDir() (string, error) {
	if dir := os.Getenv("KOGGE_CONFIG"); dir != "" {
		return filepath.Abs(dir)
	}
	base := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(base) { // the XDG specification has relative ones ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("configuration folder: %w; set KOGGE_CONFIG", err)
		}
		base = filepath.Join(home, ".config")
	}
	return filepath.Join(base, "kogge"), nil
}

// fleetDir is the folder of the fleet called name, whether it is there or not.
func fleetDir(name string) (string, error) {
	if err := identity.CheckName(name); err != nil {
		return "", fmt.Errorf("fleet: %w", err)
	}
	if name == releaseFolder {
		return "", fmt.Errorf("fleet: name %q: a folder of this name holds the keys of releases", name)
	}
	dir, err := configDir()
	return filepath.Join(dir, name), err
}

// loadFleet reads the folder of the fleet called name, and renews the operator's
// certificate if it is time and the key for it lies open.
func loadFleet(name string) (*identity.Fleet, error) {
	dir, err := fleetDir(name)
	if err != nil {
		return nil, err
	}
	f, err := identity.LoadFleet(dir)
	if err != nil {
		return nil, fleetHint(err, name)
	}
	if identity.RenewDue(f.Certificate().Leaf, f.Genesis.OperatorCA, time.Now()) {
		say("%s", renew(f))
	}
	return f, nil
}

// renew renews the operator's certificate and tells how it went. It is no error if it
// cannot be: the old one may do for months.
func renew(f *identity.Fleet) string {
	err := f.RenewOperator(time.Now())
	yours := fmt.Sprintf("your certificate for fleet %s is good until %s", f.Genesis.Name, f.Certificate().Leaf.NotAfter.Local().Format(time.DateOnly))
	switch {
	case err == nil:
		return "renewed: " + yours
	case errors.Is(err, identity.ErrLocked):
		return yours + "; to renew it with the passphrase: kogge fleet renew " + f.Genesis.Name
	case errors.Is(err, identity.ErrNoKey):
		return yours + "; to ask for a new one: kogge operator renew --fleet " + filepath.Base(f.Dir)
	}
	return fmt.Sprintf("%s; %v", yours, err)
}

func fleetRenewCommand() *cobra.Command {
	var secret passphraseFlags
	cmd := &cobra.Command{
		Use:   "renew NAME",
		Short: "Renew your certificate for a fleet",
		Long: "Gives you a certificate for another year, signed with the operator CA's key in this folder. If that key is not\n" +
			"encrypted, every command renews the certificate in time; if it is, use this command.",
		Example: "  kogge fleet renew hanse",
		Args:    exactly("NAME"), ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := loadFleet(args[0])
			if err != nil {
				return err
			}
			if f.Locked() {
				passphrase, err := secret.known(cmd.Context(), "the keys of fleet "+args[0])
				if err != nil {
					return fleetHint(err, args[0])
				}
				if err := f.Unlock(passphrase); err != nil {
					return err
				}
			}
			if err := f.RenewOperator(time.Now()); err != nil {
				return fleetHint(err, args[0])
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s has a new certificate for fleet %s, until %s.\n", f.Operator().Name, args[0], f.Certificate().Leaf.NotAfter.Local().Format(time.DateOnly))
			return nil
		},
	}
	secret.register(cmd)
	return cmd
}

// fleetHint adds what to do about an error of the fleet called name.
func fleetHint(err error, name string) error {
	hints := []struct {
		is   error
		hint string
	}{
		{identity.ErrNoFleet, "kogge fleet list lists the fleets; kogge fleet create " + name + " creates this one"},
		{identity.ErrExists, "kogge fleet show " + name},
		{identity.ErrNoKey, "do this on the computer where the fleet was created; kogge fleet show " + name + " lists the keys that are here"},
		{identity.ErrSheet, "compare the file with the paper: a line is four groups of four, letters A to Z and digits 2 to 7"},
		{errNoTerminal, "add: --passphrase-file FILE"},
	}
	if errors.As(err, new(hinted)) {
		return err // who was closer knew better
	}
	for _, h := range hints {
		if errors.Is(err, h.is) {
			return hinted{err, h.hint}
		}
	}
	return err
}

// newPassphrase are the flags of a command that writes secret keys.
type newPassphrase struct {
	passphraseFlags
	none bool
}

func (p *newPassphrase) register(cmd *cobra.Command) {
	p.passphraseFlags.register(cmd)
	cmd.Flags().BoolVar(&p.none, "no-passphrase", false, "store the keys unencrypted: for trying things out")
	cmd.MarkFlagsMutuallyExclusive("passphrase-file", "no-passphrase")
}

// get is the new passphrase, "" for none.
func (p *newPassphrase) get(ctx context.Context, fleet string) (string, error) {
	if p.none {
		return "", nil
	}
	passphrase, err := p.fresh(ctx, "the keys of fleet "+fleet)
	if errors.Is(err, errNoTerminal) {
		err = hinted{err, "add: --passphrase-file FILE, or --no-passphrase to store the keys unencrypted"}
	}
	return passphrase, err
}

func fleetCreateCommand() *cobra.Command {
	var secret newPassphrase
	var operator string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a fleet: its keys, and you as its first admin",
		Long: "Creates a fleet in a folder of its own below ~/.config/kogge (or $KOGGE_CONFIG): three owner keys, any two of\n" +
			"which act as the owner; a CA for operators and one for nodes; and your certificate as the first admin. One\n" +
			"owner key and the operator CA's key are encrypted under a passphrase. The other two owner keys are recovery\n" +
			"sheets to print. The fleet has no nodes yet: kogge fleet token lets them in.",
		Example: "  kogge fleet create hanse\n  kogge fleet create try --no-passphrase",
		Args:    exactly("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return fleetHint(createFleet(cmd.Context(), args[0], operator, secret, cmd.OutOrStdout()), args[0])
		},
	}
	secret.register(cmd)
	cmd.Flags().StringVar(&operator, "operator", defaultOperator(), "your name among the fleet's operators")
	return cmd
}

// defaultOperator is the user's name, if it is one an operator may have.
func defaultOperator() string {
	name := strings.ToLower(os.Getenv("USER"))
	if name == "root" || identity.CheckOperatorName(name) != nil {
		return "admin"
	}
	return name
}

func createFleet(ctx context.Context, name, operator string, secret newPassphrase, out io.Writer) error {
	dir, err := fleetDir(name)
	if err != nil {
		return err
	}
	f, err := identity.Create(name, operator, time.Now())
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dir); err == nil { // before anybody thinks of a passphrase; Save makes sure
		return fmt.Errorf("fleet %s %w: %s", name, identity.ErrExists, dir)
	}
	passphrase, err := secret.get(ctx, name)
	if err != nil {
		return err
	}
	if err := f.Save(dir, passphrase); err != nil {
		return err
	}
	fmt.Fprintf(out, "Fleet %s is created, with %s as its first admin.\n  id      %s\n  folder  %s\n\n", name, operator, f.Genesis.ID(), dir)
	fmt.Fprintf(out, "Print these recovery sheets, keep them in two places, and delete the files. There are\nthree owner keys, these and one in the folder; any two act as the owner of the fleet:\n")
	for _, sheet := range f.Sheets() {
		fmt.Fprintf(out, "  %s\n", sheet)
	}
	if passphrase == "" {
		fmt.Fprintf(out, "\nThe keys are not encrypted: whoever can read the folder controls the fleet.\n")
	}
	fmt.Fprintf(out, "\nNext, a file that lets a node in:\n  kogge fleet token %s\n", name)
	return nil
}

// fleetRow is what kogge fleet list says of a fleet.
type fleetRow struct {
	Name        string              `json:"name"`
	ID          string              `json:"id,omitempty"`
	Folder      string              `json:"folder"`
	Operator    string              `json:"operator,omitempty"`
	Role        identity.Role       `json:"role,omitempty"`
	Certificate *time.Time          `json:"certificateUntil,omitempty"`
	Signs       []identity.PeerKind `json:"signs"` // whom the CA keys at hand can sign
	Problem     string              `json:"problem,omitempty"`
}

func newFleetRow(name, dir string) fleetRow {
	row := fleetRow{Name: name, Folder: dir, Signs: []identity.PeerKind{}}
	f, err := identity.LoadFleet(dir)
	if err != nil {
		row.Problem = err.Error()
		return row
	}
	row.ID, row.Operator, row.Role = f.Genesis.ID(), f.Operator().Name, f.Operator().Role
	until := f.Certificate().Leaf.NotAfter
	row.Certificate = &until
	for _, kind := range []identity.PeerKind{identity.KindOperator, identity.KindNode} {
		if f.HoldsCA(kind) != identity.Elsewhere {
			row.Signs = append(row.Signs, kind)
		}
	}
	return row
}

func fleetListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the fleets that this computer knows", Args: cobra.NoArgs,
		Example: "  kogge fleet list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := configDir()
			if err != nil {
				return err
			}
			names, err := identity.List(dir)
			if err != nil {
				return err
			}
			rows := []fleetRow{}
			for _, name := range names {
				rows = append(rows, newFleetRow(name, filepath.Join(dir, name)))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			if len(rows) == 0 {
				say("there is no fleet in %s yet; kogge fleet create NAME makes one", dir)
				return nil
			}
			return printFleets(cmd.OutOrStdout(), rows)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printFleets(out io.Writer, rows []fleetRow) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tID\tOPERATOR\tROLE\tCERTIFICATE UNTIL\tSIGNS")
	for _, r := range rows {
		if r.Problem != "" {
			fmt.Fprintf(w, "%s\tunreadable: %s\n", r.Name, r.Problem)
			continue
		}
		var signs []string
		for _, kind := range r.Signs {
			signs = append(signs, string(kind)+"s")
		}
		if signs == nil {
			signs = []string{"nobody"}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, identity.Short(r.ID), r.Operator, r.Role, r.Certificate.Format(time.DateOnly), strings.Join(signs, ", "))
	}
	return w.Flush()
}

func printJSON(out io.Writer, value any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

func fleetTokenCommand() *cobra.Command {
	var terms identity.Terms
	var out string
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Write a join.yaml that lets a node into the fleet",
		Long: "Writes a join.yaml: the fleet's id and genesis, and a token that lets one node in. When the node is adopted,\n" +
			"it proves the token without sending it, and then forgets it. Until then, keep the file secret.",
		Example: "  kogge fleet token hanse --node n1\n  kogge fleet token hanse --count 20 --expires 72h -o - > join.yaml",
		Args:    exactly("NAME"), ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			return fleetHint(writeJoin(args[0], terms, out, cmd.OutOrStdout()), args[0])
		},
	}
	cmd.Flags().StringVar(&terms.Node, "node", "", "the only name that the node may have in the fleet (default: any)")
	cmd.Flags().IntVar(&terms.Count, "count", 1, "number of nodes that the token lets in")
	cmd.Flags().DurationVar(&terms.Life, "expires", identity.TokenLife, "time until the token expires")
	cmd.Flags().StringVarP(&out, "output", "o", identity.JoinName, "file to write; - prints it")
	return cmd
}

func writeJoin(name string, terms identity.Terms, out string, stdout io.Writer) error {
	if terms.Count < 1 || terms.Life <= 0 {
		return fmt.Errorf("fleet token: --count and --expires must be positive")
	}
	f, err := loadFleet(name)
	if err != nil {
		return err
	}
	if out == "-" {
		t, err := f.NewToken(terms, time.Now())
		if err != nil {
			return err
		}
		_, err = stdout.Write(identity.MarshalJoin(&identity.Join{Genesis: f.Genesis, Token: t.Token}))
		return err
	}
	file, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return hinted{fmt.Errorf("fleet token: %s exists already, and may hold a token", out), "delete it, or add: -o FILE"}
	}
	if err != nil {
		return fmt.Errorf("fleet token: %w", err)
	}
	t, err := f.NewToken(terms, time.Now())
	if err == nil {
		_, err = file.Write(identity.MarshalJoin(&identity.Join{Genesis: f.Genesis, Token: t.Token}))
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(out))
	}
	whom := "one node"
	switch {
	case t.Node != "":
		whom = "node " + t.Node
	case t.Count > 1:
		whom = fmt.Sprintf("%d nodes", t.Count)
	}
	fmt.Fprintf(stdout, "%s lets %s into fleet %s until %s (token %s).\n", out, whom, name, t.Expires.Local().Format("2006-01-02 15:04"), t.ID)
	fmt.Fprintf(stdout, "Put it beside node.yaml, as kogge/%s on the node's boot partition, and start the node.\nThen find the node and adopt it:\n  kogge node find\n  kogge node adopt ADDRESS\n", identity.JoinName)
	return nil
}

func fleetRecoverCommand() *cobra.Command {
	var secret newPassphrase
	var sheet string
	var check bool
	cmd := &cobra.Command{
		Use:   "recover NAME --sheet FILE",
		Short: "Restore an owner key from its recovery sheet",
		Long: "Reads the four lines of a recovery sheet, printed or typed, and writes the owner key to the fleet's folder.\n" +
			"With --check it only says which key the sheet holds.",
		Example: "  kogge fleet recover hanse --sheet typed.txt --check",
		Args:    exactly("NAME"), ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if sheet == "" {
				return usage{hinted{errors.New("fleet recover: no sheet"), "add: --sheet FILE"}}
			}
			return fleetHint(recoverOwner(cmd.Context(), args[0], sheet, check, secret, cmd.OutOrStdout()), args[0])
		},
	}
	secret.register(cmd)
	cmd.Flags().StringVar(&sheet, "sheet", "", "file with the four lines")
	cmd.Flags().BoolVar(&check, "check", false, "only check the sheet")
	return cmd
}

func recoverOwner(ctx context.Context, name, sheet string, check bool, secret newPassphrase, out io.Writer) error {
	f, err := loadFleet(name)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(sheet)
	if err != nil {
		return fmt.Errorf("fleet recover: sheet: %w", err)
	}
	i, err := f.Recover(text, "", true)
	if err != nil {
		return fmt.Errorf("%s: %w", sheet, err)
	}
	if check {
		fmt.Fprintf(out, "%s is correct: it is owner key %d of %d of fleet %s.\n", sheet, i, len(f.Genesis.Owners), name)
		return nil
	}
	passphrase, err := secret.get(ctx, name)
	if err != nil {
		return err
	}
	if _, err := f.Recover(text, passphrase, false); err != nil {
		return err
	}
	fmt.Fprintf(out, "Owner key %d of %d of fleet %s is in %s.\n", i, len(f.Genesis.Owners), name, f.Dir)
	return nil
}
