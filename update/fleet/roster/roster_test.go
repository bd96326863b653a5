package roster

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

func key(t testing.TB, name string) signed.Key {
	t.Helper()
	seed := document.HashOf([]byte(name))
	k, err := signed.KeyOf(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// example is a roster of n votes and two seats without, of one owner.
func example(t testing.TB, n int) Roster {
	r := Roster{
		Version: 1, Rule: RuleFor(n),
		Owners: []Owner{{Name: "hanse", Keys: []signed.Key{key(t, "o1"), key(t, "o2"), key(t, "o3")}, Threshold: 2}},
	}
	for i := 1; i <= n+2; i++ {
		name := fmt.Sprintf("n%d", i)
		r.Seats = append(r.Seats, Seat{
			Number: i, Name: name, Key: key(t, name), Journal: ID{byte(i), byte(i >> 8)}, Owner: "hanse",
			Vote: i <= n, Member: i == 1, Spare: i == n, Domain: []string{"attic", ""}[i%2],
		})
	}
	if n == 1 {
		r.Seats[0].Spare = false
	}
	r.Given = n + 2
	return r
}

// TestQuorum is the table of how many votes decide, and how many may lie.
func TestQuorum(t *testing.T) {
	var b strings.Builder
	fmt.Fprintln(&b, "votes  rule        decide  may lie  may be off")
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 10, 13, 31, 99, 100, 1000} {
		r := example(t, n)
		if err := r.Check(); err != nil {
			t.Fatalf("%d votes: %v", n, err)
		}
		q, f := r.Quorum(), r.Liars()
		fmt.Fprintf(&b, "%5d  %-10s  %6d  %7d  %10d\n", n, r.Rule, q, f, n-q)
		if r.Rule == TwoThirds && 2*q-n <= f { // two quorums have an honest vote in common
			t.Errorf("%d votes: two quorums of %d may share liars only", n, q)
		}
	}
	golden.Compare(t, "quorum.txt", b.String())
	left := example(t, 4)
	left.Seats[0].Vote = false // the fourth leaves: its rule stays
	if err := left.Check(); err != nil || left.Votes() != 3 || left.Quorum() != 3 || left.Liars() != 0 {
		t.Errorf("3 of 4: %v, quorum %d, liars %d", err, left.Quorum(), left.Liars())
	}
}

// TestCheck says of each wrong roster which field it is.
func TestCheck(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		name string
		edit func(*Roster)
	}{
		{"good", func(*Roster) {}},
		{"version", func(r *Roster) { r.Version = 2 }},
		{"no owner", func(r *Roster) { r.Owners = nil }},
		{"owner's name", func(r *Roster) { r.Owners[0].Name = "Hanse\x1b[2J" }},
		{"owners out of order", func(r *Roster) { r.Owners = append(r.Owners, r.Owners[0]) }},
		{"owner without a key", func(r *Roster) { r.Owners[0].Keys = nil }},
		{"owner's key twice", func(r *Roster) { r.Owners[0].Keys[2] = r.Owners[0].Keys[0] }},
		{"threshold", func(r *Roster) { r.Owners[0].Threshold = 4 }},
		{"seat 0", func(r *Roster) { r.Seats[0].Number = 0 }},
		{"number twice", func(r *Roster) { r.Seats[1].Number = 1 }},
		{"name twice", func(r *Roster) { r.Seats[1].Name = "n1" }},
		{"key twice", func(r *Roster) { r.Seats[1].Key = r.Seats[0].Key }},
		{"journal twice", func(r *Roster) { r.Seats[1].Journal = r.Seats[0].Journal }},
		{"an owner's key", func(r *Roster) { r.Seats[1].Key = r.Owners[0].Keys[1] }},
		{"a number too large", func(r *Roster) { r.Given = maxGiven + 1 }},
		{"no key", func(r *Roster) { r.Seats[1].Key = "" }},
		{"no journal", func(r *Roster) { r.Seats[1].Journal = ID{} }},
		{"seat's name", func(r *Roster) { r.Seats[1].Name = "../n2" }},
		{"nobody's seat", func(r *Roster) { r.Seats[1].Owner = "eve" }},
		{"member and spare", func(r *Roster) { r.Seats[0].Spare = true }},
		{"two members", func(r *Roster) { r.Seats[1].Member = true }},
		{"domain", func(r *Roster) { r.Seats[1].Domain = "the attic" }},
		{"given", func(r *Roster) { r.Given = 5 }},
		{"rule", func(r *Roster) { r.Rule = "all" }},
		{"majority of 4", func(r *Roster) { r.Rule = Majority }},
		{"no votes", func(r *Roster) {
			for i := range r.Seats {
				r.Seats[i].Vote = false
			}
		}},
	} {
		r := example(t, 4)
		c.edit(&r)
		err := r.Check()
		if err != nil && !errors.Is(err, ErrRoster) {
			t.Errorf("%s: %v", c.name, err)
		}
		fmt.Fprintf(&b, "%-20s %v\n", c.name, err)
	}
	golden.Compare(t, "check.txt", b.String())
}

// TestHash holds the bytes of version 1, and that each field counts.
func TestHash(t *testing.T) {
	r := example(t, 3)
	golden.Compare(t, "v1/roster.json", string(r.Encode()))
	again, err := document.DecodeExact[Roster](r.Encode(), 1)
	if err != nil || again.Hash() != r.Hash() {
		t.Errorf("%v", err)
	}
	raw := r.Encode()
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 4
		if other, err := document.DecodeExact[Roster](bad, 1); err == nil && other.Hash() == r.Hash() {
			t.Errorf("byte %d changed: %q is read as the same", i, bad[max(0, i-20):min(i+20, len(bad))])
		}
	}
}

// TestFind looks seats up.
func TestFind(t *testing.T) {
	r := example(t, 3)
	r.Seats = append(r.Seats[:1], r.Seats[2:]...) // seat 2 left
	for number, want := range map[int]string{0: "", 1: "n1", 2: "", 3: "n3", 5: "n5", 6: ""} {
		if s, ok := r.Seat(number); s.Name != want || ok != (want != "") {
			t.Errorf("seat %d is %q", number, s.Name)
		}
	}
	if s, ok := r.ByKey(key(t, "n3")); !ok || s.Number != 3 || s.DomainOf() != "n3" {
		t.Errorf("%+v", s)
	}
	if s, ok := r.ByName("n4"); !ok || s.DomainOf() != "attic" {
		t.Errorf("%+v", s)
	}
	if _, ok := r.ByKey(key(t, "eve")); ok {
		t.Error("eve has a seat")
	}
	if _, ok := r.Owner("eve"); ok {
		t.Error("eve is an owner")
	}
}
