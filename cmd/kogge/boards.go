package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"kogge.example/boards"
)

func boardsCommand() *cobra.Command {
	return group("boards", "Show the boards that images can be built for", boardsListCommand(), boardsShowCommand())
}

// boardFacts are what kogge boards says of a board.
type boardFacts struct {
	Name         string        `json:"name"`
	Arch         string        `json:"arch"`
	Bootloader   string        `json:"bootLoader"`
	Description  string        `json:"description"`
	Kernel       string        `json:"kernelPackage"`
	Consoles     []string      `json:"consoles"`
	Watchdog     watchdogFacts `json:"watchdog"`
	MinMemoryMiB int           `json:"minMemoryMiB"`
}

type watchdogFacts struct {
	Modules        []string `json:"modules"` // the first whose hardware is there
	TimeoutSeconds float64  `json:"timeoutSeconds"`
	From           string   `json:"from"`
}

func newBoardFacts(b boards.Board) boardFacts {
	return boardFacts{
		Name: b.Name, Arch: b.Arch, Bootloader: string(b.Bootloader), Description: b.Description, Kernel: b.Kernel,
		Consoles: append([]string{}, b.Consoles...), MinMemoryMiB: b.MinMemoryMiB,
		Watchdog: watchdogFacts{append([]string{}, b.Watchdog.Modules...), b.Watchdog.Timeout.Seconds(), string(b.Watchdog.From)},
	}
}

func boardsListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the boards", Args: cobra.NoArgs,
		Example: "  kogge boards list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			rows := []boardFacts{}
			for _, b := range boards.All {
				rows = append(rows, newBoardFacts(b))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			w := newTable(cmd.OutOrStdout())
			w.head("BOARD\tARCH\tBOOT LOADER\tDESCRIPTION")
			for _, b := range rows {
				w.row("%s\t%s\t%s\t%s\n", b.Name, b.Arch, b.Bootloader, b.Description)
			}
			return w.Flush()
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func boardsShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show BOARD", Short: "Show the facts about one board", Args: exactly("BOARD"),
		Example: "  kogge boards show pc-x86_64", ValidArgsFunction: completeBoards,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := boards.Find(args[0])
			if err != nil {
				return hinted{err, "kogge boards list"}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), newBoardFacts(b))
			}
			return printBoard(cmd.OutOrStdout(), b)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printBoard(out io.Writer, b boards.Board) error {
	w := newTable(out)
	row := func(name string, value any) { w.row("%s\t%v\n", name, value) }
	row("board", b.Name)
	row("description", b.Description)
	row("architecture", b.Arch)
	row("boot loader", b.Bootloader)
	row("kernel package", b.Kernel)
	row("consoles", strings.Join(b.Consoles, ", "))
	row("watchdog", fmt.Sprintf("%s, %v, watches from %s", strings.Join(b.Watchdog.Modules, " or "), b.Watchdog.Timeout, b.Watchdog.From))
	row("minimum memory", fmt.Sprintf("%d MiB", b.MinMemoryMiB))
	return w.Flush()
}
