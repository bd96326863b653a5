package explore

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutant is a fault in the voting machine, as a change of its text, and the test that finds it.
type mutant struct {
	name     string
	file     string // below update/fleet/vote
	was, is  string
	pkg, run string // of the test
	finds    string // what the test then says
	quick    bool   // tried by each `make test`
}

const (
	itself  = "./update/fleet/vote"
	walking = "./update/fleet/vote/explore"
)

var mutants = []mutant{
	{
		"no lock rule", "step.go", "free := m.Locked.Round < 0 || m.Locked.Value == p.Value", "free := true",
		walking, "TestLockRule$", "two certificates can be made", false,
	},
	{
		"send before fsync", "step.go", "m.do(Persist{r}, Send{b})", "m.do(Send{b}, Persist{r})",
		walking, "TestOneRound$/^a_voter_lies,_the_power_fails", "an honest seat signs twice", true,
	},
	{
		"q-1", "step.go", "m.At.Quorum", "(m.At.Quorum - 1)",
		walking, "TestOneRound$/^the_chair_lies$", "a decision that no certificate can prove", true,
	},
	{
		"first ballot only", "rounds.go", "if len(before) > 1 && !r.supported(b) {", "if len(before) > 0 {",
		walking, "TestOneRound$/^a_voter_lies$", "a seat has all ballots and does not decide", true,
	},
	{
		"polka not in the journal", "step.go", "\t\tfor _, b := range l.Ballots() {\n\t\t\tm.keep(b)\n\t\t}\n", "",
		itself, "TestLines$", "it does otherwise: a locked seat boots, and follows who proposes the value again", true,
	},
	{
		"lock not replayed", "step.go", "m.Locked = Choice{l.Proposal.Round, l.Proposal.Value}", "",
		itself, "TestLines$", "it does otherwise: a locked seat boots: the lock is there, and what it rests on", false,
	},
	{
		"valid asked twice", "step.go", "\t\t\tvalue := ballot.Nil // line 32\n",
		"\t\t\tif !slices.Contains(m.judged, p.Value) {\n\t\t\t\tm.judged = append(slices.Clip(m.judged), p.Value)\n\t\t\t\tm.do(Judge{m.At.Number, m.Round, p.Value})\n\t\t\t\treturn true\n\t\t\t}\n\t\t\tvalue := ballot.Nil // line 32\n",
		itself, "TestLines$", "it does otherwise: 28, 30: a later quorum of prevotes frees from the lock", false,
	},
	{
		"nil may lock", "rounds.go", "b.Kind == ballot.Proposal && (b.Value == ballot.Nil || s.At.Chair(b.Round) != b.Seat)", "b.Kind == ballot.Proposal && s.At.Chair(b.Round) != b.Seat",
		itself, "TestLines$", "it does otherwise: difference 1: a proposal of nil", false,
	},
	{
		"abstainer steps", "step.go", "s.At.Number <= max(s.Abstain, s.Head.Height)", "s.At.Number <= s.Head.Height",
		itself, "TestLines$", "it does otherwise: difference 5: who abstains takes no step", false,
	},
	{
		"roster of the wrong height", "step.go", "if !m.At.Has(b.Words) {", "if b.Height != m.At.Number {",
		itself, "TestLines$", "it does otherwise: a ballot of another roster", false,
	},
	{
		"valid of this round only", "step.go", "if r.number > m.Round || r.number == m.Round && m.Step == ballot.Proposal {", "if r.number != m.Round || m.Step == ballot.Proposal {",
		itself, "TestLines$", "it does otherwise: 42: a quorum after the precommit is valid, not locked; difference 3", false,
	},
	{
		"own foreign ballot ignored", "step.go", "\tif b.Seat == m.Self {\n\t\tm.mine(b)\n\t}\n", "",
		itself, "TestLines$", "it does otherwise: an own ballot that the journal lacks stops the seat", false,
	},
	// And two more, for what the walks look for besides.
	{
		"what is invalid is prevoted", "step.go", "if j.Valid {", "if j.Valid || true {",
		walking, "TestOneRound$/^a_voter_lies$", "what is decided was valid to nobody", false,
	},
	{
		"no time-out of prevotes", "step.go", "case t.Step == ballot.Prevote && m.Step == ballot.Prevote: // line 61", "case false:",
		walking, "TestOneRound$/^a_voter_lies$", "nothing more happens, and a seat has neither decided nor gone on", false,
	},
}

// TestMutants puts each fault into a copy of the file, has the compiler take that one, and wants
// that the test fails and says what it found. What the fault changes has to be there once at least.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the package for each mutant")
	}
	top, err := filepath.Abs("../../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			path := filepath.Join(top, "update/fleet/vote", m.file)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), m.was) {
				t.Fatalf("%s has no %q any more: the mutant has to change with it", path, m.was)
			}
			if !m.quick && !long {
				return // it still fits
			}
			dir := t.TempDir()
			changed, overlay := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json")
			list, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
			if err != nil {
				t.Fatal(err)
			}
			for name, body := range map[string]string{changed: strings.ReplaceAll(string(text), m.was, m.is), overlay: string(list)} {
				if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("go", "test", "-overlay="+overlay, "-count=1", "-vet=off", "-run=^"+m.run, m.pkg)
			cmd.Dir = top
			out, err := cmd.CombinedOutput()
			switch {
			case err == nil:
				t.Errorf("%s %s does not find it", m.pkg, m.run)
			case !strings.Contains(string(out), "--- FAIL") || !strings.Contains(string(out), m.finds):
				t.Errorf("%s %s does not say %q: %v\n%s", m.pkg, m.run, m.finds, err, out)
			default:
				t.Logf("found by %s: %s", m.run, m.finds)
			}
		})
	}
}
