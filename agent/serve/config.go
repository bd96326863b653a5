package serve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/compose"
	"kogge.example/agent/install"
	"kogge.example/agent/machine"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// configService answers for node.yaml. PID 1 owns it; what is asked of it here is
// whether the workloads are good, which PID 1 is too small to know.
type configService struct {
	machine  machine.Machine
	projects func() Projects
}

// Revision names a text of node.yaml.
func Revision(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func (s *configService) GetConfig(ctx context.Context, _ *connect.Request[apiv1.GetConfigRequest]) (*connect.Response[apiv1.GetConfigResponse], error) {
	for tries := 1; ; tries++ {
		state, err := s.pid1(ctx, func(c *control.Client) (*control.Config, error) { return c.Config(ctx) })
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(s.machine.RunFile("node.yaml"))
		if err != nil {
			return nil, connect.NewError(connect.CodeUnavailable, err)
		}
		if Revision(text) == state.Running {
			return connect.NewResponse(&apiv1.GetConfigResponse{Text: string(text), State: state}), nil
		}
		if tries == 8 { // it may have changed in between, but not each time
			return nil, connect.NewError(connect.CodeUnavailable, errors.New("somebody else is changing node.yaml"))
		}
	}
}

func (s *configService) SetConfig(ctx context.Context, r *connect.Request[apiv1.SetConfigRequest]) (*connect.Response[apiv1.SetConfigResponse], error) {
	text := []byte(r.Msg.Text)
	warnings, err := s.check(text)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	file, err := s.machine.HandOver(text)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	defer os.Remove(file)
	state, err := s.pid1(ctx, func(c *control.Client) (*control.Config, error) {
		return c.Set(ctx, control.Request{
			File: filepath.Base(file), SHA256: Revision(text), Base: r.Msg.Base, Check: r.Msg.Check, UndoSeconds: int(r.Msg.UndoSeconds),
		})
	})
	if err != nil {
		return nil, err
	}
	state.Warnings = append(state.Warnings, warnings...)
	return connect.NewResponse(&apiv1.SetConfigResponse{State: state}), nil
}

// check reads a node.yaml as PID 1 and the agent will, and returns warnings.
func (s *configService) check(text []byte) ([]string, error) {
	config, err := nodeconfig.Parse("node.yaml", text)
	if err != nil {
		return nil, err
	}
	own, warned, err := compose.Parse("", config.Workloads.File, config.Workloads.Text)
	var warnings []string
	for _, w := range warned {
		warnings = append(warnings, w.Error())
	}
	for _, c := range own {
		err = errors.Join(err, workload.Denied(c, config.Allow))
	}
	if projects := s.projects(); err == nil && projects != nil {
		_, err = projects.Check(own)
	}
	if !config.Update.Window.IsZero() {
		_, zone := install.Opens(config.Update, time.Now())
		err = errors.Join(err, zone)
	}
	return warnings, err
}

func (s *configService) ConfirmConfig(ctx context.Context, r *connect.Request[apiv1.ConfirmConfigRequest]) (*connect.Response[apiv1.ConfirmConfigResponse], error) {
	state, err := s.pid1(ctx, func(c *control.Client) (*control.Config, error) { return c.Confirm(ctx, r.Msg.Revision) })
	return connect.NewResponse(&apiv1.ConfirmConfigResponse{State: state}), err
}

func (s *configService) UndoConfig(ctx context.Context, _ *connect.Request[apiv1.UndoConfigRequest]) (*connect.Response[apiv1.UndoConfigResponse], error) {
	state, err := s.pid1(ctx, func(c *control.Client) (*control.Config, error) { return c.Undo(ctx) })
	return connect.NewResponse(&apiv1.UndoConfigResponse{State: state}), err
}

// configLimit bounds a question to PID 1, which may write to a slow disk for it.
const configLimit = 20 * time.Second

func (s *configService) pid1(ctx context.Context, what func(*control.Client) (*control.Config, error)) (*apiv1.ConfigState, error) {
	ctx, cancel := context.WithTimeout(ctx, configLimit)
	defer cancel()
	c, err := s.machine.Pid1(ctx)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	defer c.Close()
	state, err := what(c)
	if err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return &apiv1.ConfigState{
		State: state.State, Running: state.Running, Kept: state.Kept, UndoSeconds: int32(state.UndoSeconds),
		Last: state.Last, Restarts: state.Restarts, Warnings: state.Warnings,
	}, nil
}
