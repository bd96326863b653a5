package main

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/operate"
)

// nodeError puts the node's name before what went wrong, and a hint behind it.
func nodeError(name string, err error) error {
	if err == nil {
		return nil
	}
	var said *connect.Error
	if errors.Is(err, operate.ErrNotTheSeat) || errors.Is(err, api.ErrOtherKey) {
		err = hinted{err, "if its STATE was lost or reset, kogge node adopt ADDRESS takes it as it is now; if not, somebody has a key of the fleet's node CA"}
	}
	err = forkHint(err)
	if !errors.As(err, &said) {
		return fmt.Errorf("node %s: %w", name, err)
	}
	err = answered{fmt.Sprintf("node %s: %s", name, said.Message()), err}
	if errors.As(err, new(hinted)) {
		return err // who was closer knew better
	}
	if hint := nodeHint(said); hint != "" {
		return hinted{err, hint}
	}
	return err
}

// forkHint is what to do about two histories of a fleet.
func forkHint(err error) error {
	if errors.Is(err, operate.ErrFork) && !errors.As(err, new(hinted)) {
		return hinted{err, "somebody has founded it twice, or broken keys were used: kogge help fleets says what to do"}
	}
	return err
}

// nodeHint is what to do about an error of a node, or of the way there; "" if the
// error says it all.
func nodeHint(said *connect.Error) string {
	if errors.Is(said, api.ErrNodeRevoked) {
		return lostHint
	}
	if hint := reasonHints[api.ReasonOf(said)]; hint != "" {
		return hint
	}
	switch said.Code() {
	case connect.CodeUnavailable, connect.CodeUnauthenticated, connect.CodeUnknown:
		switch {
		case errors.Is(said, api.ErrOtherNode):
			return "the node has moved: kogge node adopt ADDRESS records its new address"
		case connect.IsWireError(said): // it is there, and says what it waits for
			return ""
		}
		return "is the node on, and is its address right? kogge node list shows the address"
	case connect.CodeDeadlineExceeded:
		return "is the connection slow, or the node busy? kogge node status shows more"
	case connect.CodeUnimplemented:
		return "the node's release is older than this program: kogge version --node NODE shows both"
	}
	return ""
}

// lostHint is what to do about a node whose key was revoked.
const lostHint = "kogge help roles tells how a node comes back: its STATE is reset, and it is adopted anew"

// reasonHints is what to do about a refusal wherever it comes from; the commands that it
// is most often about say more.
var reasonHints = map[apiv1.Reason]string{
	apiv1.Reason_REASON_KEY_REVOKED:         "this key is revoked: to return, ask for an invitation and make a new key",
	apiv1.Reason_REASON_CERTIFICATE_EXPIRED: "kogge fleet list shows until when yours is good; kogge fleet renew or kogge operator renew gets a new one",
	apiv1.Reason_REASON_OTHER_FLEET:         "the node is not in the fleet that --fleet names: kogge fleet list lists the fleets",
	apiv1.Reason_REASON_ROLE:                "kogge help roles explains the roles; in a fleet that is founded the lower one of the ledger's and your certificate's counts",
	apiv1.Reason_REASON_UNLISTED:            "in a fleet that is founded a certificate alone gives no rights: the ledger has to list the key, and this release cannot add one. kogge help roles tells more",
	apiv1.Reason_REASON_NOT_ADOPTED:         "kogge node adopt ADDRESS takes it into its fleet",
	apiv1.Reason_REASON_NO_JOIN_FILE:        "kogge fleet token makes a join.yaml, kogge image seed puts it on the node's disk",
	apiv1.Reason_REASON_NOT_READY:           "kogge node logs agent says more",
	apiv1.Reason_REASON_NO_CONTAINER:        "kogge ps lists them",
	apiv1.Reason_REASON_NO_PROJECT:          "kogge projects lists them",
	apiv1.Reason_REASON_NO_IMAGE:            "kogge images ls lists them",
	apiv1.Reason_REASON_NO_SERVICE:          "kogge node services lists them",
}

// answered is an error of the API in its own words, without the name of its code.
type answered struct {
	text string
	error
}

func (a answered) Error() string { return a.text }
func (a answered) Unwrap() error { return a.error }
