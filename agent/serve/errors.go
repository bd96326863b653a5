package serve

import (
	"errors"
	"strings"

	"connectrpc.com/connect"

	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
)

// inLine is err, with its code and details, in one line: images and registries have words in
// some. What is wrong with a file that the caller sent has lines of its own.
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
