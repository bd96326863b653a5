package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/admission"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	keys "kogge.example/update/fleet/signed"
)

func fleetTokenCommand() *cobra.Command {
	create := fleetTokenCreateCommand()
	cmd := &cobra.Command{
		Use: "token NAME", Short: create.Short, Long: create.Long + "\n\nkogge fleet token NAME is kogge fleet token create NAME.", Example: create.Example,
		Args: create.Args, ValidArgsFunction: completeFleets, RunE: create.RunE,
	}
	cmd.Flags().AddFlagSet(create.Flags())
	cmd.AddCommand(create, fleetTokenListCommand(), fleetTokenRevokeCommand())
	return cmd
}

func fleetTokenCreateCommand() *cobra.Command {
	var terms keyring.Terms
	var out string
	var labels map[string]string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Write a join.yaml that lets a node into the fleet",
		Long: "Writes a join.yaml: the fleet's id and genesis, and a token that lets one node in. In a founded fleet the node\n" +
			"comes in by itself, at any member, and is new until kogge fleet accept; before that, an operator adopts it.\n" +
			"It proves the token without sending it, and then forgets it. Until then, keep the file secret.",
		Example: "  kogge fleet token hanse --node n1\n  kogge fleet token create hanse --label region=eu --label owner=ada\n  kogge fleet token hanse --count 20 --expires 72h -o - > join.yaml",
		Args:    exactly("NAME"), ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			terms.Labels = labels
			return fleetHint(writeJoin(args[0], terms, out, cmd.OutOrStdout()), args[0])
		},
	}
	cmd.Flags().StringVar(&terms.Node, "node", "", "the only name that the node may have in the fleet (default: any)")
	cmd.Flags().IntVar(&terms.Count, "count", 1, "number of nodes that the token lets in")
	cmd.Flags().DurationVar(&terms.Life, "expires", keyring.TokenLife, "time until the token expires")
	cmd.Flags().StringToStringVar(&labels, "label", nil, "`NAME=VALUE`: a label that you attest of the nodes, once they are accepted; may be repeated")
	cmd.Flags().StringVarP(&out, "output", "o", fleet.JoinName, "file to write; - prints it")
	return cmd
}

func writeJoin(name string, terms keyring.Terms, out string, stdout io.Writer) error {
	if terms.Count < 1 || terms.Life <= 0 {
		return fmt.Errorf("fleet token: --count and --expires must be positive")
	}
	f, err := loadFleet(name)
	if err != nil {
		return err
	}
	if out == "-" {
		j, _, err := admission.Invite(f, terms, time.Now())
		if err != nil {
			return err
		}
		_, err = stdout.Write(fleet.MarshalJoinFile(j))
		return err
	}
	file, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return hinted{fmt.Errorf("fleet token: %s exists already, and may hold a token", out), "delete it, or add: -o FILE"}
	}
	if err != nil {
		return fmt.Errorf("fleet token: %w", err)
	}
	j, t, err := admission.Invite(f, terms, time.Now())
	if err == nil {
		_, err = file.Write(fleet.MarshalJoinFile(j))
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
	fmt.Fprintf(stdout, "Put it beside node.yaml, as kogge/%s on the node's boot partition, and start the node.\n", fleet.JoinName)
	switch {
	case len(j.Record) > 0 && len(j.Members) > 0:
		fmt.Fprintf(stdout, "It comes in by itself, and is new. Then accept it:\n  kogge fleet nodes --fleet %[1]s\n  kogge fleet accept NODE --fleet %[1]s\n", name)
	default:
		fmt.Fprintf(stdout, "Then find the node and adopt it:\n  kogge node find\n  kogge node adopt ADDRESS\n")
	}
	return nil
}

// tokenRow is what kogge fleet token list says of a token.
type tokenRow struct {
	ID      string    `json:"id"`    // "": this computer has not given it out
	Token   string    `json:"token"` // fingerprint of its public key, as the fleet calls it
	State   string    `json:"state"` // open, used, expired or revoked
	Node    string    `json:"node"`  // the one name that it lets in; "": any
	Count   int       `json:"count"`
	Expires time.Time `json:"expires"`
	Used    []string  `json:"used"` // names of the nodes that came in by it
}

func fleetTokenListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list NAME", Short: "List the tokens, and who came in by them", Args: exactly("NAME"),
		Long: "Lists the tokens that this computer has given out, and those that others have, as far as nodes came in by them.\n" +
			"It asks nodes of the fleet; where none answers, it lists what this computer knows.",
		Example: "  kogge fleet token list hanse\n  kogge fleet token list hanse --json", ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := loadFleet(args[0])
			if err != nil {
				return err
			}
			a, err := askPapers(cmd.Context(), f)
			if err != nil {
				say("%v", err)
			}
			rows, err := tokenRows(f, a, time.Now())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			return printTokens(cmd.OutOrStdout(), rows, a)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// askPapers asks the nodes that have seats who came and who was accepted.
func askPapers(ctx context.Context, f *keyring.Keyring) (admission.Arrivals, error) {
	l, _, err := operate.Ledger(f)
	if err != nil || l.State().Height == 0 { // nobody comes by himself
		return admission.None(), err
	}
	names, err := admission.Tellers(f, l.State())
	if err != nil {
		return admission.None(), err
	}
	return admission.Papers(ctx, f, names, notice)
}

// tokenRows are the tokens of this computer, then those of others that were used.
func tokenRows(f *keyring.Keyring, a admission.Arrivals, now time.Time) ([]tokenRow, error) {
	issued, err := f.Tokens()
	if err != nil {
		return nil, err
	}
	rows, own := []tokenRow{}, make(map[keys.Key]bool)
	for _, t := range issued {
		key, err := t.Key()
		if err != nil {
			return nil, err
		}
		own[key] = true
		row := tokenRow{ID: t.ID, Token: key.ID().Short(), State: t.State(now), Node: t.Node, Count: t.Count, Expires: t.Expires, Used: []string{}}
		for _, u := range t.Used {
			row.Used = append(row.Used, u.Node)
		}
		for _, u := range a.Set.Uses(key) {
			if !slices.Contains(row.Used, u.Name) {
				row.Used = append(row.Used, u.Name)
			}
		}
		if len(row.Used) >= t.Count {
			row.State = "used"
		}
		rows = append(rows, ended(row, a, key))
	}
	for _, key := range a.Set.Tokens() {
		if own[key] {
			continue
		}
		r := a.Set.Uses(key)[0].Record
		row := tokenRow{Token: key.ID().Short(), State: "open", Node: r.Node, Count: r.Count, Expires: r.Expires, Used: []string{}}
		for _, u := range a.Set.Uses(key) {
			row.Used = append(row.Used, u.Name)
		}
		switch {
		case len(row.Used) >= r.Count:
			row.State = "used"
		case now.After(r.Expires):
			row.State = "expired"
		}
		rows = append(rows, ended(row, a, key))
	}
	return rows, nil
}

// ended is the row of a token that may have been revoked.
func ended(row tokenRow, a admission.Arrivals, key keys.Key) tokenRow {
	if a.Set.Ended(key) {
		row.State = "revoked"
	}
	return row
}

func printTokens(w io.Writer, rows []tokenRow, a admission.Arrivals) error {
	t := newTable(w)
	t.head("TOKEN\tKEY\tSTATE\tEXPIRES\tFOR\tUSED BY")
	for _, r := range rows {
		whom := cmp.Or(r.Node, fmt.Sprintf("any %d", r.Count))
		t.row("%s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(r.ID, "-"), r.Token, r.State, r.Expires.Local().Format("2006-01-02 15:04"), whom, cmp.Or(strings.Join(r.Used, ", "), "-"))
	}
	if err := t.Flush(); err != nil || len(a.Refused) == 0 {
		return err
	}
	fmt.Fprintf(w, "\nMembers have refused, since they started:\n")
	for _, why := range slices.Sorted(maps.Keys(a.Refused)) {
		fmt.Fprintf(w, "  %d × %s\n", a.Refused[why], cell(why))
	}
	return nil
}

func fleetTokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke NAME TOKEN", Short: "Have a token let in nobody more", Args: exactly("NAME", "TOKEN"),
		Long: "Signs the end of a token and gives it to the nodes that this computer reaches, which pass it on. TOKEN is what\n" +
			"kogge fleet token list shows of it, under TOKEN or KEY. Nodes that came in by it stay.",
		Example: "  kogge fleet token revoke hanse 3be6f155f3e5", ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			return revokeToken(cmd.Context(), args[0], args[1], cmd.OutOrStdout())
		},
	}
	return cmd
}

func revokeToken(ctx context.Context, name, id string, out io.Writer) error {
	f, err := loadFleet(name)
	if err != nil {
		return err
	}
	l, _, err := operate.Ledger(f)
	if err != nil {
		return err
	}
	if l.State().Height == 0 {
		return hinted{fmt.Errorf("fleet %s is not founded: a token lets in nobody there whom no operator adopts", name), "do not adopt who comes with it"}
	}
	a, err := askPapers(ctx, f)
	if err != nil {
		say("%v", err)
	}
	key, err := tokenKey(f, a, id)
	if err != nil {
		return hinted{err, "kogge fleet token list " + name + " lists them"}
	}
	expires, err := expiryOf(f, a, key)
	if err != nil {
		return err
	}
	paper, err := f.EndToken(key, expires)
	if err != nil {
		return err
	}
	return handOut(ctx, f, paper.Bytes(), "token "+key.ID().Short()+" is revoked", out)
}

// expiryOf is when a token is over by itself; zero: nobody knows.
func expiryOf(f *keyring.Keyring, a admission.Arrivals, token keys.Key) (time.Time, error) {
	for _, u := range a.Set.Uses(token) {
		return u.Record.Expires, nil
	}
	issued, err := f.Tokens()
	if err != nil {
		return time.Time{}, err
	}
	for _, t := range issued {
		if key, err := t.Key(); err == nil && key == token {
			return t.Expires, nil
		}
	}
	return time.Time{}, nil
}

// tokenKey is the public key of the token that is called by an id, or by the front of its
// fingerprint.
func tokenKey(f *keyring.Keyring, a admission.Arrivals, id string) (keys.Key, error) {
	const least = 8
	if len(id) < least {
		return "", fmt.Errorf("token %.64q: at least %d digits of it are needed", id, least)
	}
	issued, err := f.Tokens()
	if err != nil {
		return "", err
	}
	found := make(map[keys.Key]bool)
	note := func(key keys.Key, names ...string) {
		for _, n := range names {
			if strings.HasPrefix(n, id) {
				found[key] = true
			}
		}
	}
	for _, t := range issued {
		key, err := t.Key()
		if err != nil {
			return "", err
		}
		note(key, t.ID, key.ID().String())
	}
	for _, key := range a.Set.Tokens() {
		note(key, key.ID().String())
	}
	if len(found) != 1 {
		return "", fmt.Errorf("token %.64q: %d tokens of this fleet are called so", id, len(found))
	}
	for key := range found {
		return key, nil
	}
	return "", nil
}

// handOut gives a paper to all nodes that this computer knows, and says how many of those took it that
// have seats: they pass it on, and one of them is enough. The others take what is about them.
func handOut(ctx context.Context, f *keyring.Keyring, paper []byte, what string, out io.Writer) error {
	nodes, err := operate.Nodes(f)
	if err != nil {
		return err
	}
	l, _, err := operate.Ledger(f)
	if err != nil {
		return err
	}
	told, err := admission.GivePapers(ctx, f, slices.Sorted(maps.Keys(nodes)), [][]byte{paper}, notice)
	if err != nil {
		return err
	}
	taken, seats := 0, 0
	var failed error
	for _, t := range told {
		_, seated := l.State().Roster.ByName(t.Node)
		if seated {
			seats++
		}
		switch {
		case t.Err != nil:
			failed = errors.Join(failed, fmt.Errorf("node %s: %w", t.Node, t.Err))
		case seated:
			taken++
		default:
			failed = errors.Join(failed, fmt.Errorf("node %s took it, has no seat, and passes nothing on", t.Node))
		}
	}
	if taken == 0 {
		return hinted{errors.Join(fmt.Errorf("no node with a seat has taken it: %s nowhere yet", what), failed), "kogge fleet status says which nodes this computer reaches"}
	}
	_, err = fmt.Fprintf(out, "%s: %d of %s with a seat took it, and pass it on.\n", strings.ToUpper(what[:1])+what[1:], taken, count(seats, "node"))
	return err
}

// labelsOf are labels for people: "owner=ada, region=eu".
func labelsOf(l map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(l)) {
		all = append(all, name+"="+l[name])
	}
	return strings.Join(all, ", ")
}
