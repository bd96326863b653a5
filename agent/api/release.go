package api

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/release"
)

// SendRelease has the node install a release: the one in src, of which it sends what the node
// asks for, or where src is nil the one that start names. show gets each step. It
// returns nil once the node has done all that start asks for; a call that broke goes on
// where it was when it is made again.
func (c *Client) SendRelease(ctx context.Context, start *apiv1.UpdateStart, src release.Source, show func(*apiv1.UpdateStep) error) error {
	ctx, cancel := context.WithCancel(ctx)
	stream := c.Update(ctx)
	b := &bringer{src: src, send: stream.Send}
	defer b.feeding.Wait()
	defer cancel()
	defer stream.CloseResponse()
	if err := stream.Send(&apiv1.UpdateRequest{Part: &apiv1.UpdateRequest_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	// While the request has no end, nothing but this tells the transport of ctx's.
	stop := context.AfterFunc(ctx, func() { _ = stream.CloseRequest() })
	defer stop()
	for {
		m, err := stream.Receive()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && b.failure() != nil:
			return b.failure() // which is why the node gave up
		case err != nil:
			return err
		}
		switch part := m.Part.(type) {
		case *apiv1.UpdateResponse_Want:
			b.answer(ctx, part.Want)
		case *apiv1.UpdateResponse_Step:
			if err := show(part.Step); err != nil {
				return err
			}
		}
	}
}

// bringer answers one want after the other.
type bringer struct {
	src     release.Source
	send    func(*apiv1.UpdateRequest) error
	feeding sync.WaitGroup
	stop    context.CancelFunc // ends the last one
	over    chan struct{}      // closed when that has ended

	mu  sync.Mutex // guards err
	err error      // of reading src
}

func (b *bringer) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// answer ends what is being sent, and sends what w asks for from a goroutine of its own:
// the node may want something else before that is over.
func (b *bringer) answer(ctx context.Context, w *apiv1.Want) {
	before, over := b.over, make(chan struct{})
	if b.stop != nil {
		b.stop()
	}
	ctx, b.stop = context.WithCancel(ctx)
	b.over = over
	b.feeding.Go(func() {
		defer close(over)
		if before != nil {
			<-before
		}
		last := &apiv1.UpdateRequest{Part: &apiv1.UpdateRequest_End{End: true}, Want: w.Number}
		if err := b.feed(ctx, w); err != nil {
			if ctx.Err() != nil {
				return
			}
			b.mu.Lock()
			b.err = err
			b.mu.Unlock()
			last.Part = &apiv1.UpdateRequest_Lacking{Lacking: err.Error()}
		}
		_ = b.send(last) // Receive says why it could not be sent
	})
}

// feed sends what w asks for. Its errors are those of the release.
func (b *bringer) feed(ctx context.Context, w *apiv1.Want) error {
	if b.src == nil {
		return errors.New("the node asks this computer for a release that it should get elsewhere")
	}
	if w.Digest == "" {
		index, err := b.src.Index(ctx)
		if err != nil {
			return err
		}
		for len(index) > 0 && b.data(w, index[:min(len(index), sendSize)]) {
			index = index[min(len(index), sendSize):]
		}
		return nil
	}
	blob, err := b.src.Blob(ctx, ocispec.Descriptor{Digest: digest.Digest(w.Digest), Size: w.Size}, w.Offset)
	if err != nil {
		return err
	}
	defer blob.Close()
	buffer := make([]byte, sendSize)
	for ctx.Err() == nil {
		n, err := blob.Read(buffer)
		if n > 0 && !b.data(w, buffer[:n]) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// sendSize is half of what the node takes in one message, in bytes.
const sendSize = 32 << 10

// data sends a piece, and says whether it could.
func (b *bringer) data(w *apiv1.Want, piece []byte) bool {
	return b.send(&apiv1.UpdateRequest{Part: &apiv1.UpdateRequest_Data{Data: piece}, Want: w.Number}) == nil
}
