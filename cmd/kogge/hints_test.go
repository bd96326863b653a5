package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

// TestNodeHint is the table of what a node, or the way to it, can say, and what the
// operator is told to do about it.
func TestNodeHint(t *testing.T) {
	var b strings.Builder
	for _, test := range []struct {
		code connect.Code
		wire bool
		text string
	}{
		{connect.CodeUnavailable, false, "dial tcp 192.0.2.7:7443: connect: connection refused"},
		{connect.CodeUnavailable, false, fmt.Sprintf("%v: n2", api.ErrOtherNode)},
		{connect.CodeUnavailable, false, fmt.Sprintf("the node's certificate: node n1: %v: it is of fleet 0123", fleet.ErrForeign)},
		{connect.CodeUnavailable, true, "the containers are not known yet: containerd is still starting"},
		{connect.CodeUnauthenticated, true, fmt.Sprintf("your certificate: operator bob: %v", fleet.ErrRevoked)},
		{connect.CodeUnauthenticated, true, fmt.Sprintf("your certificate: operator bob: %v: over since 2026-01-01", fleet.ErrExpired)},
		{connect.CodeUnauthenticated, true, fmt.Sprintf("your certificate: operator eve: %v: it is of fleet 0123", fleet.ErrForeign)},
		{connect.CodePermissionDenied, true, "bob is reader: this needs operator"},
		{connect.CodeDeadlineExceeded, false, "context deadline exceeded"},
		{connect.CodeUnimplemented, true, "there is no method /kogge.v1.NodeService/Dance"},
		{connect.CodeNotFound, true, "there is no container web here"},
		{connect.CodeNotFound, true, `image "web:1" is not on this node`},
		{connect.CodeNotFound, true, "project shop: no such project"},
		{connect.CodeNotFound, true, `no service "web"`},
		{connect.CodeResourceExhausted, true, "48 logs and other streams are open with your certificate: end one of them"},
	} {
		err := connect.NewError(test.code, errors.New(test.text))
		if test.wire {
			err = connect.NewWireError(test.code, errors.New(test.text))
		}
		fmt.Fprintf(&b, "%s\n", err.Message())
		if hint := nodeHint(err); hint != "" {
			fmt.Fprintf(&b, "  %s\n", hint)
		}
	}
	golden.Compare(t, "hints.txt", b.String())
}
