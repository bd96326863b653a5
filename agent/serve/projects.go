package serve

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/wanted"
	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
)

func (s *workloadService) Apply(_ context.Context, r *connect.Request[apiv1.ApplyRequest]) (*connect.Response[apiv1.ApplyResponse], error) {
	projects, err := known(s.projects)
	if err != nil {
		return nil, err
	}
	plan, warnings, err := projects.Apply(r.Msg.Project, []byte(r.Msg.Text), r.Msg.Check)
	if err != nil {
		return nil, projectError(err)
	}
	answer := planned(plan)
	for _, w := range warnings {
		answer.Warnings = append(answer.Warnings, w.Error())
	}
	return connect.NewResponse(answer), nil
}

func (s *workloadService) RemoveProject(_ context.Context, r *connect.Request[apiv1.RemoveProjectRequest]) (*connect.Response[apiv1.ApplyResponse], error) {
	projects, err := known(s.projects)
	if err != nil {
		return nil, err
	}
	plan, err := projects.Remove(r.Msg.Project)
	if err != nil {
		return nil, projectError(err)
	}
	return connect.NewResponse(planned(plan)), nil
}

func (s *workloadService) ListProjects(context.Context, *connect.Request[apiv1.ListProjectsRequest]) (*connect.Response[apiv1.ListProjectsResponse], error) {
	projects, err := known(s.projects)
	if err != nil {
		return nil, err
	}
	names, err := projects.Projects()
	if err != nil {
		return nil, projectError(err)
	}
	return connect.NewResponse(&apiv1.ListProjectsResponse{Projects: names}), nil
}

func planned(plan wanted.Plan) *apiv1.ApplyResponse {
	answer := &apiv1.ApplyResponse{}
	for _, s := range plan {
		answer.Steps = append(answer.Steps, &apiv1.Step{Container: s.Container, Image: s.Image, Change: string(s.Change)})
	}
	return answer
}

// projectError says whose mistake it is: the file's, or the node's.
func projectError(err error) error {
	var problems *nodeconfig.Problems
	switch {
	case errors.Is(err, wanted.ErrUnknown):
		return api.Refuse(connect.CodeNotFound, apiv1.Reason_REASON_NO_PROJECT, err)
	case errors.Is(err, wanted.ErrConflict):
		return connect.NewError(connect.CodeAlreadyExists, err)
	case errors.Is(err, workload.ErrNotAllowed), errors.Is(err, wanted.ErrMany):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.As(err, &problems), errors.Is(err, wanted.ErrName), errors.Is(err, wanted.ErrSize), errors.Is(err, wanted.ErrFull):
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}
