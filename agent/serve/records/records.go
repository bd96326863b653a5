// Package records answers the calls of the API that are about the node as a part of its
// fleet: its seat's key, the ledger, the papers beside it, and the secret that seats hold.
//
// In come requests of callers who may make them; out go what the node has taken and signed.
// What a caller brings is verified by the ledger, not by who he is.
package records

import (
	"context"
	"errors"
	"io/fs"
	"log"
	"net/http"
	"net/netip"
	"runtime"
	"strings"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/identity"
	"kogge.example/agent/papers"
	"kogge.example/agent/pinned"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
)

// Records is what the calls are answered from.
type Records struct {
	// Open gives the seat's key and the ledger of the fleet that the node belongs to, which
	// are made with the first question for them. The error says why there are none; nil: this
	// node has none.
	Open func() (*identity.Seat, *pinned.Ledger, error)
	// Ready says why a node may not know a fleet with a ledger yet: its other slot has a release
	// that would not know it. nil: it may, and no slot changes until done is called.
	Ready func() (done func(), err error)
	// Changed hears that the node's place in the fleet may be another: it has a key, a record, or
	// another fleet. nil: nobody listens.
	Changed func()
	// Etcd is what the service etcd says of itself; the error wraps [fs.ErrNotExist] where this
	// node does not run it. nil: it never does.
	Etcd func(context.Context) (control.Etcd, error)
	// Custody is what the node holds of its fleet's secrets; nil: nothing ever.
	Custody func() (*identity.Custody, error)
	// Papers are what was signed besides the ledger; nil: this node keeps none.
	Papers func() *papers.Store
	// Refused is how often who came was refused, in words; nil: not known.
	Refused func() map[string]uint64
	// Refuse says why a call that changes something is not answered by a node that stands in its
	// fleet as this one does; nil: none is refused.
	Refuse func(procedure string) error
	// Board is what the node knows of the others; nil: it hears of none.
	Board func() (Board, error)
	// Addresses are the machine's, the first one the likeliest to be reached; nil: not known.
	Addresses func() []netip.Addr
}

// Refuses says why a call that changes something is not answered now.
func (r Records) Refuses(procedure string) error {
	if r.Refuse == nil {
		return nil
	}
	return r.Refuse(procedure)
}

// Handler is the path and the handler of the calls.
func Handler(node *identity.Node, r Records, options ...connect.HandlerOption) (string, http.Handler) {
	return apiv1connect.NewFleetServiceHandler(&service{r, node}, options...)
}

type service struct {
	from Records
	node *identity.Node
}

func (r *service) part() (*identity.Seat, *pinned.Ledger, error) {
	if r.from.Open == nil {
		return nil, nil, errors.New("this node keeps no ledger")
	}
	return r.from.Open()
}

// Seat answers with the key with which the node takes part, signed with it. It does so with a
// ledger that is damaged or has a second history, too: whoever is to repair it has to know by
// that key whom he calls.
func (r *service) Seat(_ context.Context, request *connect.Request[apiv1.SeatRequest]) (*connect.Response[apiv1.SeatResponse], error) {
	if len(request.Msg.Nonce) != api.NonceSize {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("seat: the nonce has the wrong size"))
	}
	seat, l, err := r.part()
	if err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	tlsKey, err := document.ParseHash(r.node.Key())
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	state := l.State()
	body := roster.Request{
		Version: 1, Nonce: request.Msg.Nonce, Name: r.node.Name(), Journal: seat.Journal, TLSKey: tlsKey, Arch: runtime.GOARCH,
		Height: state.Height, Head: state.Record, Problem: words(l.Problem()),
	}
	if r.from.Addresses != nil {
		body.Addresses = roster.OwnAddresses(r.from.Addresses())
	}
	envelope, err := seat.Seal(roster.RequestKind, state.Fleet(), 0, body.Encode())
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	r.changed()
	return connect.NewResponse(&apiv1.SeatResponse{Envelope: envelope.Bytes()}), nil
}

// words are an error's, as far as a request has room for them; "": there is none.
func words(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), roster.MaxProblem)], "")
}

func (r *service) changed() {
	if r.from.Changed != nil {
		r.from.Changed()
	}
}

// Take takes a record that follows on those that the node has.
func (r *service) Take(_ context.Context, request *connect.Request[apiv1.TakeRequest]) (*connect.Response[apiv1.TakeResponse], error) {
	_, l, err := r.part()
	if err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	e := request.Msg.GetEntry()
	err = l.Take(e.GetHeight(), ledger.Entry{Record: e.GetRecord(), Value: e.GetValue(), Certificate: e.GetCertificate()})
	r.changed()
	if errors.Is(err, pinned.ErrFork) {
		log.Printf("agent: %v", err)
	}
	switch {
	case errors.Is(err, document.ErrNewer): // the node has to be updated first
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, ledger.ErrRecord), errors.Is(err, ledger.ErrValue), errors.Is(err, ledger.ErrCertificate):
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	case errors.Is(err, pinned.ErrFork), errors.Is(err, ledger.ErrHeight):
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	case err != nil:
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&apiv1.TakeResponse{Height: l.State().Height}), nil
}

// Succeed makes the node one of the fleet that its own has become. One that is it already is told
// so whatever its slots have: nothing is written.
func (r *service) Succeed(_ context.Context, request *connect.Request[apiv1.SucceedRequest]) (*connect.Response[apiv1.SucceedResponse], error) {
	if g := r.node.Genesis(); r.from.Ready != nil && (g == nil || g.Alone()) {
		done, err := r.from.Ready()
		if err != nil {
			return nil, connect.NewError(connect.CodeFailedPrecondition, err)
		}
		defer done()
	}
	before := r.node.String()
	err := r.node.Succeed(request.Msg.Succession, request.Msg.Certificate, request.Msg.Chain...)
	switch {
	case errors.Is(err, fleet.ErrSuccession):
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	case err != nil:
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	if now := r.node.String(); now != before {
		log.Printf("agent: the fleet has a successor: this was %s, and is %s", before, now)
	}
	r.changed()
	return connect.NewResponse(&apiv1.SucceedResponse{Fleet: r.node.Genesis().ID()}), nil
}

// Etcd says how the node's etcd is.
func (r *service) Etcd(ctx context.Context, _ *connect.Request[apiv1.EtcdRequest]) (*connect.Response[apiv1.EtcdResponse], error) {
	lacks := r.lacksCA()
	if r.from.Etcd == nil {
		return connect.NewResponse(&apiv1.EtcdResponse{LacksCa: lacks}), nil
	}
	e, err := r.from.Etcd(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return connect.NewResponse(&apiv1.EtcdResponse{LacksCa: lacks}), nil
	}
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&apiv1.EtcdResponse{
		Wanted: true, Running: e.Running, Leader: int32(e.Leader), Doing: e.Doing, Problem: e.Problem,
		Members: seats(e.Members), Learners: seats(e.Learners), Generation: int32(e.Generation), Revision: e.Revision,
		Bytes: e.Bytes, Quota: e.Quota, Full: seats(e.Full), Corrupt: seats(e.Corrupt), Snapshots: int32(e.Snapshots),
		Fsync: e.Fsync, NewestSnapshot: e.Newest, LacksCa: lacks,
	}), nil
}

// seats are the numbers of seats as the contract has them: a roster has none above 2^30.
func seats(all []int) (numbers []int32) {
	for _, n := range all {
		numbers = append(numbers, int32(n))
	}
	return numbers
}

// Records sends the records from a height on.
func (r *service) Records(ctx context.Context, request *connect.Request[apiv1.RecordsRequest], stream *connect.ServerStream[apiv1.Entry]) error {
	_, l, err := r.part()
	if err != nil {
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	for height := max(1, request.Msg.From); height <= l.State().Height && ctx.Err() == nil; height++ {
		e, err := l.Entry(height)
		if err != nil {
			return connect.NewError(connect.CodeInternal, err)
		}
		if err := stream.Send(&apiv1.Entry{Height: height, Record: e.Record, Value: e.Value, Certificate: e.Certificate}); err != nil {
			return err
		}
	}
	return ctx.Err()
}
