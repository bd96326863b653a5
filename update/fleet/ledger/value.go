package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
)

// Value is what one record decides: exactly one of its decisions.
type Value struct {
	Version int `json:"version"` // of this document: 1
	// Evidence is the root of an RFC 6962 tree over the signed objects on which the decision
	// rests. Zero: it rests on none.
	Evidence document.Hash `json:"evidence,omitzero"`

	Founding   *Founding            `json:"founding,omitempty"`
	Operators  *Operators           `json:"operators,omitempty"`
	Seat       *decision.Seat       `json:"seat,omitempty"`
	Unseat     *decision.Unseat     `json:"unseat,omitempty"`
	Replace    *decision.Replace    `json:"replace,omitempty"`
	Isolate    *decision.Isolate    `json:"isolate,omitempty"`
	Policy     *fleet.Policy        `json:"policy,omitempty"`
	Rule       *decision.Rule       `json:"rule,omitempty"`
	TUFRoot    *decision.TUFRoot    `json:"tufRoot,omitempty"`
	CA         *decision.CA         `json:"ca,omitempty"`
	Members    *decision.Members    `json:"members,omitempty"`
	Owners     *decision.Owners     `json:"owners,omitempty"`
	Settle     *decision.Settle     `json:"settle,omitempty"`
	DoubleVote *decision.DoubleVote `json:"doubleVote,omitempty"`
	BreakGlass *decision.BreakGlass `json:"breakGlass,omitempty"`
}

// part is one of the decisions that a value may be.
type part struct {
	kind  decision.Kind
	field string // in the value's document
	there bool
	check func() error
	apply func(State) (State, error)
}

// parts are all that a value may be.
func (v Value) parts() []part {
	return []part{
		{decision.KindFounding, "founding", v.Founding != nil, v.Founding.check, func(s State) (State, error) { return s.found(v.Founding) }},
		{decision.KindOperators, "operators", v.Operators != nil, v.Operators.check, func(s State) (State, error) { return s.setOperators(v.Operators) }},
		{decision.KindSeat, "seat", v.Seat != nil, v.Seat.Check, func(s State) (State, error) { return s.seat(v.Seat) }},
		{decision.KindUnseat, "unseat", v.Unseat != nil, v.Unseat.Check, func(s State) (State, error) { return s.unseat(v.Unseat) }},
		{decision.KindReplace, "replace", v.Replace != nil, v.Replace.Check, func(s State) (State, error) { return s.replace(v.Replace) }},
		{decision.KindIsolate, "isolate", v.Isolate != nil, v.Isolate.Check, func(s State) (State, error) { return s.isolate(v.Isolate) }},
		{decision.KindPolicy, "policy", v.Policy != nil, v.checkPolicy, func(s State) (State, error) { return s.setPolicy(*v.Policy) }},
		{decision.KindRule, "rule", v.Rule != nil, v.Rule.Check, func(s State) (State, error) { return s.setRule(v.Rule) }},
		{decision.KindTUFRoot, "tufRoot", v.TUFRoot != nil, v.TUFRoot.Check, func(s State) (State, error) { return s.setTUFRoot(v.TUFRoot) }},
		{decision.KindCA, "ca", v.CA != nil, v.CA.Check, func(s State) (State, error) { return s.withCA("ca.certificate", v.CA.Certificate) }},
		{decision.KindMembers, "members", v.Members != nil, v.Members.Check, func(s State) (State, error) { return s.setMembers(v.Members) }},
		{decision.KindOwners, "owners", v.Owners != nil, v.Owners.Check, func(s State) (State, error) { return s.setOwner(v.Owners) }},
		{decision.KindSettle, "settle", v.Settle != nil, v.Settle.Check, func(s State) (State, error) { return s.settle(v.Settle) }},
		{decision.KindDoubleVote, "doubleVote", v.DoubleVote != nil, v.DoubleVote.Check, func(s State) (State, error) { return s.doubleVote(v.DoubleVote) }},
		{decision.KindBreakGlass, "breakGlass", v.BreakGlass != nil, v.BreakGlass.Check, func(s State) (State, error) { return s.breakGlass(v.BreakGlass) }},
	}
}

func (v Value) checkPolicy() error {
	if err := v.Policy.Check(); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

// Founding is the value of record 1: who begins.
type Founding struct {
	Roster    roster.Roster `json:"roster"`
	Operators []Operator    `json:"operators"` // by name
	// Cluster is where the members' etcd answered each other when the fleet was founded, a
	// line per member, by seat.
	Cluster []Address `json:"cluster"`
}

// Address is where a seat's etcd answers other members.
type Address struct {
	Seat    int            `json:"seat"`
	Address netip.AddrPort `json:"address"`
}

// Operator is a person, or a program, whose key the fleet knows.
type Operator struct {
	Name string     `json:"name"`
	Role fleet.Role `json:"role"`
	// Key is the fingerprint of the key of the operator's certificate, as fleet.Peer has it.
	Key document.Hash `json:"key"`
}

// Operators is a change of the operators that the fleet knows.
type Operators struct {
	Set    []Operator `json:"set,omitempty"`    // new ones, or others of the same name; by name
	Remove []string   `json:"remove,omitempty"` // by name
}

// maxValue is the bytes of a value, at most: the founding of a fleet of some three thousand
// seats. Those beyond are admitted by later decisions.
const maxValue = 1 << 20

// MaxEntry is the bytes of an entry's documents, at most. All of it goes into one request of
// the agent's API, also as base64.
const MaxEntry = maxRecord + maxValue + maxCertificate

// maxOperators of a fleet, at most.
const maxOperators = 1000

// Encode writes the value as it is hashed.
func (v Value) Encode() []byte { return encode(v) }

// Hash is what the record names.
func (v Value) Hash() document.Hash { return document.HashOf(v.Encode()) }

// Kind is which decision the value is; "" if it is none, or two.
func (v Value) Kind() decision.Kind {
	p, err := v.only()
	if err != nil {
		return ""
	}
	return p.kind
}

// only is the one decision that the value is.
func (v Value) only() (is part, err error) {
	var kinds []string
	for _, p := range v.parts() {
		if p.there {
			is, kinds = p, append(kinds, string(p.kind))
		}
	}
	switch len(kinds) {
	case 0:
		return part{}, errors.New("it decides nothing")
	case 1:
		return is, nil
	}
	return part{}, fmt.Errorf("it decides more than one thing: %s", strings.Join(kinds, ", "))
}

// ParseValue reads a value and checks what can be checked without knowing the fleet. The error
// wraps [ErrValue], and [document.ErrNewer] if it decides what this release does not know.
func ParseValue(raw []byte) (Value, error) {
	v, err := parseValue(raw)
	if err != nil {
		return Value{}, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return v, nil
}

func parseValue(raw []byte) (Value, error) {
	if len(raw) > maxValue {
		return Value{}, fmt.Errorf("%d bytes: %d at most", len(raw), maxValue)
	}
	v, err := document.DecodeExact[Value](raw, version)
	if err != nil {
		if later := unknownKind(raw); later != nil {
			return Value{}, later
		}
		return Value{}, err
	}
	return v, v.check()
}

// unknownKind says that a value decides something that this release does not know. Then it is
// a later one's; nil: it does not. A new field within a kind is a new version.
func unknownKind(raw []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil
	}
	known := []string{"version", "evidence"}
	for _, p := range (Value{}).parts() {
		known = append(known, p.field)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%w: it decides about %.40q", document.ErrNewer, name)
		}
	}
	return nil
}

// check says what is wrong with a value by itself.
func (v Value) check() error {
	p, err := v.only()
	if err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return fmt.Errorf("field %w", err)
	}
	return nil
}

func (f *Founding) check() error {
	if err := f.Roster.Check(); err != nil {
		return fmt.Errorf("founding.roster: %w", err)
	}
	if err := checkOperators(f.Operators); err != nil {
		return fmt.Errorf("founding.operators%w", err)
	}
	var members []int
	for _, s := range f.Roster.Seats {
		if s.Member {
			members = append(members, s.Number)
		}
	}
	var listed []int
	for i, a := range f.Cluster {
		if err := roster.CheckAddress(a.Address.Addr()); err != nil {
			return fmt.Errorf("founding.cluster[%d].address: %w", i, err)
		}
		if a.Address.Port() == 0 {
			return fmt.Errorf("founding.cluster[%d].address: it has no port", i)
		}
		if at := slices.IndexFunc(f.Cluster[:i], func(b Address) bool { return b.Address == a.Address }); at >= 0 {
			return fmt.Errorf("founding.cluster[%d].address: seat %d has the same: %s", i, f.Cluster[at].Seat, a.Address)
		}
		listed = append(listed, a.Seat)
	}
	if !slices.Equal(members, listed) {
		return fmt.Errorf("founding.cluster: seats %v, and the members are %v", listed, members)
	}
	return nil
}

func (o *Operators) check() error {
	if len(o.Set)+len(o.Remove) == 0 {
		return errors.New("operators: nothing is changed")
	}
	if err := checkOperators(o.Set); err != nil {
		return fmt.Errorf("operators.set%w", err)
	}
	for i, name := range o.Remove {
		if err := fleet.CheckOperatorName(name); err != nil {
			return fmt.Errorf("operators.remove[%d]: %w", i, err)
		}
		if i > 0 && name <= o.Remove[i-1] {
			return fmt.Errorf("operators.remove[%d]: %s does not follow on %s", i, name, o.Remove[i-1])
		}
		if find(o.Set, name) != nil {
			return fmt.Errorf("operators.remove[%d]: %s is set, too", i, name)
		}
	}
	return nil
}

// checkOperators says what is wrong with a list; the error begins behind the list's field.
func checkOperators(list []Operator) error {
	if len(list) > maxOperators {
		return fmt.Errorf(": %d: %d at most", len(list), maxOperators)
	}
	for i, o := range list {
		if err := fleet.CheckOperatorName(o.Name); err != nil {
			return fmt.Errorf("[%d].name: %w", i, err)
		}
		if i > 0 && o.Name <= list[i-1].Name {
			return fmt.Errorf("[%d].name: %s does not follow on %s", i, o.Name, list[i-1].Name)
		}
		if _, err := fleet.ParseRole(string(o.Role)); err != nil {
			return fmt.Errorf("[%d].role: %w", i, err)
		}
		if o.Key.IsZero() {
			return fmt.Errorf("[%d].key: there is none", i)
		}
	}
	return nil
}

// find is the operator of a name in a list that is sorted by name; nil: there is none.
func find(list []Operator, name string) *Operator {
	i, ok := slices.BinarySearchFunc(list, name, func(o Operator, n string) int { return strings.Compare(o.Name, n) })
	if !ok {
		return nil
	}
	return &list[i]
}
