package roster

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/golden"
)

// TestMostChanged is the table of how many seats one decision changes, and how many votes it takes to give
// an owner other keys.
func TestMostChanged(t *testing.T) {
	var b strings.Builder
	fmt.Fprintln(&b, "votes  rule        changes  decide  lost keys")
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 19, 20, 31, 99, 100, 1000} {
		r := example(t, n)
		if n == 1 { // smaller than any that vote
			r.Rule = Majority
		}
		fmt.Fprintf(&b, "%5d  %-10s  %7d  %6d  %9d\n", n, r.Rule, r.MostChanged(), r.Quorum(), LostVotes(n))
		if n >= 10 && r.MostChanged() > r.Votes()-r.Quorum() {
			t.Errorf("%d votes: one decision changes %d, and a quorum of the old ones may be gone", n, r.MostChanged())
		}
	}
	golden.Compare(t, "change.txt", b.String())
}

// TestChanged counts what a decision does to seats.
func TestChanged(t *testing.T) {
	r := example(t, 4) // and seats 5 and 6 without a vote
	edit := func(number int, f func(*Seat)) Roster {
		s, ok := r.Seat(number)
		if !ok {
			s = Seat{Number: number, Name: fmt.Sprintf("n%d", number), Owner: "hanse"}
		}
		f(&s)
		return r.WithSeats(s)
	}
	for _, c := range []struct {
		name         string
		after        Roster
		changed, new []int
	}{
		{"nothing", r, nil, nil},
		{"a vote comes", edit(7, func(s *Seat) { s.Vote = true }), []int{7}, []int{7}},
		{"a seat without a vote comes", edit(7, func(*Seat) {}), nil, nil},
		{"a seat gets a vote", edit(5, func(s *Seat) { s.Vote = true }), []int{5}, []int{5}},
		{"a seat loses its vote", edit(4, func(s *Seat) { s.Vote = false }), []int{4}, nil},
		{"a seat leaves", r.WithoutSeats(4), []int{4}, nil},
		{"a seat without a vote leaves", r.WithoutSeats(6), []int{6}, nil},
		{"a spare becomes a member", edit(4, func(s *Seat) { s.Member, s.Spare = true, false }), nil, nil},
		{"a seat in another domain", edit(4, func(s *Seat) { s.Domain = "cellar" }), []int{4}, nil},
		{"a seat of another owner", edit(4, func(s *Seat) { s.Owner = "kaper" }), []int{4}, nil},
	} {
		if got := Changed(r, c.after); !slices.Equal(got, c.changed) {
			t.Errorf("%s: it changes %v", c.name, got)
		}
		if got := NewVotes(r, c.after); !slices.Equal(got, c.new) {
			t.Errorf("%s: %v vote from then on", c.name, got)
		}
	}
	if !slices.Equal(r.Seats, example(t, 4).Seats) {
		t.Error("the roster itself was changed")
	}
	if got := r.WithoutSeats(5, 6); got.Given != 6 || len(got.Seats) != 4 {
		t.Errorf("given %d, %d seats", got.Given, len(got.Seats))
	}
	if got := r.WithSeats(Seat{Number: 9}); got.Given != 9 {
		t.Errorf("given %d", got.Given)
	}
}

// TestOwners puts owners in and takes those away who have no seat.
func TestOwners(t *testing.T) {
	r := example(t, 4).WithOwners(Owner{Name: "kaper"}, Owner{Name: "alice"}, Owner{Name: "hanse", Threshold: 1})
	var names []string
	for _, o := range r.Owners {
		names = append(names, fmt.Sprint(o.Name, o.Threshold))
	}
	if got := strings.Join(names, " "); got != "alice0 hanse1 kaper0" {
		t.Errorf("%s", got)
	}
	if got := r.OnlyOwners("kaper").Owners; len(got) != 2 || got[0].Name != "hanse" || got[1].Name != "kaper" {
		t.Errorf("%+v", got)
	}
	if got := r.VotesOf(func(name string) bool { return name == "hanse" }); got != 4 {
		t.Errorf("%d votes", got)
	}
	if got := r.Members(); !slices.Equal(got, []int{1}) {
		t.Errorf("members %v", got)
	}
}

// TestObjected says how many seats keep owners from seating a fleet anew: more than a third of its votes, or
// more than half of those whom the new roster keeps.
func TestObjected(t *testing.T) {
	r := example(t, 7)                    // seats 8 and 9 have no vote
	next := r.WithoutSeats(2, 3, 4, 5, 6) // 1, 7, 8 and 9 stay
	for _, c := range []struct {
		by   []int
		want bool
	}{
		{nil, false}, {[]int{1, 2}, false}, {[]int{2, 3}, false}, {[]int{2, 3, 4}, true}, {[]int{1, 8}, false}, {[]int{1, 8, 9}, true}, {[]int{20, 21, 22}, false},
	} {
		if got := r.Objected(next, c.by); got != c.want {
			t.Errorf("%v: %t", c.by, got)
		}
	}
}
