package care

import (
	"cmp"
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
	maxRelays  = 16
	relayLimit = 8 * time.Hour
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
	caller := door.Caller(ctx)
	if err := s.relays.enter(caller); err != nil {
		return connect.NewError(connect.CodeResourceExhausted, err)
	}
	defer s.relays.leave(caller)
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

// relays are the ways that are open.
type relays struct {
	mu     sync.Mutex // guards what follows
	byKey  map[string]int
	byRole map[fleet.Role]int
}

// relaysOf is how many ways callers of a role, and of those below it, have at most, and one of these
// callers: those who may less never have all, so that whoever may more finds a place.
func relaysOf(role fleet.Role) (most, mostOfKey int) {
	switch most = maxRelays / 2; {
	case role.AtLeast(fleet.RoleAdmin):
		most = maxRelays
	case role.AtLeast(fleet.RoleOperator):
		most = maxRelays * 3 / 4
	}
	return most, most / 2
}

// enter takes a place for one more relay of a caller.
func (r *relays) enter(caller fleet.Peer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, most := relaysOf(caller.Role); r.byKey[caller.Key] >= most {
		return fmt.Errorf("%d ways through this node are open with your certificate: end one of them", r.byKey[caller.Key])
	}
	open := 0
	for _, role := range fleet.Roles {
		open += r.byRole[role]
		if most, _ := relaysOf(role); open >= most && role.AtLeast(caller.Role) {
			return fmt.Errorf("%d ways through this node are open for the role %s and those below it: it accepts no more", open, role)
		}
	}
	r.byKey[caller.Key]++
	r.byRole[cmp.Or(caller.Role, fleet.RoleReader)]++
	return nil
}

func (r *relays) leave(caller fleet.Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byRole[cmp.Or(caller.Role, fleet.RoleReader)]--
	if r.byKey[caller.Key]--; r.byKey[caller.Key] == 0 {
		delete(r.byKey, caller.Key)
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
