package serve

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"

	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
)

// lined makes one line of every error that says no more than that: images and registries
// have words in some. What is wrong with a file that the caller sent has lines of its own.
type lined struct{}

func (lined) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		answer, err := next(ctx, r)
		return answer, inLine(err)
	}
}

func (lined) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (lined) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return inLine(next(ctx, conn))
	}
}

// inLine is err, with its code and details, in one line.
func inLine(err error) error {
	var problems *nodeconfig.Problems
	var its *connect.Error
	if !errors.As(err, &its) || errors.As(err, &problems) || errors.Is(err, workload.ErrNotAllowed) {
		return err
	}
	line := workload.Line(its.Message())
	if line == strings.TrimSpace(its.Message()) {
		return err
	}
	flat := connect.NewError(its.Code(), errors.New(line))
	for _, d := range its.Details() {
		flat.AddDetail(d)
	}
	for name, values := range its.Meta() {
		flat.Meta()[name] = values
	}
	return flat
}
