package gossip

import (
	"context"

	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Transport reaches peers, and proves which seat each of them has.
type Transport interface {
	// Dial opens a session with a seat. It returns when ctx ends.
	Dial(ctx context.Context, seat roster.Seat) (Session, error)
	// Accept is the next session that a peer has opened. It returns when ctx ends.
	Accept(ctx context.Context) (Session, error)
}

// Session is a way to a peer and back, for frames of at most [wire.MaxFrame] bytes, in order. Send
// and Receive are each called by one goroutine.
type Session interface {
	// Peer is the key of the seat that the peer has proved to hold.
	Peer() signed.Key
	// Send sends frames together, or fails within a time of its own, for good.
	Send(frames [][]byte) error
	// Receive waits for the next frame. The caller owns it.
	Receive() ([]byte, error)
	// Close ends the session, and what waits in it. It may be called again.
	Close() error
}
