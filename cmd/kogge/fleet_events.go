package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
)

// fleetEvents is kogge fleet events: what it asks for, and where it prints.
type fleetEvents struct {
	target
	since   time.Duration
	request apiv1.EventsRequest
	out     io.Writer

	mu      sync.Mutex // guards what follows
	early   []nodeEvent
	waiting map[string]bool // for the events of before; then they are printed, by time
}

// nodeEvent is an event, and where it happened.
type nodeEvent struct {
	node  string
	event *apiv1.Event
}

func fleetEventsCommand() *cobra.Command {
	f := &fleetEvents{waiting: make(map[string]bool)}
	cmd := &cobra.Command{
		Use: "events", Short: "Show the events of all nodes of the fleet", Args: cobra.NoArgs,
		Long: "Shows recent events of all nodes that this computer knows, by time: by each node's own clock. With -f it goes on\n" +
			"with what happens. A node that does not answer is named at the end, or, with -f, when it falls silent.",
		Example: "  kogge fleet events --since 1h\n  kogge fleet events -f --kind node,service",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ring, err := f.openFleet()
			if err != nil {
				return err
			}
			f.out = cmd.OutOrStdout()
			return f.run(cmd.Context(), ring)
		},
	}
	f.fleetFlag(cmd)
	jsonFlag(cmd, &f.json)
	cmd.Flags().BoolVarP(&f.request.Follow, "follow", "f", false, "keep printing until Ctrl-C")
	cmd.Flags().Int32VarP(&f.request.Tail, "tail", "n", 0, "`NUMBER` of events of each node from the end to start with (0: all)")
	cmd.Flags().DurationVar(&f.since, "since", 0, "start with events that are no older than this `TIME`: 10m, 2h")
	cmd.Flags().StringSliceVar(&f.request.Kinds, "kind", nil, "only these `KINDS`: container, command, project, image, registry, service, operator, node")
	return cmd
}

// eventsPause is how long a node may take until its events of before are there: those that were
// not are printed as they come.
const eventsPause = 3 * time.Second

func (f *fleetEvents) run(ctx context.Context, ring *keyring.Keyring) error {
	if f.since != 0 {
		f.request.Since = durationpb.New(f.since)
	}
	nodes, err := operate.Nodes(ring)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return hinted{fmt.Errorf("fleet %s: this computer knows no nodes of it", ring.Genesis.Name), "kogge node adopt ADDRESS"}
	}
	names := slices.Sorted(maps.Keys(nodes))
	for _, name := range names {
		f.waiting[name] = true
	}
	if f.request.Follow { // who is slow holds up the others for a moment
		timer := time.AfterFunc(eventsPause, func() { f.arrived(names...) })
		defer timer.Stop()
	}
	failed := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			err := f.read(ctx, operate.Remote{Keys: ring, Name: name, Address: nodes[name].Address, Tell: notice})
			f.arrived(name)
			if err = nodeError(name, err); err != nil && f.request.Follow && ctx.Err() == nil {
				say("%v", err)
			}
			failed[i] = err
		})
	}
	all.Wait()
	if ctx.Err() != nil && f.request.Follow {
		return nil // Ctrl-C is how one leaves
	}
	return errors.Join(failed...)
}

// read prints what one node has, until it has no more.
func (f *fleetEvents) read(ctx context.Context, r operate.Remote) error {
	if !f.request.Follow {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, callLimit)
		defer cancel()
	}
	return r.Call(ctx, func(ctx context.Context, c *api.Client) error {
		stream, err := c.Events(ctx, connect.NewRequest(&f.request))
		if err != nil {
			return err
		}
		defer stream.Close()
		for stream.Receive() {
			if n := stream.Msg().Missed; n > 0 {
				say("node %s: %d events are missing: they came faster than they were read", r.Name, n)
			}
			if err := f.add(r.Name, stream.Msg().Events); err != nil {
				return err
			}
		}
		return stream.Err()
	})
}

// add prints events of a node, or keeps them until those of all nodes are there.
func (f *fleetEvents) add(node string, events []*apiv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []nodeEvent
	for _, e := range events {
		all = append(all, nodeEvent{node, e})
	}
	if len(f.waiting) > 0 {
		f.early = append(f.early, all...)
		return nil
	}
	return f.print(all)
}

// arrived says that the events of before of nodes are there, or are not waited for any more.
func (f *fleetEvents) arrived(nodes ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting) == 0 {
		return
	}
	for _, name := range nodes {
		delete(f.waiting, name)
	}
	if len(f.waiting) > 0 {
		return
	}
	slices.SortStableFunc(f.early, func(a, b nodeEvent) int { return a.event.Time.AsTime().Compare(b.event.Time.AsTime()) })
	if err := f.print(f.early); err != nil {
		say("%v", err)
	}
	f.early = nil
}

func (f *fleetEvents) print(all []nodeEvent) error {
	for _, e := range all {
		line, err := f.line(e)
		if err == nil {
			_, err = fmt.Fprintln(f.out, line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// line is an event with its node: for people, or an object.
func (f *fleetEvents) line(e nodeEvent) (string, error) {
	if !f.json {
		return cell(fmt.Sprintf("%-12s  ", e.node) + eventLine(e.event, time.Local)), nil
	}
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(e.event)
	if err != nil {
		return "", err
	}
	fields := make(map[string]any)
	if err := json.Unmarshal(data, &fields); err != nil {
		return "", err
	}
	fields["node"] = e.node
	data, err = json.Marshal(fields)
	return strings.TrimSpace(string(data)), err
}
