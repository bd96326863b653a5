package notice

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Node is what a node is, by its own word: it is signed when something of it changes.
type Node struct {
	Version int    `json:"version"` // of this document: 1
	Name    string `json:"name"`    // as its certificate has it
	// Addresses are where its API answers, the first one the likeliest to be reached.
	Addresses []netip.AddrPort `json:"addresses,omitempty"`
	Arch      string           `json:"arch"` // as Go has it: amd64
	Board     string           `json:"board"`
	Model     string           `json:"model,omitempty"` // as the firmware has it
	Kernel    string           `json:"kernel"`
	Slots     []Slot           `json:"slots,omitempty"` // by name
	Capacity  Capacity         `json:"capacity"`
	// Measured are labels that the node gives itself. None of them has a name that only
	// others may give.
	Measured Labels `json:"measured,omitempty"`
	// Attested are labels that an operator has signed. nil: the node has none.
	Attested *Attestation `json:"attested,omitempty"`
}

// Slot is what is in one of the slots of a node's disk.
type Slot struct {
	Name    string        `json:"name"`              // "A" or "B"
	Release string        `json:"release,omitempty"` // its version; "": the slot is empty, or nobody knows
	Root    document.Hash `json:"root,omitzero"`     // root hash, which names the content
	Running bool          `json:"running,omitempty"` // of exactly one slot
	Boot    string        `json:"boot,omitempty"`    // its assessment: good, bad or pending; "": not known
}

// Capacity is what a node has for containers, before any of them runs.
type Capacity struct {
	CPUs   int   `json:"cpus"`   // that run at a time
	Memory int64 `json:"memory"` // bytes
	Disk   int64 `json:"disk"`   // bytes of STATE
}

const (
	maxText   = 128 // bytes of a line that people read
	maxLabels = 32
)

// Encode writes the record as the body of its envelope.
func (n Node) Encode() []byte { return encode(n) }

// ParseNode reads the body of a node's record. The error wraps [ErrNotice].
func ParseNode(body []byte) (Node, error) { return parse[Node]("node record", body) }

// OpenNode reads a node's record out of its envelope, which is verified already. The error
// wraps [ErrNotice].
func OpenNode(e signed.Envelope) (Node, error) { return open(e, NodeKind, ParseNode) }

func (n Node) check() error {
	if err := fleet.CheckName(n.Name); err != nil {
		return fmt.Errorf("field name: %w", err)
	}
	if len(n.Addresses) > roster.MaxAddresses {
		return fmt.Errorf("field addresses: %d: %d at most", len(n.Addresses), roster.MaxAddresses)
	}
	for i, a := range n.Addresses {
		if err := roster.CheckAddress(a.Addr()); err != nil {
			return fmt.Errorf("field addresses[%d]: %w", i, err)
		}
		if a.Port() == 0 {
			return fmt.Errorf("field addresses[%d]: %s has no port", i, a.Addr())
		}
		if slices.Contains(n.Addresses[:i], a) {
			return fmt.Errorf("field addresses[%d]: %s is there twice", i, a)
		}
	}
	for _, f := range []struct {
		field, text string
		empty       bool
	}{{"arch", n.Arch, false}, {"board", n.Board, false}, {"model", n.Model, true}, {"kernel", n.Kernel, false}} {
		if f.text == "" && !f.empty {
			return fmt.Errorf("field %s: there is none", f.field)
		}
		if err := checkText(f.field, f.text, maxText); err != nil {
			return err
		}
	}
	if c := n.Capacity; c.CPUs < 1 || c.Memory < 1 || c.Disk < 0 {
		return fmt.Errorf("field capacity: %d processors, %d bytes of memory, %d of disk", c.CPUs, c.Memory, c.Disk)
	}
	if err := checkSlots(n.Slots); err != nil {
		return err
	}
	if err := n.Measured.Check("measured"); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(n.Measured)) {
		if OnlyAttested(name) {
			return fmt.Errorf("field measured: a node does not give itself the label %s: an operator attests it", name)
		}
	}
	if n.Attested != nil {
		return n.Attested.Check()
	}
	return nil
}

func checkSlots(slots []Slot) error {
	running := 0
	for i, s := range slots {
		if s.Name != "A" && s.Name != "B" || i > 0 && s.Name <= slots[i-1].Name {
			return fmt.Errorf("field slots[%d].name: %.20q: A, then B", i, s.Name)
		}
		if err := checkText(fmt.Sprintf("slots[%d].release", i), s.Release, maxText); err != nil {
			return err
		}
		switch s.Boot {
		case "", "good", "bad", "pending":
		default:
			return fmt.Errorf("field slots[%d].boot: %.20q is no boot assessment", i, s.Boot)
		}
		if s.Running {
			running++
		}
	}
	if len(slots) > 0 && running != 1 {
		return fmt.Errorf("field slots: %d of them run: a node runs one", running)
	}
	return nil
}

// Labels are words that workloads ask for: "region" → "eu".
type Labels map[string]string

// OnlyAttested says whether a label counts only if an operator attests it: it says whom and
// where a node belongs to, which the node cannot be asked.
func OnlyAttested(name string) bool {
	return slices.Contains([]string{"owner", "region", "rack", "domain"}, name)
}

// Check says what is wrong with labels; field is how the error calls them.
func (l Labels) Check(field string) error {
	if len(l) > maxLabels {
		return fmt.Errorf("field %s: %d labels: %d at most", field, len(l), maxLabels)
	}
	for _, name := range slices.Sorted(maps.Keys(l)) {
		if err := fleet.CheckOperatorName(name); err != nil {
			return fmt.Errorf("field %s: label: %w", field, err)
		}
		if err := checkText(field+"."+name, l[name], maxText); err != nil {
			return err
		}
	}
	return nil
}
