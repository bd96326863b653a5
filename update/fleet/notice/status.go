package notice

import (
	"errors"
	"fmt"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// Status is how a node is, by its own word. It has no time in it: while nothing changes, a
// status that is signed anew has the same bytes under a higher number.
type Status struct {
	Version int `json:"version"` // of this document: 1
	// Height is that of the newest record which the node has taken, and Head the record's hash:
	// two nodes that differ in it at one height have seen a fork.
	Height int64         `json:"height"`
	Head   document.Hash `json:"head,omitzero"`
	Deeds  Deeds         `json:"deeds"`
	// Wrong is what is wrong with the node. Empty: nothing that it knows of.
	Wrong []Fault `json:"wrong,omitempty"`
}

// Deeds is the head of a node's own log of what it did: size and root of an RFC 6962 tree.
type Deeds struct {
	Size int64         `json:"size"`
	Root document.Hash `json:"root,omitzero"`
}

// Fault is one thing that is wrong with a node.
type Fault struct {
	What string `json:"what"` // "STATE", "clock"
	Why  string `json:"why"`
}

// What a list of faults may hold.
const (
	maxFaults = 16
	maxWhat   = 64
	maxWhy    = 300
)

// Faults are a list as a status takes it: texts that can be shown, none too long, and no more
// of them than count, with a last one that says how many there are besides. How many bytes
// that makes is the caller's to see, who asks for fewer.
func Faults(all []Fault, count int) (list []Fault) {
	count = min(count, maxFaults)
	for i, f := range all {
		if i == count-1 && len(all) > count {
			return append(list, Fault{"more", fmt.Sprintf("%d more things are wrong", len(all)-i)})
		}
		if i >= count {
			return list
		}
		f = Fault{plain(f.What, maxWhat), plain(f.Why, maxWhy)}
		if f.What == "" {
			f.What = "node"
		}
		list = append(list, f)
	}
	return list
}

// Fit is the status with as many of its faults as make an envelope of at most so many bytes.
func (s Status) Fit(most int) Status {
	all := s.Wrong
	for count := maxFaults; count >= 0; count-- {
		s.Wrong = Faults(all, count)
		if len(s.Encode())+envelope <= most {
			break
		}
	}
	return s
}

// envelope is what an envelope adds to its body, in bytes, at most.
const envelope = 256

// Encode writes the status as the body of its envelope.
func (s Status) Encode() []byte { return encode(s) }

// ParseStatus reads the body of a status. The error wraps [ErrNotice].
func ParseStatus(body []byte) (Status, error) { return parse[Status]("status", body) }

// OpenStatus reads a status out of its envelope, which is verified already. The error wraps
// [ErrNotice].
func OpenStatus(e signed.Envelope) (Status, error) { return open(e, StatusKind, ParseStatus) }

func (s Status) check() error {
	if s.Height < 0 || (s.Height == 0) != s.Head.IsZero() {
		return fmt.Errorf("field head: the ledger's height is %d, and the record there %s", s.Height, s.Head.Short())
	}
	if s.Deeds.Size < 0 || (s.Deeds.Size == 0) != s.Deeds.Root.IsZero() {
		return fmt.Errorf("field deeds: %d deeds, and their root %s", s.Deeds.Size, s.Deeds.Root.Short())
	}
	if len(s.Wrong) > maxFaults {
		return fmt.Errorf("field wrong: %d: %d at most", len(s.Wrong), maxFaults)
	}
	for i, f := range s.Wrong {
		if f.What == "" {
			return errors.New("field wrong: a fault of nothing")
		}
		if err := checkText(fmt.Sprintf("wrong[%d].what", i), f.What, maxWhat); err != nil {
			return err
		}
		if err := checkText(fmt.Sprintf("wrong[%d].why", i), f.Why, maxWhy); err != nil {
			return err
		}
	}
	return nil
}

// How often a seat signs what it says.
const (
	// Renewal is how old a notice becomes that did not change.
	Renewal = time.Hour
	// Pause is between two that differ: what flickers is not signed each time.
	Pause = 2 * time.Second
)

// Due says how long from now until a notice of a kind is signed anew that was last signed at
// some time; the zero time: never. 0: it is time. changed says that it would say something
// else. A status is signed anew also if not: by that others see that the node is there.
func Due(kind string, changed bool, last, now time.Time) time.Duration {
	if last.IsZero() {
		return 0
	}
	every := Renewal
	if changed {
		every = Pause
	} else if kind != StatusKind {
		return Renewal
	}
	return max(0, every-max(0, now.Sub(last)))
}
