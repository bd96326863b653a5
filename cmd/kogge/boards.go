package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"kogge.example/boards"
)

func boardsCommand() *cobra.Command {
	return group("boards", "The computers that images can be made for",
		&cobra.Command{
			Use: "list", Short: "List the boards", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
				fmt.Fprintln(w, "BOARD\tARCH\tBOOT LOADER\tDESCRIPTION")
				for _, b := range boards.All {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", b.Name, b.Arch, b.Bootloader, b.Description)
				}
				return w.Flush()
			},
		},
		&cobra.Command{
			Use: "show BOARD", Short: "Show the facts about one board", Args: exactly("BOARD"),
			RunE: func(cmd *cobra.Command, args []string) error {
				b, err := boards.Find(args[0])
				if err != nil {
					return hinted{err, "kogge boards list"}
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
				row := func(name string, value any) { fmt.Fprintf(w, "%s\t%v\n", name, value) }
				row("board", b.Name)
				row("description", b.Description)
				row("architecture", b.Arch)
				row("boot loader", b.Bootloader)
				row("kernel package", b.Kernel)
				row("consoles", strings.Join(b.Consoles, ", "))
				row("watchdog", fmt.Sprintf("%s, %v, watches from %s", strings.Join(b.Watchdog.Modules, " or "), b.Watchdog.Timeout, b.Watchdog.From))
				row("least memory", fmt.Sprintf("%d MiB", b.MinMemoryMiB))
				return w.Flush()
			},
		},
	)
}
