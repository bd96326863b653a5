package serve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/events"
	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

// TestDeeds prints what events calls amount to. None of them has a secret in it.
func TestDeeds(t *testing.T) {
	start := &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Start{Start: &apiv1.ExecStart{
		Container: "web", Command: []string{"psql", "hunter2"}, Env: []string{"PASSWORD=hunter2"},
	}}}
	end := func(code int32, reason string) *apiv1.ExecResponse {
		return &apiv1.ExecResponse{Part: &apiv1.ExecResponse_End{End: &apiv1.ExecEnd{Code: code, Reason: reason}}}
	}
	var table strings.Builder
	for _, c := range []struct{ request, answer proto.Message }{
		{&apiv1.RunRequest{Container: "web", Action: apiv1.Action_ACTION_RESTART}, nil},
		{&apiv1.ApplyRequest{Project: "shop", Text: "hunter2"}, &apiv1.ApplyResponse{Steps: []*apiv1.Step{{Change: "new"}, {Change: "gone"}, {Change: "new"}}}},
		{&apiv1.ApplyRequest{Project: "shop", Check: true}, &apiv1.ApplyResponse{}},
		{&apiv1.RemoveProjectRequest{Project: "shop"}, &apiv1.ApplyResponse{Steps: []*apiv1.Step{{Change: "gone"}}}},
		{&apiv1.LoadImagesRequest{}, &apiv1.LoadImagesResponse{Names: []string{"a:1", "b:1"}}},
		{&apiv1.PullImageRequest{Name: "a"}, &apiv1.PullImageResponse{Name: "example/a:latest", Digest: "sha256:0123"}},
		{&apiv1.RemoveImageRequest{Name: "a:1"}, nil},
		{start, &apiv1.ExecResponse{Part: &apiv1.ExecResponse_Started{Started: true}}},
		{start, end(7, "")},
		{start, end(127, "no such program")},
		{start, &apiv1.ExecResponse{}},
		{&apiv1.ExecRequest{}, &apiv1.ExecResponse{}},
		{&apiv1.LoginRequest{Host: "registry.example", User: "ada", Password: "hunter2"}, nil},
		{&apiv1.LogoutRequest{Host: "registry.example"}, nil},
		{&apiv1.SetRegistryRequest{Host: "registry.example"}, nil},
		{&apiv1.RestartServiceRequest{Service: "clock"}, nil},
		{&apiv1.RebootRequest{}, nil},
		{&apiv1.RebootRequest{Poweroff: true}, nil},
		{&apiv1.AdoptRequest{}, nil},
		{&apiv1.AdoptRequest{Certificate: []byte{1}}, nil},
		{&apiv1.RenewRequest{}, nil},
		{&apiv1.RevokeRequest{Keys: []string{strings.Repeat("ab", 32)}}, nil},
		{&apiv1.SetTimeRequest{}, nil},
		{&apiv1.SetConfigRequest{}, nil},
		{&apiv1.GetConfigRequest{}, nil},
		{&apiv1.SupportRequest{}, nil},
		{&apiv1.ResetRequest{}, nil},
		{&apiv1.ConfirmConfigRequest{}, nil},
		{&apiv1.UndoConfigRequest{}, nil},
		{&apiv1.StatusRequest{}, nil},
	} {
		e, done := deed(c.request, c.answer)
		text := "nothing"
		if done {
			text = fmt.Sprintf("%s %s: %s: %s", e.Kind, e.Object, e.What, e.Text)
		}
		fmt.Fprintf(&table, "%-22s %s\n", c.request.ProtoReflect().Descriptor().Name(), text)
	}
	if strings.Contains(table.String(), "hunter2") {
		t.Error("a secret is in an event")
	}
	golden.Compare(t, "audit.txt", table.String())
}

// newEvents serves a node with a ring, to a client of each role.
func newEvents(t *testing.T) (*events.Ring, map[fleet.Role]*api.Client) {
	t.Helper()
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	adoptNode(t, f, n, "n1")
	ring := new(events.Ring)
	address := start(t, n, func(c *Config) { c.Events = ring })
	clients := map[fleet.Role]*api.Client{}
	for _, role := range []fleet.Role{fleet.RoleReader, fleet.RoleOperator} {
		clients[role] = api.Dial(address, "n1", f.Genesis, operator(t, f, role, now))
		t.Cleanup(clients[role].Close)
	}
	return ring, clients
}

// ask returns what a reader who does not follow gets, an event a line.
func askEvents(t *testing.T, c *api.Client, r *apiv1.EventsRequest) string {
	t.Helper()
	stream, err := c.Events(timeout(t), connect.NewRequest(r))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var b strings.Builder
	for stream.Receive() {
		for _, e := range stream.Msg().Events {
			fmt.Fprintf(&b, "%d %s %s %s %s %s\n", e.Number, e.Kind, e.Object, e.What, e.By, e.Text)
		}
	}
	if stream.Err() != nil {
		return stream.Err().Error()
	}
	return b.String()
}

// TestEvents asks for some of what happened.
func TestEvents(t *testing.T) {
	ring, clients := newEvents(t)
	reader := clients[fleet.RoleReader]
	if _, err := clients[fleet.RoleOperator].Run(timeout(t), connect.NewRequest(&apiv1.RunRequest{Container: "web", Action: apiv1.Action_ACTION_STOP})); err != nil {
		t.Fatal(err)
	}
	if _, err := clients[fleet.RoleOperator].Run(timeout(t), connect.NewRequest(&apiv1.RunRequest{Container: "none", Action: apiv1.Action_ACTION_STOP})); err == nil {
		t.Fatal("no error")
	}
	if _, err := reader.List(timeout(t), connect.NewRequest(&apiv1.ListRequest{})); err != nil {
		t.Fatal(err)
	}
	ring.Add(events.Event{Kind: events.Container, Object: "db", What: "exited", Text: "exit code 1", Time: time.Now().Add(-time.Hour)})
	ring.Add(events.Event{Kind: events.Service, Object: "clock", What: "started"})
	const web, db, clock = "1 container shop.web stop requested op-operator \n", "2 container db exited  exit code 1\n", "3 service clock started  \n"
	for name, c := range map[string]struct {
		r    *apiv1.EventsRequest
		want string
	}{
		"all":         {&apiv1.EventsRequest{}, web + db + clock},
		"tail":        {&apiv1.EventsRequest{Tail: 2}, db + clock},
		"kind":        {&apiv1.EventsRequest{Kinds: []string{"container"}, Tail: 1}, db},
		"kinds":       {&apiv1.EventsRequest{Kinds: []string{"service", "node"}}, clock},
		"since":       {&apiv1.EventsRequest{Since: durationpb.New(time.Minute)}, web + clock},
		"no kind":     {&apiv1.EventsRequest{Kinds: []string{"nonsense"}}, `invalid_argument: unknown kind of event "nonsense": expected one of [container command project image registry service operator node]`},
		"less than 0": {&apiv1.EventsRequest{Tail: -1}, "invalid_argument: tail or since is negative"},
	} {
		if got := askEvents(t, reader, c.r); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// TestEventsFollow has a reader who stops reading while thousands of events come: nobody
// waits for him, he is told what he missed, and gets the rest in order.
func TestEventsFollow(t *testing.T) {
	ring, clients := newEvents(t)
	ctx, cancel := context.WithCancel(timeout(t))
	defer cancel()
	stream, err := clients[fleet.RoleReader].Events(ctx, connect.NewRequest(&apiv1.EventsRequest{Follow: true, Kinds: []string{"node"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() { // it is heard
		t.Fatal(stream.Err())
	}
	const all = 50_000
	text := strings.Repeat("word ", 70)
	began := time.Now()
	for i := range all {
		ring.Add(events.Event{Kind: events.Node, Object: "load", Text: fmt.Sprint(i, text)})
		if i == 0 {
			for len(stream.Msg().Events) == 0 && stream.Receive() {
			}
		}
	}
	t.Logf("%d events in %s", all, time.Since(began).Round(time.Millisecond))
	last, missed := stream.Msg().Events[0].Number, uint64(0)
	for last < all && stream.Receive() {
		missed += stream.Msg().Missed
		last += stream.Msg().Missed
		for _, e := range stream.Msg().Events {
			if e.Number != last+1 {
				t.Fatalf("event %d after %d", e.Number, last)
			}
			last = e.Number
		}
	}
	if missed == 0 || last != all {
		t.Errorf("%d missed, the last is %d: %v", missed, last, stream.Err())
	}
	t.Logf("%d of them were missed", missed)
	cancel()
	for stream.Receive() {
	}
	if !errors.Is(stream.Err(), context.Canceled) {
		t.Errorf("it ends with %v", stream.Err())
	}
}
