package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

// TestNodeHint is the table of what a node, or the way to it, can say, and what the
// operator is told to do about it.
func TestNodeHint(t *testing.T) {
	var b strings.Builder
	here := func(code connect.Code, err error) *connect.Error { return connect.NewError(code, err) }
	// node is an error as it comes over the wire: words, and a reason or none.
	node := func(code connect.Code, reason apiv1.Reason, text string) *connect.Error {
		err := connect.NewWireError(code, errors.New(text))
		for _, detail := range api.Refuse(code, reason, err).Details() {
			err.AddDetail(detail)
		}
		return err
	}
	for _, err := range []*connect.Error{
		here(connect.CodeUnavailable, errors.New("dial tcp 192.0.2.7:7443: connect: connection refused")),
		here(connect.CodeUnavailable, fmt.Errorf("%w: n2", api.ErrOtherNode)),
		here(connect.CodeUnavailable, fmt.Errorf("the node's certificate: node n1: %w: it is of fleet 0123", fleet.ErrForeign)),
		node(connect.CodeUnavailable, apiv1.Reason_REASON_NOT_READY, "the containers are not known yet: containerd is still starting"),
		node(connect.CodeUnavailable, apiv1.Reason_REASON_UNSPECIFIED, "STATE is full"),
		node(connect.CodeUnauthenticated, apiv1.Reason_REASON_KEY_REVOKED, "your certificate: operator bob: words that may change"),
		node(connect.CodeUnauthenticated, apiv1.Reason_REASON_CERTIFICATE_EXPIRED, "your certificate: operator bob: over since 2026-01-01"),
		node(connect.CodeUnauthenticated, apiv1.Reason_REASON_OTHER_FLEET, "your certificate: operator eve: it is of fleet 0123"),
		node(connect.CodeFailedPrecondition, apiv1.Reason_REASON_NOT_ADOPTED, "this node is not in a fleet yet"),
		node(connect.CodeFailedPrecondition, apiv1.Reason_REASON_NO_JOIN_FILE, "this node has no join.yaml, and trusts nobody yet"),
		node(connect.CodePermissionDenied, apiv1.Reason_REASON_ROLE, "bob has the role reader: this needs operator"),
		node(connect.CodePermissionDenied, apiv1.Reason_REASON_UNLISTED, "operator eve (admin): words that may change"),
		node(connect.CodePermissionDenied, apiv1.Reason_REASON_UNSPECIFIED, "registry.example: access denied"),
		here(connect.CodeDeadlineExceeded, errors.New("context deadline exceeded")),
		node(connect.CodeUnimplemented, apiv1.Reason_REASON_UNSPECIFIED, "there is no method /kogge.v1.NodeService/Dance"),
		node(connect.CodeNotFound, apiv1.Reason_REASON_NO_CONTAINER, "there is no container web here"),
		node(connect.CodeNotFound, apiv1.Reason_REASON_NO_IMAGE, `image "web:1" is not on this node`),
		node(connect.CodeNotFound, apiv1.Reason_REASON_NO_PROJECT, "project shop: no such project"),
		node(connect.CodeNotFound, apiv1.Reason_REASON_NO_SERVICE, `no service "web"`),
		node(connect.CodeResourceExhausted, apiv1.Reason_REASON_UNSPECIFIED, "48 logs and other streams are open with your certificate: end one of them"),
	} {
		fmt.Fprintf(&b, "%s\n", err.Message())
		if hint := nodeHint(err); hint != "" {
			fmt.Fprintf(&b, "  %s\n", hint)
		}
	}
	golden.Compare(t, "hints.txt", b.String())
}
