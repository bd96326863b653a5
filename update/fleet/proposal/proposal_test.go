package proposal

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

var (
	fleetID = document.HashOf([]byte("fleet"))
	about   = document.HashOf([]byte("proposal"))
)

func private(name string) ed25519.PrivateKey {
	seed := document.HashOf([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func key(t testing.TB, name string) signed.Key {
	return must[signed.Key](t)(signed.KeyOf(private(name).Public().(ed25519.PublicKey)))
}

// seats is a roster of n votes, and one seat without.
func seats(t testing.TB, n int) roster.Roster {
	r := roster.Roster{Version: 1, Rule: roster.RuleFor(n), Given: n + 1}
	r.Owners = []roster.Owner{{Name: "hanse", Keys: []signed.Key{key(t, "o1"), key(t, "o2"), key(t, "o3")}, Threshold: 2}}
	for i := 1; i <= n+1; i++ {
		name := fmt.Sprintf("n%d", i)
		r.Seats = append(r.Seats, roster.Seat{Number: i, Name: name, Key: key(t, name), Journal: roster.ID{byte(i)}, Owner: "hanse", Vote: i <= n})
	}
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	goodProposal = Proposal{Version: 1, Height: 7, Value: []byte("{}\n"), Why: "a fifth node"}
	goodOpinion  = Opinion{Version: 1, Proposal: about, Height: 7, Valid: true, Why: []string{"the disk is full"}}
)

func answer(edit func(*Answer), keys ...int) Answer {
	a := Answer{Version: 1, Proposal: about, Owner: "hanse", Yes: true, Number: 1796000000, Why: "we know this node"}
	edit(&a)
	for _, k := range keys {
		a.Signatures = append(a.Signatures, signed.Sign(k, private(fmt.Sprintf("o%d", k)), a.Bytes(fleetID)))
	}
	return a
}

// TestSpelling holds each object to the bytes in which it was written first. A proposal has another
// signature each time, and is told by what is signed.
func TestSpelling(t *testing.T) {
	golden.Compare(t, "v1/proposal.json", string(encode(goodProposal)))
	golden.Compare(t, "v1/opinion.json", string(encode(goodOpinion)))
	golden.Compare(t, "v1/answer.json", string(answer(func(*Answer) {}, 1, 3).Encode()))
	golden.Compare(t, "v1/answer.hex", hex.EncodeToString(answer(func(*Answer) {}).Bytes(fleetID))+"\n")
	e := must[signed.Envelope](t)(SealOpinion(fleetID, private("n2"), 3, goodOpinion))
	golden.Compare(t, "v1/opinion.hex", hex.EncodeToString(e.Bytes())+"\n")

	const path = "v1/proposal.hex"
	ada := must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	if golden.Updating() {
		if _, err := os.Stat(filepath.Join("testdata", path)); err != nil { // it stays
			golden.Compare(t, path, hex.EncodeToString(must[signed.Envelope](t)(Seal(fleetID, ada, 17, goodProposal)).Bytes())+"\n")
		}
	}
	text := must[[]byte](t)(os.ReadFile(filepath.Join("testdata", path)))
	old := must[signed.Envelope](t)(signed.Parse(must[[]byte](t)(hex.DecodeString(strings.TrimSpace(string(text))))))
	p, by, err := Open(old, fleetID)
	if err != nil || old.Verify() != nil || old.Sequence != 17 || p.Why != goodProposal.Why || by.IsZero() {
		t.Errorf("%+v by %s, %v, %v", p, by, err, old.Verify())
	}
	// The same proposal, signed twice, is one.
	one, two := must[signed.Envelope](t)(Seal(fleetID, ada, 17, goodProposal)), must[signed.Envelope](t)(Seal(fleetID, ada, 17, goodProposal))
	if bytes.Equal(one.Bytes(), two.Bytes()) || ID(one) != ID(two) || ID(one) == ID(old) {
		t.Errorf("%s, %s, %s", ID(one), ID(two), ID(old))
	}
}

// TestRefused says what each wrong object is told.
func TestRefused(t *testing.T) {
	ada, r := must[*ecdsa.PrivateKey](t)(fleet.NewKey()), seats(t, 4)
	var b strings.Builder
	tell := func(name string, err, is error) {
		if err != nil && !errors.Is(err, is) || err == nil && name != "good" {
			t.Errorf("%s: %v", name, err)
		}
		fmt.Fprintf(&b, "  %-26s %v\n", name, err)
	}
	b.WriteString("proposals\n")
	for _, c := range []struct {
		name string
		edit func(*Proposal)
	}{
		{"good", func(*Proposal) {}}, {"before the founding", func(p *Proposal) { p.Height = 0 }}, {"nothing", func(p *Proposal) { p.Value = nil }},
		{"too large", func(p *Proposal) { p.Value = make([]byte, maxValue+1) }}, {"words of escapes", func(p *Proposal) { p.Why = "\x1b[2J" }},
		{"too many words", func(p *Proposal) { p.Why = strings.Repeat("x", maxWhy+1) }},
	} {
		p := goodProposal
		c.edit(&p)
		_, err := Seal(fleetID, ada, 1, p)
		if _, other := Parse(encode(p)); (other == nil) != (err == nil) {
			t.Errorf("%s: sealed: %v, read: %v", c.name, err, other)
		}
		tell(c.name, err, ErrProposal)
	}
	largest := goodProposal
	largest.Value = make([]byte, maxValue)
	if _, err := Seal(fleetID, ada, MaxNumber, largest); err != nil {
		t.Errorf("the largest: %v", err)
	}
	sealed := must[signed.Envelope](t)(Seal(fleetID, ada, 1, goodProposal))
	for _, c := range []struct {
		name string
		e    signed.Envelope
		of   document.Hash
	}{
		{"good", sealed, fleetID}, {"of another fleet", sealed, about},
		{"a seat's", must[signed.Envelope](t)(signed.Seal(Kind, fleetID, private("n1"), 1, encode(goodProposal))), fleetID},
		{"of another kind", must[signed.Envelope](t)(signed.SealByOperator("kogge/absence/v1", fleetID, ada, 1, encode(goodProposal))), fleetID},
		{"number 0", must[signed.Envelope](t)(signed.SealByOperator(Kind, fleetID, ada, 0, encode(goodProposal))), fleetID},
		{"a number too high", must[signed.Envelope](t)(signed.SealByOperator(Kind, fleetID, ada, MaxNumber+1, encode(goodProposal))), fleetID},
		{"in another spelling", must[signed.Envelope](t)(signed.SealByOperator(Kind, fleetID, ada, 1, []byte(`{"version":1}`))), fleetID},
	} {
		_, _, err := Open(c.e, c.of)
		tell(c.name, err, ErrProposal)
	}
	b.WriteString("answers\n")
	for _, c := range []struct {
		name   string
		a      Answer
		needed int
	}{
		{"good", answer(func(*Answer) {}, 1, 3), 2}, {"one key of two", answer(func(*Answer) {}, 1), 2}, {"no key", answer(func(*Answer) {}), 0},
		{"to nothing", answer(func(a *Answer) { a.Proposal = document.Hash{} }, 1, 2), 2}, {"of nobody", answer(func(a *Answer) { a.Owner = "\x1b" }, 1, 2), 2},
		{"number 0", answer(func(a *Answer) { a.Number = 0 }, 1, 2), 2}, {"words of escapes", answer(func(a *Answer) { a.Why = "\x1b[2J" }, 1, 2), 2},
		{"of key 4", answer(func(*Answer) {}, 4), 1}, {"keys out of order", answer(func(*Answer) {}, 2, 1), 2}, {"a key twice", answer(func(*Answer) {}, 1, 1), 2},
		{"changed", func() Answer { a := answer(func(*Answer) {}, 1, 2); a.Yes = false; return a }(), 2},
		{"other words", func() Answer { a := answer(func(*Answer) {}, 1, 2); a.Why = "x"; return a }(), 2},
	} {
		a, err := ParseAnswer(c.a.Encode())
		if err == nil {
			err = a.Verify(fleetID, r.Owners[0], c.needed)
		}
		tell(c.name, err, ErrAnswer)
	}
	if err := answer(func(*Answer) {}, 1, 2).Verify(about, r.Owners[0], 2); !errors.Is(err, ErrAnswer) {
		t.Errorf("in another fleet: %v", err)
	}
	_, err := ParseAnswer(make([]byte, maxAnswer+1))
	tell("too large", err, ErrAnswer)
	b.WriteString("opinions\n")
	for _, c := range []struct {
		name, by string
		edit     func(*Opinion)
	}{
		{"good", "n2", func(*Opinion) {}}, {"of no seat", "eve", func(*Opinion) {}}, {"about nothing", "n2", func(o *Opinion) { o.Proposal = document.Hash{} }},
		{"before the founding", "n2", func(o *Opinion) { o.Height = 0 }}, {"no reason", "n2", func(o *Opinion) { o.Why = nil }},
		{"a reason for nothing", "n2", func(o *Opinion) { o.Ready = true }}, {"too many reasons", "n2", func(o *Opinion) { o.Why = make([]string, maxReasons+1) }},
		{"an empty reason", "n2", func(o *Opinion) { o.Why = []string{""} }}, {"reasons of escapes", "n2", func(o *Opinion) { o.Why = []string{"\x1b[2J"} }},
		{"a reason too long", "n2", func(o *Opinion) { o.Why = []string{strings.Repeat("x", maxWhy+1)} }},
	} {
		o := goodOpinion
		c.edit(&o)
		e := must[signed.Envelope](t)(signed.Seal(OpinionKind, fleetID, private(c.by), 1, encode(o)))
		_, _, err := OpenOpinion(e, fleetID, r)
		tell(c.name, err, ErrOpinion)
		if _, sealed := SealOpinion(fleetID, private(c.by), 1, o); (sealed == nil) != (err == nil) && c.by != "eve" {
			t.Errorf("%s: sealed: %v, read: %v", c.name, sealed, err)
		}
	}
	large := must[signed.Envelope](t)(signed.Seal(OpinionKind, fleetID, private("n2"), 1, make([]byte, MaxOpinion)))
	_, _, err = OpenOpinion(large, fleetID, r)
	tell("too large", err, ErrOpinion)
	most := goodOpinion
	most.Why = nil
	for range maxReasons {
		most.Why = append(most.Why, strings.Repeat("<", maxWhy))
	}
	if _, _, err := OpenOpinion(must[signed.Envelope](t)(SealOpinion(fleetID, private("n2"), 1, most)), fleetID, r); err != nil {
		t.Errorf("the largest opinion: %v", err)
	}
	longest := answer(func(a *Answer) {
		a.Why, a.Owner, a.Number = strings.Repeat("<", maxWhy), strings.Repeat("x", 63), MaxNumber
	}, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
	if _, err := ParseAnswer(longest.Encode()); err != nil {
		t.Errorf("the longest answer: %v", err)
	}
	golden.Compare(t, "refused.txt", b.String())
}

// TestNewest has an owner say yes, then no, and both at once.
func TestNewest(t *testing.T) {
	say := func(number int64, yes bool) Answer {
		return answer(func(a *Answer) { a.Number, a.Yes = number, yes })
	}
	for _, c := range []struct {
		name    string
		answers []Answer
		yes, ok bool
	}{
		{"nothing", nil, false, false},
		{"yes", []Answer{say(1, true)}, true, true},
		{"no after yes", []Answer{say(1, true), say(2, false)}, false, true},
		{"yes after no", []Answer{say(3, true), say(2, false)}, true, true},
		{"both at once", []Answer{say(1, true), say(1, false)}, false, true},
		{"both at once, the other way", []Answer{say(1, false), say(1, true)}, false, true},
		{"another owner", []Answer{answer(func(a *Answer) { a.Owner = "kaper" })}, false, false},
		{"to another proposal", []Answer{answer(func(a *Answer) { a.Proposal = fleetID })}, false, false},
	} {
		a, ok := Newest(c.answers, about, "hanse")
		if ok != c.ok || a.Yes != c.yes {
			t.Errorf("%s: %+v, %t", c.name, a, ok)
		}
	}
}

// TestCount counts the newest opinion of each voter, in whatever order they come.
func TestCount(t *testing.T) {
	r := seats(t, 4)
	say := func(by string, number uint64, o Opinion) signed.Envelope {
		return must[signed.Envelope](t)(SealOpinion(fleetID, private(by), number, o))
	}
	valid, invalid := goodOpinion, goodOpinion
	invalid.Valid = false
	other := valid
	other.Proposal = fleetID
	all := []signed.Envelope{
		say("n1", 1, valid), say("n1", 2, invalid), say("n2", 5, valid), say("n2", 4, invalid),
		say("n3", 7, valid), say("n3", 7, invalid), // of a liar
		say("n4", 1, other), say("n5", 1, valid), say("eve", 1, valid),
		must[signed.Envelope](t)(signed.Seal("kogge/status/v1", fleetID, private("n4"), 9, encode(valid))),
	}
	first := Count(all, fleetID, r, about)
	for range len(all) {
		all = append(all[1:], all[0])
		if got := Count(all, fleetID, r, about); fmt.Sprint(got) != fmt.Sprint(first) {
			t.Errorf("in another order: %v, and %v", got, first)
		}
	}
	if len(first) != 3 || first[1].Valid || !first[2].Valid {
		t.Errorf("%+v", first)
	}
}

// FuzzObjects has the bytes of strangers for all objects.
func FuzzObjects(f *testing.F) {
	r := seats(f, 4)
	f.Add(encode(goodProposal))
	f.Add(encode(goodOpinion))
	f.Add(answer(func(*Answer) {}, 1, 2).Encode())
	f.Add(must[signed.Envelope](f)(SealOpinion(fleetID, private("n2"), 3, goodOpinion)).Bytes())
	f.Add(must[signed.Envelope](f)(Seal(fleetID, must[*ecdsa.PrivateKey](f)(fleet.NewKey()), 3, goodProposal)).Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if p, err := Parse(raw); err == nil && !bytes.Equal(encode(p), raw) {
			t.Errorf("%q is read, and written as %q", raw, encode(p))
		}
		if o, err := ParseOpinion(raw); err == nil && !bytes.Equal(encode(o), raw) {
			t.Errorf("%q is read, and written as %q", raw, encode(o))
		}
		if a, err := ParseAnswer(raw); err == nil {
			if !bytes.Equal(a.Encode(), raw) {
				t.Errorf("%q is read, and written as %q", raw, a.Encode())
			}
			_ = a.Verify(fleetID, r.Owners[0], 2)
		}
		if e, err := signed.Parse(raw); err == nil {
			_, _, _ = Open(e, fleetID)
			_, _, _ = OpenOpinion(e, fleetID, r)
			Count([]signed.Envelope{e}, fleetID, r, about)
		}
	})
}
