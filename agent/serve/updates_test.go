package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/events"
	"kogge.example/agent/install"
	"kogge.example/update/release"
	"kogge.example/update/slot"
)

// slots stands for the node's slots: update says what becomes of an order.
type slots struct {
	update func(ctx context.Context, o install.Order, report func(install.Step)) error
}

func (s *slots) Update(ctx context.Context, o install.Order, report func(install.Step)) error {
	return s.update(ctx, o, report)
}

func (s *slots) Rollback(_ context.Context, o install.Order, report func(install.Step)) error {
	when, by := o.When, o.By
	if when != install.Manual {
		return fmt.Errorf("%w: slot B is empty", install.ErrRefused)
	}
	report(install.Step{Step: install.Armed, Slot: "B", Version: "1.0", Text: "by " + by})
	return nil
}

func (s *slots) Slots(context.Context) (install.Slots, error) {
	return install.Slots{Slots: []install.Slot{
		{Slot: "A", Running: true, State: install.Proven, Version: "1.0", Number: 1},
		{Slot: "B", State: install.Failed, Version: "1.1", Text: "agent not ready", Number: 2},
	}, Assessment: "good", RebootAt: time.Unix(1_700_000_000, 0)}, nil
}

func (s *slots) History(context.Context) ([]install.Boot, error) {
	return []install.Boot{{Time: time.Unix(1_700_000_000, 0), Slot: "A", Version: "1.0", Verdict: "good", Took: 20 * time.Second}}, nil
}

func (s *slots) ForgetFailure(_ context.Context, release string) ([]string, error) {
	if release != "1.1" {
		return nil, install.ErrNoFailure
	}
	return []string{"1.1"}, nil
}

// shelf is a release in memory: an index, and blobs by their digests.
type shelf struct {
	index []byte
	blobs map[digest.Digest][]byte
	err   error // of every blob
}

func (s *shelf) Index(context.Context) ([]byte, error) { return s.index, nil }

func (s *shelf) Blob(_ context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	blob, ok := s.blobs[d.Digest]
	if !ok || s.err != nil {
		return nil, errors.Join(fmt.Errorf("there is no blob %s", d.Digest), s.err)
	}
	return io.NopCloser(bytes.NewReader(blob[offset:])), nil
}

// add puts a blob of a size on the shelf.
func (s *shelf) add(size int) ocispec.Descriptor {
	blob := make([]byte, size)
	for i := range blob {
		blob[i] = byte(i * 7 >> 3)
	}
	d := ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(size)}
	s.blobs[d.Digest] = blob
	return d
}

// updating is a client of a node whose updates are as update says.
func updating(t *testing.T, update func(context.Context, install.Order, func(install.Step)) error) (*api.Client, *events.Ring) {
	ring := new(events.Ring)
	address, f, _ := ready(t, func(c *Config) { c.Updates, c.Events = &slots{update}, ring })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	t.Cleanup(c.Close)
	return c, ring
}

// TestSendRelease has a node read a release from its caller: some of it twice, some of it not
// to its end, and from the middle on.
func TestSendRelease(t *testing.T) {
	s := &shelf{index: []byte(strings.Repeat("an index ", 20_000)), blobs: map[digest.Digest][]byte{}}
	small, large, none := s.add(1), s.add(3<<20+17), s.add(0)
	var order install.Order
	c, ring := updating(t, func(ctx context.Context, o install.Order, report func(install.Step)) error {
		order = o
		index, err := o.Source.Index(ctx)
		if err != nil || !bytes.Equal(index, s.index) {
			return fmt.Errorf("index of %d bytes, %v", len(index), err)
		}
		for _, want := range []struct {
			d      ocispec.Descriptor
			offset int64
			read   int64
		}{{small, 0, 1}, {large, 0, 100_000}, {none, 0, 0}, {large, 0, large.Size}, {large, 0, 0}, {large, 1 << 20, large.Size - 1<<20}, {small, 1, 0}} {
			r, err := o.Source.Blob(ctx, want.d, want.offset)
			if err != nil {
				return err
			}
			got, err := io.ReadAll(io.LimitReader(r, want.read))
			if err != nil {
				return err
			}
			if whole := s.blobs[want.d.Digest]; !bytes.Equal(got, whole[want.offset:][:want.read]) {
				return fmt.Errorf("%+v: other bytes", want)
			}
			if err := r.Close(); err != nil {
				return err
			}
			report(install.Step{Step: install.Staging, Slot: "B", Done: want.read})
		}
		report(install.Step{Step: install.Armed, Slot: "B", Version: "1.1"})
		return nil
	})
	var steps []string
	err := c.SendRelease(timeout(t), &apiv1.UpdateStart{Reboot: apiv1.Reboot_REBOOT_MANUAL}, s, func(s *apiv1.UpdateStep) error {
		steps = append(steps, s.Step)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if order.When != install.Manual || order.From != "" || order.By != "ada" || len(steps) != 8 || steps[7] != "armed" {
		t.Errorf("order %+v, steps %v", order, steps)
	}
	told, _, _ := ring.After(0)
	if e := told[len(told)-1]; e.Object != "slot B" || e.What != "armed" || e.Text != "release 1.1" || e.By != "ada" {
		t.Errorf("event %+v", e)
	}
}

// TestBringFails: each side says what went wrong on its own, and the node's words are
// the last.
func TestBringFails(t *testing.T) {
	s := &shelf{index: []byte("{}"), blobs: map[digest.Digest][]byte{}}
	large := s.add(1 << 20)
	var update func(context.Context, install.Order) error
	c, ring := updating(t, func(ctx context.Context, o install.Order, _ func(install.Step)) error { return update(ctx, o) })
	bring := func(src *shelf, start *apiv1.UpdateStart) error {
		var from interface {
			Index(context.Context) ([]byte, error)
			Blob(context.Context, ocispec.Descriptor, int64) (io.ReadCloser, error)
		}
		if src != nil {
			from = src
		}
		return c.SendRelease(timeout(t), start, from, func(*apiv1.UpdateStep) error { return nil })
	}

	update = func(_ context.Context, o install.Order) error {
		return fmt.Errorf("%w: slot B: the image is 800 MiB, the slot is 768 MiB", install.ErrRefused)
	}
	err := bring(s, &apiv1.UpdateStart{})
	has(t, err, "failed_precondition", "the slot is 768 MiB")

	update = func(context.Context, install.Order) error { return install.ErrBusy }
	has(t, bring(s, &apiv1.UpdateStart{}), "aborted", "another update is running")

	update = func(context.Context, install.Order) error { return errors.New("sync: input/output error") }
	has(t, bring(s, &apiv1.UpdateStart{}), "internal", "input/output error")

	update = func(ctx context.Context, o install.Order) error {
		_, err := io.ReadAll(must(o.Source.Blob(ctx, ocispec.Descriptor{Digest: digest.Digest("sha256:" + strings.Repeat("0", 64)), Size: 1}, 0)))
		return err
	}
	has(t, bring(s, &apiv1.UpdateStart{}), "there is no blob sha256:0000")

	// The node was to fetch it, and asks all the same.
	has(t, bring(nil, &apiv1.UpdateStart{}), "should get elsewhere")

	var from string
	update = func(_ context.Context, o install.Order) error {
		if from = o.From; o.Source != nil {
			return errors.New("there is a source")
		}
		return nil
	}
	if err := bring(nil, &apiv1.UpdateStart{From: "usb:"}); err != nil || from != "usb:" {
		t.Errorf("from %q: %v", from, err)
	}
	has(t, bring(nil, &apiv1.UpdateStart{From: "usb:", Reboot: 17}), "invalid_argument", "unknown way to reboot: number 17")

	// The caller goes away in the middle: the node hears it where it reads.
	heard := make(chan error, 1)
	ctx, leave := context.WithCancel(timeout(t))
	update = func(ctx context.Context, o install.Order) error {
		r, err := o.Source.Blob(ctx, large, 0)
		if err == nil {
			_, err = io.ReadFull(r, make([]byte, 1000))
		}
		if err != nil {
			heard <- fmt.Errorf("before he left: %w", err)
			return err
		}
		leave()
		_, err = io.ReadAll(r)
		heard <- err
		return err
	}
	if err := c.SendRelease(ctx, &apiv1.UpdateStart{}, &slow{s}, func(*apiv1.UpdateStep) error { return nil }); err == nil {
		t.Error("left, and no error")
	}
	if err := <-heard; err == nil || strings.Contains(err.Error(), "before") {
		t.Errorf("the node heard %v", err)
	}
	if told, _, _ := ring.After(0); len(told) > 0 {
		t.Errorf("events of what was not done: %+v", told)
	}
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

// slow is a shelf whose blobs never end.
type slow struct{ *shelf }

func (s *slow) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := s.shelf.Blob(ctx, d, offset)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(r, 2000), waiting{ctx})), nil
}

type waiting struct{ context.Context }

func (w waiting) Read([]byte) (int, error) {
	<-w.Done()
	return 0, w.Err()
}

// TestReasonOf: a caller learns over the wire what is in the way.
func TestReasonOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want apiv1.Reason
	}{
		{release.ErrSignatures, apiv1.Reason_REASON_SIGNATURES},
		{release.ErrExpired, apiv1.Reason_REASON_EXPIRED},
		{slot.ErrFailedBefore, apiv1.Reason_REASON_FAILED_BEFORE},
		{release.ErrServer, apiv1.Reason_REASON_SERVER},
		{slot.ErrTooSmall, apiv1.Reason_REASON_UNSPECIFIED},
	} {
		c, _ := updating(t, func(context.Context, install.Order, func(install.Step)) error {
			return fmt.Errorf("%w: release 1.1: %w", install.ErrRefused, test.err)
		})
		err := c.SendRelease(timeout(t), &apiv1.UpdateStart{From: "usb:"}, nil, func(*apiv1.UpdateStep) error { return nil })
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || api.ReasonOf(err) != test.want || !strings.Contains(err.Error(), test.err.Error()) {
			t.Errorf("%v: the caller gets reason %s, want %s: %v", test.err, api.ReasonOf(err), test.want, err)
		}
	}
	if got := api.ReasonOf(io.EOF); got != apiv1.Reason_REASON_UNSPECIFIED {
		t.Errorf("an error of no call names rule %s", got)
	}
}

// TestUpdateTalk: what a caller says out of turn ends the call, and a silent one is not
// waited for for ever.
func TestUpdateTalk(t *testing.T) {
	blob := ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}
	c, _ := updating(t, func(ctx context.Context, o install.Order, _ func(install.Step)) error {
		o.Source.(*offer).quiet = 200 * time.Millisecond
		r, err := o.Source.Blob(ctx, blob, 0)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r)
		if err == nil && string(got) != "x" {
			err = fmt.Errorf("%w: got %q", install.ErrRefused, got)
		}
		return err
	})
	data := func(want uint32, text string) *apiv1.UpdateRequest {
		return &apiv1.UpdateRequest{Part: &apiv1.UpdateRequest_Data{Data: []byte(text)}, Want: want}
	}
	start := &apiv1.UpdateRequest{Part: &apiv1.UpdateRequest_Start{Start: &apiv1.UpdateStart{}}}
	end := &apiv1.UpdateRequest{Part: &apiv1.UpdateRequest_End{End: true}, Want: 1}
	for _, test := range []struct {
		name string
		say  []*apiv1.UpdateRequest
		want string
	}{
		{"as it should be", []*apiv1.UpdateRequest{start, data(1, "x"), end}, ""},
		{"of an older want", []*apiv1.UpdateRequest{start, data(0, "y"), data(1, "x"), end}, ""},
		{"no start", []*apiv1.UpdateRequest{data(1, "x")}, "the first message has to say what to install"},
		{"nothing at all", []*apiv1.UpdateRequest{{}}, "the first message has to say what to install"},
		{"two starts", []*apiv1.UpdateRequest{start, start}, "did not ask for"},
		{"of a later want", []*apiv1.UpdateRequest{start, data(2, "x")}, "did not ask for"},
		{"an end that is none", []*apiv1.UpdateRequest{start, {Part: &apiv1.UpdateRequest_End{}, Want: 1}}, "did not ask for"},
		{"too much at once", []*apiv1.UpdateRequest{start, data(1, strings.Repeat("x", maxData+1))}, "at most 65536"},
		{"lacking", []*apiv1.UpdateRequest{start, {Part: &apiv1.UpdateRequest_Lacking{Lacking: "the disk is broken"}, Want: 1}}, "the caller says: the disk is broken"},
		{"silence", []*apiv1.UpdateRequest{start}, "."},
		{"silence after some", []*apiv1.UpdateRequest{start, data(1, "x")}, "."},
	} {
		ctx, cancel := context.WithCancel(timeout(t))
		stream := c.Update(ctx)
		for _, m := range test.say {
			if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%s: send: %v", test.name, err)
			}
		}
		var err error
		for err == nil {
			_, err = stream.Receive()
		}
		switch {
		case test.want == "" && !errors.Is(err, io.EOF):
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (errors.Is(err, io.EOF) || !strings.Contains(err.Error(), strings.Trim(test.want, "."))):
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		cancel()
	}
}

// TestSlotCalls asks for everything else about slots.
func TestSlotCalls(t *testing.T) {
	c, _ := updating(t, nil)
	all, err := c.ListSlots(timeout(t), connect.NewRequest(&apiv1.ListSlotsRequest{}))
	if err != nil || len(all.Msg.Slots) != 2 || all.Msg.Slots[1].Text != "agent not ready" || all.Msg.BootId == "" || all.Msg.RebootAt.GetSeconds() != 1_700_000_000 {
		t.Errorf("slots: %v, %v", all, err)
	}
	history, err := c.History(timeout(t), connect.NewRequest(&apiv1.HistoryRequest{}))
	if err != nil || len(history.Msg.Boots) != 1 || history.Msg.Boots[0].Seconds != 20 {
		t.Errorf("history: %v, %v", history, err)
	}
	forgotten, err := c.ForgetFailure(timeout(t), connect.NewRequest(&apiv1.ForgetFailureRequest{Release: "1.1"}))
	if err != nil || forgotten.Msg.Forgotten[0] != "1.1" {
		t.Errorf("forget: %v, %v", forgotten, err)
	}
	_, err = c.ForgetFailure(timeout(t), connect.NewRequest(&apiv1.ForgetFailureRequest{Release: "1.2"}))
	has(t, err, "not_found")
	rollback := func(when apiv1.Reboot) (string, error) {
		stream, err := c.Rollback(timeout(t), connect.NewRequest(&apiv1.RollbackRequest{Reboot: when}))
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		said := ""
		for stream.Receive() {
			said += stream.Msg().GetStep().GetStep() + " " + stream.Msg().GetStep().GetText()
		}
		return said, stream.Err()
	}
	if said, err := rollback(apiv1.Reboot_REBOOT_MANUAL); said != "armed by ada" || err != nil {
		t.Errorf("rollback: %q, %v", said, err)
	}
	_, err = rollback(apiv1.Reboot_REBOOT_NOW)
	has(t, err, "failed_precondition", "slot B is empty")

	address, f, _ := ready(t, nil)
	lone := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer lone.Close()
	_, err = lone.ListSlots(timeout(t), connect.NewRequest(&apiv1.ListSlotsRequest{}))
	has(t, err, "unavailable", "no slots")
}
