package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

func fleetTokenCommand() *cobra.Command {
	var terms keyring.Terms
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
	cmd.Flags().DurationVar(&terms.Life, "expires", keyring.TokenLife, "time until the token expires")
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
		t, err := f.NewToken(terms, time.Now())
		if err != nil {
			return err
		}
		_, err = stdout.Write(fleet.MarshalJoinFile(&fleet.JoinFile{Genesis: f.Genesis, Token: t.Token}))
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
		_, err = file.Write(fleet.MarshalJoinFile(&fleet.JoinFile{Genesis: f.Genesis, Token: t.Token}))
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
	fmt.Fprintf(stdout, "Put it beside node.yaml, as kogge/%s on the node's boot partition, and start the node.\nThen find the node and adopt it:\n  kogge node find\n  kogge node adopt ADDRESS\n", fleet.JoinName)
	return nil
}
