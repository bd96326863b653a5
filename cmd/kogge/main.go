// Command kogge is the one command line of Kogge: it builds images, writes them
// to media and runs them in QEMU. A file here holds each verb; the work is done in
// the packages beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "kogge",
		Short:         "Build, write and run Kogge images",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(boardsCommand(), imageCommand(), vmCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		report(err)
		stop()
		os.Exit(1)
	}
}

// report prints an error for the operator, with a hint where there is one.
func report(err error) {
	fmt.Fprintf(os.Stderr, "kogge: %v\n", err)
	var h hinted
	if errors.As(err, &h) {
		fmt.Fprintf(os.Stderr, "kogge: hint: %s\n", h.hint)
	}
}

// hinted is an error with advice. Only the command line knows hints.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }
