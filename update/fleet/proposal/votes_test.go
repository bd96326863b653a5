package proposal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

func votesOf(t testing.TB, edit func(*Votes), keys ...int) Votes {
	v := Votes{Version: 1, Node: key(t, "n2"), Number: 7, Votes: map[decision.Kind]decision.Vote{
		decision.KindRollout: {Way: decision.Ask}, decision.KindSeat: {Way: decision.After, After: 2 * day},
	}}
	edit(&v)
	for _, k := range keys {
		v.Signatures = append(v.Signatures, signed.Sign(k, private(fmt.Sprintf("o%d", k)), v.Bytes(fleetID)))
	}
	return v
}

// TestVotes takes how a node votes from its owner alone, and from as many of his keys as are him.
func TestVotes(t *testing.T) {
	golden.Compare(t, "v1/votes.json", string(votesOf(t, func(*Votes) {}, 1, 2).Encode()))
	golden.Compare(t, "v1/votes.hex", hex.EncodeToString(votesOf(t, func(*Votes) {}).Bytes(fleetID))+"\n")
	owner := seats(t, 4).Owners[0]
	var b strings.Builder
	for _, c := range []struct {
		name string
		v    Votes
	}{
		{"good", votesOf(t, func(*Votes) {}, 1, 3)},
		{"one key of two", votesOf(t, func(*Votes) {}, 3)},
		{"of key 4", votesOf(t, func(*Votes) {}, 1, 4)},
		{"changed", func() Votes { v := votesOf(t, func(*Votes) {}, 1, 2); v.Number++; return v }()},
		{"for another node", func() Votes { v := votesOf(t, func(*Votes) {}, 1, 2); v.Node = key(t, "n3"); return v }()},
		{"number 0", votesOf(t, func(v *Votes) { v.Number = 0 }, 1, 2)},
		{"of no kind", votesOf(t, func(v *Votes) { v.Votes["\x1b[2J"] = decision.Vote{Way: decision.Ask} }, 1, 2)},
		{"of a kind that a later release knows", votesOf(t, func(v *Votes) { v.Votes["moon"] = decision.Vote{Way: decision.Auto} }, 1, 2)},
		{"on break-glass", votesOf(t, func(v *Votes) { v.Votes[decision.KindBreakGlass] = decision.Vote{Way: decision.Ask} }, 1, 2)},
	} {
		v, err := ParseVotes(c.v.Encode())
		if err == nil {
			err = v.Verify(fleetID, owner)
		}
		if err != nil && !errors.Is(err, ErrVotes) {
			t.Errorf("%s: %v", c.name, err)
		}
		fmt.Fprintf(&b, "%s\n    %v\n", c.name, err)
	}
	golden.Compare(t, "votes.txt", b.String())
	if _, err := ParseVotes(make([]byte, maxVotes+1)); !errors.Is(err, ErrVotes) {
		t.Errorf("too large: %v", err)
	}
	if _, err := ParseVotes([]byte(strings.Replace(string(votesOf(t, func(*Votes) {}, 1, 2).Encode()), `"ask"`, `"maybe"`, 1))); !errors.Is(err, ErrVotes) {
		t.Errorf("a way that is none: %v", err)
	}
	set := votesOf(t, func(v *Votes) { v.Votes["later"] = decision.Vote{Way: decision.Auto} }).Votes
	if err := CheckVotes(set); err == nil {
		t.Error("who sets votes misspells a kind")
	}
	for k, want := range map[decision.Kind]string{
		decision.KindRollout: "ask", decision.KindSeat: "after 48h0m0s", decision.KindPolicy: "ask", decision.KindDoubleVote: "auto",
		decision.KindBreakGlass: "never", "later": "never", decision.KindFounding: "never",
	} {
		if got := VoteOn(k, set).String(); got != want {
			t.Errorf("%s: %s", k, got)
		}
	}
}

// FuzzVotes has the bytes of strangers.
func FuzzVotes(f *testing.F) {
	owner := seats(f, 4).Owners[0]
	f.Add(votesOf(f, func(*Votes) {}, 1, 2).Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := ParseVotes(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(v.Encode(), raw) {
			t.Errorf("%q is read, and written as %q", raw, v.Encode())
		}
		_ = v.Verify(fleetID, owner)
	})
}
