package agenda

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
)

// ErrWish is of what cannot be proposed as it was said.
var ErrWish = errors.New("it cannot be proposed")

// Seats are the numbers of the seats that nodes have, in order. The error wraps [ErrWish].
func Seats(s ledger.State, names []string) (numbers []int, err error) {
	for _, name := range names {
		seat, there := s.Roster.ByName(name)
		if !there {
			return nil, fmt.Errorf("%w: node %s has no seat", ErrWish, name)
		}
		numbers = append(numbers, seat.Number)
	}
	slices.Sort(numbers)
	if len(slices.Compact(slices.Clone(numbers))) != len(numbers) {
		return nil, fmt.Errorf("%w: a node is named twice", ErrWish)
	}
	return numbers, nil
}

// UnseatValue is the value that takes seats away, in whose place spares run etcd. ca is the node CA from then on; nil: it
// stays.
func UnseatValue(s ledger.State, names, members []string, ca []byte) (ledger.Value, error) {
	d := &decision.Unseat{CA: ca}
	var err error
	if d.Seats, err = Seats(s, names); err == nil {
		d.Members, err = Seats(s, members)
	}
	return ledger.Value{Unseat: d}, err
}

// IsolateValue is the value that isolates seats for good, or lets them in again.
func IsolateValue(s ledger.State, names []string, lift bool) (ledger.Value, error) {
	numbers, err := Seats(s, names)
	return ledger.Value{Isolate: &decision.Isolate{Seats: numbers, Lift: lift}}, err
}

// MembersValue is the value that has seats run etcd, and others wait for it.
func MembersValue(s ledger.State, names, spares []string) (ledger.Value, error) {
	d := &decision.Members{}
	var err error
	if d.Members, err = Seats(s, names); err == nil {
		d.Spares, err = Seats(s, spares)
	}
	return ledger.Value{Members: d}, err
}

// Seating is what is wanted of the seats that nodes get, or have; nil: it stays, or is no.
type Seating struct {
	Vote, Spare   *bool
	Domain, Owner *string
}

// Newcomer is a node that has asked for a seat.
type Newcomer struct {
	Name    string
	Seat    roster.Seat // its key and journal
	Request []byte      // signed
}

// SeatValue is the value that gives nodes seats, or makes those that they have into others, and what goes along with it.
// The rule of the fleet follows the number of its votes up, as it has to.
func SeatValue(s ledger.State, names []string, want Seating, newcomers []Newcomer) (v ledger.Value, with [][]byte, err error) {
	d, next := &decision.Seat{}, s.Roster.Given+1
	for _, name := range names {
		seat, there := s.Roster.ByName(name)
		if !there {
			i := slices.IndexFunc(newcomers, func(n Newcomer) bool { return n.Name == name })
			if i < 0 {
				return v, nil, fmt.Errorf("%w: node %s has not asked for a seat", ErrWish, name)
			}
			seat = roster.Seat{Number: next, Name: name, Key: newcomers[i].Seat.Key, Journal: newcomers[i].Seat.Journal, Owner: s.Genesis.Name}
			with = append(with, newcomers[i].Request)
			next++
		}
		set(&seat.Vote, want.Vote)
		set(&seat.Spare, want.Spare)
		set(&seat.Domain, want.Domain)
		set(&seat.Owner, want.Owner)
		d.Seats = append(d.Seats, seat)
	}
	slices.SortFunc(d.Seats, func(a, b roster.Seat) int { return a.Number - b.Number })
	if s.Roster.Rule == roster.Majority && s.Roster.WithSeats(d.Seats...).Votes() >= 4 {
		d.Rule = roster.TwoThirds
	}
	return ledger.Value{Seat: d}, with, nil
}

func set[T any](field *T, to *T) {
	if to != nil {
		*field = *to
	}
}

// PolicyValue is the value that changes fields of the policy, each as FIELD=VALUE with the names and the spelling of the
// policy's document: bake=2h, steps=5,30,100, emergency.bake=10m. The error wraps [ErrWish].
func PolicyValue(s ledger.State, changes []string) (ledger.Value, error) {
	raw, err := json.Marshal(s.Policy)
	if err != nil {
		return ledger.Value{}, err
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return ledger.Value{}, err
	}
	known := Limits(s.Policy)
	for _, change := range changes {
		name, text, ok := strings.Cut(change, "=")
		if _, there := known[name]; !ok || !there {
			return ledger.Value{}, fmt.Errorf("%w: %.64q is no change of the policy", ErrWish, change)
		}
		at := fields
		if outer, inner, below := strings.Cut(name, "."); below {
			at, name = fields[outer].(map[string]any), inner
		}
		switch at[name].(type) {
		case float64:
			at[name], err = number(text)
		case []any:
			at[name], err = numbers(text)
		default:
			at[name] = text
		}
		if err != nil {
			return ledger.Value{}, fmt.Errorf("%w: policy: field %s: %w", ErrWish, name, err)
		}
	}
	var p fleet.Policy
	if raw, err = json.Marshal(fields); err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		return ledger.Value{}, fmt.Errorf("%w: %w", ErrWish, err)
	}
	return ledger.Value{Policy: &p}, nil
}

func number(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%.64q is no number", text)
	}
	return n, nil
}

func numbers(text string) (all []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		n, err := number(part)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}
