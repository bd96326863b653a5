package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/door"
	"kogge.example/agent/identity"
	"kogge.example/agent/logs"
	"kogge.example/agent/machine"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
)

// nodeService answers for the machine.
type nodeService struct {
	node    *identity.Node
	machine machine.Machine
	end     func(keys []string) // ends the calls of those who have them
}

func (s *nodeService) Status(ctx context.Context, _ *connect.Request[apiv1.StatusRequest]) (*connect.Response[apiv1.StatusResponse], error) {
	status := s.machine.Status(ctx)
	status.Fleet, status.Node = s.node.Genesis().ID(), s.node.Name()
	return connect.NewResponse(status), nil
}

func (s *nodeService) ServiceLogs(ctx context.Context, r *connect.Request[apiv1.ServiceLogsRequest], out *connect.ServerStream[apiv1.LogLines]) error {
	c, err := s.machine.Pid1(ctx)
	if err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := &logs.Batch{Send: out.Send}
	err = c.Logs(ctx, r.Msg.Service, int(r.Msg.Tail), r.Msg.Follow, func(line string) {
		err := b.Add(line)
		if err == nil && r.Msg.Follow {
			err = b.Flush()
		}
		if err != nil {
			cancel(err) // the caller has gone
		}
	})
	switch {
	case errors.Is(err, control.ErrNoService):
		return api.Refuse(connect.CodeNotFound, apiv1.Reason_REASON_NO_SERVICE, err)
	case err != nil:
		return connect.NewError(connect.CodeUnavailable, err)
	}
	return b.Flush()
}

func (s *nodeService) KernelLog(ctx context.Context, r *connect.Request[apiv1.KernelLogRequest], out *connect.ServerStream[apiv1.LogLines]) error {
	return logs.Kernel(ctx, s.machine.KernelLog(), r.Msg.Follow, &logs.Batch{Send: out.Send})
}

func (s *nodeService) RestartService(ctx context.Context, r *connect.Request[apiv1.RestartServiceRequest]) (*connect.Response[apiv1.RestartServiceResponse], error) {
	err := s.ask(ctx, func(c *control.Client) error { return c.Restart(ctx, r.Msg.Service) })
	return connect.NewResponse(&apiv1.RestartServiceResponse{}), err
}

func (s *nodeService) Reboot(ctx context.Context, r *connect.Request[apiv1.RebootRequest]) (*connect.Response[apiv1.RebootResponse], error) {
	err := s.ask(ctx, func(c *control.Client) error {
		if r.Msg.Poweroff {
			return c.Poweroff(ctx)
		}
		return c.Reboot(ctx)
	})
	return connect.NewResponse(&apiv1.RebootResponse{}), err
}

// ask has PID 1 do something.
func (s *nodeService) ask(ctx context.Context, what func(*control.Client) error) error {
	c, err := s.machine.Pid1(ctx)
	if err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	defer c.Close()
	if err := what(c); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return nil
}

func (s *nodeService) Adopt(ctx context.Context, r *connect.Request[apiv1.AdoptRequest]) (*connect.Response[apiv1.AdoptResponse], error) {
	if len(r.Msg.Nonce) != api.NonceSize {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("nonce has %d bytes, expected %d", len(r.Msg.Nonce), api.NonceSize))
	}
	answer := &apiv1.AdoptResponse{Hostname: s.machine.Hostname()}
	if len(r.Msg.Certificate) > 0 {
		err := s.revoke(ctx, r.Msg.Revoked, func() error { return s.node.AdoptKnowing(r.Msg.Revoked, r.Msg.Certificate) })
		return connect.NewResponse(answer), err
	}
	var err error
	if answer.Request, answer.Mac, err = s.node.Answer(r.Msg.Nonce); err != nil {
		if errors.Is(err, identity.ErrAdopted) {
			return nil, connect.NewError(connect.CodeAlreadyExists, err)
		}
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return connect.NewResponse(answer), nil
}

func (s *nodeService) Renew(_ context.Context, r *connect.Request[apiv1.RenewRequest]) (*connect.Response[apiv1.RenewResponse], error) {
	if bytes.Equal(r.Msg.Certificate, s.node.Certificate().Certificate[0]) {
		return connect.NewResponse(&apiv1.RenewResponse{}), nil
	}
	if err := s.node.Renew(r.Msg.Certificate); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	log.Printf("api: the certificate of this node is now valid until %s", s.node.Certificate().Leaf.NotAfter.UTC().Format(time.DateOnly))
	return connect.NewResponse(&apiv1.RenewResponse{}), nil
}

func (s *nodeService) Revoke(ctx context.Context, r *connect.Request[apiv1.RevokeRequest]) (*connect.Response[apiv1.RevokeResponse], error) {
	revoke := s.node.Revoke
	if r.Msg.All {
		revoke = s.node.RevokeAll
	}
	if err := s.revoke(ctx, r.Msg.Keys, func() error { return errors.Join(revoke(r.Msg.Keys...), s.node.LetIn(r.Msg.LetIn...)) }); err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.RevokeResponse{Told: s.node.Told(), Forgets: s.node.Forgets()}), nil
}

// revoke ends the calls of keys that count as revoked after change, whatever comes of that. The caller's
// own key is not among them: with it he might lock the last admin out.
func (s *nodeService) revoke(ctx context.Context, keys []string, change func() error) error {
	peer := door.Caller(ctx)
	err := fmt.Errorf("revoke key %s: it is your own key", fleet.Short(peer.Key))
	if !slices.Contains(keys, peer.Key) {
		err = change()
		s.end(slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return !s.node.Revoked(key) }))
	}
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return nil
}
