package hearsay

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/serve/records"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// noticeOf is what a seat of a test's fleet has signed.
func noticeOf(t *testing.T, fleet document.Hash, name, kind string, body []byte) []byte {
	t.Helper()
	return ledgertest.Must[signed.Envelope](t)(signed.Seal(kind, fleet, ledgertest.Private(name), 7, body)).Bytes()
}

func recordOf(name, release string) []byte {
	return notice.Node{Version: 1, Name: name, Arch: "amd64", Board: "b", Kernel: "k", Capacity: notice.Capacity{CPUs: 1, Memory: 1},
		Slots: []notice.Slot{{Name: "B", Release: release, Running: true, Boot: "good"}}}.Encode()
}

func statusOf(height int64) []byte {
	return notice.Status{Version: 1, Height: height, Head: document.HashOf(nil)}.Encode()
}

// TestRead asks nodes over the API: one that reaches etcd is preferred, what nobody has signed
// counts for nothing, and how old things are comes along.
func TestRead(t *testing.T) {
	s := ledgertest.Founded(t, 3, 1).Log.State()
	id := s.Fleet()
	forged := bytes.Clone(noticeOf(t, id, "n3", notice.NodeKind, recordOf("n3", "9.9")))
	forged[len(forged)-1] ^= 1
	some := []records.Notice{
		{Envelope: noticeOf(t, id, "n1", notice.NodeKind, recordOf("n1", "1.0")), Age: time.Hour, Leased: true, Known: true},
		{Envelope: noticeOf(t, id, "n1", notice.StatusKind, statusOf(1)), Age: 90 * time.Second, Leased: true, Known: true},
		{Envelope: noticeOf(t, id, "n2", notice.StatusKind, statusOf(1)), Age: records.Never, Known: true},
		{Envelope: noticeOf(t, id, "n3", notice.NodeKind, recordOf("n3", "1.0")), Age: time.Second},
		{Envelope: forged}, {Envelope: noticeOf(t, id, "n9", notice.NodeKind, recordOf("n9", "1.0"))}, {Envelope: []byte("junk")},
		{Envelope: noticeOf(t, document.HashOf(nil), "n1", notice.StatusKind, statusOf(9))}, {Envelope: noticeOf(t, id, "n1", notice.TLSKeyKind, nil)},
		{Envelope: noticeOf(t, id, "n1", notice.StatusKind, []byte("{}"))},
	}
	clients := make(map[string]apiv1connect.FleetServiceClient)
	for name, board := range map[string]func() (records.Board, error){
		"n1": func() (records.Board, error) { return records.Board{}, errors.New("the node has no seat") },
		"n2": func() (records.Board, error) {
			return records.Board{Problem: "no etcd answers", Heard: 5 * time.Minute, Listed: 6 * time.Minute, Notices: some}, nil
		},
		"n3": func() (records.Board, error) {
			return records.Board{Gateway: 2, Heard: time.Second, Notices: some}, nil
		},
		"old": nil,
	} {
		mux := http.NewServeMux()
		mux.Handle(records.Handler(nil, records.Records{Board: board}))
		server := httptest.NewServer(mux)
		t.Cleanup(server.Close)
		clients[name] = apiv1connect.NewFleetServiceClient(server.Client(), server.URL)
	}
	call := func(ctx context.Context, node string, do func(context.Context, apiv1connect.FleetServiceClient) error) error {
		c, ok := clients[node]
		if !ok {
			return errors.New("it does not answer")
		}
		return do(ctx, c)
	}
	b, err := new(Ear).Read(t.Context(), s, []string{"n1", "old", "n2", "n3"}, call)
	if err != nil || b.From != "n3" || b.Gateway != 2 || b.Heard != time.Second || b.Listed != 0 || b.Refused != 6 || len(b.Words) != 3 {
		t.Fatalf("%+v, %v", b, err)
	}
	one, two, three := b.Words[ledgertest.Key(t, "n1")], b.Words[ledgertest.Key(t, "n2")], b.Words[ledgertest.Key(t, "n3")]
	if one.Lease != LeaseHeld || one.Age != 90*time.Second || one.Record.Slots[0].Release != "1.0" || one.Status.Height != 1 {
		t.Errorf("n1: %+v", one)
	}
	if two.Lease != LeaseNone || two.Age >= 0 || two.Record != nil || three.Lease != LeaseUnknown || three.Status != nil || three.Age >= 0 {
		t.Errorf("n2: %+v, n3: %+v", two, three)
	}
	if held, known := b.Leases(); held != 1 || known != 2 {
		t.Errorf("%d of %d leases", held, known)
	}
	if b, err := new(Ear).Read(t.Context(), s, []string{"n1", "n2", "unknown"}, call); err != nil || b.From != "n2" || b.Gateway != 0 || b.Problem == "" || b.Listed != 6*time.Minute {
		t.Errorf("without etcd: %+v, %v", b, err)
	}
	if b, err := new(Ear).Read(t.Context(), s, []string{"n1"}, call); err != nil || b.From != "" {
		t.Errorf("nobody knows: %+v, %v", b, err)
	}
}

// TestDisaster has a fleet of a hundred of which none reaches etcd: a few are asked, those that run etcd
// first, and what was verified once is not verified again.
func TestDisaster(t *testing.T) {
	f := ledgertest.Founded(t, 100, 1)
	s := f.Log.State()
	var some []records.Notice
	var names []string
	for _, seat := range slices.Backward(s.Roster.Seats) {
		names = append(names, seat.Name)
		some = append(some, records.Notice{Envelope: noticeOf(t, s.Fleet(), seat.Name, notice.StatusKind, statusOf(1)), Age: time.Second})
	}
	mux := http.NewServeMux()
	mux.Handle(records.Handler(nil, records.Records{Board: func() (records.Board, error) {
		return records.Board{Heard: records.Never, Listed: records.Never, Notices: some}, nil
	}}))
	server := httptest.NewServer(mux)
	defer server.Close()
	var asked []string
	var ear Ear
	for range 2 {
		b, err := ear.Read(t.Context(), s, names, func(ctx context.Context, node string, do func(context.Context, apiv1connect.FleetServiceClient) error) error {
			asked = append(asked, node)
			return do(ctx, apiv1connect.NewFleetServiceClient(server.Client(), server.URL))
		})
		if err != nil || len(b.Words) != 100 || b.Refused != 0 {
			t.Fatalf("%d words, %d refused, %v", len(b.Words), b.Refused, err)
		}
	}
	for _, name := range asked[:3] {
		if seat, _ := s.Roster.ByName(name); !seat.Member {
			t.Errorf("%s is asked before a member", name)
		}
	}
	if len(asked) != 2*most || len(ear.verified) != 100 {
		t.Errorf("%d are asked, and %d are verified", len(asked), len(ear.verified))
	}
}

// TestPin prints what is added to what this computer sees: of nodes that do not answer it.
func TestPin(t *testing.T) {
	s := ledgertest.Founded(t, 3, 1).Log.State()
	silent := func(name string) operate.Sighting {
		return operate.Sighting{Node: name, Err: connect.NewError(connect.CodeUnavailable, errors.New("no route to host"))}
	}
	first, _ := s.Roster.ByName("n1")
	answers := operate.Sighting{Node: "n1", Status: &apiv1.StatusResponse{Boot: &apiv1.Boot{Version: "1.0", Slot: "A", Assessment: "good"}},
		Part: operate.Applicant{Name: "n1", Height: 1, Head: s.Record, Key: first.Key, Journal: first.Journal}}
	record, err := notice.ParseNode(recordOf("n2", "1.1"))
	if err != nil {
		t.Fatal(err)
	}
	status := notice.Status{Height: 1}
	word := func(l Lease) Word { return Word{Record: &record, Status: &status, Age: 3 * time.Minute, Lease: l} }
	var out strings.Builder
	for _, c := range []struct {
		name  string
		board Board
		up    int64 // seconds; 0: ten minutes
	}{
		{name: "nobody was asked", board: Board{Heard: -1, Listed: -1}},
		{name: "it is reached by others", board: Board{From: "n1", Gateway: 1, Words: map[signed.Key]Word{ledgertest.Key(t, "n2"): word(LeaseHeld), ledgertest.Key(t, "n3"): word(LeaseNone)}}},
		{name: "it is listed again", board: Board{From: "n1", Gateway: 1, Listed: 3 * time.Hour, Words: map[signed.Key]Word{ledgertest.Key(t, "n2"): word(LeaseHeld), ledgertest.Key(t, "n3"): word(LeaseNone)}}},
		{name: "it was never listed", board: Board{From: "n1", Gateway: 1, Listed: -1, Words: map[signed.Key]Word{ledgertest.Key(t, "n2"): word(LeaseHeld), ledgertest.Key(t, "n3"): word(LeaseNone)}}},
		{name: "n1 had no lease an hour ago", board: Board{From: "n2", Gateway: 2, Listed: time.Hour, Words: map[signed.Key]Word{first.Key: word(LeaseNone), ledgertest.Key(t, "n3"): word(LeaseHeld)}}},
		{name: "n1 has just started", up: 90, board: Board{From: "n2", Gateway: 2, Words: map[signed.Key]Word{first.Key: word(LeaseNone), ledgertest.Key(t, "n3"): word(LeaseHeld)}}},
		{name: "n1 is cut off", board: Board{From: "n2", Gateway: 2, Words: map[signed.Key]Word{first.Key: word(LeaseNone), ledgertest.Key(t, "n3"): word(LeaseHeld)}}},
		{name: "etcd is down", board: Board{From: "n1", Heard: time.Hour, Listed: time.Hour, Words: map[signed.Key]Word{ledgertest.Key(t, "n2"): word(LeaseHeld), ledgertest.Key(t, "n3"): {Lease: LeaseUnknown, Age: -1}}}},
	} {
		answers.Status.UptimeSeconds = cmp.Or(c.up, 600)
		h := operate.Judge(s, []operate.Sighting{answers, silent("n2"), silent("n3")}, time.Now())
		c.board.Pin(&h)
		fmt.Fprintf(&out, "%s\n", c.name)
		for _, n := range h.Nodes {
			fmt.Fprintf(&out, "    %s %s lease=%s said=%s release=%q slot=%q height=%d\n", n.Node, n.Standing, n.Lease, n.Said, n.Release, n.Slot, n.Height)
		}
		for _, p := range h.Problems {
			fmt.Fprintf(&out, "    %s: %s\n", p.Node, p.What)
		}
	}
	golden.Compare(t, "pin.txt", out.String())
}
