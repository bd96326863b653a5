// Package change gives a running node another node.yaml, and takes it back if that
// cut the node off.
//
// In come texts from operators, their word that they still reach the node, and what
// PID 1 sees of the network service; out go the file that the node runs with, the
// copy on STATE that the next boot reads, and orders to restart the services that a
// change is for. There is no file for undoing: other network settings only run, and
// the copy stays as it was until somebody confirms them. So a power cut, a reboot or
// silence bring back what worked.
//
// [State.Step] decides, [Keeper] does. Whether the workloads are good Compose, the
// agent has to ask before.
package change

import "errors"

// State is where node.yaml stands:
//
//	Kept ─SetSame─▶ Kept (saved at once)
//	Kept ─SetOther─▶ Trying ─Up─▶ Tried ─Confirm─▶ Kept (saved)
//	                    └─Undo, Timer─┴─Undo, Timer─▶ Kept (what was kept runs again)
//
// A change while another one is tried is refused: two operators would undo each
// other's. So is a confirmation before the network service runs with the new
// settings: it would prove nothing.
type State string

const (
	Kept   State = "kept"   // the node runs with what the next boot runs with
	Trying State = "trying" // other network settings; the network service has yet to start with them
	Tried  State = "tried"  // the node runs with them, until somebody confirms or time is over
)

// Event is what happens to node.yaml.
type Event string

const (
	SetSame  Event = "set same"  // a text with the network that is kept
	SetOther Event = "set other" // a text with another network
	Up       Event = "up"        // the network service has started anew
	Confirm  Event = "confirm"   // an operator reaches the node
	Undo     Event = "undo"      // an operator wants the kept text back
	Timer    Event = "timer"     // the time to confirm is over
)

// Action is what to do about it. The new state holds once it has worked.
type Action string

const (
	None    Action = "none"
	SaveRun Action = "save, run" // keep the new text, and run with it
	Run     Action = "run"       // with the new text, for now
	Save    Action = "save"      // keep what runs
	Back    Action = "back"      // run with what is kept
	Refuse  Action = "refuse"    // see [State.refusal]
)

// Step says what event e makes of s and what is to be done.
func (s State) Step(e Event) (State, Action) {
	switch {
	case s == Kept && e == SetSame:
		return Kept, SaveRun
	case s == Kept && e == SetOther:
		return Trying, Run
	case s == Trying && e == Up:
		return Tried, None
	case s == Tried && e == Confirm:
		return Kept, Save
	case s != Kept && (e == Undo || e == Timer):
		return Kept, Back
	case e == Up, e == Timer:
		return s, None // the network service starts for other reasons too
	}
	return s, Refuse
}

// refusal says why e is refused in s.
func (s State) refusal(e Event) error {
	switch {
	case s == Kept && e == Undo:
		return errors.New("there is nothing to undo: the settings are kept")
	case s == Kept:
		return errors.New("there is nothing to confirm: the settings are kept")
	case e == Confirm:
		return errors.New("too early to confirm: the network service has not started with the new settings yet")
	}
	return errors.New("new network settings are being tried: confirm or undo them first")
}
