package dhcp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/golden"
)

// TestBroken keeps the newest few of servers that do not keep their word, for a while.
func TestBroken(t *testing.T) {
	var b broken
	for i := range 100 {
		b = b.with(fmt.Sprint("s", i%50), t0.Add(time.Duration(i)*time.Second))
		if b = b.with("again", t0.Add(time.Duration(i)*time.Second)); len(b) > mostBroken || !b.has("again") {
			t.Fatalf("after %d: %v", i, b)
		}
	}
	if !b.has("s49") || b.has("s1") {
		t.Errorf("the newest are kept: %v", b)
	}
	last := t0.Add(99 * time.Second)
	if now := b.now(last.Add(brokenExpiry - time.Second)); len(now) != 2 || !now.has("s49") || !now.has("again") {
		t.Errorf("a second before the last expire: %v", now)
	}
	if now := b.now(last.Add(brokenExpiry)); len(now) != 0 {
		t.Errorf("all have expired: %v", now)
	}
}

// TestChoice shows which of servers' offers is taken, and whether at once. A star is a broken
// server.
func TestChoice(t *testing.T) {
	var bad broken
	for _, c := range []struct{ offers, want string }{
		{"", "none"},
		{"a", "a at once"},
		{"b*", "b*"},
		{"b* c*", "b*"},
		{"b* c* a", "a at once"},
	} {
		bad = broken{}.with("b*", t0).with("c*", t0)
		got := "none"
		ch := choice[string]{broken: bad}
		for _, o := range strings.Fields(c.offers) {
			at := ch.offer(o, o)
			if got = ch.spare; at {
				got += " at once"
				break
			}
		}
		if got != c.want {
			t.Errorf("%q: %s, not %s", c.offers, got, c.want)
		}
	}
	// Somebody makes up servers, and is quicker than the good one: it has its turn.
	var taken []string
	for i := range mostBroken {
		bad = bad.with(fmt.Sprint("forged", i), t0)
	}
	for range 1000 {
		ch := choice[string]{broken: bad}
		for i := range 9 {
			if name := fmt.Sprint("forged", i); ch.offer(name, name) {
				t.Fatal("the first is taken at once")
			}
		}
		ch.offer("good", "good")
		taken = append(taken, ch.spare)
	}
	if n := len(slices.DeleteFunc(taken, func(s string) bool { return s != "good" })); n < 50 {
		t.Errorf("the good one was taken %d times of 1000", n)
	}
}

// TestComplaints: an error is logged once until something works, whatever comes in between, and
// new ones without end are not.
func TestComplaints(t *testing.T) {
	var c complaints
	for _, step := range []struct {
		text string // "": it worked
		news bool
	}{
		{"no answer", true}, {"no answer", false}, {"192.0.2.7 does not keep its offer", true}, {"no answer", false},
		{"192.0.2.7 does not keep its offer", false}, {"", false}, {"no answer", true}, {"192.0.2.7 does not keep its offer", true},
	} {
		var err error
		if step.text != "" {
			err = errors.New(step.text)
		}
		var news bool
		if c, news = c.after(err); news != step.news {
			t.Errorf("%q: %v", step.text, news)
		}
	}
	logged := 0
	for i := range 1000 {
		var news bool
		if c, news = c.after(fmt.Errorf("new words %d", i)); news {
			logged++
		}
	}
	if logged > mostComplaints {
		t.Errorf("%d lines", logged)
	}
}

// TestVerdict shows what several servers' answers mean for a lease.
func TestVerdict(t *testing.T) {
	const own = true
	silly := errors.New("silly")
	type answer struct {
		own bool
		err error
	}
	var out strings.Builder
	for _, answers := range [][]answer{
		{},
		{{own, nil}},
		{{own, ErrNak}},
		{{own, silly}},
		{{!own, nil}},
		{{!own, ErrNak}},
		{{!own, silly}},
		{{!own, silly}, {!own, ErrNak}},
		{{!own, ErrNak}, {!own, silly}},
		{{!own, ErrNak}, {!own, nil}},
		{{!own, ErrNak}, {own, nil}},
		{{!own, ErrNak}, {own, silly}},
		{{!own, silly}, {own, ErrNak}},
	} {
		v, end := verdict{err: errSilent}, false
		for _, a := range answers {
			word := "yes"
			if a.err != nil {
				word = a.err.Error()
			}
			fmt.Fprintf(&out, "%s says %s, ", map[bool]string{own: "its own", !own: "another"}[a.own], word)
			end = v.hear(a.own, office(), a.err)
		}
		fmt.Fprintf(&out, "→ %v", v.err)
		if v.err == nil {
			fmt.Fprintf(&out, " %s", v.lease.Address)
		}
		fmt.Fprintf(&out, ", end %v\n", end)
	}
	golden.Compare(t, "verdict.txt", out.String())
}
