package proposal

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
)

// Case is a proposal as one voter sees it.
type Case struct {
	Vote decision.Vote // the node's, for this kind of decision
	// Invalid says why the proposal cannot be decided, by the ledger's state; nil: it can.
	Invalid error
	// NotReady says why the node could not begin with it now; nil: it could.
	NotReady error
	// Owner is the node's, and Answer his newest answer that counts; nil: he has given none.
	Owner  string
	Answer *Answer
	Seen   document.Duration // the node's running time since it has seen the proposal
	Number uint64            // of the proposal, as people call it
}

// Consider says what the voter thinks of the proposal; or, where ok is false, that it says nothing
// yet, and what it waits for. An owner's no counts whatever the node's own vote is, and so does a
// fault of the proposal.
func Consider(c Case) (o Opinion, wait string, ok bool) {
	o.Version = version
	switch {
	case c.Invalid != nil:
		o.Why = append(o.Why, Reason(c.Invalid.Error()))
		return o, "", true
	case c.Answer != nil && !c.Answer.Yes:
		why := "owner " + c.Owner + " says no"
		if c.Answer.Why != "" {
			why += ": " + c.Answer.Why
		}
		o.Why = append(o.Why, Reason(why))
		return o, "", true
	}
	yes := c.Answer != nil
	ask := fmt.Sprintf("owner %s: kogge vote yes %d", c.Owner, c.Number)
	switch c.Vote.Way {
	case decision.Auto:
	case decision.After:
		if left := c.Vote.After - c.Seen; !yes && left > 0 {
			return o, fmt.Sprintf("%s of running time, or %s", left, ask), false
		}
	case decision.Ask:
		if !yes {
			return o, ask, false
		}
	default: // also what this release does not know
		return o, fmt.Sprintf("nothing: the node's vote is %q", c.Vote), false
	}
	o.Valid, o.Ready = true, c.NotReady == nil
	if c.NotReady != nil {
		o.Why = append(o.Why, Reason(c.NotReady.Error()))
	}
	return o, "", true
}

// Reason is text as an opinion has it: what cannot be shown becomes a space, and what is too long
// ends in dots.
func Reason(text string) string {
	const dots = "…"
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !document.Printable(r) {
			return ' '
		}
		return r
	}, text))
	if text == "" {
		return "no reason is known"
	}
	if len(text) <= maxWhy {
		return text
	}
	end := maxWhy - len(dots)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + dots
}
