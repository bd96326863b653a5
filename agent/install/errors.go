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
	// ErrNoFailure means that nothing failed of that name.
	ErrNoFailure = errors.New("this release has no recorded failure on this node")
)
