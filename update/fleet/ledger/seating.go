package ledger

import (
	"errors"
	"fmt"
	"slices"

	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// withRoster is the state with other seats. field is how the error calls the decision.
func (s State) withRoster(field string, r roster.Roster) (State, error) {
	if err := r.Check(); err != nil {
		return s, fmt.Errorf("field %s: %w", field, err)
	}
	if votes := r.Votes(); votes > s.Policy.Votes {
		return s, fmt.Errorf("field %s: then there are %d votes, and the policy allows %d", field, votes, s.Policy.Votes)
	}
	if len(r.Members()) == 0 && len(s.Roster.Members()) > 0 {
		return s, fmt.Errorf("field %s: then no member runs etcd", field)
	}
	for _, seat := range r.Seats {
		if seat.Vote && slices.Contains(s.Barred, seat.Key) {
			return s, fmt.Errorf("field %s: the key of seat %d (%s) has voted twice at one height, and votes never again: replace the seat", field, seat.Number, seat.Name)
		}
	}
	if s.Claim != nil {
		if _, there := r.Owner(s.Claim.Owner.Name); !there {
			s.Claim = nil // no seat is his any more
		}
	}
	if s.Claim != nil {
		if i := slices.IndexFunc(r.Seats, func(seat roster.Seat) bool { return slices.Contains(s.Claim.Owner.Keys, seat.Key) }); i >= 0 {
			return s, fmt.Errorf("field %s: the key of seat %d (%s) is one of those that owner %s waits for", field, r.Seats[i].Number, r.Seats[i].Name, s.Claim.Owner.Name)
		}
	}
	gone := func(number int) bool { _, there := r.Seat(number); return !there }
	s.Isolated = slices.DeleteFunc(slices.Clone(s.Isolated), gone)
	if more := roster.NewVotes(s.Roster, r); len(more) > 0 {
		s.Awaited, s.Seated = append(s.stillAwaited(r), more...), s.Height+1
		slices.Sort(s.Awaited)
	} else {
		s.Awaited = s.stillAwaited(r)
	}
	s.Roster, s.rosterHash, s.hadCA = r, r.Hash(), s.havingCA(r)
	return s, nil
}

// stillAwaited are those whom a roster leaves their vote, and who have not used it.
func (s State) stillAwaited(r roster.Roster) []int {
	return slices.DeleteFunc(slices.Clone(s.Awaited), func(number int) bool {
		seat, _ := r.Seat(number)
		return !seat.Vote
	})
}

// change is [State.withRoster] for a decision that may change only so many seats.
func (s State) change(field string, r roster.Roster) (State, error) {
	if changed, most := roster.Changed(s.Roster, r), s.Roster.MostChanged(); len(changed) > most {
		return s, fmt.Errorf("field %s: it changes seats %v, and with %d votes one decision changes %d at most", field, changed, s.Roster.Votes(), most)
	}
	return s.withRoster(field, r)
}

func (s State) seat(d *decision.Seat) (State, error) {
	next, members := s.Roster.Given+1, 0
	for i, seat := range d.Seats {
		field := fmt.Sprintf("field seat.seats[%d]", i)
		was, there := s.Roster.Seat(seat.Number)
		switch {
		case there && seat == was:
			return s, fmt.Errorf("%s: seat %d is like this already", field, seat.Number)
		case there && (seat.Name != was.Name || seat.Key != was.Key || seat.Journal != was.Journal):
			return s, fmt.Errorf("%s.key: seat %d is that of %s, with its key and journal: replace it", field, seat.Number, was.Name)
		case there && seat.Member != was.Member:
			return s, fmt.Errorf("%s.member: spares become members by a decision about members", field)
		case there:
		case seat.Number != next:
			return s, fmt.Errorf("%s.number: %d, and the next one is %d", field, seat.Number, next)
		default:
			next++
			if seat.Member {
				members++
			}
		}
	}
	if members > maxNewMembers {
		return s, fmt.Errorf("field seat.seats: %d new members: %d at most in one decision", members, maxNewMembers)
	}
	for i, o := range d.Owners {
		if _, there := s.Roster.Owner(o.Name); there {
			return s, fmt.Errorf("field seat.owners[%d].name: there is an owner %.70q already", i, o.Name)
		}
		if !slices.ContainsFunc(d.Seats, func(seat roster.Seat) bool { return seat.Owner == o.Name }) {
			return s, fmt.Errorf("field seat.owners[%d].name: no seat comes with owner %.70q", i, o.Name)
		}
	}
	r := s.Roster.WithSeats(d.Seats...).WithOwners(d.Owners...).OnlyOwners(s.Genesis.Name)
	switch fourth := r.Votes() >= 4 && r.Rule == roster.Majority; {
	case fourth && d.Rule != roster.TwoThirds:
		return s, fmt.Errorf("field seat.rule: with %d votes it is %s, and the decision has to say so", r.Votes(), roster.TwoThirds)
	case !fourth && d.Rule != "":
		return s, fmt.Errorf("field seat.rule: it does not change, and is %s", r.Rule)
	case fourth:
		r.Rule = d.Rule
	}
	return s.change("seat", r)
}

// present wants seats of some numbers to be there.
func (s State) present(field string, numbers []int) error {
	for i, n := range numbers {
		if _, there := s.Roster.Seat(n); !there {
			return fmt.Errorf("field %s[%d]: there is no seat %d", field, i, n)
		}
	}
	return nil
}

func (s State) unseat(d *decision.Unseat) (State, error) {
	if err := errors.Join(s.present("unseat.seats", d.Seats), s.present("unseat.members", d.Members)); err != nil {
		return s, err
	}
	var members []roster.Seat
	for i, n := range d.Members {
		seat, _ := s.Roster.Seat(n)
		if !seat.Spare || slices.Contains(d.Seats, n) {
			return s, fmt.Errorf("field unseat.members[%d]: seat %d (%s) is no spare that stays", i, n, seat.Name)
		}
		seat.Member, seat.Spare = true, false
		members = append(members, seat)
	}
	if len(members) > s.membersOf(d.Seats) {
		return s, fmt.Errorf("field unseat.members: %d, and %d members leave", len(members), s.membersOf(d.Seats))
	}
	if len(members) > maxNewMembers {
		return s, fmt.Errorf("field unseat.members: %d new ones: %d at most in one decision", len(members), maxNewMembers)
	}
	after, err := s.anew("unseat.ca", d.CA, d.Seats...)
	if err == nil {
		after, err = after.change("unseat", s.Roster.WithSeats(members...).WithoutSeats(d.Seats...).OnlyOwners(s.Genesis.Name))
	}
	return after, errors.Join(err, s.leaves("unseat.members", after))
}

// leaves wants that a decision about members does not leave etcd's majority isolated: for that the owner has to
// say yes, and isolates them first.
func (s State) leaves(field string, after State) error {
	if cut := after.cutOff(); cut != nil && s.cutOff() == nil {
		return fmt.Errorf("field %s: %w", field, cut)
	}
	return nil
}

func (s State) membersOf(numbers []int) (n int) {
	for _, m := range s.Roster.Members() {
		if slices.Contains(numbers, m) {
			n++
		}
	}
	return n
}

// anew is the state with another node CA, where [State.NeedsCA] says so of the seats that leave; else there has to
// be none.
func (s State) anew(field string, ca []byte, leave ...int) (State, error) {
	has := s.NeedsCA(leave...)
	switch {
	case has && len(ca) == 0:
		return s, fmt.Errorf("field %s: a seat that leaves has had the key of the node CA, and the decision has to bring another one", field)
	case !has && len(ca) > 0:
		return s, fmt.Errorf("field %s: no seat that leaves has had the key of the node CA: to replace it is a decision of its own", field)
	case !has:
		return s, nil
	}
	return s.withCA(field, ca)
}

func (s State) replace(d *decision.Replace) (State, error) {
	old, there := s.Roster.Seat(d.Old)
	if !there {
		return s, fmt.Errorf("field replace.old: there is no seat %d", d.Old)
	}
	if next := s.Roster.Given + 1; d.New.Number != next {
		return s, fmt.Errorf("field replace.new.number: %d, and the next one is %d", d.New.Number, next)
	}
	want := old
	want.Number, want.Key, want.Journal = d.New.Number, d.New.Key, d.New.Journal
	if d.New != want {
		return s, fmt.Errorf("field replace.new: it differs from seat %d (%s) in more than number, key and journal", old.Number, old.Name)
	}
	if d.New.Key == old.Key || d.New.Journal == old.Journal {
		return s, fmt.Errorf("field replace.new.key: seat %d (%s) has this key, or this journal, already", old.Number, old.Name)
	}
	after, err := s.anew("replace.ca", d.CA, d.Old)
	if err != nil {
		return s, err
	}
	return after.withRoster("replace", s.Roster.WithoutSeats(d.Old).WithSeats(d.New))
}

func (s State) setMembers(d *decision.Members) (State, error) {
	if err := errors.Join(s.present("members.members", d.Members), s.present("members.spares", d.Spares)); err != nil {
		return s, err
	}
	r := s.Roster
	r.Seats = slices.Clone(r.Seats)
	added, changed := 0, false
	for i := range r.Seats {
		seat := &r.Seats[i]
		was := *seat
		seat.Member, seat.Spare = slices.Contains(d.Members, seat.Number), slices.Contains(d.Spares, seat.Number)
		if seat.Member && !was.Member {
			if added++; !was.Spare {
				return s, fmt.Errorf("field members.members: seat %d (%s) is no spare, and members are taken from spares", seat.Number, seat.Name)
			}
		}
		changed = changed || *seat != was
	}
	if !changed {
		return s, errors.New("field members: nothing is changed")
	}
	if added > maxNewMembers {
		return s, fmt.Errorf("field members.members: %d new ones: %d at most in one decision", added, maxNewMembers)
	}
	after, err := s.withRoster("members", r)
	return after, errors.Join(err, s.leaves("members.members", after))
}

// maxNewMembers is how many members one decision adds, at most: etcd takes so many learners at a time.
const maxNewMembers = 2

func (s State) setRule(d *decision.Rule) (State, error) {
	if s.Roster.Rule == d.Rule {
		return s, fmt.Errorf("field rule.rule: it is %s already", d.Rule)
	}
	r := s.Roster
	r.Rule = d.Rule
	return s.withRoster("rule", r)
}

func (s State) doubleVote(d *decision.DoubleVote) (State, error) {
	seat, there := s.Roster.Seat(d.Seat)
	switch {
	case !there:
		return s, fmt.Errorf("field doubleVote.seat: there is no seat %d", d.Seat)
	case slices.Contains(s.Barred, seat.Key): // it may have lost its vote otherwise, and would get it again
		return s, fmt.Errorf("field doubleVote.seat: seat %d (%s) has lost its vote for it already", d.Seat, seat.Name)
	}
	seat.Vote = false
	after, err := s.withRoster("doubleVote", s.Roster.WithSeats(seat))
	if err != nil {
		return s, err
	}
	after.Barred = append(slices.Clip(s.Barred), seat.Key)
	return after, nil
}

func (s State) breakGlass(d *decision.BreakGlass) (State, error) {
	r, given := d.Roster, s.Roster.Given
	same := func(a, b roster.Owner) bool {
		return a.Name == b.Name && a.Threshold == b.Threshold && slices.Equal(a.Keys, b.Keys)
	}
	for i, o := range r.Owners {
		if was, there := s.Roster.Owner(o.Name); !there || !same(o, was) {
			return s, fmt.Errorf("field breakGlass.roster.owners[%d]: break-glass changes no owner's keys, and brings none", i)
		}
	}
	if len(r.Owners) != len(r.OnlyOwners(s.Genesis.Name).Owners) {
		return s, errors.New("field breakGlass.roster.owners: one of them has no seat")
	}
	if _, there := r.Owner(s.Genesis.Name); !there {
		return s, fmt.Errorf("field breakGlass.roster.owners: owner %s is not there, who has founded the fleet", s.Genesis.Name)
	}
	for i, seat := range r.Seats {
		was, there := s.Roster.Seat(seat.Number)
		was.Vote, was.Member, was.Spare = seat.Vote, seat.Member, seat.Spare
		switch {
		case seat.Number <= given && (!there || seat != was):
			return s, fmt.Errorf("field breakGlass.roster.seats[%d]: seat %d keeps its name, key, journal, owner and domain, or is not there", i, seat.Number)
		case seat.Number > given+1 && (i == 0 || r.Seats[i-1].Number != seat.Number-1):
			return s, fmt.Errorf("field breakGlass.roster.seats[%d].number: %d: new ones follow on %d", i, seat.Number, given)
		}
	}
	if want := max(given, r.Seats[len(r.Seats)-1].Number); r.Given != want {
		return s, fmt.Errorf("field breakGlass.roster.given: %d, and %d is the highest number that a seat ever had", r.Given, want)
	}
	var leave []int
	for _, seat := range s.Roster.Seats {
		if _, stays := r.Seat(seat.Number); !stays {
			leave = append(leave, seat.Number)
		}
	}
	after, err := s.anew("breakGlass.ca", d.CA, leave...)
	if err != nil {
		return s, err
	}
	if after, err = after.withRoster("breakGlass", r); err != nil {
		return s, err
	}
	after.BrokenGlass = s.Height + 1
	return after, nil
}

// newSeats are the seats of a value whose nodes are new to the fleet, by key.
func (v Value) newSeats(before roster.Roster) map[signed.Key]roster.Seat {
	var all []roster.Seat
	switch {
	case v.Seat != nil:
		all = v.Seat.Seats
	case v.Replace != nil:
		all = []roster.Seat{v.Replace.New}
	case v.BreakGlass != nil:
		all = v.BreakGlass.Roster.Seats
	}
	more := make(map[signed.Key]roster.Seat)
	for _, seat := range all {
		if seat.Number > before.Given {
			more[seat.Key] = seat
		}
	}
	return more
}
