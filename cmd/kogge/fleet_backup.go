package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/care"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/ledger"
)

func fleetBackupCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write what etcd and the ledger hold into a file", Args: exactly("FILE"),
		Long: "Asks a node that runs etcd, or the first of them that answers, for a snapshot and for the ledger, checks both and\n" +
			"writes them into a file (a tar). It needs no majority of etcd. What is in etcd comes back from the nodes by\n" +
			"itself, as long as these are there: a backup is for the day when they are not.",
		Example: "  kogge fleet backup hanse.tar\n  kogge fleet backup hanse.tar --node n2",
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return backupFleet(cmd.Context(), ring, &t, args[0], cmd.OutOrStdout())
		},
	}
	t.nodeFlags(cmd)
	return cmd
}

// backupFleet writes a backup of the node that t names, or of the first member that answers.
func backupFleet(ctx context.Context, ring *keyring.Keyring, t *target, file string, out io.Writer) error {
	names := []string{t.node}
	if t.node == "" {
		s, _, err := operate.Ledger(ring)
		if err != nil {
			return err
		}
		names = membersOf(s.State())
		if len(names) == 0 {
			return hinted{fmt.Errorf("fleet %s is not founded: nobody runs etcd", ring.Genesis.Name), "kogge ledger fetch, if another computer has founded it; kogge help fleets"}
		}
	}
	var failed error
	for _, name := range names {
		t.node = name
		remote, err := t.remote()
		if err == nil {
			var info care.BackupInfo
			if info, err = care.Backup(ctx, remote, file); err == nil {
				_, err := fmt.Fprintf(out, "%s has etcd of node %s (revision %d, %s) and %s of the ledger.\n", file, name, info.Revision, iec(uint64(info.Bytes)), count(int(info.Height), "record"))
				return err
			}
		}
		if errors.Is(err, os.ErrExist) || ctx.Err() != nil {
			return err
		}
		failed = errors.Join(failed, nodeError(name, err))
	}
	return hinted{failed, "kogge fleet status says which nodes run etcd"}
}

// membersOf are the nodes that run etcd, and then those that may.
func membersOf(s ledger.State) (names []string) {
	for _, spare := range []bool{false, true} {
		for _, seat := range s.Roster.Seats {
			if seat.Member && !spare || seat.Spare && spare {
				names = append(names, seat.Name)
			}
		}
	}
	return names
}

func fleetRestoreCommand() *cobra.Command {
	var t target
	var owner ownerFlags
	cmd := &cobra.Command{
		Use: "restore [FILE]", Short: "Have a node begin etcd anew, when too many members are lost", Args: cobra.MaximumNArgs(1),
		Long: "Has one node begin etcd anew: from a file that kogge fleet backup has written, or without one from what is on its\n" +
			"own disk, which is newer. Nodes that run etcd and come back join it. The owner has to sign: with the owner keys in\n" +
			"the fleet's folder, and with recovery sheets (--sheet). No node's ledger is touched: one that the backup lacks\n" +
			"records of stays as it is. kogge help members-lost tells when to do this, and what comes then.",
		Example: "  kogge fleet restore --node n1 --sheet recovery-2.txt\n  kogge fleet restore hanse.tar --node n4 --sheet recovery-2.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			if t.node == "" {
				return usage{hinted{errors.New("fleet restore: on which node?"), "add: --node NODE, one that runs etcd, and whose data is the newest"}}
			}
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return restoreFleet(cmd.Context(), ring, &t, args, &owner, cmd.OutOrStdout())
		},
	}
	t.nodeFlags(cmd)
	owner.register(cmd)
	return cmd
}

func restoreFleet(ctx context.Context, ring *keyring.Keyring, t *target, files []string, owner *ownerFlags, out io.Writer) error {
	var from *care.Copy
	if len(files) > 0 {
		f, err := os.Open(files[0])
		if err != nil {
			return err
		}
		defer f.Close()
		if from, err = care.OpenBackup(f, ring.Genesis); err != nil {
			return fmt.Errorf("%s: %w", files[0], err)
		}
	}
	remote, err := t.remote()
	if err != nil {
		return err
	}
	s, told, err := care.Restore(ctx, remote, from, func() (keyring.OwnerKeys, error) { return owner.open(ctx, ring) })
	switch {
	case errors.Is(err, care.ErrNotMember):
		return hinted{nodeError(t.node, err), "kogge fleet nodes lists who runs etcd"}
	case errors.Is(err, care.ErrUnsure):
		return hinted{nodeError(t.node, err), "kogge fleet events says whether etcd began anew. If it did, the node passes the order on by itself; if not, give it again"}
	case err != nil:
		return nodeError(t.node, err)
	}
	for _, n := range told {
		if n.Err != nil {
			fmt.Fprintf(out, "node %s was not told, and hears of it from the others: %v\n", n.Node, nodeError(n.Node, n.Err))
		}
	}
	what := "what is on its disk"
	if from != nil {
		what = fmt.Sprintf("the backup of %s", from.Info.Made.Local().Format(time.DateTime))
		if from.Info.Height < s.Height {
			fmt.Fprintf(out, "The backup has %d of %s of the ledger. The nodes keep them all.\n", from.Info.Height, count(int(s.Height), "record"))
		}
	}
	_, err = fmt.Fprintf(out, "Node %s begins etcd anew from %s. kogge fleet status says who has joined it.\n", t.node, what)
	return err
}
