package serve

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/engine"
	"kogge.example/agent/workload"
)

// Volumes are the node's volumes.
type Volumes interface {
	ListVolumes(ctx context.Context) ([]engine.NamedVolume, error)
	RemoveVolume(ctx context.Context, name string) error
}

// volumeService answers for the volumes.
type volumeService struct{ volumes func() Volumes }

func (s *volumeService) ListVolumes(ctx context.Context, _ *connect.Request[apiv1.ListVolumesRequest]) (*connect.Response[apiv1.ListVolumesResponse], error) {
	volumes, err := known(s.volumes)
	if err != nil {
		return nil, err
	}
	all, err := volumes.ListVolumes(ctx)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	answer := &apiv1.ListVolumesResponse{}
	for _, v := range all {
		project, _ := workload.Split(v.Name)
		answer.Volumes = append(answer.Volumes, &apiv1.Volume{Name: v.Name, Project: project, Size: v.Size, Least: v.Least, UsedBy: v.By})
	}
	return connect.NewResponse(answer), nil
}

func (s *volumeService) RemoveVolume(ctx context.Context, r *connect.Request[apiv1.RemoveVolumeRequest]) (*connect.Response[apiv1.RemoveVolumeResponse], error) {
	volumes, err := known(s.volumes)
	if err != nil {
		return nil, err
	}
	switch err := volumes.RemoveVolume(ctx, r.Msg.Name); {
	case errors.Is(err, engine.ErrNoVolume):
		return nil, connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, engine.ErrInUse):
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	case err != nil:
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&apiv1.RemoveVolumeResponse{}), nil
}
