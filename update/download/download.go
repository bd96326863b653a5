// Package download is the HTTP of bytes whose digest is known. In goes a request, out
// comes the body as it lies on the server, or an error: what the other side sends costs
// no more than the bytes, and no longer than they keep coming. Connections are made by [Dial].
package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Stall ends a connection over which nothing comes.
const Stall = time.Minute

// ErrStalled says that the other side has fallen silent, and ErrEncoding that it sends
// something else than the bytes themselves.
var (
	ErrStalled  = errors.New("no data for a minute")
	ErrEncoding = errors.New("the answer has an encoding that was not asked for")
)

// Transport asks for bodies without an encoding of their own, and ends requests that
// stall with ErrStalled. A reader may be as slow as it likes.
type Transport struct {
	Base  http.RoundTripper
	Stall time.Duration
}

// RoundTrip sends a request. Its body is not to be long: time that goes by while it is
// sent counts.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	b := &body{ctx: ctx, cancel: cancel, stall: t.Stall}
	b.timer = time.AfterFunc(t.Stall, func() { cancel(ErrStalled) })
	req = req.Clone(ctx)
	// A digest is of the bytes as they are, and a window of decompression is memory that
	// the other side chooses.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := t.Base.RoundTrip(req)
	b.timer.Stop()
	if err == nil {
		b.ReadCloser = resp.Body
		if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
			_ = b.ReadCloser.Close()
			err = fmt.Errorf("%s: %w: %.20q", req.URL.Host, ErrEncoding, e)
		}
	}
	if err != nil {
		err = b.why(err)
		cancel(nil)
		return nil, err
	}
	resp.Body = b
	return resp, nil
}

// body is an answer that may not stall.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

func (b *body) why(err error) error {
	if context.Cause(b.ctx) == ErrStalled {
		return ErrStalled
	}
	return err
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall) // and not while the reader is busy: that is no fault of theirs
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil {
		err = b.why(err) // also for an end: a body that was cut off may seem whole
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}
