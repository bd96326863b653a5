package records

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/token"
	"kogge.example/update/fleet/wrapped"
)

// Custody says to which key secrets for this seat are encrypted, and takes the key of the node CA
// if the caller brings it: it is that, or it does not open.
func (r *service) Custody(_ context.Context, request *connect.Request[apiv1.CustodyRequest]) (*connect.Response[apiv1.CustodyResponse], error) {
	seat, l, err := r.part()
	if err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	state := l.State()
	place, ok := state.Roster.ByKey(seat.Key)
	if !ok || r.from.Custody == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("this node has no seat: it holds no secret of the fleet"))
	}
	held, err := r.from.Custody()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	if len(request.Msg.Sealed) > 0 {
		if !place.Member && !place.Spare {
			return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("seat %d neither runs etcd nor may: it does not hold the node CA's key", place.Number))
		}
		switch err := held.Take(request.Msg.Sealed, state.Genesis.NodeCA); {
		case errors.Is(err, wrapped.ErrWrapped):
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		case err != nil:
			return nil, connect.NewError(connect.CodeInternal, err)
		}
		log.Printf("agent: this node holds the key of the node CA now")
		r.changed()
	}
	envelope, err := seat.Seal(notice.WrapKeyKind, state.Fleet(), 0, held.Says(place.Number).Encode())
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&apiv1.CustodyResponse{Envelope: envelope.Bytes()}), nil
}

// lacksCA says whether this node's seat is to hold the node CA's key, and does not.
func (r *service) lacksCA() bool {
	seat, l, err := r.part()
	if err != nil || r.from.Custody == nil {
		return false
	}
	state := l.State()
	if place, ok := state.Roster.ByKey(seat.Key); !ok || !place.Member && !place.Spare {
		return false
	}
	held, err := r.from.Custody()
	return err != nil || held.CA(state.Genesis.NodeCA) == nil
}

// somePapers is how many go into one answer: each has 4 KiB at most.
const somePapers = 64

// Papers sends all that this node has.
func (r *service) Papers(ctx context.Context, _ *connect.Request[apiv1.PapersRequest], stream *connect.ServerStream[apiv1.PapersResponse]) error {
	if _, _, err := r.part(); err != nil || r.from.Papers == nil {
		return connect.NewError(connect.CodeFailedPrecondition, errors.Join(err, errors.New("this node keeps no papers")))
	}
	store := r.from.Papers()
	first := &apiv1.PapersResponse{Refused: store.Refused()}
	if r.from.Refused != nil {
		for why, n := range r.from.Refused() {
			first.Refused[why] = max(first.Refused[why], n) // a member counts what its papers refuse, too
		}
	}
	if err := stream.Send(first); err != nil {
		return err
	}
	for some := range slices.Chunk(store.All(), somePapers) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := stream.Send(&apiv1.PapersResponse{Papers: some}); err != nil {
			return err
		}
	}
	return nil
}

// GivePapers takes papers. At the first that is wrong it ends, with those before it.
func (r *service) GivePapers(_ context.Context, request *connect.Request[apiv1.GivePapersRequest]) (*connect.Response[apiv1.GivePapersResponse], error) {
	if _, _, err := r.part(); err != nil || r.from.Papers == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.Join(err, errors.New("this node keeps no papers")))
	}
	answer := &apiv1.GivePapersResponse{}
	for _, raw := range request.Msg.Papers {
		news, err := r.from.Papers().Take(raw)
		switch {
		case errors.Is(err, token.ErrPaper), errors.Is(err, token.ErrUse), errors.Is(err, token.ErrUsed), errors.Is(err, token.ErrOther), errors.Is(err, token.ErrExpired):
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		case errors.Is(err, token.ErrFull):
			return nil, connect.NewError(connect.CodeResourceExhausted, err)
		case err != nil:
			return nil, connect.NewError(connect.CodeInternal, err)
		}
		if news {
			answer.News++
		}
	}
	if answer.News > 0 {
		r.changed()
	}
	return connect.NewResponse(answer), nil
}
