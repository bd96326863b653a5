package serve

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/init/control"
)

func (s *upkeepService) Reset(ctx context.Context, r *connect.Request[apiv1.ResetRequest]) (*connect.Response[apiv1.ResetResponse], error) {
	if r.Msg.Node != s.node.Name() {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("this is node %s, not %q", s.node.Name(), r.Msg.Node))
	}
	wish := control.Request{KeepConfig: r.Msg.KeepConfig}
	if r.Msg.Join != "" {
		join := []byte(r.Msg.Join)
		if _, err := identity.ParseJoinFile("join.yaml", join); err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
		file, err := s.machine.HandOver(join)
		if err != nil {
			return nil, connect.NewError(connect.CodeUnavailable, err)
		}
		defer os.Remove(file)
		wish.File, wish.SHA256 = filepath.Base(file), Revision(join)
	}
	c, err := s.machine.Pid1(ctx)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	defer c.Close()
	if err := c.Reset(ctx, wish); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	// From here on the next boot does it, whenever that is.
	if err := c.Reboot(ctx); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return connect.NewResponse(&apiv1.ResetResponse{}), nil
}
