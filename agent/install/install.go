// Package install brings a release into the slot that does not run, and has the node
// boot it.
//
// In comes an order: a release, or where it is to be had, and when to reboot. Out go a
// slot that is armed, a node that has stopped its containers and reboots, and each step
// on the way. It looks at the release by update/release, writes by update/slot, reads
// what PID 1 keeps by update/memory, and decides nothing about any of them: what is
// refused they refuse. Whether the release is any good is found out by the next boot.
package install

import (
	"time"

	"kogge.example/update/release"
)

// When is when a node boots what is armed.
type When string

const (
	Now      When = "now"
	InWindow When = "window" // when the window of node.yaml opens next
	Manual   When = "manual" // when somebody asks for it
)

// Order is what somebody wants installed.
type Order struct {
	// Source has the release; nil: From says where it is to be had.
	Source release.Source
	// From is https://…, a registry's name of the release, or usb:.
	From string
	When When
	By   string // who wants it, for the history
	// Permit is the leave of the seat's owner, a [ledger.Permit], which a fleet of several
	// votes needs.
	Permit []byte
}

// The steps of an update, in their order. Blocked and Waiting end an update that is
// armed without a reboot.
const (
	Verified  = "verified"  // its signatures are good, and it may be installed here
	Retired   = "retired"   // the slot has no entry any more
	Staging   = "staging"   // Done of Total bytes are in the slot
	Staged    = "staged"    // all of it is, and was read back
	Armed     = "armed"     // the next boot starts it
	Waiting   = "waiting"   // for the window, at At
	Draining  = "draining"  // the containers stop
	Rebooting = "rebooting" // PID 1 has the order
)

// Step is how far an update is.
type Step struct {
	Step                  string
	Slot, Version, Digest string
	Text                  string
	Done, Total           int64 // bytes
	At                    time.Time
}

// States of a slot.
const (
	Empty      = "empty"      // nothing that boots, and nothing begun
	Incomplete = "incomplete" // an update was cut off; the next one goes on there
	StagedHere = "staged"     // whole, not armed
	ArmedHere  = "armed"      // the next boot tries it
	OnTrial    = "on trial"   // it runs, and has not proven itself yet
	Proven     = "proven"     // it was assessed good once
	Failed     = "failed"     // its release is refused until somebody clears it
)

// Slots is what lies in the slots, and what is being done to them.
type Slots struct {
	Slots []Slot
	// Assessment of this boot is good, bad or pending.
	Assessment, Why string
	RebootAt        time.Time // zero: nobody asked for a reboot into what is armed
	NextArming      int64     // the number that the next arming gets; 0: the node has lost count
	Busy            string    // the step of the update that goes on; "" for none
}

// Slot is one of the two.
type Slot struct {
	Slot                      string
	Running                   bool
	State                     string
	Version, Digest, RootHash string
	Number, TriesLeft         int
	Counter                   uint64
	Text                      string
}

// Boot is one boot of the node.
type Boot struct {
	Time      time.Time
	Slot      string
	Version   string
	Trial     bool
	TriesLeft int
	Verdict   string // good, bad or none
	Reason    string
	Took      time.Duration // until the verdict
}
