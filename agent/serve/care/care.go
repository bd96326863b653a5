// Package care answers the calls of the API by which operators look after a fleet: orders about
// seats, a way through this node to another, copies of etcd and its beginning anew, and whether a
// disk is one for etcd.
//
// In come requests of callers who may make them; out go what the node has, and bytes that it
// carries without reading them. What a caller brings is verified by whoever takes it: an order by
// the ledger's operators, a restore by the fleet's owner.
package care

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/door"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

// Care is what the calls are answered from. A nil function: this node does nothing of the kind.
type Care struct {
	// Give takes an order about a seat. The error wraps [order.ErrOrder] where it is none that
	// counts, [notice.ErrOlder] where a newer one is known, and [ErrUnkept] where it counts and
	// the disk does not keep it.
	Give func(signed.Envelope) error
	// Given are the orders that the node has.
	Given func() []signed.Envelope
	// Reach opens a connection to the API of another node that has a seat. The error wraps
	// [ErrNoNode] where there is none of that name.
	Reach func(ctx context.Context, node string) (net.Conn, error)
	// Backup writes a snapshot of etcd.
	Backup func(ctx context.Context, w io.Writer) error
	// Restore has etcd begin anew, from a snapshot, or with nil from the node's own disk, by an order
	// of which it tells the others. The error wraps [ledger.ErrPermit] where the owner has not permitted
	// that, and those of Give.
	Restore func(ctx context.Context, by string, order signed.Envelope, snapshot io.Reader) error
	// Probe measures the node's disk. It is asked by one caller at a time.
	Probe func() Disk
}

// Disk is how fast a disk keeps small writes.
type Disk struct {
	Writes      int
	Median, P99 time.Duration
	Most        time.Duration // that P99 may be where etcd's data is
	Unfit       string        // why it is none for etcd; "": it is
}

// ErrUnkept is of an order that the node has taken and passes on, and that its disk does not hold.
var ErrUnkept = errors.New("the node follows the order")

// ErrNoNode is of a name that no seat has.
var ErrNoNode = errors.New("no node of the fleet's ledger has this name")

// Handler is the path and the handler of the calls.
func Handler(c Care, options ...connect.HandlerOption) (string, http.Handler) {
	return apiv1connect.NewCareServiceHandler(&service{from: c, relays: relays{byKey: make(map[string]int), byRole: make(map[fleet.Role]int)}}, options...)
}

type service struct {
	from Care

	probing sync.Mutex // held while the disk is measured
	relays  relays
}

// unable is the answer of a node that does nothing of the kind.
func unable(what string) error {
	return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("this node %s", what))
}

// Order takes an order.
func (s *service) Order(_ context.Context, r *connect.Request[apiv1.OrderRequest]) (*connect.Response[apiv1.OrderResponse], error) {
	if s.from.Give == nil {
		return nil, unable("keeps no orders about seats")
	}
	object, err := signed.Parse(r.Msg.Envelope)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	switch err := s.from.Give(object); {
	case errors.Is(err, order.ErrOrder):
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	case errors.Is(err, notice.ErrOlder):
		return nil, connect.NewError(connect.CodeAborted, errors.New("a newer order about this seat is known"))
	case errors.Is(err, ErrUnkept):
		return nil, connect.NewError(connect.CodeDataLoss, err)
	case err != nil:
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return connect.NewResponse(&apiv1.OrderResponse{}), nil
}

// Orders are those that the node has.
func (s *service) Orders(context.Context, *connect.Request[apiv1.OrdersRequest]) (*connect.Response[apiv1.OrdersResponse], error) {
	answer := &apiv1.OrdersResponse{}
	if s.from.Given != nil {
		for _, object := range s.from.Given() {
			answer.Envelopes = append(answer.Envelopes, object.Bytes())
		}
	}
	return connect.NewResponse(answer), nil
}

// Probe measures the disk.
func (s *service) Probe(context.Context, *connect.Request[apiv1.ProbeRequest]) (*connect.Response[apiv1.ProbeResponse], error) {
	if s.from.Probe == nil {
		return nil, unable("cannot run etcd")
	}
	if !s.probing.TryLock() { // two at a time would measure each other
		return nil, connect.NewError(connect.CodeAborted, errors.New("the disk is being measured for somebody else: ask again in ten seconds"))
	}
	defer s.probing.Unlock()
	d := s.from.Probe()
	return connect.NewResponse(&apiv1.ProbeResponse{
		Writes: int32(d.Writes), Median: durationpb.New(d.Median), P99: durationpb.New(d.P99), Most: durationpb.New(d.Most), Unfit: d.Unfit,
	}), nil
}

// Backup sends a snapshot of etcd.
func (s *service) Backup(ctx context.Context, _ *connect.Request[apiv1.BackupRequest], stream *connect.ServerStream[apiv1.BackupPart]) error {
	if s.from.Backup == nil {
		return unable("runs no etcd")
	}
	if err := s.from.Backup(ctx, parts{stream}); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return connect.NewError(connect.CodeUnavailable, err)
	}
	return nil
}

// parts sends what is written.
type parts struct {
	stream *connect.ServerStream[apiv1.BackupPart]
}

func (p parts) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		size := min(len(b), api.PartSize)
		if err := p.stream.Send(&apiv1.BackupPart{Data: b[:size]}); err != nil {
			return n, err
		}
		n, b = n+size, b[size:]
	}
	return n, nil
}

// restoreQuiet is how long a caller may be silent who owes us some of a snapshot.
const restoreQuiet = 2 * time.Minute

// Restore takes a snapshot, and has etcd begin anew from it.
func (s *service) Restore(ctx context.Context, stream *connect.ClientStream[apiv1.RestoreRequest]) (*connect.Response[apiv1.RestoreResponse], error) {
	if s.from.Restore == nil {
		return nil, unable("runs no etcd")
	}
	in := &incoming{stream: stream, control: door.StreamControl(ctx)}
	if !in.next() {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.Join(errors.New("there is no order"), in.err))
	}
	object, err := signed.Parse(in.order)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	var snapshot io.Reader
	if in.next() {
		snapshot = in
	} else if in.err != nil {
		return nil, in.err
	}
	err = s.from.Restore(ctx, door.Caller(ctx).Name, object, snapshot)
	switch {
	case errors.Is(err, ledger.ErrPermit), errors.Is(err, order.ErrOrder):
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	case err != nil:
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return connect.NewResponse(&apiv1.RestoreResponse{}), nil
}

// incoming is what a caller sends, as a reader.
type incoming struct {
	stream  *connect.ClientStream[apiv1.RestoreRequest]
	control *http.ResponseController
	order   []byte
	rest    []byte
	err     error
}

// next waits for the next message; false: there is none, and err says why, if it is not the end.
func (i *incoming) next() bool {
	if i.control != nil {
		_ = i.control.SetReadDeadline(time.Now().Add(restoreQuiet))
		defer func() { _ = i.control.SetReadDeadline(time.Time{}) }()
	}
	if !i.stream.Receive() {
		i.err = i.stream.Err()
		return false
	}
	i.order, i.rest = i.stream.Msg().Order, i.stream.Msg().Data
	return true
}

func (i *incoming) Read(p []byte) (int, error) {
	for len(i.rest) == 0 {
		if !i.next() {
			if i.err != nil {
				return 0, i.err
			}
			return 0, io.EOF
		}
	}
	n := copy(p, i.rest)
	i.rest = i.rest[n:]
	return n, nil
}
