package proposal

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
)

// Item is something that waits to be decided.
type Item struct {
	ID     document.Hash
	Number uint64 // as people call it
	Height int64  // of the ledger when it was proposed
	// First says that it goes before others: brakes, aborts, who has a seat and a vote.
	First bool
	// Waited is this node's running time since it has seen the item.
	Waited document.Duration
	// Lacks says what its decision lacks besides votes, as the ledger has it: a node's request, an owner's
	// yes, an opinion of who got a vote last; "": nothing.
	Lacks string
	// Over says why it cannot be decided any more: it was decided, or who proposed it is no operator;
	// "": it can.
	Over string
	// Vain says that more rounds about it have ended with nothing than a whole network needs, which is
	// f+3, and nothing new was said since: some who call it valid do not vote for it. It goes behind all
	// others, or one liar could stop the queue.
	Vain     bool
	Opinions Opinions
}

// Left is an item that is not waited for any more, and why: a line of the history.
type Left struct {
	Item Item
	Why  string
}

// Turn is what becomes of the queue now.
type Turn struct {
	// Next is what the next round is about; nil: no round begins, nothing is signed and written.
	Next *Item
	// Waits says of each item that stays, in the order in which they would be decided, what is
	// awaited; of Next it is "".
	Waits []Waiting
	Left  []Left
}

// Waiting is an item that stays in the queue.
type Waiting struct {
	Item Item
	Why  string
}

// Queue says what a fleet of these seats decides next: the oldest item that a quorum calls valid and is
// ready for and that lacks nothing, those that go first before others, and those that were tried in vain
// behind all. An item leaves when it is over, when more than a third of the votes call it invalid, and after the
// deadline in any case: a round may be in vain that this node saw nothing of. Items and opinions may be given in
// any order.
func Queue(seats roster.Roster, items []Item, deadline document.Duration) Turn {
	items = slices.Clone(items)
	turn := map[bool]int{true: 0, false: 1}
	slices.SortFunc(items, func(a, b Item) int {
		return cmp.Or(cmp.Compare(turn[!a.Vain], turn[!b.Vain]), cmp.Compare(turn[a.First], turn[b.First]), cmp.Compare(a.Height, b.Height), cmp.Compare(a.Number, b.Number), bytes.Compare(a.ID[:], b.ID[:]))
	})
	var t Turn
	n, q := seats.Votes(), seats.Quorum()
	for _, item := range items {
		valid, invalid, ready := count(seats, item.Opinions)
		switch {
		case item.Over != "":
			t.Left = append(t.Left, Left{item, item.Over})
			continue
		case 3*invalid > n:
			t.Left = append(t.Left, Left{item, fmt.Sprintf("%d of %d votes call it invalid: %s", invalid, n, foremost(seats, item.Opinions))})
			continue
		case valid < q && item.Waited >= deadline:
			t.Left = append(t.Left, Left{item, fmt.Sprintf("%d of %d votes called it valid within %s, and %d decide", valid, n, deadline, q)})
			continue
		case item.Vain && item.Waited >= deadline:
			t.Left = append(t.Left, Left{item, fmt.Sprintf("%d of %d votes called it valid, and within %s there were not as many ballots for it", valid, n, deadline)})
			continue
		case item.Lacks != "" && item.Waited >= deadline:
			t.Left = append(t.Left, Left{item, fmt.Sprintf("within %s it did not get what it needs: %s", deadline, item.Lacks)})
			continue
		case ready < q && item.Waited >= deadline:
			t.Left = append(t.Left, Left{item, fmt.Sprintf("%d of %d votes were ready within %s, and %d decide", ready, n, deadline, q)})
			continue
		case item.Waited >= deadline:
			t.Left = append(t.Left, Left{item, fmt.Sprintf("%d of %d votes called it valid, and within %s it was not decided", valid, n, deadline)})
			continue
		}
		why := ""
		switch {
		case valid < q:
			why = fmt.Sprintf("%d of %d votes call it valid, and %d decide", valid, n, q)
		case ready < q:
			why = fmt.Sprintf("%d of %d votes are ready, and %d decide", ready, n, q)
		case item.Lacks != "":
			why = item.Lacks
		case t.Next != nil:
			why = fmt.Sprintf("proposal %d comes first", t.Next.Number)
		default:
			next := item
			t.Next = &next
		}
		t.Waits = append(t.Waits, Waiting{item, why})
	}
	return t
}

// count counts the opinions of those who have a vote.
func count(seats roster.Roster, all Opinions) (valid, invalid, ready int) {
	for number, o := range all {
		if seat, ok := seats.Seat(number); !ok || !seat.Vote {
			continue
		}
		switch {
		case !o.Valid:
			invalid++
		case o.Ready:
			valid, ready = valid+1, ready+1
		default:
			valid++
		}
	}
	return valid, invalid, ready
}

// foremost is the reason that most of those give who call an item invalid.
func foremost(seats roster.Roster, all Opinions) string {
	times := make(map[string]int)
	for number, o := range all {
		if seat, ok := seats.Seat(number); ok && seat.Vote && !o.Valid && len(o.Why) > 0 {
			times[o.Why[0]]++
		}
	}
	most := ""
	for why, n := range times {
		if most == "" || n > times[most] || n == times[most] && why < most {
			most = why
		}
	}
	return most
}
