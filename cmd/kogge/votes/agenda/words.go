package agenda

import (
	"cmp"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
)

// words say for each kind of decision that an operator proposes what it would change in a state. A decision
// that cannot be made is described all the same.
var words = map[decision.Kind]func(ledger.State, ledger.Value) []string{
	decision.KindSeat:      seatWords,
	decision.KindUnseat:    unseatWords,
	decision.KindReplace:   replaceWords,
	decision.KindIsolate:   isolateWords,
	decision.KindOperators: operatorWords,
	decision.KindPolicy:    policyWords,
	decision.KindRule:      ruleWords,
	decision.KindTUFRoot:   tufWords,
	decision.KindCA:        func(s ledger.State, v ledger.Value) []string { return caWords(s, v.CA.Certificate) },
	decision.KindMembers:   memberWords,
	decision.KindOwners:    ownerWords,
}

// Changes is what a value would change, a line each.
func Changes(s ledger.State, v ledger.Value) []string {
	row, known := decision.Of(v.Kind())
	if say := words[v.Kind()]; say != nil {
		return say(s, v)
	}
	if !known {
		return []string{"what this release of kogge does not know"}
	}
	return []string{row.What}
}

// Consent is who has to say yes to a value, a line each.
func Consent(s ledger.State, v ledger.Value) []string {
	row, _ := decision.Of(v.Kind())
	lines := []string{fmt.Sprintf("%d of %d votes decide", s.Roster.Quorum(), s.Roster.Votes())}
	var owners []string
	for _, o := range s.Roster.Owners {
		if n := s.Roster.VotesOf(func(name string) bool { return name == o.Name }); n > 0 {
			owners = append(owners, fmt.Sprintf("%s (%s, any %d of %s)", o.Name, count(n, "vote"), o.Threshold, count(len(o.Keys), "key")))
		}
	}
	switch row.Vote.Way {
	case decision.Ask:
		lines = append(lines, "a node whose vote: is not set asks its owner: "+strings.Join(owners, ", "))
	case decision.Auto:
		lines = append(lines, "a node whose vote: is not set votes for it by itself, if it is valid")
	}
	if row.Consent != "" {
		lines = append(lines, "besides: "+row.Consent)
	}
	return append(lines, "it holds from "+row.Holds)
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// named is a seat by its number, for people.
func named(s ledger.State, number int) string {
	seat, there := s.Roster.Seat(number)
	if !there {
		return fmt.Sprintf("seat %d, which is not there", number)
	}
	return fmt.Sprintf("seat %d (%s)", number, seat.Name)
}

func nodes(s ledger.State, numbers []int) string {
	var all []string
	for _, n := range numbers {
		seat, _ := s.Roster.Seat(n)
		all = append(all, cmp.Or(seat.Name, fmt.Sprintf("seat %d", n)))
	}
	return cmp.Or(strings.Join(all, ", "), "none")
}

// votes says how many decide afterwards, if that changes.
func votes(before, after roster.Roster) []string {
	if before.Votes() == after.Votes() && before.Rule == after.Rule {
		return nil
	}
	say := func(r roster.Roster) string {
		return fmt.Sprintf("%d of %d decide (%s), %d may lie", r.Quorum(), r.Votes(), r.Rule, r.Liars())
	}
	return []string{"votes: " + say(before) + " → " + say(after)}
}

// does is what a seat is besides its number, for people.
func does(seat roster.Seat) string {
	parts := []string{"without a vote"}
	if seat.Vote {
		parts[0] = "with a vote"
	}
	switch {
	case seat.Member:
		parts = append(parts, "runs etcd")
	case seat.Spare:
		parts = append(parts, "a spare of etcd")
	}
	return strings.Join(append(parts, "domain "+seat.DomainOf(), "owner "+seat.Owner), ", ")
}

func seatWords(s ledger.State, v ledger.Value) (lines []string) {
	for _, seat := range v.Seat.Seats {
		was, there := s.Roster.Seat(seat.Number)
		if there {
			lines = append(lines, fmt.Sprintf("%s: %s → %s", named(s, seat.Number), does(was), does(seat)))
			continue
		}
		lines = append(lines, fmt.Sprintf("node %s gets seat %d: %s; its key is %s", seat.Name, seat.Number, does(seat), seat.Key.ID().Short()))
	}
	for _, o := range v.Seat.Owners {
		lines = append(lines, fmt.Sprintf("owner %s comes with %s, of which any %d act as the owner", o.Name, count(len(o.Keys), "key"), o.Threshold))
	}
	after := s.Roster.WithSeats(v.Seat.Seats...)
	after.Rule = cmp.Or(v.Seat.Rule, after.Rule)
	return append(lines, votes(s.Roster, after)...)
}

func unseatWords(s ledger.State, v ledger.Value) (lines []string) {
	for _, n := range v.Unseat.Seats {
		seat, _ := s.Roster.Seat(n)
		lines = append(lines, fmt.Sprintf("%s is taken away: %s", named(s, n), does(seat)))
	}
	for _, n := range v.Unseat.Members {
		lines = append(lines, named(s, n)+", a spare, runs etcd")
	}
	lines = append(lines, caWords(s, v.Unseat.CA)...)
	return append(lines, votes(s.Roster, s.Roster.WithoutSeats(v.Unseat.Seats...))...)
}

func replaceWords(s ledger.State, v ledger.Value) []string {
	d := v.Replace
	lines := []string{fmt.Sprintf("%s goes, and another node gets its name and all: seat %d, %s; its key is %s", named(s, d.Old), d.New.Number, does(d.New), d.New.Key.ID().Short())}
	return append(lines, caWords(s, d.CA)...)
}

func isolateWords(s ledger.State, v ledger.Value) (lines []string) {
	for _, n := range v.Isolate.Seats {
		if v.Isolate.Lift {
			lines = append(lines, named(s, n)+" is isolated no more")
			continue
		}
		lines = append(lines, named(s, n)+" is isolated for good: no sessions, calls and secrets; its vote stays and is counted")
	}
	return lines
}

func operatorWords(s ledger.State, v ledger.Value) (lines []string) {
	was := make(map[string]ledger.Operator)
	for _, o := range s.Operators {
		was[o.Name] = o
	}
	for _, o := range v.Operators.Set {
		before, there := was[o.Name]
		switch {
		case !there:
			lines = append(lines, fmt.Sprintf("%s becomes an operator: role %s, key %s", o.Name, o.Role, o.Key.Short()))
		default:
			lines = append(lines, fmt.Sprintf("operator %s: role %s, key %s → role %s, key %s", o.Name, before.Role, before.Key.Short(), o.Role, o.Key.Short()))
		}
	}
	for _, name := range v.Operators.Remove {
		before, there := was[name]
		if !there {
			lines = append(lines, name+", who is no operator by the ledger as it is known here, is one no more")
			continue
		}
		lines = append(lines, fmt.Sprintf("%s is no operator any more: role %s, key %s", name, before.Role, before.Key.Short()))
	}
	return lines
}

func policyWords(s ledger.State, v ledger.Value) (lines []string) {
	before, after := Limits(s.Policy), Limits(*v.Policy)
	for _, field := range slices.Sorted(maps.Keys(after)) {
		if before[field] != after[field] {
			lines = append(lines, fmt.Sprintf("policy %s: %s → %s", field, before[field], after[field]))
		}
	}
	if len(lines) == 0 {
		return []string{"nothing: the policy is like this already"}
	}
	return lines
}

// Limits are the fields of a policy, and what each of them says, as text.
func Limits(p fleet.Policy) map[string]string {
	raw, err := json.Marshal(p)
	if err != nil {
		panic(err) // JSON can write each policy
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		panic(err)
	}
	all := make(map[string]string)
	for name, is := range fields {
		var below map[string]json.RawMessage
		if json.Unmarshal(is, &below) != nil {
			all[name] = strings.Trim(string(is), `"[]`)
			continue
		}
		for inner, is := range below {
			all[name+"."+inner] = strings.Trim(string(is), `"[]`)
		}
	}
	return all
}

func ruleWords(s ledger.State, v ledger.Value) []string {
	after := s.Roster
	after.Rule = v.Rule.Rule
	if lines := votes(s.Roster, after); lines != nil {
		return lines
	}
	return []string{fmt.Sprintf("nothing: the rule is %s already", after.Rule)}
}

func tufWords(s ledger.State, v ledger.Value) []string {
	now := "none that the ledger numbers"
	if s.TUFNumber > 0 {
		now = fmt.Sprintf("version %d", s.TUFNumber)
	}
	return []string{
		fmt.Sprintf("releases are signed by version %d of the TUF root, SHA-256 %s", v.TUFRoot.Number, v.TUFRoot.Root),
		fmt.Sprintf("now it is %s, SHA-256 %s", now, s.TUFRoot),
	}
}

func caWords(s ledger.State, der []byte) []string {
	if len(der) == 0 {
		return nil
	}
	next := "what is no certificate"
	if c, err := decision.ParseCA(der); err == nil {
		next = keyOf(c)
	}
	return []string{fmt.Sprintf("another CA for nodes: key %s → %s; the old one opens enrolment for 30 days more", keyOf(s.NodeCA), next)}
}

func keyOf(c *x509.Certificate) string { return fleet.Short(fleet.KeyID(c.RawSubjectPublicKeyInfo)) }

func memberWords(s ledger.State, v ledger.Value) (lines []string) {
	var spares []int
	for _, seat := range s.Roster.Seats {
		if seat.Spare {
			spares = append(spares, seat.Number)
		}
	}
	for _, one := range []struct {
		what          string
		before, after []int
	}{{"etcd runs on", s.Roster.Members(), v.Members.Members}, {"its spares are", spares, v.Members.Spares}} {
		if !slices.Equal(one.before, one.after) {
			lines = append(lines, fmt.Sprintf("%s: %s → %s", one.what, nodes(s, one.before), nodes(s, one.after)))
		}
	}
	return lines
}

func ownerWords(s ledger.State, v ledger.Value) []string {
	o := v.Owners.Owner
	keys := func(o roster.Owner) string {
		var all []string
		for _, k := range o.Keys {
			all = append(all, k.ID().Short())
		}
		return fmt.Sprintf("any %d of %s", o.Threshold, strings.Join(all, ", "))
	}
	was, _ := s.Roster.Owner(o.Name)
	line := fmt.Sprintf("owner %s: the keys are %s → %s", o.Name, keys(was), keys(o))
	if !v.Owners.Lost {
		return []string{line}
	}
	return []string{line, fmt.Sprintf("the old keys are lost: it holds after %s of running time, and any old key may veto it", decision.Objection(s.Policy))}
}
