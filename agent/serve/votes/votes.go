// Package votes answers the calls of the API by which people say what they have to say before their
// fleet decides: proposals, owners' answers, how nodes vote, and requests for seats.
//
// In come signed objects from callers who only carry them; out go those that the node has. Whether one
// counts is for the docket to say, which verifies it by the ledger.
package votes

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
)

// Docket keeps what people have said. agent/docket's Store fits.
type Docket interface {
	// Take verifies an object and keeps it. news says that it was not there.
	Take(raw []byte) (news bool, err error)
	All() [][]byte
}

// Handler is the path and the handler of the calls. docket is nil where the node keeps none, or returns
// nil while it does not.
func Handler(docket func() Docket, options ...connect.HandlerOption) (string, http.Handler) {
	return apiv1connect.NewVoteServiceHandler(&service{docket}, options...)
}

type service struct {
	docket func() Docket
}

// open is the docket.
func (s *service) open() (Docket, error) {
	if s.docket != nil {
		if d := s.docket(); d != nil {
			return d, nil
		}
	}
	return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("this node keeps nothing that a fleet is to decide"))
}

const (
	// maxObjects is how many objects one call may bring: each costs signatures to verify.
	maxObjects = 128
	// maxError is the bytes of the words of one refusal.
	maxError = 1 << 10
)

// Submit takes objects, each for itself.
func (s *service) Submit(ctx context.Context, r *connect.Request[apiv1.SubmitRequest]) (*connect.Response[apiv1.SubmitResponse], error) {
	d, err := s.open()
	if err != nil {
		return nil, err
	}
	if len(r.Msg.Objects) > maxObjects {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("more than 128 objects in one call: bring them in several"))
	}
	answer := &apiv1.SubmitResponse{}
	for _, raw := range r.Msg.Objects {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one := &apiv1.Submitted{}
		if one.News, err = d.Take(raw); err != nil {
			one.Error = words(err)
		}
		answer.Objects = append(answer.Objects, one)
	}
	return connect.NewResponse(answer), nil
}

// words are those of an error, on one line and of a size.
func words(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	return strings.ToValidUTF8(text[:min(len(text), maxError)], "")
}

// Docket sends all that the node has.
func (s *service) Docket(ctx context.Context, _ *connect.Request[apiv1.DocketRequest], stream *connect.ServerStream[apiv1.DocketResponse]) error {
	d, err := s.open()
	if err != nil {
		return err
	}
	part, size := &apiv1.DocketResponse{}, 0
	for _, raw := range d.All() {
		if size += len(raw); size > api.PartSize && len(part.Objects) > 0 {
			if err := send(ctx, stream, part); err != nil {
				return err
			}
			part, size = &apiv1.DocketResponse{}, len(raw)
		}
		part.Objects = append(part.Objects, raw)
	}
	return send(ctx, stream, part)
}

func send(ctx context.Context, stream *connect.ServerStream[apiv1.DocketResponse], part *apiv1.DocketResponse) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return stream.Send(part)
}
