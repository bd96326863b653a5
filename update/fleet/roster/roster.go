// Package roster is who belongs to a fleet by its own decision: seats, with or without a vote,
// the owners they belong to, and how many votes decide.
//
// In come the fields of a ledger's records; out go checked seats, numbers of votes, and the
// hash that each decision of the fleet names. A roster says nothing of who is reachable, and
// changes only as the ledger says.
package roster

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// Roster is the seats of a fleet at one height of its ledger. What it points to is read-only.
type Roster struct {
	Version int     `json:"version"` // of this document: 1
	Rule    Rule    `json:"rule"`
	Owners  []Owner `json:"owners"` // by name
	Seats   []Seat  `json:"seats"`  // by number
	Given   int     `json:"given"`  // the highest number that a seat ever had: none is given twice
}

// Rule says how many votes decide. It is the fleet's, not a matter of its size today: seats
// that leave never make it weaker.
type Rule string

// The rules.
const (
	// Majority is more than half of the votes, for fleets of 1 to 3. It tolerates no liar.
	Majority Rule = "majority"
	// TwoThirds is more than two thirds of the votes, for fleets of 4 or more.
	TwoThirds Rule = "two-thirds"
)

// RuleFor is the rule of a fleet that begins with so many votes.
func RuleFor(votes int) Rule {
	if votes < 4 {
		return Majority
	}
	return TwoThirds
}

// Owner is a person, or several, to whom seats belong, by keys: any Threshold of them together
// are the owner.
type Owner struct {
	Name      string       `json:"name"`
	Keys      []signed.Key `json:"keys"` // numbered from 1, as on the recovery sheets
	Threshold int          `json:"threshold"`
}

// Seat is a node's place in the fleet.
type Seat struct {
	Number  int        `json:"number"` // from 1, in the order of admission
	Name    string     `json:"name"`   // the node's
	Key     signed.Key `json:"key"`
	Journal ID         `json:"journal"` // the vote journal that was made with the key
	Owner   string     `json:"owner"`
	Vote    bool       `json:"vote,omitempty"`
	Member  bool       `json:"member,omitempty"` // runs etcd
	Spare   bool       `json:"spare,omitempty"`  // runs etcd when a member is lost
	// Domain is what fails together with this seat: a house, a rack, a power line. Without one,
	// a seat is a domain of its own.
	Domain string `json:"domain,omitempty"`
}

// What a roster may hold.
const (
	MaxSeats  = 16384
	MaxVotes  = 1000
	maxOwners = 1000
	maxKeys   = 16      // of an owner
	maxGiven  = 1 << 30 // so that a seat has its number on boards of 32 bits, too
	version   = 1
)

// ErrRoster is of seats that are no roster.
var ErrRoster = errors.New("not a roster")

// Check says what is wrong with a roster by itself. The error wraps [ErrRoster].
func (r Roster) Check() error {
	if err := r.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrRoster, err)
	}
	return nil
}

func (r Roster) check() error {
	if r.Version != version {
		return fmt.Errorf("field version: it is %d, and this kogge reads %d", r.Version, version)
	}
	if err := r.checkOwners(); err != nil {
		return err
	}
	if err := r.checkSeats(); err != nil {
		return err
	}
	votes := r.Votes()
	switch r.Rule {
	case Majority:
		if votes > 3 {
			return fmt.Errorf("field rule: %s with %d votes: from 4 on it is %s", r.Rule, votes, TwoThirds)
		}
	case TwoThirds:
	default:
		return fmt.Errorf("field rule: %q is unknown", r.Rule)
	}
	if votes < 1 || votes > MaxVotes {
		return fmt.Errorf("field seats: %d votes: 1 to %d", votes, MaxVotes)
	}
	switch members := r.count(Seat.isMember); members {
	case 0, 1, 3, 5:
	default:
		return fmt.Errorf("field seats: %d members: 1, 3 or 5 run etcd", members)
	}
	return nil
}

func (r Roster) checkOwners() error {
	if len(r.Owners) < 1 || len(r.Owners) > maxOwners {
		return fmt.Errorf("field owners: %d: 1 to %d", len(r.Owners), maxOwners)
	}
	for i, o := range r.Owners {
		field := fmt.Sprintf("field owners[%d]", i)
		if err := fleet.CheckName(o.Name); err != nil {
			return fmt.Errorf("%s.name: %w", field, err)
		}
		if i > 0 && o.Name <= r.Owners[i-1].Name {
			return fmt.Errorf("%s.name: %s does not follow on %s", field, o.Name, r.Owners[i-1].Name)
		}
		if len(o.Keys) < 1 || len(o.Keys) > maxKeys {
			return fmt.Errorf("%s.keys: %d: 1 to %d", field, len(o.Keys), maxKeys)
		}
		if o.Threshold < 1 || o.Threshold > len(o.Keys) {
			return fmt.Errorf("%s.threshold: %d of %d keys", field, o.Threshold, len(o.Keys))
		}
		for k, key := range o.Keys {
			if slices.Contains(o.Keys[:k], key) {
				return fmt.Errorf("%s.keys[%d]: key %s is there twice", field, k, key.ID().Short())
			}
		}
	}
	return nil
}

func (r Roster) checkSeats() error {
	if len(r.Seats) > MaxSeats {
		return fmt.Errorf("field seats: %d: %d at most", len(r.Seats), MaxSeats)
	}
	names, keys, journals := make(map[string]bool), make(map[signed.Key]bool), make(map[ID]bool)
	owners, ofOwners := make(map[signed.Key]string), make(map[string]bool)
	for _, o := range r.Owners {
		ofOwners[o.Name] = true
		for _, key := range o.Keys {
			owners[key] = o.Name
		}
	}
	last := 0
	for i, s := range r.Seats {
		if err := checkSeat(s, ofOwners); err != nil {
			return fmt.Errorf("field seats[%d].%w", i, err)
		}
		if s.Number <= last {
			return fmt.Errorf("field seats[%d].number: %d does not follow on %d", i, s.Number, last)
		}
		if names[s.Name] {
			return fmt.Errorf("field seats[%d].name: %s has a seat already", i, s.Name)
		}
		if owner, ok := owners[s.Key]; ok { // else whoever has the node is its owner, too
			return fmt.Errorf("field seats[%d].key: key %s is one of owner %s", i, s.Key.ID().Short(), owner)
		}
		if keys[s.Key] {
			return fmt.Errorf("field seats[%d].key: key %s has a seat already", i, s.Key.ID().Short())
		}
		if journals[s.Journal] { // two machines of one disk, or one that says what it likes
			return fmt.Errorf("field seats[%d].journal: journal %s has a seat already", i, s.Journal)
		}
		last, names[s.Name], keys[s.Key], journals[s.Journal] = s.Number, true, true, true
	}
	if r.Given > maxGiven {
		return fmt.Errorf("field given: %d: %d at most", r.Given, maxGiven)
	}
	if r.Given < last {
		return fmt.Errorf("field given: %d, and there is a seat %d", r.Given, last)
	}
	return nil
}

// checkSeat says what is wrong with one seat; the error begins with the field.
func checkSeat(s Seat, owners map[string]bool) error {
	if s.Number < 1 {
		return fmt.Errorf("number: %d: seats are numbered from 1", s.Number)
	}
	if err := fleet.CheckName(s.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if s.Key == "" {
		return errors.New("key: there is none")
	}
	if s.Journal == (ID{}) {
		return errors.New("journal: there is none")
	}
	if !owners[s.Owner] {
		return fmt.Errorf("owner: %q is none of the fleet's owners", s.Owner)
	}
	if s.Member && s.Spare {
		return errors.New("spare: the seat is a member already")
	}
	return CheckDomain(s.Domain)
}

// CheckDomain says what is wrong with the name of a domain; "" is none.
func CheckDomain(name string) error {
	if name == "" {
		return nil
	}
	if err := fleet.CheckOperatorName(name); err != nil {
		return fmt.Errorf("domain: %w", err)
	}
	return nil
}

// Encode writes the roster as it is hashed.
func (r Roster) Encode() []byte {
	raw, err := document.Encode(r)
	if err != nil {
		panic(err) // there is no value of these types that JSON cannot write
	}
	return raw
}

// Hash is what each decision of these seats names.
func (r Roster) Hash() document.Hash { return document.HashOf(r.Encode()) }

// Votes is N: how many seats have a vote.
func (r Roster) Votes() int { return r.count(func(s Seat) bool { return s.Vote }) }

func (r Roster) count(is func(Seat) bool) (n int) {
	for _, s := range r.Seats {
		if is(s) {
			n++
		}
	}
	return n
}

func (s Seat) isMember() bool { return s.Member }

// Quorum is q: how many votes decide.
func (r Roster) Quorum() int { return r.Rule.Quorum(r.Votes()) }

// Quorum is how many of so many votes decide.
func (r Rule) Quorum(votes int) int {
	if r == Majority {
		return votes/2 + 1
	}
	return 2*votes/3 + 1
}

// Liars is f: how many votes may lie, each as it likes, without two decisions at one height.
func (r Roster) Liars() int {
	if r.Rule == Majority {
		return 0
	}
	return (r.Votes() - 1) / 3
}

// Seat is the seat of a number; false: nobody has it.
func (r Roster) Seat(number int) (Seat, bool) {
	i, ok := slices.BinarySearchFunc(r.Seats, number, func(s Seat, n int) int { return s.Number - n })
	if !ok {
		return Seat{}, false
	}
	return r.Seats[i], true
}

// ByName is the seat of a node; false: it has none.
func (r Roster) ByName(name string) (Seat, bool) {
	return r.find(func(s Seat) bool { return s.Name == name })
}

// ByKey is the seat that a key signs for; false: none.
func (r Roster) ByKey(key signed.Key) (Seat, bool) {
	return r.find(func(s Seat) bool { return s.Key == key })
}

func (r Roster) find(is func(Seat) bool) (Seat, bool) {
	if i := slices.IndexFunc(r.Seats, is); i >= 0 {
		return r.Seats[i], true
	}
	return Seat{}, false
}

// Custodians are the seats that run etcd, and those that do when one is lost: they hold the key of
// the node CA, and let nodes in.
func (r Roster) Custodians() (all []Seat) {
	for _, s := range r.Seats {
		if s.Member || s.Spare {
			all = append(all, s)
		}
	}
	return all
}

// Owner is an owner by name; false: there is none of that name.
func (r Roster) Owner(name string) (Owner, bool) {
	i, ok := slices.BinarySearchFunc(r.Owners, name, func(o Owner, n string) int { return strings.Compare(o.Name, n) })
	if !ok {
		return Owner{}, false
	}
	return r.Owners[i], true
}

// DomainOf is what fails together with a seat.
func (s Seat) DomainOf() string {
	if s.Domain == "" {
		return s.Name
	}
	return s.Domain
}
