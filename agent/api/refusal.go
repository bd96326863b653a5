package api

import (
	"errors"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
)

// Refuse is the error of a call whose caller can do something about it: [ReasonOf] finds
// reason again on the other side, whatever err says.
func Refuse(code connect.Code, reason apiv1.Reason, err error) *connect.Error {
	said := connect.NewError(code, err)
	if detail, err := connect.NewErrorDetail(&apiv1.Refusal{Reason: reason}); err == nil { // without it the words are there
		said.AddDetail(detail)
	}
	return said
}

// ReasonOf is what is in the way of a call that ended with err, as the node says or as
// this side found out about the node; REASON_UNSPECIFIED where nobody says.
func ReasonOf(err error) apiv1.Reason {
	var said *connect.Error
	if errors.As(err, &said) {
		for _, detail := range said.Details() {
			if value, err := detail.Value(); err == nil {
				if r, ok := value.(*apiv1.Refusal); ok {
					return r.Reason
				}
			}
		}
	}
	return certificateReason(err)
}

// certificateReason is what an error about a certificate means to whoever has it.
func certificateReason(err error) apiv1.Reason {
	switch {
	case errors.Is(err, identity.ErrRevoked):
		return apiv1.Reason_REASON_KEY_REVOKED
	case errors.Is(err, identity.ErrExpired):
		return apiv1.Reason_REASON_CERTIFICATE_EXPIRED
	case errors.Is(err, identity.ErrForeign):
		return apiv1.Reason_REASON_OTHER_FLEET
	}
	return apiv1.Reason_REASON_UNSPECIFIED
}

// RefuseCertificate is the answer to a caller whose certificate does not count; err says
// why.
func RefuseCertificate(err error) *connect.Error {
	return Refuse(connect.CodeUnauthenticated, certificateReason(err), err)
}
