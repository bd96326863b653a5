package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/door"
	"kogge.example/agent/install"
	"kogge.example/update/release"
	"kogge.example/update/slot"
)

// Updates is what is done to the node's slots.
type Updates interface {
	Update(ctx context.Context, o install.Order, report func(install.Step)) error
	Rollback(ctx context.Context, o install.Order, report func(install.Step)) error
	Slots(ctx context.Context) (install.Slots, error)
	History(ctx context.Context) ([]install.Boot, error)
	ForgetFailure(ctx context.Context, release string) ([]string, error)
}

// updateService answers for the slots.
type updateService struct{ updates Updates }

// errNoSlots is the answer of what has no slots, as a node without its boot disk.
var errNoSlots = errors.New("this node has no slots that it may write")

func (s *updateService) ready() error {
	if s.updates == nil {
		return connect.NewError(connect.CodeUnavailable, errNoSlots)
	}
	return nil
}

func (s *updateService) Update(ctx context.Context, stream *connect.BidiStream[apiv1.UpdateRequest, apiv1.UpdateResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the first message has to say what to install"))
	}
	when, err := whenOf(start.Reboot)
	if err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		return err
	}
	o := &offer{stream: stream, quiet: offerLimit}
	o.control = door.StreamControl(ctx)
	order := install.Order{From: start.From, When: when, By: door.Caller(ctx).Name, Permit: start.Permit}
	if start.From == "" {
		order.Source = o
	}
	return updateError(ctx, s.updates.Update(ctx, order, o.tell))
}

func (s *updateService) Rollback(ctx context.Context, r *connect.Request[apiv1.RollbackRequest], stream *connect.ServerStream[apiv1.UpdateResponse]) error {
	when, err := whenOf(r.Msg.Reboot)
	if err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		return err
	}
	return updateError(ctx, s.updates.Rollback(ctx, install.Order{When: when, By: door.Caller(ctx).Name, Permit: r.Msg.Permit}, func(step install.Step) {
		_ = stream.Send(stepMessage(step)) // who has gone away need not know; the order stands
	}))
}

func whenOf(r apiv1.Reboot) (install.When, error) {
	switch r {
	case apiv1.Reboot_REBOOT_UNSPECIFIED, apiv1.Reboot_REBOOT_NOW:
		return install.Now, nil
	case apiv1.Reboot_REBOOT_WINDOW:
		return install.InWindow, nil
	case apiv1.Reboot_REBOOT_MANUAL:
		return install.Manual, nil
	}
	return "", connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("unknown way to reboot: number %d", r))
}

// updateError gives an error of an update its code: what a caller may repeat as it is,
// what he has to change first, and what is the node's own trouble.
func updateError(ctx context.Context, err error) error {
	var said *connect.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &said):
		return said
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, install.ErrBusy):
		return connect.NewError(connect.CodeAborted, err)
	case errors.Is(err, install.ErrRefused):
		return refusal(err)
	case errors.Is(err, install.ErrUnreachable):
		return connect.NewError(connect.CodeUnavailable, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}

// reasons are the errors by which a caller tells what he can do.
var reasons = []struct {
	err    error
	reason apiv1.Reason
}{
	{release.ErrSignatures, apiv1.Reason_REASON_SIGNATURES},
	{release.ErrExpired, apiv1.Reason_REASON_EXPIRED},
	{slot.ErrFailedBefore, apiv1.Reason_REASON_FAILED_BEFORE},
	{release.ErrServer, apiv1.Reason_REASON_SERVER},
}

// refusal is the error of what a rule of the node forbids.
func refusal(err error) error {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return api.Refuse(connect.CodeFailedPrecondition, r.reason, err)
		}
	}
	return connect.NewError(connect.CodeFailedPrecondition, err)
}

func stepMessage(s install.Step) *apiv1.UpdateResponse {
	step := &apiv1.UpdateStep{Step: s.Step, Slot: s.Slot, Version: s.Version, Digest: s.Digest, Text: s.Text, Done: s.Done, Total: s.Total}
	if !s.At.IsZero() {
		step.At = timestamppb.New(s.At)
	}
	return &apiv1.UpdateResponse{Part: &apiv1.UpdateResponse_Step{Step: step}}
}

func (s *updateService) ListSlots(ctx context.Context, _ *connect.Request[apiv1.ListSlotsRequest]) (*connect.Response[apiv1.ListSlotsResponse], error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	all, err := s.updates.Slots(ctx)
	if err != nil {
		return nil, updateError(ctx, err)
	}
	answer := &apiv1.ListSlotsResponse{BootId: bootID(), Assessment: all.Assessment, Why: all.Why, Busy: all.Busy, NextArming: all.NextArming}
	if !all.RebootAt.IsZero() {
		answer.RebootAt = timestamppb.New(all.RebootAt)
	}
	for _, one := range all.Slots {
		answer.Slots = append(answer.Slots, &apiv1.Slot{
			Slot: one.Slot, Running: one.Running, State: one.State, Version: one.Version, Digest: one.Digest, RootHash: one.RootHash,
			Number: int32(one.Number), TriesLeft: int32(one.TriesLeft), Text: one.Text, Counter: one.Counter,
		})
	}
	return connect.NewResponse(answer), nil
}

// bootID is other after each boot.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // "" is not one, and says so
	return strings.TrimSpace(string(id))
}

func (s *updateService) History(ctx context.Context, _ *connect.Request[apiv1.HistoryRequest]) (*connect.Response[apiv1.HistoryResponse], error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	all, err := s.updates.History(ctx)
	if err != nil {
		return nil, updateError(ctx, err)
	}
	answer := &apiv1.HistoryResponse{}
	for _, b := range all {
		answer.Boots = append(answer.Boots, &apiv1.PastBoot{
			Time: timestamppb.New(b.Time), Slot: b.Slot, Version: b.Version, Trial: b.Trial, TriesLeft: int32(b.TriesLeft),
			Verdict: b.Verdict, Reason: b.Reason, Seconds: int64(b.Took / time.Second),
		})
	}
	return connect.NewResponse(answer), nil
}

func (s *updateService) ForgetFailure(ctx context.Context, r *connect.Request[apiv1.ForgetFailureRequest]) (*connect.Response[apiv1.ForgetFailureResponse], error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	forgotten, err := s.updates.ForgetFailure(ctx, r.Msg.Release)
	if errors.Is(err, install.ErrNoFailure) {
		return nil, connect.NewError(connect.CodeNotFound, err)
	}
	if err != nil {
		return nil, updateError(ctx, err)
	}
	return connect.NewResponse(&apiv1.ForgetFailureResponse{Forgotten: forgotten}), nil
}

// Limits of a release that comes over a call.
const (
	maxData    = 64 << 10        // bytes of one message
	maxIndex   = 256 << 10       // bytes of an index; more is none for update/release
	offerLimit = 2 * time.Minute // without a word from a caller who owes us some
)

// offer is the release that the caller of Update has. What of it is asked for comes
// over the call and goes on as it comes: nothing is kept in between, and a caller who
// is faster than the slot waits.
type offer struct {
	stream  *connect.BidiStream[apiv1.UpdateRequest, apiv1.UpdateResponse]
	control *http.ResponseController
	quiet   time.Duration // how long the caller may be silent
	number  uint32        // of the last want

	sending sync.Mutex // one sends at a time
}

var _ release.Source = (*offer)(nil)

// tell sends a step. A caller who has gone is noticed where something of his is read.
func (o *offer) tell(s install.Step) { _ = o.send(stepMessage(s)) }

func (o *offer) send(m *apiv1.UpdateResponse) error {
	o.sending.Lock()
	defer o.sending.Unlock()
	return o.stream.Send(m)
}

// Index asks for the index of the release.
func (o *offer) Index(ctx context.Context) ([]byte, error) {
	r, err := o.Blob(ctx, ocispec.Descriptor{}, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxIndex+1))
	if err == nil && len(data) > maxIndex {
		err = fmt.Errorf("the index is larger than %d bytes", maxIndex)
	}
	return data, err
}

// Blob asks for a blob from an offset on.
func (o *offer) Blob(_ context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	o.number++
	err := o.send(&apiv1.UpdateResponse{Part: &apiv1.UpdateResponse_Want{Want: &apiv1.Want{Number: o.number, Digest: string(d.Digest), Size: d.Size, Offset: offset}}})
	if err != nil {
		return nil, err
	}
	return &offered{offer: o, number: o.number}, nil
}

// offered is the answer to one want.
type offered struct {
	offer  *offer
	number uint32
	rest   []byte
	err    error
}

func (r *offered) Read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		r.rest, r.err = r.offer.next(r.number)
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close drops what has not come yet.
func (r *offered) Close() error {
	r.rest, r.err = nil, io.ErrClosedPipe
	return nil
}

// next is the next piece of the answer to want number. What answers older wants is on
// its way for a while, and dropped.
func (o *offer) next(number uint32) ([]byte, error) {
	if o.control != nil {
		_ = o.control.SetReadDeadline(time.Now().Add(o.quiet))
		defer func() { _ = o.control.SetReadDeadline(time.Time{}) }()
	}
	for {
		m, err := o.stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the caller disconnected: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return nil, err
		}
		if m.Want < number && m.GetStart() == nil {
			continue
		}
		switch part := m.Part.(type) {
		case *apiv1.UpdateRequest_Data:
			if len(part.Data) > maxData {
				return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%d bytes in one message: at most %d", len(part.Data), maxData))
			}
			if m.Want == number {
				return part.Data, nil
			}
		case *apiv1.UpdateRequest_End:
			if m.Want == number && part.End {
				return nil, io.EOF
			}
		case *apiv1.UpdateRequest_Lacking:
			if m.Want == number {
				return nil, fmt.Errorf("the caller says: %.300s", part.Lacking)
			}
		}
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a message that the node did not ask for"))
	}
}
