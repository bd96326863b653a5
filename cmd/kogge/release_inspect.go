package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	layout "kogge.example/update/release"
)

// releaseFacts are what kogge release inspect says.
type releaseFacts struct {
	Version    string         `json:"version"`
	Counter    uint64         `json:"counter"`
	Created    time.Time      `json:"created"`
	Expires    *time.Time     `json:"expires,omitempty"`
	Root       int64          `json:"root"` // newest version of root.json; 0 without one
	Signatures []layout.Tally `json:"signatures"`
	Boards     []releaseBoard `json:"boards"`
}

type releaseBoard struct {
	layout.Facts
	Digest string `json:"digest"`
	Bytes  int64  `json:"bytes"`
}

func newReleaseFacts(b *layout.Bundle) (releaseFacts, error) {
	f := releaseFacts{Signatures: []layout.Tally{}, Boards: []releaseBoard{}}
	for _, facts := range b.Facts() {
		f.Version, f.Counter, f.Created = facts.Version, facts.Counter, facts.Created
		f.Boards = append(f.Boards, releaseBoard{facts, b.Digest(facts.Board), facts.Size()})
	}
	if until := b.Expires(); !until.IsZero() {
		f.Expires = &until
	}
	raw := b.NewestRoot()
	if raw == nil {
		return f, nil
	}
	root, err := layout.ParseRoot(raw)
	if err != nil {
		return f, err
	}
	f.Root, f.Signatures = root.Version, b.Signatures(root)
	return f, nil
}

func releaseInspectCommand() *cobra.Command {
	var asJSON, sizes bool
	cmd := &cobra.Command{
		Use: "inspect RELEASE", Short: "Show the content of a release", Args: exactly("RELEASE"),
		Long: "Shows what a release says about itself: version, counter, boards and signers. Only its completeness is\n" +
			"checked; kogge release verify checks the signatures.",
		Example: "  kogge release inspect 1.1.oci\n  kogge release inspect 1.1.tar --sizes",
		RunE: func(cmd *cobra.Command, args []string) error {
			src, b, err := openStored(cmd.Context(), args[0])
			if err != nil {
				return releaseHint(fmt.Errorf("release inspect: %w", err))
			}
			defer src.Close()
			f, err := newReleaseFacts(b)
			if err != nil {
				return fmt.Errorf("release inspect: %w", err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), f)
			}
			return f.print(cmd.OutOrStdout(), sizes)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&sizes, "sizes", false, "show each part, with its size")
	return cmd
}

func (f releaseFacts) print(out io.Writer, sizes bool) error {
	w := newTable(out)
	w.row("version\t%s\ncounter\t%d\ncommit\t%s\n", f.Version, f.Counter, f.Created.Format(time.DateTime))
	switch {
	case f.Root == 0:
		w.head("signed\tby nobody")
	default:
		said := make([]string, len(f.Signatures))
		for i, t := range f.Signatures {
			said[i] = t.String()
		}
		w.row("signed\t%s (by root.json %d, which it brings along)\n", strings.Join(said, ", "), f.Root)
		if f.Expires != nil {
			w.row("good until\t%s\n", f.Expires.Format(time.DateOnly))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w = newTable(out)
	if !sizes {
		w.head("BOARD\tARCH\tSIZE\tDIGEST")
		for _, b := range f.Boards {
			w.row("%s\t%s\t%s\t%s\n", b.Board, b.Arch, iec(uint64(b.Bytes)), b.Digest)
		}
		return w.Flush()
	}
	w.head("BOARD\tPART\tBYTES\tSIZE")
	for _, b := range f.Boards {
		for _, p := range b.Parts {
			w.row("%s\t%s\t%d\t%s\n", b.Board, p.Name, p.Size, iec(uint64(p.Size)))
		}
		w.row("%s\tall\t%d\t%s\n", b.Board, b.Bytes, iec(uint64(b.Bytes)))
	}
	return w.Flush()
}
