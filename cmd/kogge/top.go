package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func topCommand() *cobra.Command {
	return usageCommand(&cobra.Command{
		Use: "top [NODE]", Short: "Show what the containers of a node use", Args: cobra.MaximumNArgs(1),
		Long: "Shows CPU time, memory and network traffic of a node's running containers: continuously on a terminal, once " +
			"elsewhere. 100% is one CPU. Memory does not include cache that can be dropped at once.",
		Example: "  kogge top\n  kogge top n1 --once",
	}, func(u *apiv1.UsageResponse) *apiv1.UsageResponse {
		return &apiv1.UsageResponse{Clock: u.Clock, Processors: u.Processors, Containers: u.Containers}
	})
}

func nodeTopCommand() *cobra.Command {
	return usageCommand(&cobra.Command{
		Use: "top [NODE]", Short: "Show what a node, its services and its containers use", Args: cobra.MaximumNArgs(1),
		Long: "Shows CPU time, memory and network traffic of a node, its services and its containers: continuously on a " +
			"terminal, once elsewhere. 100% is one CPU. Memory does not include cache that can be dropped at once.",
		Example: "  kogge node top\n  kogge node top n1 --json",
	}, func(u *apiv1.UsageResponse) *apiv1.UsageResponse { return u })
}

// usageCommand makes cmd show what choose leaves of the node's answers.
func usageCommand(cmd *cobra.Command, choose func(*apiv1.UsageResponse) *apiv1.UsageResponse) *cobra.Command {
	var t target
	var once bool
	var interval time.Duration
	cmd.ValidArgsFunction = t.completeNodes
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if interval < minInterval {
			return usage{hinted{fmt.Errorf("--interval %s is less than %s", interval, minInterval), "each answer costs the node something"}}
		}
		again := !once && !t.json && term.IsTerminal(int(os.Stdout.Fd()))
		return t.ask(cmd, args, func(ctx context.Context, c *api.Client) error {
			before, err := askUsage(ctx, c)
			for err == nil {
				select {
				case <-ctx.Done():
					return nil // Ctrl-C is how one leaves
				case <-time.After(interval):
				}
				var now *apiv1.UsageResponse
				if now, err = askUsage(ctx, c); err != nil {
					break
				}
				percent(before, now)
				before = now
				shown := choose(now)
				if !again {
					return t.print(cmd.OutOrStdout(), shown, func(w io.Writer) { printUsage(w, shown) })
				}
				// All at once, or it would flicker.
				var screen bytes.Buffer
				fmt.Fprintf(&screen, "node %s, %s, up %s\n\n", t.node, time.Now().Format(time.TimeOnly), age(now.Clock.AsDuration()))
				printUsage(&screen, shown)
				if _, err := io.WriteString(raw(cmd.OutOrStdout()), "\x1b[H\x1b[2J"+clean(screen.String())); err != nil {
					return err
				}
			}
			if errors.Is(err, context.Canceled) || ctx.Err() != nil && cmd.Context().Err() == nil {
				return nil
			}
			return err
		})
	}
	t.register(cmd)
	cmd.Flags().BoolVar(&once, "once", false, "show it only once, on a terminal as well")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time between two measurements")
	return cmd
}

// minInterval is how often a node can be asked.
const minInterval = 200 * time.Millisecond

func askUsage(ctx context.Context, c *api.Client) (*apiv1.UsageResponse, error) {
	limited, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	answer, err := c.Usage(limited, connect.NewRequest(&apiv1.UsageRequest{}))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// percent works out what processor time everything in now has used since before. What
// was not there yet, or has begun anew, has none yet.
func percent(before, now *apiv1.UsageResponse) {
	passed := now.Clock.AsDuration() - before.Clock.AsDuration()
	if passed <= 0 {
		return // the node has been restarted
	}
	of := func(before, now []*apiv1.Use) {
		was := map[string]time.Duration{}
		for _, u := range before {
			was[u.GetName()] = u.GetCpu().AsDuration()
		}
		for _, u := range now {
			if old, known := was[u.GetName()]; known && u.Cpu.AsDuration() >= old {
				p := 100 * float64(u.Cpu.AsDuration()-old) / float64(passed)
				u.CpuPercent = &p
			}
		}
	}
	of([]*apiv1.Use{before.Node}, []*apiv1.Use{now.Node})
	of(before.Services, now.Services)
	of(before.Containers, now.Containers)
}

func printUsage(w io.Writer, u *apiv1.UsageResponse) {
	tw := newTable(w)
	defer tw.Flush()
	kind := u.Node != nil // else there are only containers
	if kind {
		tw.row("KIND\t")
	}
	tw.head("NAME\tCPU %\tMEMORY\tLIMIT\tTHREADS\tRECEIVED\tSENT")
	row := func(of string, one *apiv1.Use, network bool) {
		if kind {
			tw.row("%s\t", of)
		}
		cpu, limit, received, sent := "-", "-", "-", "-"
		if one.CpuPercent != nil {
			cpu = fmt.Sprintf("%.1f", *one.CpuPercent)
		}
		if one.MemoryLimit > 0 {
			limit = iec(one.MemoryLimit)
		}
		if network {
			received, sent = iec(one.Received), iec(one.Sent)
		}
		tw.row("%s\t%s\t%s\t%s\t%d\t%s\t%s\n", one.Name, cpu, iec(one.Memory), limit, one.Processes, received, sent)
	}
	if kind {
		row("node", u.Node, true)
	}
	for _, one := range u.Services {
		row("service", one, false) // they are on the node's network
	}
	for _, one := range u.Containers {
		row("container", one, true)
	}
}
