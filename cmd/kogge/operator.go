package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/agent/identity"
)

func operatorCommand() *cobra.Command {
	cmd := group("operator", "Invite, sign and revoke the operators of a fleet",
		operatorInviteCommand(), operatorJoinCommand(), operatorSignCommand(), operatorInstallCommand(),
		operatorRenewCommand(), operatorListCommand(), operatorRevokeCommand())
	cmd.Long = `Lets other people operate a fleet. Each makes a key on their own computer, where it stays. Three files go
between you and them, by e-mail if you like:

  you    kogge operator invite bob --role operator   send dev-bob.invite to bob
  bob    kogge operator join dev-bob.invite          send dev-bob.request back
  you    kogge operator sign dev-bob.request         compare the key with bob,
                                                     send dev-bob.certificate
  bob    kogge operator install dev-bob.certificate  done

A certificate is good for a year. To get the next one, start with kogge operator renew, which writes a request.`
	return cmd
}

// minute is how moments are told that are days away.
const minute = "2006-01-02 15:04"

func operatorInviteCommand() *cobra.Command {
	var t target
	var role, out string
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "invite NAME --role ROLE",
		Short: "Invite somebody to operate the fleet",
		Long: "Writes an invitation to send to somebody: the fleet's genesis, a name, a role (kogge help roles explains\n" +
			"them), and a secret that is good for one key. Signing and revoking stay with this computer.\n\n" +
			"Without the file, nobody can use the invitation. Somebody who reads the file on its way could come first,\n" +
			"with a key of their own: so compare the key with each other when you sign.",
		Example: "  kogge operator invite bob --role operator",
		Args:    exactly("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := t.openFleet()
			if err != nil {
				return err
			}
			return fleetHint(invite(f, args[0], role, life, out, cmd.OutOrStdout()), t.fleet)
		},
	}
	t.fleetFlag(cmd)
	cmd.Flags().StringVar(&role, "role", "", "reader, operator or admin")
	cmd.Flags().DurationVar(&life, "expires", identity.InvitationLife, "time until the invitation expires")
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: FLEET-NAME.invite)")
	completeFlag(cmd, "role", cobra.FixedCompletions([]string{"reader", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func invite(f *identity.Fleet, name, role string, life time.Duration, out string, stdout io.Writer) error {
	if role == "" {
		return usage{hinted{errors.New("operator invite: no role"), "add: --role reader, --role operator or --role admin"}}
	}
	if life <= 0 {
		return errors.New("operator invite: --expires must be positive")
	}
	parsed, err := identity.ParseRole(role)
	if err != nil {
		return fmt.Errorf("operator invite: %w", err)
	}
	if err := identity.CheckOperatorName(name); err != nil { // before it becomes the name of a file
		return fmt.Errorf("operator invite: %w", err)
	}
	if out == "" {
		out = f.Genesis.Name + "-" + name + ".invite"
	}
	var i *identity.Invitation
	err = writeSecret(out, func() ([]byte, error) {
		if i, err = f.Invite(name, parsed, life, time.Now()); err != nil {
			return nil, err
		}
		return identity.MarshalInvitation(i)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s invites %s into fleet %s as %s, until %s.\nSend it to %s, who types:\n  kogge operator join %s\n",
		out, name, f.Genesis.Name, parsed, i.Expires.Local().Format(minute), name, filepath.Base(out))
	fmt.Fprintf(stdout, "Compare the id of the fleet with each other, for example by telephone:\n  %s\n", fingerprint(f.Genesis.ID()))
	return nil
}

// writeSecret writes a file that is not there yet, for this user alone, with what
// content returns; where that fails there is no file.
func writeSecret(name string, content func() ([]byte, error)) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return hinted{fmt.Errorf("%s exists already", name), "delete it, or add: -o FILE"}
	}
	if err != nil {
		return err
	}
	text, err := content()
	if err == nil {
		_, err = file.Write(text)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// fingerprint is as much of a key's or a fleet's id as people compare: 128 bits, of
// which nobody makes a second one, in groups to read aloud.
func fingerprint(id string) string {
	var groups []string
	for i := 0; i < 32; i += 4 {
		groups = append(groups, id[i:i+4])
	}
	return strings.Join(groups, " ")
}

func operatorJoinCommand() *cobra.Command {
	var as, out string
	cmd := &cobra.Command{
		Use:   "join INVITATION",
		Short: "Accept an invitation: make your key, and ask for a certificate",
		Long: "Makes your key on this computer, where it stays, and writes a request to send back. The request holds no\n" +
			"secret. When the certificate comes back, kogge operator install creates the fleet's folder.",
		Example: "  kogge operator join hanse-bob.invite",
		Args:    exactly("INVITATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return joinFleet(args[0], as, out, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "`NAME` of the fleet on this computer (default: the name in the invitation)")
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: FLEET-NAME.request)")
	return cmd
}

func joinFleet(file, as, out string, stdout io.Writer) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("operator join: %w", err)
	}
	i, err := identity.ParseInvitation(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if as == "" {
		as = i.Genesis.Name
	}
	root, err := configDir()
	if err != nil {
		return err
	}
	if out == "" {
		out = i.Genesis.Name + "-" + i.Name + ".request"
	}
	j, err := identity.StartJoining(root, as, i, time.Now())
	switch {
	case errors.Is(err, identity.ErrExists):
		return hinted{err, "if you are in the fleet already: kogge operator renew; if another fleet has this name: add --as NAME"}
	case errors.Is(err, identity.ErrInvitationExpired):
		return hinted{err, "ask for another one"}
	case err != nil:
		return err
	}
	if err := writeRequest(out, j.Request); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s asks to be %s of fleet %s, as %s. Send it back, and compare with\nwhoever invited you, for example by telephone:\n", out, i.Name, i.Genesis.Name, i.Role)
	fmt.Fprintf(stdout, "  your key   %s\n  the fleet  %s\n", fingerprint(j.Request.Key()), fingerprint(i.Genesis.ID()))
	fmt.Fprintf(stdout, "You get a certificate back:\n  kogge operator install %s-%s.certificate\n", i.Genesis.Name, i.Name)
	return nil
}

// writeRequest writes a request, which is no secret, over an earlier one.
func writeRequest(name string, r *identity.OperatorRequest) error {
	text, err := identity.MarshalRequest(r)
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

func operatorSignCommand() *cobra.Command {
	var secret passphraseFlags
	var compared, out string
	cmd := &cobra.Command{
		Use:   "sign REQUEST",
		Short: "Sign an invited operator's request",
		Long: "Signs the request of somebody who was invited, or of an operator who wants a new certificate. If the key is\n" +
			"new, its fingerprint is shown: compare it by telephone, because a file can be changed on its way. In scripts,\n" +
			"--fingerprint gives the fingerprint that you were told.",
		Example: "  kogge operator sign hanse-bob.request",
		Args:    exactly("REQUEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return sign(cmd, args[0], compared, out, &secret)
		},
	}
	secret.register(cmd)
	cmd.Flags().StringVar(&compared, "fingerprint", "", "fingerprint that you were told (default: ask on the terminal)")
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: FLEET-NAME.certificate)")
	return cmd
}

func sign(cmd *cobra.Command, file, compared, out string, secret *passphraseFlags) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("operator sign: %w", err)
	}
	r, err := identity.ParseRequest(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	name, f, err := fleetByID(r.Fleet)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	known, err := f.CheckRequest(r, time.Now())
	if err != nil {
		return requestHint(err, r, name)
	}
	if !known {
		if err := compare(cmd.Context(), r, f.Genesis.Name, compared); err != nil {
			return err
		}
	}
	if err := unlock(cmd.Context(), f, name, secret); err != nil {
		return err
	}
	if out == "" {
		out = f.Genesis.Name + "-" + r.Name + ".certificate"
	}
	der, err := f.SignRequest(r, time.Now())
	if err != nil {
		return requestHint(fleetHint(err, name), r, name)
	}
	if err := os.WriteFile(out, identity.EncodeCertificate(der), 0o644); err != nil {
		return err // the same request is signed again at any time
	}
	what := "makes " + r.Name + " " + string(r.Role) + " of fleet " + f.Genesis.Name
	if known {
		what = "renews " + r.Name + ", " + string(r.Role) + " of fleet " + f.Genesis.Name
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s for a year. Send it to %s, who types:\n  kogge operator install %s\n", out, what, r.Name, filepath.Base(out))
	return nil
}

// requestHint adds what to do about a request that is not signed.
func requestHint(err error, r *identity.OperatorRequest, fleet string) error {
	again := fmt.Sprintf("to let them in: kogge operator invite %s --role %s --fleet %s", r.Name, r.Role, fleet)
	for _, h := range []struct {
		is   error
		hint string
	}{
		{identity.ErrNotInvited, "invitations are signed where they were made; " + again},
		{identity.ErrInvitationExpired, again},
		{identity.ErrInvitationUsed, "did " + r.Name + " make the other key? if not, a stranger read the mail: kogge operator revoke " + r.Name + " --fleet " + fleet},
		{identity.ErrAskedOther, "the file was changed on its way: ask for it again"},
		{identity.ErrRevoked, "an operator who returns makes a new key; " + again},
	} {
		if errors.Is(err, h.is) {
			return hinted{err, h.hint}
		}
	}
	return err
}

// fleetByID finds the folder of a fleet, and what it is called here.
func fleetByID(id string) (string, *identity.Fleet, error) {
	root, err := configDir()
	if err != nil {
		return "", nil, err
	}
	names, err := identity.List(root)
	if err != nil {
		return "", nil, err
	}
	for _, name := range names {
		if f, err := identity.LoadFleet(filepath.Join(root, name)); err == nil && f.Genesis.ID() == id {
			f, err := loadFleet(name) // which also renews
			return name, f, err
		}
	}
	return "", nil, hinted{fmt.Errorf("it is for fleet %s, which this computer does not have", identity.Short(id)), "kogge fleet list lists the fleets"}
}

// unlock opens the operator CA's key, if it is under a passphrase.
func unlock(ctx context.Context, f *identity.Fleet, name string, secret *passphraseFlags) error {
	if !f.Locked() {
		return nil
	}
	passphrase, err := secret.known(ctx, "the keys of fleet "+name)
	if err == nil {
		err = f.Unlock(passphrase)
	}
	return fleetHint(err, name)
}

// compare wants that somebody has compared the key of a request with who made it.
func compare(ctx context.Context, r *identity.OperatorRequest, fleet, told string) error {
	own := fingerprint(r.Key())
	if told != "" {
		if plain := strings.NewReplacer(" ", "", ":", "").Replace; plain(strings.ToLower(told)) != plain(own) {
			return hinted{fmt.Errorf("request of operator %s: its key is %s, not %s", r.Name, own, told), "do not sign: somebody else made this request, or a digit is wrong"}
		}
		return nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return hinted{fmt.Errorf("request of operator %s: there is no terminal to ask whether its key was compared", r.Name), "add what you were told: --fingerprint '…'"}
	}
	say("%s wants to be %s of fleet %s. The key in this request is\n\n    %s\n", r.Name, r.Role, fleet, own)
	fmt.Fprintf(os.Stderr, "Does %s see the same? Ask, but not over the way that the file came (yes or no): ", r.Name)
	answer, err := askLine(ctx)
	if err != nil {
		return err
	}
	if answer != "yes" {
		return fmt.Errorf("request of operator %s: not compared: nothing was signed", r.Name)
	}
	return nil
}

// askLine reads a line from the terminal.
func askLine(ctx context.Context) (string, error) {
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() { // it cannot be called off: after Ctrl-C it ends with the program
		text, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		read <- line{strings.TrimSpace(text), err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func operatorInstallCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install CERTIFICATE",
		Short: "Install the certificate that came back",
		Long: "Puts a certificate beside its key. After kogge operator join this creates the fleet's folder, and every\n" +
			"command works with the fleet. After kogge operator renew it replaces the old certificate.",
		Example: "  kogge operator install hanse-bob.certificate",
		Args:    exactly("CERTIFICATE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("operator install: %w", err)
			}
			cert, err := identity.DecodeCertificate(text)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			root, err := configDir()
			if err != nil {
				return err
			}
			f, err := identity.InstallOperator(root, cert, time.Now())
			if errors.Is(err, identity.ErrNoKey) {
				return hinted{fmt.Errorf("%s: %w", args[0], err), "install it where kogge operator join made the key"}
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "You are %s, %s of fleet %s, until %s. The folder is %s.\n",
				f.Operator().Name, f.Operator().Role, filepath.Base(f.Dir), f.Certificate().Leaf.NotAfter.Local().Format(time.DateOnly), f.Dir)
			return nil
		},
	}
}

func operatorRenewCommand() *cobra.Command {
	var t target
	var out string
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Ask for a new certificate for the key you have",
		Long: "Writes a request for another year, to send to whoever signed you. The old certificate may have expired.\n" +
			"When the new one comes back, use kogge operator install. On the computer where the fleet was created,\n" +
			"kogge fleet renew does it at once.",
		Example: "  kogge operator renew --fleet hanse",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := t.openFleet()
			if err != nil {
				return err
			}
			if f.HoldsCA(identity.KindOperator) != identity.Elsewhere {
				return hinted{fmt.Errorf("operator renew: this computer signs the operators of fleet %s", t.fleet), "kogge fleet renew " + t.fleet}
			}
			r, err := f.RenewalRequest()
			if err != nil {
				return err
			}
			if out == "" {
				out = f.Genesis.Name + "-" + r.Name + ".request"
			}
			if err := writeRequest(out, r); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s asks for another year as %s of fleet %s. Send it to whoever signed you before, who types:\n  kogge operator sign %s\n",
				out, r.Role, f.Genesis.Name, filepath.Base(out))
			return nil
		},
	}
	t.fleetFlag(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: FLEET-NAME.request)")
	return cmd
}

// operatorRow is what kogge operator list says of one key of one operator, or of an
// invitation.
type operatorRow struct {
	Name    string        `json:"name"`
	Role    identity.Role `json:"role"`
	Key     string        `json:"key,omitempty"` // "": an invitation that nobody has used
	Until   time.Time     `json:"until"`         // of the certificate, or the invitation
	Revoked *time.Time    `json:"revoked,omitempty"`
	State   string        `json:"state"` // valid, expired, revoked or invited
	You     bool          `json:"you,omitempty"`
}

func operatorRows(f *identity.Fleet, now time.Time) ([]operatorRow, error) {
	people, err := f.Operators()
	if err != nil {
		return nil, err
	}
	invited, err := f.Invitations()
	if err != nil {
		return nil, err
	}
	rows := []operatorRow{}
	for _, o := range people {
		state := "valid"
		switch {
		case o.Revoked != nil:
			state = "revoked"
		case now.After(o.Until):
			state = "expired"
		}
		rows = append(rows, operatorRow{o.Name, o.Role, o.Key, o.Until, o.Revoked, state, o.Key == f.Operator().Key})
	}
	for _, i := range invited {
		if i.Open(now) {
			rows = append(rows, operatorRow{Name: i.Name, Role: i.Role, Until: i.Expires, State: "invited"})
		}
	}
	return rows, nil
}

func operatorListCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "list [FLEET]", Short: "List the operators that this computer signed or invited", Args: cobra.MaximumNArgs(1),
		Example: "  kogge operator list\n  kogge operator list hanse --json", ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				t.fleet = args[0]
			}
			f, err := t.openFleet()
			if err != nil {
				return err
			}
			rows, err := operatorRows(f, time.Now())
			if err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			if len(rows) == 0 {
				say("another computer signs the operators of fleet %s, and has their list; you are %s", t.fleet, f.Operator())
				return nil
			}
			return printOperators(cmd.OutOrStdout(), rows)
		},
	}
	t.fleetFlag(cmd)
	jsonFlag(cmd, &t.json)
	return cmd
}

func printOperators(out io.Writer, rows []operatorRow) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tROLE\tKEY\tUNTIL\tSTATE")
	for _, r := range rows {
		key, state := "-", r.State
		if r.Key != "" {
			key = identity.Short(r.Key)
		}
		if r.Revoked != nil {
			state += " " + r.Revoked.Local().Format(time.DateOnly)
		}
		if r.You {
			state += ", you"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Role, key, r.Until.Local().Format(time.DateOnly), state)
	}
	return w.Flush()
}
