package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/imageref"
	"kogge.example/agent/images"
	"kogge.example/agent/registry"
	"kogge.example/agent/workload"
)

// Images is the store of the node's images.
type Images interface {
	Images(ctx context.Context) ([]images.Image, error)
	Load(ctx context.Context, tar io.Reader) ([]string, error)
	Pull(ctx context.Context, name, platform string, report func(workload.Progress)) error
	Digest(ctx context.Context, name string) (string, error)
	Forget(ctx context.Context, name string) error
	Prune(ctx context.Context, check bool) (gone []images.Image, freed int64, err error)
}

// imageService answers for the images.
type imageService struct{ images func() Images }

func (s *imageService) ListImages(ctx context.Context, _ *connect.Request[apiv1.ListImagesRequest]) (*connect.Response[apiv1.ListImagesResponse], error) {
	images, err := known(s.images)
	if err != nil {
		return nil, err
	}
	all, err := images.Images(ctx)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	answer := &apiv1.ListImagesResponse{}
	for _, i := range all {
		answer.Images = append(answer.Images, image(i))
	}
	return connect.NewResponse(answer), nil
}

// image is one line of the list.
func image(i images.Image) *apiv1.Image {
	one := &apiv1.Image{
		Name: i.Name, Digest: i.Digest, Size: i.Size, Disk: i.Disk, Created: timestamppb.New(i.Created),
		UsedBy: i.By, Preload: i.Preload, Pulling: i.Pulling,
	}
	if !i.Used.IsZero() {
		one.Used = timestamppb.New(i.Used)
	}
	return one
}

func (s *imageService) PruneImages(ctx context.Context, r *connect.Request[apiv1.PruneImagesRequest]) (*connect.Response[apiv1.PruneImagesResponse], error) {
	images, err := known(s.images)
	if err != nil {
		return nil, err
	}
	gone, freed, err := images.Prune(ctx, r.Msg.Check)
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	answer := &apiv1.PruneImagesResponse{Freed: freed}
	for _, i := range gone {
		answer.Images = append(answer.Images, image(i))
	}
	return connect.NewResponse(answer), nil
}

func (s *imageService) LoadImages(ctx context.Context, in *connect.ClientStream[apiv1.LoadImagesRequest]) (*connect.Response[apiv1.LoadImagesResponse], error) {
	images, err := known(s.images)
	if err != nil {
		return nil, err
	}
	names, err := images.Load(ctx, &parts{stream: in})
	if err != nil {
		if in.Err() != nil {
			return nil, in.Err() // the caller went away; the rest follows from that
		}
		code := connect.CodeInvalidArgument
		if errors.Is(err, registry.ErrFull) {
			code = connect.CodeResourceExhausted
		}
		return nil, connect.NewError(code, err)
	}
	return connect.NewResponse(&apiv1.LoadImagesResponse{Names: names}), nil
}

// parts is the stream of a tar as a reader: no more than one part waits in memory.
type parts struct {
	stream *connect.ClientStream[apiv1.LoadImagesRequest]
	rest   []byte
}

func (p *parts) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if !p.stream.Receive() {
			if err := p.stream.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		p.rest = p.stream.Msg().Part
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (s *imageService) PullImage(ctx context.Context, r *connect.Request[apiv1.PullImageRequest], out *connect.ServerStream[apiv1.PullImageResponse]) error {
	images, err := known(s.images)
	if err != nil {
		return err
	}
	name, err := imageref.Full(r.Msg.Name)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	now := &apiv1.PullImageResponse{Name: name}
	err = images.Pull(ctx, name, r.Msg.Platform, func(p workload.Progress) {
		next := pulled(name, p)
		if now.Pull != nil && proto.Equal(now, next) {
			return
		}
		if now = next; out.Send(now) != nil {
			cancel(context.Canceled) // the caller has gone
		}
	})
	if err != nil {
		return pullError(err)
	}
	if now.Digest, err = images.Digest(ctx, name); err != nil {
		return connect.NewError(connect.CodeInternal, err)
	}
	return out.Send(now)
}

func pulled(name string, p workload.Progress) *apiv1.PullImageResponse {
	answer := &apiv1.PullImageResponse{Name: name, Pull: &apiv1.Pull{Done: p.Done, Total: p.Total}}
	for _, l := range p.Layers {
		answer.Layers = append(answer.Layers, &apiv1.Layer{Digest: l.Digest, Done: l.Done, Size: l.Size, Before: l.Before, From: l.From})
	}
	return answer
}

// pullError says whose trouble it is.
func pullError(err error) error {
	code := connect.CodeAborted // the registry's, or of the way there
	switch {
	case errors.Is(err, registry.ErrDenied):
		return api.Refuse(connect.CodePermissionDenied, apiv1.Reason_REASON_REGISTRY_CREDENTIALS, err)
	case errors.Is(err, registry.ErrLocked):
		return api.Refuse(connect.CodeFailedPrecondition, apiv1.Reason_REASON_REGISTRIES_LOCKED, err)
	case errors.Is(err, registry.ErrMissing):
		code = connect.CodeNotFound
	case errors.Is(err, registry.ErrPlatform):
		code = connect.CodeFailedPrecondition
	case errors.Is(err, registry.ErrLie):
		code = connect.CodeDataLoss
	case errors.Is(err, registry.ErrFull):
		code = connect.CodeResourceExhausted
	case errors.Is(err, context.Canceled):
		code = connect.CodeCanceled
	}
	return connect.NewError(code, err)
}

func (s *imageService) RemoveImage(ctx context.Context, r *connect.Request[apiv1.RemoveImageRequest]) (*connect.Response[apiv1.RemoveImageResponse], error) {
	images, err := known(s.images)
	if err != nil {
		return nil, err
	}
	if !r.Msg.Force {
		if err := mayGo(ctx, images, r.Msg.Name); err != nil {
			return nil, err
		}
	}
	switch err := images.Forget(ctx, r.Msg.Name); {
	case errors.Is(err, workload.ErrNoImage):
		return nil, api.Refuse(connect.CodeNotFound, apiv1.Reason_REASON_NO_IMAGE, fmt.Errorf("image %q is not on this node", r.Msg.Name))
	case err != nil:
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	return connect.NewResponse(&apiv1.RemoveImageResponse{}), nil
}

// mayGo refuses the removal of an image that will be missed.
func mayGo(ctx context.Context, images Images, name string) error {
	full, err := imageref.Full(name)
	if err != nil {
		full = name // an older release may have stored it so
	}
	all, err := images.Images(ctx)
	if err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	for _, i := range all {
		switch {
		case i.Name != full && i.Name != name:
		case len(i.By) > 0:
			return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("image %s is in use by %s", i.Name, strings.Join(i.By, ", ")))
		case i.Preload:
			return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("image %s is preloaded: it would be back after the next boot", i.Name))
		}
	}
	return nil
}
