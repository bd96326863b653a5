package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api/kogge/v1"
)

func nodeCommand() *cobra.Command {
	return group("node", "Adopt, watch, configure and update nodes",
		nodeFindCommand(), nodeAdoptCommand(), nodeListCommand(), nodeStatusCommand(), nodeServicesCommand(), nodeLogsCommand(), nodeEventsCommand(), nodeTopCommand(),
		nodeUpdateCommand(), nodeSlotsCommand(), nodeRollbackCommand(), nodeHistoryCommand(), nodeForgetFailureCommand(),
		nodeDmesgCommand(), nodeRenewCommand(), nodeRevokeCommand(), nodeRestartCommand(), nodeEndCommand("reboot"), nodeEndCommand("poweroff"),
		nodeAwayCommand(), nodeCordonCommand(), nodeDrainCommand(), nodeBackCommand(),
		nodeConfigCommand(), nodeTimeCommand(), nodeSupportCommand(), nodeResetCommand())
}

// rawFlag is for commands that print logs.
func rawFlag(cmd *cobra.Command, on *bool) {
	cmd.Flags().BoolVar(on, "raw", false, "print control characters as they are, on a terminal as well: it obeys them")
}

// age is a duration as people say it: "3d4h", "5h10m", "42s".
func age(d time.Duration) string {
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// iec is a number of bytes: "79.9 MiB".
func iec(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, i := float64(n)/unit, 0
	for value >= unit && i < 4 {
		value, i = value/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[i])
}

// lines prints a stream of log lines until it or the user ends it; see [logPrinter].
func lines(w io.Writer, all bool, stream *connect.ServerStreamForClient[apiv1.LogLines], err error) error {
	if err != nil {
		return err
	}
	defer stream.Close()
	show := logPrinter(w, all)
	for stream.Receive() {
		for _, line := range stream.Msg().Lines {
			if err := show(line); err != nil {
				return err
			}
		}
	}
	if errors.Is(stream.Err(), context.Canceled) {
		return nil // Ctrl-C is how one leaves
	}
	return stream.Err()
}

// logPrinter prints lines of logs as they are; but on a terminal, to which they may give no
// orders, with escapes, and no longer than is of use, unless all of them is wanted.
func logPrinter(w io.Writer, all bool) func(line string) error {
	if isTerminal(w) == nil || all {
		w = raw(w)
		return func(line string) error {
			_, err := fmt.Fprintln(w, line)
			return err
		}
	}
	return func(line string) error {
		_, err := fmt.Fprintln(w, cut(clean(strings.TrimSuffix(line, "\r")), maxLogLine))
		return err
	}
}
