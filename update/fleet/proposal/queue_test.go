package proposal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

const day = document.Duration(24 * time.Hour)

// TestConsider is the table of what a voter thinks, by its vote, its owner's answer and the time.
func TestConsider(t *testing.T) {
	var b strings.Builder
	after := decision.Vote{Way: decision.After, After: 2 * day}
	yes, no := answer(func(*Answer) {}), answer(func(a *Answer) { a.Yes, a.Why = false, "not this week" })
	for _, c := range []struct {
		name string
		edit func(*Case)
	}{
		{"valid, no answer", func(*Case) {}},
		{"valid, a day before its time", func(c *Case) { c.Seen = day }},
		{"valid, its time is over", func(c *Case) { c.Seen = 2 * day }},
		{"yes", func(c *Case) { c.Answer = &yes }},
		{"yes, and not ready", func(c *Case) { c.Answer, c.NotReady = &yes, errors.New("it has 3 MiB of room") }},
		{"no", func(c *Case) { c.Answer, c.Seen = &no, 2*day }},
		{"no, and invalid", func(c *Case) { c.Answer, c.Invalid = &no, errors.New("there is no seat 9") }},
		{"yes, and invalid", func(c *Case) { c.Answer, c.Invalid = &yes, errors.New("there is no seat 9") }},
	} {
		fmt.Fprintf(&b, "%s\n", c.name)
		for _, vote := range []decision.Vote{{Way: decision.Auto}, after, {Way: decision.Ask}, {Way: decision.Never}, {}, {Way: "later"}} {
			one := Case{Vote: vote, Owner: "alice", Number: 17}
			c.edit(&one)
			o, wait, ok := Consider(one)
			told := "waits for " + wait
			if ok {
				o.Proposal, o.Height = about, 7
				if err := o.check(); err != nil {
					t.Errorf("%s, %s: %+v: %v", c.name, vote, o, err)
				}
				told = map[bool]string{true: "valid", false: "invalid"}[o.Valid] + ", " + map[bool]string{true: "ready", false: "not ready"}[o.Ready]
				if len(o.Why) > 0 {
					told += ": " + strings.Join(o.Why, "; ")
				}
			}
			fmt.Fprintf(&b, "  %-17s %s\n", vote, told)
		}
	}
	golden.Compare(t, "consider.txt", b.String())
}

// TestReason keeps what is told within what an opinion takes.
func TestReason(t *testing.T) {
	for _, text := range []string{"", "x", "\x1b[2J", "\xff\xfe", strings.Repeat("ä", 200), strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("☃", 1000)} {
		got := Reason(text)
		if got == "" || len(got) > maxWhy || !utf8.ValidString(got) || checkText("why", got, maxWhy) != nil {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// said are opinions by a letter for each seat: v valid and ready, n valid and not ready, x invalid, a dot
// for none.
func said(letters string) Opinions {
	all := make(Opinions)
	for i, c := range letters {
		o := Opinion{Version: 1, Proposal: about, Height: 7}
		switch c {
		case 'v':
			o.Valid, o.Ready = true, true
		case 'n':
			o.Valid, o.Why = true, []string{"the disk is full"}
		case 'x':
			o.Why = []string{"there is no seat 9"}
		default:
			continue
		}
		all[i+1] = o
	}
	return all
}

// TestQueue is the table of what is decided next, and what leaves.
func TestQueue(t *testing.T) {
	item := func(number uint64, letters string) Item {
		return Item{ID: document.HashOf(fmt.Append(nil, number)), Number: number, Height: 7, Opinions: said(letters)}
	}
	with := func(i Item, edit func(*Item)) Item {
		edit(&i)
		return i
	}
	first := func(i *Item) { i.First = true }
	waited := func(d document.Duration) func(*Item) { return func(i *Item) { i.Waited = d } }
	var b strings.Builder
	for _, c := range []struct {
		name  string
		votes int
		items []Item
	}{
		{"nothing", 4, nil},
		{"a quorum", 4, []Item{item(1, "vvv.")}},
		{"two of four", 4, []Item{item(1, "vv..")}},
		{"seat 5 has no vote", 4, []Item{item(1, "vv..v")}},
		{"valid, and not ready", 4, []Item{item(1, "vvn.")}},
		{"one of four calls it invalid", 4, []Item{item(1, "vvvx")}},
		{"two of four call it invalid", 4, []Item{item(1, "vvxx")}},
		{"three of seven call it invalid", 7, []Item{item(1, "vvvvxxx")}},
		{"one of three calls it invalid", 3, []Item{item(1, "vvx")}},
		{"one of two calls it invalid", 2, []Item{item(1, "vx")}},
		{"a lone voter", 1, []Item{item(1, "v")}},
		{"oldest first", 4, []Item{item(3, "vvvv"), item(2, "vvvv"), item(1, "vv..")}},
		{"by height, then by number", 4, []Item{item(1, "vvvv"), with(item(2, "vvvv"), func(i *Item) { i.Height = 6 })}},
		{"brakes and seats first", 4, []Item{item(1, "vvvv"), with(item(2, "vvvv"), first)}},
		{"first, and not ready", 4, []Item{item(1, "vvvv"), with(item(2, "vvn."), first)}},
		{"before its deadline", 4, []Item{with(item(1, "vv.."), waited(7*day-1))}},
		{"after its deadline", 4, []Item{with(item(1, "vv.."), waited(7*day))}},
		{"tried in vain", 4, []Item{with(item(1, "vvv."), func(i *Item) { i.First, i.Vain = true, true }), item(2, "vvvv")}},
		{"tried in vain, and alone", 4, []Item{with(item(1, "vvv."), func(i *Item) { i.Vain = true })}},
		{"tried in vain until its deadline", 4, []Item{with(item(1, "vvv."), func(i *Item) { i.Vain, i.Waited = true, 7*day })}},
		{"valid after its deadline", 4, []Item{with(item(1, "vvn."), waited(9*day))}},
		{"without an owner's yes", 4, []Item{with(item(1, "vvvv"), func(i *Item) { i.Lacks = "owner kaper says no yes" }), item(2, "vvvv")}},
		{"without it after its deadline", 4, []Item{with(item(1, "vvvv"), func(i *Item) { i.Lacks, i.Waited = "owner kaper says no yes", 7*day })}},
		{"decided", 4, []Item{with(item(1, "vvvv"), func(i *Item) { i.Over = "it was decided at height 9" }), item(2, "vvv.")}},
		{"opposite things", 4, []Item{item(1, "vvxx"), item(2, "xxvv"), item(3, "vvv.")}},
	} {
		fmt.Fprintf(&b, "%s\n", c.name)
		turn := Queue(seats(t, c.votes), c.items, 7*day)
		tell(&b, turn)
		for range 10 { // in whatever order they come
			rand.Shuffle(len(c.items), func(i, j int) { c.items[i], c.items[j] = c.items[j], c.items[i] })
			var again, once strings.Builder
			tell(&again, Queue(seats(t, c.votes), c.items, 7*day))
			tell(&once, turn)
			if again.String() != once.String() {
				t.Errorf("%s, in another order:\n%s\n%s", c.name, again.String(), once.String())
			}
		}
	}
	golden.Compare(t, "queue.txt", b.String())
}

func tell(b *strings.Builder, t Turn) {
	if t.Next != nil {
		fmt.Fprintf(b, "  decides %d\n", t.Next.Number)
	}
	for _, w := range t.Waits {
		if w.Why != "" {
			fmt.Fprintf(b, "  waits %d: %s\n", w.Item.Number, w.Why)
		}
	}
	for _, l := range t.Left {
		fmt.Fprintf(b, "  leaves %d: %s\n", l.Item.Number, l.Why)
	}
}

// TestGlass waits for as long as the policy says, and not while somebody lives who objects.
func TestGlass(t *testing.T) {
	r := seats(t, 4)
	next := r.WithoutSeats(3, 4) // and seat 5, which has no vote, stays with 1 and 2
	p := fleet.DefaultPolicy()
	objects := func(by string, number uint64, valid bool) signed.Envelope {
		o := Opinion{Proposal: about, Height: 7, Valid: valid, Why: []string{"the fleet lives"}}
		return must[signed.Envelope](t)(SealOpinion(fleetID, private(by), number, o))
	}
	var b strings.Builder
	for _, c := range []struct {
		name    string
		days    string // r: it ran alone for a day, a: a quorum answered
		objects []signed.Envelope
	}{
		{"held just now", "", nil},
		{"six days", "rrrrrr", nil},
		{"seven days", "rrrrrrr", nil},
		{"a quorum answers on the seventh", "rrrrrra", nil},
		{"and then never again", "rrrrrrarrrrrrr", nil},
		{"one of four objects", "rrrrrrr", []signed.Envelope{objects("n3", 1, false)}},
		{"two of four object", "rrrrrrr", []signed.Envelope{objects("n3", 1, false), objects("n4", 1, false)}},
		{"and one takes it back", "rrrrrrr", []signed.Envelope{objects("n3", 1, false), objects("n4", 1, false), objects("n4", 2, true)}},
		{"one who stays and a seat without a vote", "rrrrrrr", []signed.Envelope{objects("n1", 1, false), objects("n5", 1, false)}},
		{"strangers object", "rrrrrrr", []signed.Envelope{objects("eve", 1, false), objects("mallory", 1, false)}},
	} {
		g := Glass{Record: about}
		for _, day1 := range c.days {
			if g = g.Ran(day); day1 == 'a' {
				g = g.Answered()
			}
		}
		verdict, why := g.Verdict(p, r, next, Objecting(c.objects, fleetID, r, about))
		fmt.Fprintf(&b, "%-42s %-7s %d vetoes  %s\n", c.name, verdict, g.Vetoes, why)
	}
	golden.Compare(t, "glass.txt", b.String())
}
