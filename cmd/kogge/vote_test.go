package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kogge.example/agent/identity"
	"kogge.example/agent/workload"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/golden"
)

// TestVoteCommands has an operator propose, and an owner answer with keys that are in two places, in a fleet of one
// node; what the commands say is held, without what differs from run to run.
func TestVoteCommands(t *testing.T) {
	var said string
	t.Run("a fleet of one node", func(t *testing.T) { said = voteStory(t) })
	golden.Compare(t, "vote.txt", said)
}

func voteStory(t *testing.T) string {
	t.Helper()
	w := &world{units: []workload.UnitStatus{{ID: "db", State: workload.Running}}}
	w.open(t)
	w.waiting.mu.Lock()
	for _, p := range w.waiting.set.Proposals() { // of the world
		w.waiting.set.Drop(p.ID, "it is not of this test", w.waiting.state())
	}
	w.waiting.mu.Unlock()
	var target target
	ring, err := target.openFleet()
	must(t, err)
	sheet := ring.Sheets()[0]
	var story strings.Builder
	run := func(line string, more ...string) error {
		root := rootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(append(strings.Fields(line), more...))
		err := root.ExecuteContext(t.Context())
		story.WriteString("$ kogge " + line + strings.Repeat(" …", len(more)) + "\n" + indented(out.String()))
		if err != nil {
			story.WriteString(indented("error: " + err.Error() + "\n"))
		}
		if h := (hinted{}); errors.As(err, &h) {
			story.WriteString(indented("hint: " + h.hint + "\n"))
		}
		return err
	}
	good := func(line string, more ...string) {
		t.Helper()
		if err := run(line, more...); err != nil {
			t.Errorf("kogge %s: %v", line, err)
		}
	}
	bad := func(line string, more ...string) {
		t.Helper()
		if err := run(line, more...); err == nil {
			t.Errorf("kogge %s is no error", line)
		}
	}
	good("vote list")
	good("fleet propose policy bake=2h --check")
	good("fleet propose policy bake=2h steps=5,30,100 --reason", "more time")
	good("vote list")
	bad("fleet propose policy colour=blue")
	bad("fleet propose policy bake=1s")
	bad("fleet propose policy canaries=many")
	bad("fleet propose rule majority")
	bad("fleet propose unseat n7")
	bad("fleet propose unseat n1") // the last vote, with the key of the node CA
	bad("fleet propose operator eve")
	good("fleet propose operator eve --role reader --key " + strings.Repeat("01", 32))
	bad("fleet propose seat n1 --domain attic --reason", "\x1b[2Jcleared")
	good("fleet propose seat n1 --domain attic")
	good("vote show 1")
	bad("vote show 17")
	good("vote watch 17") // ends at once

	// The owner's keys are in two places: his folder has one, and a sheet the second.
	bad("vote yes 1")
	var first docket.Open
	for _, p := range w.waiting.set.Proposals() {
		if p.Envelope.Sequence == 1 {
			first = p
		}
	}
	id := first.ID.Short()
	bad("vote yes 1 --id 000000000000")
	bad("vote yes 1 --id " + id)
	good("vote yes 1 --sign-with yes.txt --id " + id)
	bad("vote no 1 --sign-with yes.txt --id " + id)
	bad("vote yes 1 --sign-with yes.txt --id " + id) // the same key once more
	text, err := os.ReadFile("yes.txt")
	must(t, err)
	must(t, os.WriteFile("bent.txt", bytes.Replace(text, []byte(`"yes": true`), []byte(`"yes": false`), 1), 0o600))
	bad("vote no 1 --sign-with bent.txt --id " + id)
	good("vote yes 1 --sign-with yes.txt --id "+id+" --sheet", sheet)
	good("vote list")
	good("vote no 1 --id "+id+" --reason no,later --sheet", sheet)
	good("vote show 1")

	// A seat's opinion is shown with its reason, as far as a terminal shows it.
	seat, err := identity.OpenSeat("identity")
	must(t, err)
	w.opine(t, seat, proposal.Opinion{Proposal: first.ID, Height: 1, Why: []string{"owner hanse says no"}})
	good("vote list")
	good("vote show " + first.ID.String())
	return steady(story.String(), ring, sheet)
}

// steady is a story without what differs from run to run.
func steady(text string, ring *keyring.Keyring, sheet string) string {
	text = strings.ReplaceAll(text, sheet, filepath.Base(sheet))
	text = strings.ReplaceAll(text, ring.Dir, "DIR")
	return regexp.MustCompile(`\b[0-9a-f]{12}([0-9a-f]{52})?\b`).ReplaceAllStringFunc(text, func(hash string) string {
		if strings.Trim(hash, "0") == "" || strings.HasPrefix(hash, "0101") {
			return hash
		}
		return strings.Repeat("x", len(hash))
	})
}

// opine has the seat of the node say what it thinks.
func (w *world) opine(t *testing.T, seat *identity.Seat, o proposal.Opinion) {
	t.Helper()
	state := w.waiting.state()
	said, err := seat.Opine(state.Fleet(), 1, o)
	must(t, err)
	w.waiting.mu.Lock()
	defer w.waiting.mu.Unlock()
	w.waiting.more = append(w.waiting.more, said.Bytes())
}
