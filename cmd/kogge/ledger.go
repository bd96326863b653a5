package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/ledger"
)

func ledgerCommand() *cobra.Command {
	return group("ledger", "Read and verify what the fleet has decided",
		ledgerLogCommand(), ledgerShowCommand(), ledgerVerifyCommand(), ledgerExportCommand(), ledgerFetchCommand())
}

func ledgerFetchCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "fetch [NODE...]", Short: "Read the ledger from nodes into the fleet's folder",
		Long: "Asks nodes, or all that this computer knows, for the ledger, verifies what they have, and keeps the longest one in\n" +
			"the fleet's folder. If two of them have different records for one height, or one of them and the folder, that is an\n" +
			"error, and the folder stays as it is.",
		Example: "  kogge ledger fetch", Args: cobra.ArbitraryArgs, ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			if len(names) == 0 {
				known, err := operate.Nodes(ring)
				if err != nil {
					return err
				}
				names = slices.Sorted(maps.Keys(known))
			}
			told, err := operate.Gather(cmd.Context(), ring, names, notice)
			if err != nil {
				return forkHint(err)
			}
			var failed error
			for _, n := range told {
				failed = errors.Join(failed, nodeError(n.Node, n.Err))
			}
			l, _, err := operate.Ledger(ring)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "The ledger of fleet %s has %s.\n", ring.Genesis.Name, count(int(l.State().Height), "record"))
			return errors.Join(failed, err)
		},
	}
	t.fleetFlag(cmd)
	return cmd
}

// ledgerSource is where a ledger is read: from a file, from a node, or from the fleet's
// folder. All of it is verified from the genesis in the fleet's folder, whoever has it.
type ledgerSource struct {
	target
	file string
}

func (s *ledgerSource) register(cmd *cobra.Command) {
	s.nodeFlags(cmd)
	cmd.Flags().StringVarP(&s.file, "file", "f", "", "read the ledger from `FILE`, as kogge ledger export writes it")
	cmd.MarkFlagsMutuallyExclusive("file", "node")
}

// read is the ledger and its entries, verified. At one that is wrong it ends, with those
// before it.
func (s *ledgerSource) read(ctx context.Context) (l *ledger.Log, entries []ledger.Entry, err error) {
	ring, err := s.openFleet()
	if err != nil {
		return nil, nil, err
	}
	switch {
	case s.file != "":
		f, err := os.Open(s.file)
		if err != nil {
			return nil, nil, fmt.Errorf("ledger: %w", err)
		}
		defer f.Close()
		if l, entries, err = ledger.Read(f, ring.Genesis); err != nil {
			err = fmt.Errorf("%s: %w", s.file, err)
		}
		return l, entries, err
	case s.node != "":
		remote, err := s.remote()
		if err != nil {
			return nil, nil, err
		}
		err = remote.Call(ctx, func(ctx context.Context, c *api.Client) (err error) {
			l, entries, err = operate.Fetch(ctx, ring, c, s.node)
			return err
		})
		if errors.Is(err, operate.ErrUnsound) {
			err = hinted{err, "kogge fleet found --all-adopted gives it the records again that it cannot read; of two histories kogge help fleets tells"}
		}
		return l, entries, nodeError(s.node, err)
	}
	return operate.Ledger(ring)
}

// compare wants a ledger that comes from elsewhere to be that of the fleet's folder.
func (s *ledgerSource) compare(l *ledger.Log) error {
	of := s.file
	if s.node != "" {
		of = "node " + s.node
	}
	if of == "" {
		return nil
	}
	ring, err := s.openFleet()
	if err != nil {
		return err
	}
	return forkHint(operate.Agrees(ring, of, l))
}

// founded is read, of a ledger that has records.
func (s *ledgerSource) founded(ctx context.Context) (*ledger.Log, []ledger.Entry, error) {
	l, entries, err := s.read(ctx)
	if err != nil || len(entries) > 0 {
		return l, entries, err
	}
	ring, err := s.openFleet()
	if err != nil {
		return nil, nil, err
	}
	mine, _, err := operate.Ledger(ring)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case mine.State().Height == 0:
		return nil, nil, hinted{fmt.Errorf("fleet %s is not founded, as far as is known here: its ledger is empty", s.fleet), "kogge ledger fetch, if another computer has founded it; kogge fleet found NODE..."}
	case s.node != "":
		return nil, nil, hinted{fmt.Errorf("node %s has no record of the ledger, and the fleet's folder has %d", s.node, mine.State().Height), "kogge fleet found --all-adopted gives the records out again"}
	}
	return nil, nil, fmt.Errorf("%s has no record, and the fleet's folder has %d", s.file, mine.State().Height)
}

func ledgerLogCommand() *cobra.Command {
	var s ledgerSource
	var asJSON bool
	cmd := &cobra.Command{
		Use: "log", Short: "List the records of the ledger", Args: exactly(),
		Example: "  kogge ledger log\n  kogge ledger log --node n1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			read := s.founded
			if asJSON {
				read = s.read // an empty list is an answer to a program
			}
			_, entries, err := read(cmd.Context())
			if err != nil {
				return err
			}
			rows, err := recordRows(entries)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			t := newTable(cmd.OutOrStdout())
			t.head("HEIGHT\tDECISION\tSIGNED BY\tRECORD")
			for _, r := range rows {
				t.row("%d\t%s\t%s\t%s\n", r.Height, r.Decision, r.SignedBy, r.Record)
			}
			return t.Flush()
		},
	}
	s.register(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// recordRow is a record as kogge ledger log shows it.
type recordRow struct {
	Height   int64  `json:"height"`
	Decision string `json:"decision"`
	SignedBy string `json:"signedBy"`
	Record   string `json:"record"` // hash
}

func recordRows(entries []ledger.Entry) ([]recordRow, error) {
	rows := []recordRow{}
	for _, e := range entries {
		r, err := ledger.ParseRecord(e.Record)
		if err != nil {
			return nil, err
		}
		v, err := ledger.ParseValue(e.Value)
		if err != nil {
			return nil, err
		}
		c, err := ledger.ParseCertificate(e.Certificate)
		if err != nil {
			return nil, err
		}
		by := count(len(c.Seats), "seat")
		if len(c.Owners) > 0 {
			by = count(len(c.Owners), "owner key")
		}
		rows = append(rows, recordRow{r.Height, string(v.Kind()), by, r.Hash().String()})
	}
	return rows, nil
}

func ledgerShowCommand() *cobra.Command {
	var s ledgerSource
	cmd := &cobra.Command{
		Use: "show HEIGHT", Short: "Show one record: what was decided, and who signed it", Args: exactly("HEIGHT"),
		Long:    "Prints the three documents of a record, to the byte: the record, the value that was decided, and the certificate.",
		Example: "  kogge ledger show 1",
		RunE: func(cmd *cobra.Command, args []string) error {
			height, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || height < 1 {
				return usage{fmt.Errorf("ledger show: %q is no height: they begin with 1", args[0])}
			}
			_, entries, err := s.founded(cmd.Context())
			if err != nil {
				return err
			}
			if height > int64(len(entries)) {
				return fmt.Errorf("ledger of fleet %s: it has no record %d: the newest is %d", s.fleet, height, len(entries))
			}
			_, err = cmd.OutOrStdout().Write(ledger.FormatEntry(height, entries[height-1]))
			return err
		},
	}
	s.register(cmd)
	return cmd
}

func ledgerVerifyCommand() *cobra.Command {
	var s ledgerSource
	cmd := &cobra.Command{
		Use: "verify", Short: "Verify the whole ledger from the genesis on", Args: exactly(),
		Long: "Checks each record: that it follows on the one before, that those who signed it were enough and had the right to,\n" +
			"and that what it decides could be decided. Nobody is believed: all is checked against the genesis in the fleet's\n" +
			"folder, whose hash is the fleet's id. A ledger of another fleet, or with one byte changed, is refused, with the\n" +
			"record and the field. So is one that is not the ledger in the fleet's folder, as far as both go.",
		Example: "  kogge ledger verify\n  kogge ledger verify --node n1\n  kogge ledger verify -f ledger.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, _, err := s.founded(cmd.Context())
			if err != nil {
				return err
			}
			if err := s.compare(l); err != nil {
				return err
			}
			state := l.State()
			c := state.Checkpoint()
			fmt.Fprintf(cmd.OutOrStdout(), "The ledger of fleet %s is correct: %s.\n  fleet   %s\n  height  %d\n  root    %s\n",
				state.Genesis.Name, count(int(c.Height), "record"), c.Fleet, c.Height, c.Root)
			if state.BrokenGlass > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "At height %d the owner has seated the fleet anew, and no seat has voted on it (break-glass).\n", state.BrokenGlass)
			}
			return nil
		},
	}
	s.register(cmd)
	return cmd
}

func ledgerExportCommand() *cobra.Command {
	var s ledgerSource
	cmd := &cobra.Command{
		Use: "export [FILE]", Short: "Write the ledger to a file, or to the output", Args: cobra.MaximumNArgs(1),
		Long:    "Writes the genesis and all records as text. kogge ledger verify -f FILE reads it, on any computer that has the\nfleet's genesis. There is no secret in it.",
		Example: "  kogge ledger export ledger.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, entries, err := s.founded(cmd.Context())
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if err := operate.Export(&b, l.State().Genesis, entries); err != nil {
				return err
			}
			if len(args) == 0 {
				_, err := cmd.OutOrStdout().Write(b.Bytes())
				return err
			}
			return writeNew(args[0], b.Bytes())
		},
	}
	s.register(cmd)
	return cmd
}

// writeNew writes a file that is not there yet.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(data))
	return errors.Join(err, f.Sync(), f.Close())
}
