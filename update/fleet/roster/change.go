package roster

import (
	"cmp"
	"slices"
	"strings"

	"kogge.example/update/fleet/signed"
)

// many is how many votes a fleet has that changes a tenth of itself at a time.
const many = 10

// MostChanged is how many seats one decision changes, at most: as many as may lie while there are
// fewer than ten votes, a tenth of them from then on, and one in any case. So whoever is being
// replaced decides about it together with those who stay.
func (r Roster) MostChanged() int {
	if n := r.Votes(); n >= many {
		return n / many
	}
	return max(1, r.Liars())
}

// Changed are the numbers of the seats that a decision changes. Seats that come without a vote are
// none of them, and who runs etcd is another matter.
func Changed(before, after Roster) (numbers []int) {
	plain := func(s Seat) Seat {
		s.Member, s.Spare = false, false
		return s
	}
	for _, s := range before.Seats {
		if now, there := after.Seat(s.Number); !there || plain(now) != plain(s) {
			numbers = append(numbers, s.Number)
		}
	}
	for _, s := range after.Seats {
		if _, there := before.Seat(s.Number); !there && s.Vote {
			numbers = append(numbers, s.Number)
		}
	}
	return numbers
}

// NewVotes are the numbers of the seats that vote after a decision, and did not before.
func NewVotes(before, after Roster) (numbers []int) {
	for _, s := range after.Seats {
		if was, _ := before.Seat(s.Number); s.Vote && !was.Vote {
			numbers = append(numbers, s.Number)
		}
	}
	return numbers
}

// WithSeats is the roster with seats put in, or in the place of those that have their numbers.
func (r Roster) WithSeats(seats ...Seat) Roster {
	all := slices.DeleteFunc(slices.Clone(r.Seats), func(s Seat) bool {
		return slices.ContainsFunc(seats, func(n Seat) bool { return n.Number == s.Number })
	})
	r.Seats = append(all, seats...)
	slices.SortStableFunc(r.Seats, func(a, b Seat) int { return cmp.Compare(a.Number, b.Number) })
	for _, s := range seats {
		r.Given = max(r.Given, s.Number)
	}
	return r
}

// WithoutSeats is the roster without the seats of some numbers.
func (r Roster) WithoutSeats(numbers ...int) Roster {
	r.Seats = slices.DeleteFunc(slices.Clone(r.Seats), func(s Seat) bool { return slices.Contains(numbers, s.Number) })
	return r
}

// WithOwners is the roster with owners put in, or in the place of those of their names.
func (r Roster) WithOwners(owners ...Owner) Roster {
	all := slices.DeleteFunc(slices.Clone(r.Owners), func(o Owner) bool {
		return slices.ContainsFunc(owners, func(n Owner) bool { return n.Name == o.Name })
	})
	r.Owners = append(all, owners...)
	slices.SortStableFunc(r.Owners, func(a, b Owner) int { return strings.Compare(a.Name, b.Name) })
	return r
}

// OnlyOwners is the roster with those owners alone to whom a seat belongs, and the one of a name.
func (r Roster) OnlyOwners(always string) Roster {
	has := map[string]bool{always: true}
	for _, s := range r.Seats {
		has[s.Owner] = true
	}
	r.Owners = slices.DeleteFunc(slices.Clone(r.Owners), func(o Owner) bool { return !has[o.Name] })
	return r
}

// VotesOf is how many seats with a vote belong to owners of whom a test is true.
func (r Roster) VotesOf(owner func(name string) bool) int {
	return r.count(func(s Seat) bool { return s.Vote && owner(s.Owner) })
}

// Members are the numbers of the seats that run etcd.
func (r Roster) Members() (numbers []int) {
	for _, s := range r.Seats {
		if s.Member {
			numbers = append(numbers, s.Number)
		}
	}
	return numbers
}

// Objected says whether so many seats of a roster object to one that owners have signed in its place that
// it is not taken: more than a third of its votes, or more than half of the seats that the new one keeps.
func (r Roster) Objected(next Roster, by []int) bool {
	votes, kept, keeps := 0, 0, 0
	keys, objects := make(map[signed.Key]bool), make(map[int]bool)
	for _, s := range next.Seats {
		keys[s.Key] = true
	}
	for _, number := range by {
		objects[number] = true
	}
	for _, s := range r.Seats {
		stays := keys[s.Key]
		if stays {
			keeps++
		}
		if !objects[s.Number] {
			continue
		}
		if s.Vote {
			votes++
		}
		if stays {
			kept++
		}
	}
	return 3*votes > r.Votes() || 2*kept > keeps
}

// LostVotes is how many votes give an owner other keys whose own are lost: more than five of six.
func LostVotes(votes int) int { return 5*votes/6 + 1 }
