package install

import "errors"

var (
	// ErrBusy means that another update is running.
	ErrBusy = errors.New("another update is running")
	// ErrRefused means that a rule of the node stands against what was asked for; it
	// says which.
	ErrRefused = errors.New("refused")
	// ErrUnreachable means that a release, or a part of it, could not be read from where
	// it was to come from.
	ErrUnreachable = errors.New("cannot be read")
	// ErrFallback means that the node could go back to a release that does not read what is to
	// be kept on STATE.
	ErrFallback = errors.New("the other slot may have a release that knows no ledger, and the node may go back to it")
	// ErrNoFailure means that nothing failed of that name.
	ErrNoFailure = errors.New("this release has no recorded failure on this node")
)
