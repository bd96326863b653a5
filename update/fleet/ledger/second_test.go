package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// judged is a ledger that both verifiers judge, and what kogge says of it: as testdata/verify.py says it, but
// for the reason of a refusal.
type judged struct {
	name          string
	genesis, file []byte // genesis is the one that is trusted
	ours          string
	why           error
}

// pile is what is to be judged.
type pile struct {
	t   *testing.T
	all []judged
}

// file adds a ledger's file.
func (p *pile) file(name string, genesis, file []byte) {
	j := judged{name: name, genesis: genesis, file: file, ours: "refuse 0"}
	var g *fleet.Genesis
	if g, j.why = fleet.ParseGenesis(genesis); j.why == nil {
		var l *ledger.Log
		l, _, j.why = ledger.Read(bytes.NewReader(file), g)
		// What is wrong before the first record is of height 0.
		begins := fmt.Appendf(nil, "kogge-ledger 1\ngenesis 0 %d\n%s", len(genesis), genesis)
		j.says(l, bytes.HasPrefix(file, begins))
	}
	p.all = append(p.all, j)
}

// says notes where a ledger has come to, and whether it was refused there.
func (j *judged) says(l *ledger.Log, begun bool) {
	switch {
	case j.why == nil:
		j.ours = accepted(l.State())
	case begun:
		j.ours = fmt.Sprintf("refuse %d", l.State().Height+1)
	}
}

// entries adds the ledger that a fleet has come to, and more entries behind it.
func (p *pile) entries(name string, w *ledgertest.Fleet, more ...ledger.Entry) {
	file, l := bytes.NewBuffer(written(p.t, w)), w.Log.Clone()
	j := judged{name: name, genesis: w.Genesis.Bytes()}
	for i, e := range more {
		if err := ledger.WriteEntry(file, int64(len(w.Entries)+i+1), e); err != nil {
			p.t.Fatal(err)
		}
		if j.why == nil {
			j.why = l.AppendBroken(e)
		}
	}
	j.file = file.Bytes()
	j.says(l, true)
	p.all = append(p.all, j)
}

// accepted is a state in a line, with all of it that a later record may depend on.
func accepted(s ledger.State) string {
	var operators []string
	for _, o := range s.Operators {
		operators = append(operators, fmt.Sprintf("%s:%s:%s", o.Name, o.Role, o.Key.Short()))
	}
	policy, err := document.Encode(s.Policy)
	if err != nil {
		panic(err)
	}
	claim := "none"
	if c := s.Claim; c != nil {
		claim = fmt.Sprintf("%s@%d:%s", c.Owner.Name, c.Height, c.Record)
	}
	var knowing []int
	for _, seat := range s.Roster.Seats {
		if s.NeedsCA(seat.Number) {
			knowing = append(knowing, seat.Number)
		}
	}
	numbers := func(list []int) string { return strings.ReplaceAll(fmt.Sprint(list), " ", ",") }
	roster := document.Hash{}
	if s.Height > 0 {
		roster = s.Roster.Hash()
	}
	return fmt.Sprintf("accept %d record=%s tree=%s roster=%s operators=%s policy=%s tufRoot=%d:%s nodeCA=%x formerCAs=%d isolated=%s barred=%d awaited=%s seated=%d claim=%s glassBrokenAt=%d knowCA=%s",
		s.Height, s.Record, s.Tree, roster, strings.Join(operators, ","), document.HashOf(policy), s.TUFNumber, s.TUFRoot,
		sha256.Sum256(s.NodeCA.RawSubjectPublicKeyInfo), len(s.FormerCAs), numbers(s.Isolated), len(s.Barred), numbers(s.Awaited), s.Seated, claim, s.BrokenGlass, numbers(knowing))
}

// second has testdata/verify.py judge all of them, in one process. It is Debian's Python that runs, which
// finds Debian's libraries.
func (p *pile) second() []string {
	p.t.Helper()
	python := "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import cryptography").CombinedOutput(); err != nil {
		p.t.Fatalf("the second verifier cannot run: apt-get install python3-cryptography (make test-deps does it): %v\n%s", err, out)
	}
	dir, args := p.t.TempDir(), []string{"testdata/verify.py"}
	for i, j := range p.all {
		for kind, raw := range map[string][]byte{"g": j.genesis, "l": j.file} {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i, kind)), raw, 0o600); err != nil {
				p.t.Fatal(err)
			}
		}
		args = append(args, filepath.Join(dir, fmt.Sprint(i, "g")), filepath.Join(dir, fmt.Sprint(i, "l")))
	}
	c := exec.Command(python, args...)
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		p.t.Fatalf("verify.py: %v\n%s", err, &stderr)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(p.all) {
		p.t.Fatalf("verify.py: %d answers to %d ledgers\n%s", len(lines), len(p.all), &stderr)
	}
	return lines
}

var refusal = regexp.MustCompile(`^refuse \d+`)

// TestSecondVerifier has kogge and a verifier in another language, which was written from page ledger-file
// alone, judge the same ledgers: those of golden files, decisions of each kind, and some thousand that
// somebody has forged, most of them with all keys of the fleet. Both accept the same ones and come to the
// same state, and both refuse the same ones at the same height.
func TestSecondVerifier(t *testing.T) {
	p := &pile{t: t}
	p.golden()
	p.decisions()
	p.walks()
	p.spellings()
	takes, refuses, bad := 0, 0, 0
	for i, theirs := range p.second() {
		ours, why := p.all[i].ours, p.all[i].why
		same := ours == theirs
		if m := refusal.FindString(theirs); m != "" {
			same = ours == m
		}
		if why != nil {
			refuses++
		} else {
			takes++
		}
		if !same && bad < 40 {
			bad++
			t.Errorf("%s:\n  kogge:     %s: %v\n  verify.py: %s", p.all[i].name, ours, why, theirs)
			keep(t, fmt.Sprint(i, ".genesis"), p.all[i].genesis) // with -artifacts
			keep(t, fmt.Sprint(i, ".ledger"), p.all[i].file)
		}
	}
	t.Logf("%d ledgers accepted, %d refused", takes, refuses)
	if takes < 200 || refuses < 1000 {
		t.Errorf("too little was judged: %d accepted, %d refused", takes, refuses)
	}
}

func keep(t *testing.T, name string, raw []byte) {
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name), raw, 0o600); err != nil {
		t.Error(err)
	}
}
