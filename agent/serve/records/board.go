package records

import (
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
)

// Board is what a node knows of its fleet's nodes.
type Board struct {
	// Gateway is the seat through which the node reaches etcd; 0: it does not, and Problem says
	// why.
	Gateway int
	Problem string
	// Heard is how long ago a gateway said something, and Listed that all leases were known.
	Heard, Listed time.Duration
	Notices       []Notice
}

// Notice is what a seat has signed.
type Notice struct {
	Envelope []byte
	Age      time.Duration // since it came
	// Leased says whether the seat held a lease when that was known last; Known whether it ever was.
	Leased, Known bool
}

// Never is how long ago something was that was never.
const Never time.Duration = -1

// someNotices is how many go into one answer: each has 8 KiB at most.
const someNotices = 64

// Notices sends what the node knows of the others.
func (r *service) Notices(ctx context.Context, _ *connect.Request[apiv1.NoticesRequest], stream *connect.ServerStream[apiv1.NoticesResponse]) error {
	if r.from.Board == nil {
		return connect.NewError(connect.CodeFailedPrecondition, errors.New("this node hears of no others"))
	}
	b, err := r.from.Board()
	if err != nil {
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	first := &apiv1.NoticesResponse{Gateway: int32(b.Gateway), Problem: b.Problem, HeardMillis: millis(b.Heard), ListedMillis: millis(b.Listed)}
	if err := stream.Send(first); err != nil {
		return err
	}
	for some := range slices.Chunk(b.Notices, someNotices) {
		if err := ctx.Err(); err != nil {
			return err
		}
		answer := &apiv1.NoticesResponse{}
		for _, n := range some {
			one := &apiv1.Notice{Envelope: n.Envelope, AgeMillis: millis(n.Age)}
			switch {
			case n.Known && n.Leased:
				one.Lease = apiv1.Lease_LEASE_HELD
			case n.Known:
				one.Lease = apiv1.Lease_LEASE_NONE
			}
			answer.Notices = append(answer.Notices, one)
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
	return nil
}

// millis is a time as the contract has it.
func millis(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return d.Milliseconds()
}
