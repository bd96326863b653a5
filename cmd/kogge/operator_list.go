package main

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// operatorRow is what kogge operator list says of one key of one operator, or of an
// invitation.
type operatorRow struct {
	Name    string     `json:"name"`
	Role    fleet.Role `json:"role"`
	Key     string     `json:"key,omitempty"` // "": an invitation that nobody has used
	Until   time.Time  `json:"until"`         // of the certificate, or the invitation
	Revoked *time.Time `json:"revoked,omitempty"`
	State   string     `json:"state"` // valid, expired, revoked or invited
	You     bool       `json:"you,omitempty"`
}

func operatorRows(f *keyring.Keyring, now time.Time) ([]operatorRow, error) {
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
	w := newTable(out)
	w.head("NAME\tROLE\tKEY\tUNTIL\tSTATE")
	for _, r := range rows {
		key, state := "-", r.State
		if r.Key != "" {
			key = fleet.Short(r.Key)
		}
		if r.Revoked != nil {
			state += " " + r.Revoked.Local().Format(time.DateOnly)
		}
		if r.You {
			state += ", you"
		}
		w.row("%s\t%s\t%s\t%s\t%s\n", r.Name, r.Role, key, r.Until.Local().Format(time.DateOnly), state)
	}
	return w.Flush()
}
