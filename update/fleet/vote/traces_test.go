package vote

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
)

// differs are the traces in which a seat here does something else than in the model, and why.
var differs = map[string]string{
	"hiddenLockTest-hiddenTest-0":                "difference 4: both ballots of a double voter count, so the quorum of prevotes is seen a round earlier",
	"line32Test-line32InvalidTest-0":             "difference 2: what a quorum has prevoted is not judged again",
	"someMultiRoundTest-DecideFutureRoundTest-1": "a seat that skips to a round signs its prevote there, and decides then",
}

// TestTraces gives a seat what others' model of the algorithm gave its seats, and wants the same
// signed messages in the same order, the same lock, round and decision. The traces lie outside of
// the repository: VECTORS=DIR, with tendermint-itf.tar.zst in it.
func TestTraces(t *testing.T) {
	dir := os.Getenv("VECTORS")
	if dir == "" {
		t.Skip("traces: not compared, no VECTORS")
	}
	f, err := os.Open(filepath.Join(dir, "tendermint-itf.tar.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	traces, same, messages := 0, 0, 0
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name, ok := strings.CutSuffix(filepath.Base(h.Name), ".itf.json")
		if !ok {
			continue
		}
		var file struct {
			States []map[string]any `json:"states"`
		}
		if err := json.NewDecoder(r).Decode(&file); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		traces++
		got, want, n := newTrace(t, file.States).run()
		messages += n
		equal := reflect.DeepEqual(got, want)
		if why := differs[name]; equal != (why == "") {
			t.Errorf("%s (%s)\n got %v\nwant %v", name, why, got, want)
		}
		if equal {
			same++
		}
	}
	if traces < 23 || same < 20 || messages < 150 {
		t.Errorf("traces: %d, the same %d, messages %d", traces, same, messages)
	}
	t.Logf("traces: %d compared, %d the same, %d signed messages", traces, same, messages)
}

// trace is one run of the model, in the form that ITF gives it.
type trace struct {
	t       testing.TB
	states  []map[string]any
	system  string
	history string
	h       ballot.Height
	seats   map[string]State
	signed  map[string][]string // by seat: what it has signed here
	decided map[string]string
	values  map[document.Hash]string
}

func newTrace(t testing.TB, states []map[string]any) *trace {
	x := &trace{t: t, states: states, seats: make(map[string]State), signed: make(map[string][]string), decided: make(map[string]string), values: map[document.Hash]string{ballot.Nil: "nil"}}
	for key := range states[len(states)-1] {
		name, ok := strings.CutSuffix(key, "::system")
		if ok && len(entries(states[len(states)-1][key])) > 0 {
			x.system, x.history = key, name+"::_hist"
		}
	}
	n := 0
	for _, node := range entries(states[0][x.system]) {
		n = len(entries(at(node, "es", "valset")))
	}
	// The model's chair of round r at height 0 is the seat behind r: so it is here at height n+1.
	x.h = height(t, n, int64(n+1))
	for id := range entries(states[0][x.system]) {
		s, _ := Step(State{Self: number(id), Locked: none, Valid: none}, Begin{x.h})
		x.seats[id] = s
	}
	return x
}

// run gives what each seat did here, and in the model, and how many messages these are.
func (x *trace) run() (got, want map[string]string, messages int) {
	signed, before := make(map[string][]string), x.states[0]
	for _, state := range x.states[1:] {
		step, node := state[x.history], at(state[x.history], "validator").(string)
		now, was := entries(state[x.system])[node], entries(before[x.system])[node]
		if reflect.DeepEqual(now, was) && reflect.DeepEqual(step, before[x.history]) || node == "INIT" {
			before = state
			continue // something happened elsewhere
		}
		repeated := reflect.DeepEqual(step, before[x.history]) && reflect.DeepEqual(at(now, "es", "executedInputs"), at(was, "es", "executedInputs"))
		if !repeated {
			x.input(node, at(step, "input"), int32(bigint(at(was, "es", "cs", "round"))))
			if out := at(step, "output"); tag(out) == "VoteOutput" || tag(out) == "ProposalOutput" {
				signed[node] = append(signed[node], x.show(x.ballot(at(out, "value"))))
				messages++
			}
		}
		before = state
	}
	got, want = make(map[string]string), make(map[string]string)
	for node, end := range entries(x.states[len(x.states)-1][x.system]) {
		s, cs := x.seats[node], at(end, "es", "cs")
		got[node] = fmt.Sprintf("%v lock %d %s, round %d, decides %q", x.signed[node], s.Locked.Round, x.values[s.Locked.Value], s.Round, x.decided[node])
		decided := ""
		if chain := at(end, "es", "chain").([]any); len(chain) > 0 {
			decided = at(chain[0], "decision", "proposal").(string)
		}
		round := bigint(at(cs, "round"))
		if tag(at(cs, "step")) == "NoStep" {
			round = 0
		}
		want[node] = fmt.Sprintf("%v lock %s %s, round %d, decides %q", signed[node], at(cs, "lockedRound", "#bigint"), x.values[x.value(at(cs, "lockedValue"))], round, decided)
	}
	return got, want, messages
}

// input is one input of the model's driver.
func (x *trace) input(node string, in any, round int32) {
	value := at(in, "value")
	switch tag(in) {
	case "StartDInput":
		if x.seats[node].Phase == Idle {
			m := machine{State: x.seats[node]}
			m.startRound(0)
			x.seats[node] = m.State
		}
	case "ProposeValueDInput":
		x.give(node, Item{x.hash(value.(string))})
		x.give(node, Item{})
	case "ProposalDInput", "VoteDInput":
		x.give(node, Received{x.ballot(value)})
	case "CertificateDInput":
		for _, vote := range at(value, "#set").([]any) {
			x.give(node, Received{x.ballot(vote)})
		}
	case "TimeoutDInput":
		step := map[string]ballot.Kind{"ProposeTimeout": ballot.Proposal, "PrevoteTimeout": ballot.Prevote, "PrecommitTimeout": ballot.Precommit}[tag(value)]
		x.give(node, Timeout{x.h.Number, round, step})
	}
}

func (x *trace) give(node string, e Event) {
	s, effects := Step(x.seats[node], e)
	x.seats[node] = s
	for _, e := range effects {
		switch e := e.(type) {
		case Send:
			x.signed[node] = append(x.signed[node], x.show(e.Ballot))
		case Judge:
			x.give(node, Judged{e.Height, e.Round, e.Value, x.values[e.Value] != "invalid"})
		case Decide:
			x.decided[node] = x.values[e.Value]
		}
	}
}

// ballot is a proposal or a vote of the model.
func (x *trace) ballot(v any) *ballot.Ballot {
	fields := v.(map[string]any)
	round, seat := int32(bigint(fields["round"])), number(fields["srcAddress"].(string))
	if p, ok := fields["proposal"].(string); ok {
		return &ballot.Ballot{Words: x.h.Words(ballot.Proposal, round, x.hash(p), int32(bigint(fields["validRound"]))), Seat: seat}
	}
	kind := map[string]ballot.Kind{"Prevote": ballot.Prevote, "Precommit": ballot.Precommit}[tag(fields["voteType"])]
	return &ballot.Ballot{Words: x.h.Words(kind, round, x.value(fields["valueId"]), ballot.Fresh), Seat: seat}
}

func (x *trace) show(b *ballot.Ballot) string {
	return fmt.Sprintf("%s %d %s %d", b.Kind, b.Round, x.values[b.Value], b.ValidRound)
}

func (x *trace) value(v any) document.Hash {
	if tag(v) == "Nil" {
		return ballot.Nil
	}
	return x.hash(at(v, "value").(string))
}

func (x *trace) hash(name string) document.Hash {
	h := document.HashOf([]byte(name))
	x.values[h] = name
	return h
}

func at(v any, path ...string) any {
	for _, key := range path {
		v = v.(map[string]any)[key]
	}
	return v
}

func tag(v any) string { return at(v, "tag").(string) }

func bigint(v any) int64 {
	n, _ := strconv.ParseInt(at(v, "#bigint").(string), 10, 64)
	return n
}

func number(id string) int { n, _ := strconv.Atoi(strings.TrimPrefix(id, "v")); return n }

// entries are those of a map of the model.
func entries(v any) map[string]any {
	all := make(map[string]any)
	m, ok := v.(map[string]any)
	if !ok {
		return all
	}
	pairs, _ := m["#map"].([]any)
	for _, pair := range pairs {
		kv := pair.([]any)
		all[kv[0].(string)] = kv[1]
	}
	return all
}
