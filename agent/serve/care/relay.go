package care

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/door"
	"kogge.example/update/fleet"
)

// Limits of relays. Each costs some 100 KiB and two connections.
const (
	maxRelays      = 16
	maxRelaysOfKey = 8 // of one caller
	relayLimit     = 8 * time.Hour
	// relayQuiet is how long a relay may carry nothing: the two ends ask each other twice a minute
	// whether they are there.
	relayQuiet = 5 * time.Minute
	writeLimit = time.Minute // for what one end does not read
	reachLimit = 15 * time.Second
)

// Relay carries bytes between its caller and another node until either of them ends it.
//
//	caller ═TLS═▶ this node ─bytes─▶ that node
//	   └──────────────TLS─────────────▲
func (s *service) Relay(ctx context.Context, stream *connect.BidiStream[apiv1.RelayRequest, apiv1.RelayResponse]) error {
	if s.from.Reach == nil {
		return unable("has no seat, and carries nothing to others")
	}
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	if err := fleet.CheckName(first.Node); err != nil || len(first.Data) > 0 {
		return connect.NewError(connect.CodeInvalidArgument, errors.Join(errors.New("the first message names a node, and no more"), err))
	}
	caller := door.Caller(ctx).Key
	if err := s.enter(caller); err != nil {
		return connect.NewError(connect.CodeResourceExhausted, err)
	}
	defer s.leave(caller)
	ctx, cancel := context.WithTimeout(ctx, relayLimit)
	defer cancel()
	conn, err := s.reach(ctx, first.Node)
	if err != nil {
		return err
	}
	return carry(ctx, stream, conn)
}

func (s *service) reach(ctx context.Context, node string) (net.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	conn, err := s.from.Reach(limited, node)
	switch {
	case errors.Is(err, ErrNoNode):
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("node %s: %w", node, err))
	case err != nil:
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("node %s: %w", node, err))
	}
	return conn, nil
}

// enter takes a place for one more relay of a caller.
func (s *service) enter(caller string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.relays[caller] >= maxRelaysOfKey:
		return fmt.Errorf("%d ways through this node are open with your certificate: end one of them", s.relays[caller])
	case s.open >= maxRelays:
		return fmt.Errorf("%d ways through this node are open: it accepts no more", s.open)
	}
	s.open++
	s.relays[caller]++
	return nil
}

func (s *service) leave(caller string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.relays[caller]--; s.relays[caller] == 0 {
		delete(s.relays, caller)
	}
}

// ends is what carry does with its caller: a stream of the API.
type ends interface {
	Receive() (*apiv1.RelayRequest, error)
	Send(*apiv1.RelayResponse) error
}

// carry copies both ways, and returns when one of them has ended. It closes conn.
func carry(ctx context.Context, stream ends, conn net.Conn) error {
	control := door.StreamControl(ctx)
	var once sync.Once
	stop := func() { // whoever waits for one of the ends goes on
		once.Do(func() {
			conn.Close()
			if control != nil {
				_ = control.SetReadDeadline(time.Unix(1, 0))
				_ = control.SetWriteDeadline(time.Now().Add(time.Second))
			}
		})
	}
	defer context.AfterFunc(ctx, stop)()
	if err := stream.Send(&apiv1.RelayResponse{}); err != nil { // the way is open
		conn.Close()
		return err
	}
	var back sync.WaitGroup
	back.Go(func() {
		defer stop()
		download(stream, conn)
	})
	err := upload(stream, conn)
	stop()
	back.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// download hands to the caller what the node says.
func download(stream ends, conn net.Conn) {
	buffer := make([]byte, api.MaxInput)
	for {
		if conn.SetReadDeadline(time.Now().Add(relayQuiet)) != nil {
			return
		}
		n, err := conn.Read(buffer)
		if n > 0 && stream.Send(&apiv1.RelayResponse{Data: buffer[:n]}) != nil || err != nil {
			return
		}
	}
}

// upload hands to the node what the caller says. Only TLS is carried: another protocol would have
// this node speak for the caller, on its own network.
func upload(stream ends, conn net.Conn) error {
	for begun := false; ; begun = true {
		m, err := stream.Receive()
		if err != nil {
			return nil // either end has gone away, and knows
		}
		switch {
		case len(m.Data) > api.MaxInput || m.Node != "" || len(m.Data) == 0:
			return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%d bytes in one message: 1 to %d", len(m.Data), api.MaxInput))
		case !begun && m.Data[0] != handshake:
			return connect.NewError(connect.CodeInvalidArgument, errors.New("what does not begin as TLS is not carried"))
		}
		_ = conn.SetReadDeadline(time.Now().Add(relayQuiet)) // it is not silent
		if conn.SetWriteDeadline(time.Now().Add(writeLimit)) != nil {
			return nil
		}
		if _, err := conn.Write(m.Data); err != nil {
			return nil
		}
	}
}

// handshake is the first byte of TLS: the type of a record (RFC 8446, 5.1).
const handshake = 22
