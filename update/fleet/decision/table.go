package decision

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is what a decision is about.
type Kind string

// The kinds. Their names are those of `kogge fleet propose`.
const (
	KindFounding   Kind = "founding"
	KindSeat       Kind = "seat"
	KindUnseat     Kind = "unseat"
	KindReplace    Kind = "replace"
	KindIsolate    Kind = "isolate"
	KindOperators  Kind = "operators"
	KindPolicy     Kind = "policy"
	KindRule       Kind = "rule"
	KindTUFRoot    Kind = "tuf-root"
	KindCA         Kind = "ca"
	KindMembers    Kind = "members"
	KindOwners     Kind = "owners"
	KindSettle     Kind = "settle"
	KindDoubleVote Kind = "double-vote"
	KindBreakGlass Kind = "break-glass"
	KindRollout    Kind = "rollout"
)

// Proposer is who may put something to the vote.
type Proposer string

// The proposers.
const (
	Operator Proposer = "operator"       // listed, with the role that the policy wants
	Voter    Proposer = "any voter"      // who holds the proof, which says it all
	Owner    Proposer = "fleet's owner"  // as many keys as act as the owner
	Nobody   Proposer = "nobody (later)" // until a later release
)

// Row is the rules of a kind. What is text is for people; the rest is what the ledger and the queue
// go by.
type Row struct {
	Kind     Kind
	What     string // it decides
	Proposer Proposer
	// Consent is whose signatures it needs besides those of a quorum of votes; "": none.
	Consent string
	Vote    Vote   // of a node whose seed says nothing; of Way "" nobody votes
	Holds   string // from when on
	Changes string // how much of it one decision changes
	// Seating says that it changes who has a seat or a vote: [roster.Roster.MostChanged] bounds it,
	// and it waits until all whom the last one gave a vote have signed an opinion.
	Seating bool
	First   bool // it goes before others in the queue though it seats nobody: see [Row.Early]
}

// Early says whether it goes before others in the queue.
func (r Row) Early() bool { return r.Seating || r.First }

// most is how much a decision that changes seats may change.
const most = "with below 10 votes max(1, f) seats, from 10 on N/10"

const (
	nextHeight = "the next height"
	theQueue   = "q votes"
)

// Table has a row for each kind of decision, but for the founding, which no vote decides.
func Table() []Row {
	ask, auto := Vote{Way: Ask}, Vote{Way: Auto}
	return []Row{
		{
			Kind: KindSeat, What: "nodes get seats, with a vote or without; a seat becomes another", Proposer: Operator,
			Consent: "each new node's own request; each new owner's m keys", Vote: ask, Holds: nextHeight,
			Changes: most + "; seats without a vote: any number", Seating: true,
		},
		{
			Kind: KindUnseat, What: "seats are taken away", Proposer: Operator, Vote: ask, Holds: nextHeight,
			Changes: most + "; with a new node CA if one of them runs etcd or is a spare", Seating: true,
		},
		{
			Kind: KindReplace, What: "another node gets a seat, with its name and all", Proposer: Operator,
			Consent: "the new node's own request", Vote: ask, Holds: nextHeight,
			Changes: "one seat; with a new node CA if it runs etcd or is a spare", Seating: true,
		},
		{
			Kind: KindIsolate, What: "seats are isolated for good, or no more", Proposer: Operator,
			Consent: "beyond f seats, or etcd's majority: m keys of the fleet's owner", Vote: ask, Holds: nextHeight,
			Changes: "f seats in all, and fewer members than etcd's majority",
		},
		{
			Kind: KindOperators, What: "whom the fleet knows as operators", Proposer: Operator, Vote: ask, Holds: nextHeight,
			Changes: "any number; one admin stays",
		},
		{
			Kind: KindPolicy, What: "what decisions may do", Proposer: Operator, Vote: ask, Holds: nextHeight,
			Changes: "all of it but trial",
		},
		{
			Kind: KindRule, What: "from two thirds back to the majority, with 1 to 3 votes", Proposer: Operator, Vote: ask, Holds: nextHeight,
			Changes: "the rule; two thirds come with the fourth vote", First: true,
		},
		{
			Kind: KindTUFRoot, What: "whose keys make releases", Proposer: Operator, Vote: ask, Holds: nextHeight,
			Changes: "to the version that follows",
		},
		{
			Kind: KindCA, What: "another CA for nodes", Proposer: Operator, Vote: ask,
			Holds: nextHeight + "; the old one opens enrolment for 30 days more", Changes: "the node CA",
		},
		{
			Kind: KindMembers, What: "which seats run etcd, and which are spares", Proposer: Operator, Vote: ask, Holds: nextHeight,
			Changes: "to 1, 3 or 5 members; two new ones at most, who were spares",
		},
		{
			Kind: KindOwners, What: "an owner gets other keys", Proposer: Operator,
			Consent: "m of his keys, old and new, and q votes by their owners' yes. Lost: m of the new ones, and ⌊5N/6⌋+1 votes by their owners' yes",
			Vote:    ask, Holds: nextHeight + ". Lost: when it is settled", Changes: "one owner", First: true,
		},
		{
			Kind: KindSettle, What: "lost owner keys: the waiting is over", Proposer: Voter,
			Consent: "for a veto: one of the old keys", Vote: auto, Holds: nextHeight, Changes: "one owner, after 30 days of running time", First: true,
		},
		{
			Kind: KindDoubleVote, What: "who voted twice loses the vote", Proposer: Voter,
			Consent: "two ballots of the seat that contradict each other", Vote: auto, Holds: nextHeight, Changes: "one seat's vote", First: true,
		},
		{
			Kind: KindBreakGlass, What: "a fleet whose quorum is gone is seated anew", Proposer: Owner,
			Consent: "m keys of the fleet's owner, and nobody's vote", Holds: "the next height, after 7 days of running time without a quorum",
			Changes: "seats; no owner, policy or TUF root",
		},
		{
			Kind: KindRollout, What: "which nodes run which release", Proposer: Nobody,
			Consent: "one key of an owner who is asked", Vote: auto, Holds: "in a later release: this one decides no rollout", Changes: "nothing yet",
		},
	}
}

// Of is the row of a kind; false: there is none.
func Of(k Kind) (Row, bool) {
	table := Table()
	if i := slices.IndexFunc(table, func(r Row) bool { return r.Kind == k }); i >= 0 {
		return table[i], true
	}
	return Row{}, false
}

// OneKey says whether one of an owner's keys is enough for a yes to a decision of this kind; to all
// others as many say it as act as the owner.
func (k Kind) OneKey() bool { return k == KindRollout }

// Format is the table as people read it, a block for each kind.
func Format() string {
	var b strings.Builder
	for i, r := range Table() {
		if i > 0 {
			b.WriteByte('\n')
		}
		vote, signatures := r.Vote.String(), theQueue
		if r.Vote.Way == "" {
			vote, signatures = "nobody votes", ""
		}
		if r.Consent != "" {
			signatures = strings.TrimPrefix(signatures+"; "+r.Consent, "; ")
		}
		fmt.Fprintf(&b, "%-13s%s\n", r.Kind, r.What)
		for _, l := range [][2]string{
			{"proposes", string(r.Proposer)}, {"signatures", signatures}, {"vote:", vote}, {"holds from", r.Holds}, {"changes", r.Changes},
		} {
			fmt.Fprintf(&b, "  %-11s%s\n", l[0], l[1])
		}
		if r.Seating {
			fmt.Fprintf(&b, "  %-11s%s\n", "then", "the next change of seats waits until all who got a vote have signed an opinion")
		}
	}
	return b.String()
}
