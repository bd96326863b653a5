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
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

// workKinds are the events that are about what a node runs; see package events.
var workKinds = []string{"container", "command", "project", "image"}

func eventsCommand() *cobra.Command {
	return observe(&cobra.Command{
		Use: "events [NODE]", Short: "Show the events of a node's containers", Args: cobra.MaximumNArgs(1),
		Long: "Shows recent events of a node's containers, projects and images, and the commands that were run in containers. " +
			"kogge node events shows all events. A node keeps the newest thousand since its agent started.",
		Example: "  kogge events\n  kogge events -f --kind container\n  kogge events --since 10m --json",
	}, workKinds)
}

func nodeEventsCommand() *cobra.Command {
	return observe(&cobra.Command{
		Use: "events [NODE]", Short: "Show all events of a node", Args: cobra.MaximumNArgs(1),
		Long: "Shows recent events of a node: of its services, settings and operators, and all that kogge events shows. " +
			"A node keeps the newest thousand since its agent started.",
		Example: "  kogge node events -n 20\n  kogge node events -f --kind service,node",
	}, nil)
}

// observe makes cmd show events, of some kinds (none: all) unless others are asked for.
func observe(cmd *cobra.Command, kinds []string) *cobra.Command {
	var t target
	var since time.Duration
	r := &apiv1.EventsRequest{}
	cmd.ValidArgsFunction = t.completeNodes
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if since != 0 {
			r.Since = durationpb.New(since)
		}
		return t.ask(cmd, args, func(ctx context.Context, c *api.Client) error {
			stream, err := c.Events(ctx, connect.NewRequest(r))
			if err != nil {
				return err
			}
			defer stream.Close()
			for stream.Receive() {
				if err := t.printEvents(cmd.OutOrStdout(), cmd.ErrOrStderr(), stream.Msg(), time.Local); err != nil {
					return err
				}
			}
			if errors.Is(stream.Err(), context.Canceled) {
				return nil // Ctrl-C is how one leaves
			}
			return stream.Err()
		})
	}
	t.register(cmd)
	cmd.Flags().BoolVarP(&r.Follow, "follow", "f", false, "keep printing until Ctrl-C")
	cmd.Flags().Int32VarP(&r.Tail, "tail", "n", 0, "`NUMBER` of events from the end to start with (0: all)")
	cmd.Flags().DurationVar(&since, "since", 0, "start with events that are no older than this `TIME`: 10m, 2h")
	cmd.Flags().StringSliceVar(&r.Kinds, "kind", kinds, "only these `KINDS`: container, command, project, image, registry, service, operator, node")
	return cmd
}

// printEvents writes a line for each event; with JSON an object.
func (t *target) printEvents(w, errs io.Writer, m *apiv1.EventsResponse, zone *time.Location) error {
	if m.Missed > 0 {
		fmt.Fprintf(errs, "kogge: %d events are missing: they came faster than they were read\n", m.Missed)
	}
	for _, e := range m.Events {
		if t.json {
			data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(e)
			if err == nil {
				_, err = fmt.Fprintf(w, "%s\n", data)
			}
			if err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintln(w, cell(eventLine(e, zone))); err != nil {
			return err
		}
	}
	return nil
}

// eventLine is an event for people.
func eventLine(e *apiv1.Event, zone *time.Location) string {
	text := e.What
	if e.Text != "" {
		text += ": " + e.Text
	}
	if e.By != "" {
		text += " (" + e.By + ")"
	}
	return strings.TrimRight(fmt.Sprintf("%s  %-9s  %-16s  %s", e.Time.AsTime().In(zone).Format(time.DateTime), e.Kind, e.Object, text), " ")
}
