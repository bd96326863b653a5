// Package decision is what a fleet may decide: the kinds of decisions, with the rules of each in
// one table, and the documents that say what is decided.
//
//	[Table]          a row for each kind: who proposes it, whose signatures it needs, how a node
//	                 votes on it by itself, from when on it holds, how much it may change
//	[Seat], [Rule] … what a value of the ledger says, one document for each kind
//	[Vote]           how a node votes: auto, after a time, when its owner says so, never
//
// In come documents of strangers; out goes what is wrong with each by itself. What a document means
// for a fleet, and whether it fits that fleet now, is update/fleet/ledger's to say; who wants
// what, and why, is update/fleet/proposal's.
package decision

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
)

// What a document may hold.
const (
	maxSeats  = 1000 // that one decision names
	maxOwners = 100
	maxCA     = 2 << 10 // bytes of a certificate
)

// Seat gives nodes seats, or makes seats that are there into others: with a vote or without, spare,
// in another domain, of another owner.
type Seat struct {
	Seats  []roster.Seat  `json:"seats"`            // by number; new ones follow on the highest that was given
	Owners []roster.Owner `json:"owners,omitempty"` // who come with them, by name
	// Rule is two-thirds in the one decision that seats the fourth vote of a fleet which goes by
	// the majority; else it is not there.
	Rule roster.Rule `json:"rule,omitempty"`
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *Seat) Check() error {
	if len(d.Seats) < 1 || len(d.Seats) > maxSeats {
		return fmt.Errorf("seat.seats: %d: 1 to %d", len(d.Seats), maxSeats)
	}
	var numbers []int
	for _, s := range d.Seats {
		numbers = append(numbers, s.Number)
	}
	if err := checkNumbers("seat.seats", numbers); err != nil {
		return err
	}
	if len(d.Owners) > maxOwners {
		return fmt.Errorf("seat.owners: %d: %d at most", len(d.Owners), maxOwners)
	}
	for i := range d.Owners {
		if i > 0 && d.Owners[i].Name <= d.Owners[i-1].Name {
			return fmt.Errorf("seat.owners[%d].name: %.70q does not follow on %.70q", i, d.Owners[i].Name, d.Owners[i-1].Name)
		}
	}
	if d.Rule != "" && d.Rule != roster.TwoThirds {
		return fmt.Errorf("seat.rule: %.20q: %s, or none", d.Rule, roster.TwoThirds)
	}
	return nil
}

// Unseat takes seats away. What their nodes had of the fleet they have no more, but for what they
// remember: so where one of them held the key of the node CA, another CA takes its place.
type Unseat struct {
	Seats   []int  `json:"seats"`             // by number
	Members []int  `json:"members,omitempty"` // spares that run etcd from now on, in the place of members that leave
	CA      []byte `json:"ca,omitempty"`      // the node CA from now on, X.509 in DER
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *Unseat) Check() error {
	if len(d.Seats) < 1 || len(d.Seats) > maxSeats {
		return fmt.Errorf("unseat.seats: %d: 1 to %d", len(d.Seats), maxSeats)
	}
	return errors.Join(checkNumbers("unseat.seats", d.Seats), checkNumbers("unseat.members", d.Members), checkCA("unseat.ca", d.CA, true))
}

// Replace gives a node the seat of another one: its name, owner and domain, its vote, and what it
// is to etcd. The number is a new one, and so are key and journal.
type Replace struct {
	Old int         `json:"old"` // number of the seat that goes
	New roster.Seat `json:"new"`
	CA  []byte      `json:"ca,omitempty"` // as in [Unseat]
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *Replace) Check() error {
	if d.Old < 1 {
		return fmt.Errorf("replace.old: %d: seats are numbered from 1", d.Old)
	}
	if d.New.Number <= d.Old {
		return fmt.Errorf("replace.new.number: %d: numbers are given once, and rise", d.New.Number)
	}
	return checkCA("replace.ca", d.CA, true)
}

// Isolate ends sessions, calls and secrets of seats for good, or lets them in again. Their votes
// stay, and are counted as before.
type Isolate struct {
	Seats []int `json:"seats"`          // by number
	Lift  bool  `json:"lift,omitempty"` // they are isolated no more
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *Isolate) Check() error {
	if len(d.Seats) < 1 || len(d.Seats) > maxSeats {
		return fmt.Errorf("isolate.seats: %d: 1 to %d", len(d.Seats), maxSeats)
	}
	return checkNumbers("isolate.seats", d.Seats)
}

// Rule has a fleet go by another rule. A smaller fleet does not get a weaker rule by itself.
type Rule struct {
	Rule roster.Rule `json:"rule"` // majority
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *Rule) Check() error {
	switch d.Rule {
	case roster.Majority:
		return nil
	case roster.TwoThirds:
		return fmt.Errorf("rule.rule: %s comes with the decision that seats the fourth vote, and with no other", d.Rule)
	}
	return fmt.Errorf("rule.rule: %.20q is unknown", d.Rule)
}

// TUFRoot is the next version of the keys that make the fleet's releases.
type TUFRoot struct {
	Number int           `json:"number"` // the version that the root itself names
	Root   document.Hash `json:"root"`   // SHA-256 of its bytes
}

// maxTUFRoot is the version of a root, at most, so that boards of 32 bits count as far.
const maxTUFRoot = 1 << 30

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *TUFRoot) Check() error {
	if d.Number < 1 || d.Number > maxTUFRoot {
		return fmt.Errorf("tufRoot.number: %d: 1 to %d", d.Number, maxTUFRoot)
	}
	if d.Root.IsZero() {
		return errors.New("tufRoot.root: there is none")
	}
	return nil
}

// CA is another CA for nodes.
type CA struct {
	Certificate []byte `json:"certificate"` // X.509 in DER
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *CA) Check() error { return checkCA("ca.certificate", d.Certificate, false) }

// Members says which seats run etcd, and which do when one is lost.
type Members struct {
	Members []int `json:"members"`          // all of them, by number: 1, 3 or 5
	Spares  []int `json:"spares,omitempty"` // all of them, by number
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *Members) Check() error {
	switch len(d.Members) {
	case 1, 3, 5:
	default:
		return fmt.Errorf("members.members: %d: 1, 3 or 5 run etcd", len(d.Members))
	}
	if err := checkNumbers("members.members", d.Members); err != nil {
		return err
	}
	if len(d.Spares) > maxSeats {
		return fmt.Errorf("members.spares: %d: %d at most", len(d.Spares), maxSeats)
	}
	for i, n := range d.Spares {
		if slices.Contains(d.Members, n) {
			return fmt.Errorf("members.spares[%d]: seat %d is a member", i, n)
		}
	}
	return checkNumbers("members.spares", d.Spares)
}

// Owners gives an owner other keys: those that he had sign for it, or they are lost, and the owners
// of the other seats do.
type Owners struct {
	Owner roster.Owner `json:"owner"`          // from now on
	Lost  bool         `json:"lost,omitempty"` // then it waits, and any of the old keys may veto
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *Owners) Check() error {
	if err := fleet.CheckName(d.Owner.Name); err != nil {
		return fmt.Errorf("owners.owner.name: %w", err)
	}
	if n := len(d.Owner.Keys); n < 1 || d.Owner.Threshold < 1 || d.Owner.Threshold > n {
		return fmt.Errorf("owners.owner.threshold: %d of %d keys", d.Owner.Threshold, n)
	}
	return nil
}

// Settle ends the waiting of an owner whose keys are lost: he gets the new ones, or somebody who has an
// old one has objected. That the time is over ([Objection]) is each voter's to say, who has counted it.
type Settle struct {
	Record document.Hash `json:"record"`         // of the decision that waits
	Veto   bool          `json:"veto,omitempty"` // then nothing comes of it
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *Settle) Check() error {
	if d.Record.IsZero() {
		return errors.New("settle.record: there is none")
	}
	return nil
}

// DoubleVote takes the vote of a seat that has signed two things at one height, in one round and
// step. The seat stays, and its key never votes again.
type DoubleVote struct {
	Seat int `json:"seat"` // its number
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *DoubleVote) Check() error {
	if d.Seat < 1 {
		return fmt.Errorf("doubleVote.seat: %d: seats are numbered from 1", d.Seat)
	}
	return nil
}

// BreakGlass seats a fleet anew whose quorum is gone for good. Owners sign it in the place of votes.
type BreakGlass struct {
	Roster roster.Roster `json:"roster"`
	CA     []byte        `json:"ca,omitempty"` // as in [Unseat]
}

// Check says what is wrong with the document by itself. The error begins with the field.
func (d *BreakGlass) Check() error {
	if err := d.Roster.Check(); err != nil {
		return fmt.Errorf("breakGlass.roster: %w", err)
	}
	return checkCA("breakGlass.ca", d.CA, true)
}

// checkNumbers wants numbers of seats, each once and in order.
func checkNumbers(field string, numbers []int) error {
	for i, n := range numbers {
		if n < 1 {
			return fmt.Errorf("%s[%d]: %d: seats are numbered from 1", field, i, n)
		}
		if i > 0 && n <= numbers[i-1] {
			return fmt.Errorf("%s[%d]: %d does not follow on %d", field, i, n, numbers[i-1])
		}
	}
	return nil
}

// checkCA wants the certificate of a node CA, as a fleet makes it.
func checkCA(field string, der []byte, may bool) error {
	if len(der) == 0 && may {
		return nil
	}
	if _, err := ParseCA(der); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

// ParseCA reads the certificate of a node CA in a document.
func ParseCA(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCA {
		return nil, fmt.Errorf("%d bytes: %d at most", len(der), maxCA)
	}
	return fleet.ParseNodeCA(der)
}

// objection is how long those who have an owner's old keys may object to new ones.
const objection = document.Duration(30 * 24 * time.Hour)

// Objection is how long an owner waits whose keys are lost, in running time of each voter since it
// saw the record. A fleet for trying things out waits as long as for break-glass.
func Objection(p fleet.Policy) document.Duration {
	if p.Trial {
		return p.BreakGlass
	}
	return objection
}
