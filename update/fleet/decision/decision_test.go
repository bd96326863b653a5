package decision

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// TestTable prints the table as the page shows it.
func TestTable(t *testing.T) {
	golden.Compare(t, "table.txt", Format())
	seen := make(map[Kind]bool)
	for _, r := range Table() {
		if seen[r.Kind] {
			t.Errorf("%s has two rows", r.Kind)
		}
		seen[r.Kind] = true
		if got, ok := Of(r.Kind); !ok || got.What != r.What {
			t.Errorf("%s: %+v, %t", r.Kind, got, ok)
		}
		if r.What == "" || r.Holds == "" || r.Changes == "" || r.Proposer == "" {
			t.Errorf("%s: a column is empty: %+v", r.Kind, r)
		}
		if (r.Vote.Way == "") != (r.Proposer == Owner) {
			t.Errorf("%s: votes %q, proposed by %s", r.Kind, r.Vote, r.Proposer)
		}
		if r.Kind.OneKey() != (r.Kind == KindRollout) {
			t.Errorf("%s: one key is enough: %t", r.Kind, r.Kind.OneKey())
		}
	}
	early := []Kind{}
	for _, r := range Table() {
		if r.Early() {
			early = append(early, r.Kind)
		}
	}
	if got := fmt.Sprint(early); got != "[seat unseat replace rule owners settle double-vote]" {
		t.Errorf("these go before others: %s", got)
	}
	if _, ok := Of(KindFounding); ok {
		t.Error("a vote decides the founding")
	}
}

// TestVote reads each way to vote as it is written, and as people write it.
func TestVote(t *testing.T) {
	for text, want := range map[string]string{
		"auto": "auto", "ask": "ask", "never": "never", "after 48h": "after 48h0m0s", "after 1m30s": "after 1m30s",
		"": "", "Auto": "", "after": "", "after 0s": "", "after -1h": "", "after 9000h": "", "ask 1h": "", "auto ": "", "after 48h x": "", "\x1b[2J": "",
	} {
		var v Vote
		err := v.UnmarshalText([]byte(text))
		if (err == nil) != (want != "") || err == nil && v.String() != want {
			t.Errorf("%q: %v, %v", text, v, err)
		}
		if err != nil && strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %s", text, err)
		}
	}
	raw, err := json.Marshal(map[string]Vote{"a": {Way: After, After: document.Duration(48 * time.Hour)}})
	if err != nil || string(raw) != `{"a":"after 48h0m0s"}` {
		t.Errorf("%s, %v", raw, err)
	}
}

// TestCheck says of each wrong document which field it is.
func TestCheck(t *testing.T) {
	seat := func(n int) roster.Seat { return roster.Seat{Number: n, Name: fmt.Sprintf("n%d", n)} }
	ca, _, err := fleet.NewCA("hanse", fleet.KindNode, time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	root := document.HashOf([]byte("root"))
	owner := roster.Owner{Name: "kaper", Keys: []signed.Key{"k"}, Threshold: 1}
	var b strings.Builder
	for _, c := range []struct {
		name string
		d    interface{ Check() error }
	}{
		{"seats", &Seat{Seats: []roster.Seat{seat(5), seat(6)}, Owners: []roster.Owner{owner}, Rule: roster.TwoThirds}},
		{"no seat", &Seat{}},
		{"seat 0", &Seat{Seats: []roster.Seat{seat(0)}}},
		{"seats out of order", &Seat{Seats: []roster.Seat{seat(6), seat(5)}}},
		{"too many seats", &Seat{Seats: make([]roster.Seat, maxSeats+1)}},
		{"an owner twice", &Seat{Seats: []roster.Seat{seat(5)}, Owners: []roster.Owner{owner, owner}}},
		{"too many owners", &Seat{Seats: []roster.Seat{seat(5)}, Owners: make([]roster.Owner, maxOwners+1)}},
		{"a weaker rule", &Seat{Seats: []roster.Seat{seat(5)}, Rule: roster.Majority}},
		{"unseat", &Unseat{Seats: []int{1, 2}, Members: []int{3}, CA: ca}},
		{"unseat nobody", &Unseat{}},
		{"unseat twice", &Unseat{Seats: []int{1, 1}}},
		{"members out of order", &Unseat{Seats: []int{1}, Members: []int{4, 3}}},
		{"a CA that is none", &Unseat{Seats: []int{1}, CA: []byte("x")}},
		{"a CA too large", &Unseat{Seats: []int{1}, CA: bytes.Repeat([]byte("x"), maxCA+1)}},
		{"replace", &Replace{Old: 2, New: seat(5)}},
		{"replace seat 0", &Replace{New: seat(5)}},
		{"replace by an older one", &Replace{Old: 2, New: seat(2)}},
		{"isolate", &Isolate{Seats: []int{2}}},
		{"isolate nobody", &Isolate{}},
		{"isolate seat -1", &Isolate{Seats: []int{-1}}},
		{"rule", &Rule{roster.Majority}},
		{"two thirds", &Rule{roster.TwoThirds}},
		{"another rule", &Rule{"\x1b[2J"}},
		{"TUF root", &TUFRoot{2, root}},
		{"version 0", &TUFRoot{0, root}},
		{"no root", &TUFRoot{2, document.Hash{}}},
		{"CA", &CA{ca}},
		{"no CA", &CA{}},
		{"members", &Members{Members: []int{1, 2, 3}, Spares: []int{4}}},
		{"two members", &Members{Members: []int{1, 2}}},
		{"a member as spare", &Members{Members: []int{1, 2, 3}, Spares: []int{3}}},
		{"spares twice", &Members{Members: []int{1}, Spares: []int{3, 3}}},
		{"owner", &Owners{Owner: owner}},
		{"owner's name", &Owners{Owner: roster.Owner{Name: "\x1b[2J"}}},
		{"owner without keys", &Owners{Owner: roster.Owner{Name: "kaper"}}},
		{"settle", &Settle{Record: root}},
		{"settle nothing", &Settle{}},
		{"double vote", &DoubleVote{3}},
		{"double vote of nobody", &DoubleVote{}},
		{"break-glass without a roster", &BreakGlass{}},
	} {
		fmt.Fprintf(&b, "%-30s %v\n", c.name, c.d.Check())
	}
	golden.Compare(t, "check.txt", b.String())
}

// TestObjection waits a month, but where things are tried out.
func TestObjection(t *testing.T) {
	if got := Objection(fleet.DefaultPolicy()); got != objection {
		t.Errorf("%s", got)
	}
	if got := Objection(fleet.TrialPolicy()); got != fleet.TrialPolicy().BreakGlass {
		t.Errorf("%s", got)
	}
}
