package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func nodeStatusCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "status [NODE]", Short: "Show a node's status", Args: cobra.MaximumNArgs(1),
		Example: "  kogge node status\n  kogge node status n1 --json", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) { printStatus(w, answer.Msg, time.Now()) })
			})
		},
	}
	t.register(cmd)
	return cmd
}

// printStatus is what people see first of a node.
func printStatus(w io.Writer, s *apiv1.StatusResponse, now time.Time) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	row("node", "%s (%s)", s.Node, s.Hostname)
	trial := ""
	if s.Boot.GetTrial() && s.Boot.GetAssessment() != "good" { // it was on trial; now it is proven
		trial = fmt.Sprintf(", on trial, %d tries left", s.Boot.GetTriesLeft())
	}
	marks := ""
	if m := s.Boot.GetMarks(); m != "" {
		marks = " (" + strings.ReplaceAll(m, ",", ", ") + ")"
	}
	row("release", "%s%s, slot %s, board %s%s", s.Boot.GetVersion(), marks, s.Boot.GetSlot(), s.Boot.GetBoard(), trial)
	if a := s.Boot.GetAssessment(); a != "" { // older nodes do not say
		if why := s.Boot.GetWhy(); why != "" {
			a += ": " + why
		}
		row("boot", "%s", a)
	}
	row("up", "%s, kernel %s", age(time.Duration(s.UptimeSeconds)*time.Second), s.Kernel)
	sure := "in sync"
	if !s.Clock.GetSure() {
		sure = "not in sync"
	}
	if text := s.Clock.GetText(); text != "" {
		sure += " (" + text + ")"
	}
	drift := ""
	if d := s.Time.AsTime().Sub(now).Round(time.Second); d.Abs() > 5*time.Second {
		drift = fmt.Sprintf(", %s from this computer's", d)
	}
	row("clock", "%s, %s%s", s.Time.AsTime().UTC().Format(time.DateTime), sure, drift)
	row("memory", "%s of %s available", iec(s.Memory.GetAvailable()), iec(s.Memory.GetTotal()))
	files := ""
	if few := s.State.GetFiles() / 10; s.State.GetFilesAvailable() < few {
		files = fmt.Sprintf(", room for %d more files", s.State.GetFilesAvailable())
	}
	row("STATE", "%s of %s available%s", iec(s.State.GetAvailable()), iec(s.State.GetTotal()), files)
	for _, l := range s.Links {
		row("link", "%s %s %s", l.Name, l.State, strings.Join(l.Addresses, " "))
	}
	running := 0
	for _, one := range s.Services {
		if one.State == "running" {
			running++
		}
	}
	row("services", "%d of %d running", running, len(s.Services))
	if s.Ending != "" {
		row("ending", "%s", s.Ending)
	}
	for _, d := range s.Degraded {
		row("degraded", "%s: %s", d.What, d.Why)
	}
}
