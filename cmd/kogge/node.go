package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/workload"
)

func nodeCommand() *cobra.Command {
	return group("node", "Adopt, watch, configure and update nodes",
		nodeFindCommand(), nodeAdoptCommand(), nodeListCommand(), nodeStatusCommand(), nodeServicesCommand(), nodeLogsCommand(), nodeEventsCommand(), nodeTopCommand(),
		nodeUpdateCommand(), nodeSlotsCommand(), nodeRollbackCommand(), nodeHistoryCommand(), nodeForgetFailureCommand(),
		nodeDmesgCommand(), nodeRenewCommand(), nodeRestartCommand(), nodeEndCommand("reboot"), nodeEndCommand("poweroff"),
		nodeConfigCommand(), nodeTimeCommand(), nodeSupportCommand(), nodeResetCommand())
}

// callLimit bounds a call that is answered at once.
const callLimit = 30 * time.Second

// ask dials the node that the flags name and calls do.
func (t *target) ask(cmd *cobra.Command, args []string, do func(context.Context, *api.Client) error) error {
	if len(args) > 0 {
		t.node = args[0]
	}
	fleet, known, err := t.resolve()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	return nodeError(t.node, reach(ctx, fleet, t.node, known.Address, do))
}

// asks is ask with a limit.
func (t *target) asks(cmd *cobra.Command, args []string, do func(context.Context, *api.Client) error) error {
	return t.ask(cmd, args, func(ctx context.Context, c *api.Client) error {
		ctx, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		return do(ctx, c)
	})
}

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
	row("release", "%s, slot %s, board %s%s", s.Boot.GetVersion(), s.Boot.GetSlot(), s.Boot.GetBoard(), trial)
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
	row("STATE", "%s of %s available", iec(s.State.GetAvailable()), iec(s.State.GetTotal()))
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

func nodeServicesCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "services [NODE]", Short: "List a node's services", Args: cobra.MaximumNArgs(1),
		Example: "  kogge node services n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
				if err != nil {
					return err
				}
				if t.json {
					return printServices(cmd.OutOrStdout(), answer.Msg.Services)
				}
				tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
				fmt.Fprintln(tw, "NAME\tSTATE\tFOR\tPID\tSTARTS\tSAYS")
				for _, s := range answer.Msg.Services {
					says := s.Text
					if s.Failing || s.State != "running" {
						says = strings.TrimSpace(s.LastExit + " " + says)
					}
					fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%s\n", s.Name, s.State,
						age(answer.Msg.Time.AsTime().Sub(s.Since.AsTime())), s.Pid, s.Starts, says)
				}
				return tw.Flush()
			})
		},
	}
	t.register(cmd)
	return cmd
}

// printServices prints for programs the part of a node's status that was asked for.
func printServices(w io.Writer, services []*apiv1.Service) error {
	list := struct {
		Services []json.RawMessage `json:"services"`
	}{[]json.RawMessage{}}
	for _, s := range services {
		data, err := answerJSON.Marshal(s)
		if err != nil {
			return err
		}
		list.Services = append(list.Services, data)
	}
	return printJSON(w, list)
}

// lines prints a stream of log lines until it or the user ends it.
func lines(w io.Writer, stream *connect.ServerStreamForClient[apiv1.LogLines], err error) error {
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		for _, line := range stream.Msg().Lines {
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
	}
	if errors.Is(stream.Err(), context.Canceled) {
		return nil // Ctrl-C is how one leaves
	}
	return stream.Err()
}

func nodeLogsCommand() *cobra.Command {
	var t target
	var follow bool
	var tail int32
	cmd := &cobra.Command{
		Use: "logs SERVICE", Short: "Show the log of a node's service", Args: exactly("SERVICE"),
		Example: "  kogge node logs agent -n 20\n  kogge node logs -f network --node n1", ValidArgsFunction: t.completeWith(serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
				stream, err := c.ServiceLogs(ctx, connect.NewRequest(&apiv1.ServiceLogsRequest{Service: args[0], Tail: tail, Follow: follow}))
				return lines(cmd.OutOrStdout(), stream, err)
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing until Ctrl-C")
	cmd.Flags().Int32VarP(&tail, "tail", "n", 0, "`NUMBER` of lines from the end to start with (0: all)")
	return cmd
}

func nodeDmesgCommand() *cobra.Command {
	var t target
	var follow bool
	cmd := &cobra.Command{
		Use: "dmesg [NODE]", Short: "Show a node's kernel log", Args: cobra.MaximumNArgs(1),
		Example: "  kogge node dmesg n1\n  kogge node dmesg -f", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, args, func(ctx context.Context, c *api.Client) error {
				stream, err := c.KernelLog(ctx, connect.NewRequest(&apiv1.KernelLogRequest{Follow: follow}))
				return lines(cmd.OutOrStdout(), stream, err)
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing until Ctrl-C")
	return cmd
}

func nodeRestartCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "restart SERVICE", Short: "Restart one of a node's services", Args: exactly("SERVICE"),
		Long:    "Restarts one of a node's own services. Containers keep running while containerd or agent restart. For a container, use kogge restart.",
		Example: "  kogge node restart clock --node n1", ValidArgsFunction: t.completeWith(serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
				_, err := c.RestartService(ctx, connect.NewRequest(&apiv1.RestartServiceRequest{Service: args[0]}))
				return err
			})
		},
	}
	t.nodeFlags(cmd)
	return cmd
}

// nodeEndCommand is reboot or poweroff.
func nodeEndCommand(how string) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   how + " NODE",
		Short: map[string]string{"reboot": "Shut down cleanly and reboot", "poweroff": "Shut down cleanly and power off"}[how],
		Long: map[string]string{
			"reboot":   "Stops a node's containers and services, syncs its disk and reboots it.",
			"poweroff": "Stops a node's containers and services, syncs its disk and switches it off. Only somebody at the machine can switch it on again.",
		}[how],
		Example: "  kogge node " + how + " n1",
		Args:    exactly("NODE"), ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				_, err := c.Reboot(ctx, connect.NewRequest(&apiv1.RebootRequest{Poweroff: how == "poweroff"}))
				return err
			})
		},
	}
	t.fleetFlag(cmd)
	return cmd
}

func psCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "ps [NODE]", Short: "List the containers of a node", Args: cobra.MaximumNArgs(1),
		Example: "  kogge ps\n  kogge ps n1 --json", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.List(ctx, connect.NewRequest(&apiv1.ListRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) { printContainers(w, answer.Msg, time.Now()) })
			})
		},
	}
	t.register(cmd)
	return cmd
}

func printContainers(w io.Writer, list *apiv1.ListResponse, now time.Time) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "NAME\tIMAGE\tSTATE\tHEALTH\tFOR\tNETWORKS\tPORTS\tEXITS\tREASON")
	for _, c := range list.Containers {
		since, health := "", c.Health
		if c.Started.IsValid() && c.Started.GetSeconds() > 0 {
			since = age(max(0, now.Sub(c.Started.AsTime())))
		}
		if health == "" {
			health = "-"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", c.Name, c.Image, stateOf(c), health, since, networks(c), strings.Join(c.Ports, " "), c.Exits, c.Reason)
	}
	tw.Flush()
	if list.Trouble != "" {
		fmt.Fprintln(w, "trouble: "+list.Trouble)
	}
}

// stateOf is a container's state; of one that waits for its image, how far that is.
func stateOf(c *apiv1.Container) string {
	done, total := c.Pull.GetDone(), c.Pull.GetTotal()
	switch {
	case c.Pull == nil:
		return c.State
	case total == 0:
		return "pulling"
	case done < total:
		return fmt.Sprintf("pulling %d%%", 100*done/total)
	}
	return "unpacking"
}

// networks that a container is on, with its addresses; one of its own project by its
// name in there.
func networks(c *apiv1.Container) string {
	var all []string
	for _, n := range c.Networks {
		all = append(all, strings.TrimPrefix(n.Name, c.Project+".")+"="+n.Address)
	}
	return strings.Join(all, " ")
}

func logsCommand() *cobra.Command {
	var t target
	var follow bool
	var tail int32
	cmd := &cobra.Command{
		Use: "logs CONTAINER", Short: "Show a container's output", Args: exactly("CONTAINER"),
		Example: "  kogge logs web\n  kogge logs -f -n 100 web --node n1", ValidArgsFunction: t.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
				stream, err := c.Logs(ctx, connect.NewRequest(&apiv1.LogsRequest{Container: args[0], Tail: tail, Follow: follow}))
				return lines(cmd.OutOrStdout(), stream, err)
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing until Ctrl-C")
	cmd.Flags().Int32VarP(&tail, "tail", "n", 0, "`NUMBER` of lines from the end to start with (0: all)")
	return cmd
}

// runCommand is start, stop or restart of a container.
func runCommand(verb string, action apiv1.Action) *cobra.Command {
	var t target
	var noWait bool
	cmd := &cobra.Command{
		Use: verb + " CONTAINER", Short: strings.ToUpper(verb[:1]) + verb[1:] + " a container", Args: exactly("CONTAINER"),
		Long: map[string]string{
			"start":   "Starts a container that was stopped, or has ended, and waits until it runs.",
			"stop":    "Stops a container, and waits until it has stopped. It stays stopped until kogge start, or until the node's agent restarts, as at a reboot.",
			"restart": "Stops a container, starts it again, and waits until it runs.",
		}[verb],
		Example: "  kogge " + verb + " web\n  kogge " + verb + " web --node n1 --no-wait", ValidArgsFunction: t.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
				ctx, cancel := context.WithTimeout(ctx, runLimit)
				defer cancel()
				before, err := find(ctx, c, args[0])
				if err != nil {
					return err
				}
				if _, err := c.Run(ctx, connect.NewRequest(&apiv1.RunRequest{Container: before.Name, Action: action})); err != nil || noWait {
					return err
				}
				return await(ctx, c, action, before)
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is done")
	return cmd
}

// runLimit is for containers that take their time to stop.
const runLimit = 5 * time.Minute

// find returns the container of the node that people call name.
func find(ctx context.Context, c *api.Client, name string) (*apiv1.Container, error) {
	answer, err := c.List(ctx, connect.NewRequest(&apiv1.ListRequest{}))
	if err != nil {
		return nil, err
	}
	var known workload.Status
	for _, one := range answer.Msg.Containers {
		known.Units = append(known.Units, workload.UnitStatus{ID: one.Name})
	}
	u, err := known.Find(name)
	if errors.Is(err, workload.ErrUnknown) {
		err = hinted{fmt.Errorf("there is no container %s", name), "kogge ps lists them"}
	}
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(answer.Msg.Containers, func(one *apiv1.Container) bool { return one.Name == u.ID })
	return answer.Msg.Containers[i], nil
}

// await waits until the container is as the action wants it.
func await(ctx context.Context, c *api.Client, action apiv1.Action, before *apiv1.Container) error {
	for {
		now, err := find(ctx, c, before.Name)
		if err != nil {
			return err
		}
		if done, err := settled(action, before, now); done {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("container %s is still %s", now.Name, now.State)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// settled says whether the action on a container, as it was before, has come to its
// end, and if that is a bad one, why.
func settled(action apiv1.Action, before, now *apiv1.Container) (bool, error) {
	if action == apiv1.Action_ACTION_STOP {
		return now.State == string(workload.Stopped), nil
	}
	again := now.Started.GetSeconds() != before.Started.GetSeconds() || now.Started.GetNanos() != before.Started.GetNanos()
	switch workload.State(now.State) {
	case workload.Running:
		return again || action == apiv1.Action_ACTION_START, nil
	case workload.Backoff, workload.Ended:
		// What it was before it was asked is no answer.
		if now.State != before.State || now.Exits != before.Exits {
			return true, fmt.Errorf("container %s does not run: %s", now.Name, now.Reason)
		}
	}
	return false, nil
}

// nodeRow is what kogge node list says of a node.
type nodeRow struct {
	Name string `json:"name"`
	knownNode
}

func nodeListCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "list", Short: "List the nodes of the fleet that this computer knows", Args: cobra.NoArgs,
		Example: "  kogge node list\n  kogge node list --fleet hanse --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			fleet, err := t.openFleet()
			if err != nil {
				return err
			}
			nodes, err := readNodes(fleet)
			if err != nil {
				return err
			}
			rows := []nodeRow{}
			for _, name := range slices.Sorted(maps.Keys(nodes)) {
				rows = append(rows, nodeRow{name, nodes[name]})
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(tw, "NAME\tADDRESS\tADOPTED\tCERTIFICATE UNTIL")
			for _, n := range rows {
				until := "-"
				if !n.Until.IsZero() {
					until = n.Until.Local().Format(time.DateOnly)
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", n.Name, n.Address, n.Adopted.Local().Format(time.DateOnly), until)
			}
			return tw.Flush()
		},
	}
	t.fleetFlag(cmd)
	jsonFlag(cmd, &t.json)
	return cmd
}
