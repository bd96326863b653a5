package main

import (
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/identity"
)

// nodeError puts the node's name before what went wrong, and a hint behind it.
func nodeError(name string, err error) error {
	if err == nil {
		return nil
	}
	var said *connect.Error
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

// nodeHint is what to do about an error of a node, or of the way there; "" if the
// error says it all.
func nodeHint(said *connect.Error) string {
	text := said.Message()
	has := func(err error) bool { return strings.Contains(text, err.Error()) }
	switch said.Code() {
	case connect.CodeUnavailable, connect.CodeUnauthenticated, connect.CodeUnknown:
		switch {
		case has(identity.ErrRevoked):
			return "this key is revoked: to return, ask for an invitation and make a new key"
		case has(identity.ErrExpired):
			return "kogge fleet list shows until when yours is good; kogge fleet renew or kogge operator renew gets a new one"
		case has(identity.ErrForeign):
			return "the node is not in the fleet that --fleet names: kogge fleet list lists the fleets"
		case has(api.ErrOtherNode):
			return "the node has moved: kogge node adopt ADDRESS records its new address"
		case connect.IsWireError(said): // it is there, and says what it waits for
			return ""
		}
		return "is the node on, and is its address right? kogge node list shows the address"
	case connect.CodeDeadlineExceeded:
		return "is the connection slow, or the node busy? kogge node status shows more"
	case connect.CodePermissionDenied:
		if strings.Contains(text, ": this needs ") { // and not a registry that refuses the node
			return "kogge help roles explains the roles; whoever signed you can give you another one"
		}
	case connect.CodeUnimplemented:
		return "the node's release is older than this program: kogge version --node NODE shows both"
	case connect.CodeNotFound:
		for _, of := range []struct{ thing, list string }{
			{"container", "kogge ps"}, {"project", "kogge projects"}, {"image", "kogge images ls"}, {"service", "kogge node services"},
		} {
			if strings.Contains(text, of.thing+" ") {
				return of.list + " lists them"
			}
		}
	}
	return ""
}

// answered is an error of the API in its own words, without the name of its code.
type answered struct {
	text string
	error
}

func (a answered) Error() string { return a.text }
func (a answered) Unwrap() error { return a.error }
