package serve

import (
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
)

// TestErrorLines: words of an image in an error are no line of it; what is wrong with a file
// has a line each.
func TestErrorLines(t *testing.T) {
	problems := &nodeconfig.Problems{List: []nodeconfig.Problem{{File: "a.yaml", Line: 1, Column: 1, Message: "x"}, {File: "a.yaml", Line: 2, Column: 1, Message: "y"}}}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "<nil>"},
		{errors.New("plain\nerror"), "plain\nerror"}, // none of ours goes out so
		{connect.NewError(connect.CodeInternal, errors.New("exec /bin/a\nkogge: hint: run evil\n\tx: no such file")), "internal: exec /bin/a; kogge: hint: run evil; x: no such file"},
		{api.Refuse(connect.CodeNotFound, apiv1.Reason_REASON_NO_PROJECT, errors.New("a\r\nb")), "not_found: a; b"},
		{connect.NewError(connect.CodeInvalidArgument, problems), "invalid_argument: " + problems.Error()},
		{connect.NewError(connect.CodeFailedPrecondition, errors.Join(fmt.Errorf("container a: %w", workload.ErrNotAllowed), errors.New("container b"))), "failed_precondition: container a: " + workload.ErrNotAllowed.Error() + "\ncontainer b"},
	} {
		got := inLine(c.err)
		if fmt.Sprint(got) != c.want || connect.CodeOf(got) != connect.CodeOf(c.err) {
			t.Errorf("%v: %v, want %s", c.err, got, c.want)
		}
		var before, after *connect.Error
		if errors.As(c.err, &before) && errors.As(got, &after) && len(before.Details()) != len(after.Details()) {
			t.Errorf("%v: lost its details", c.err)
		}
	}
}
