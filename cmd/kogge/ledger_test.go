package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/agent/workload"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/document"
)

// TestLedgerCommands reads a founded fleet's ledger on a computer that has lost its own, from
// the node and from a file, and refuses one that has another history or a byte changed.
func TestLedgerCommands(t *testing.T) {
	w := &world{units: []workload.UnitStatus{{ID: "db", State: workload.Running}}}
	w.open(t)
	run := func(args ...string) (string, error) {
		root := rootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	good := func(want string, args ...string) {
		t.Helper()
		if out, err := run(args...); err != nil || !strings.Contains(out, want) {
			t.Errorf("kogge %s: %q, %v", strings.Join(args, " "), out, err)
		}
	}
	bad := func(want string, args ...string) {
		t.Helper()
		if out, err := run(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("kogge %s: %q, %v", strings.Join(args, " "), out, err)
		}
	}
	good("founding", "ledger", "log")
	good("1, of which 1 decide (majority): 1 answer, none may fail, none may lie", "fleet", "status")
	good("n1    yes   member  n1", "fleet", "nodes")
	bad("2 problems", "fleet", "status", "--check") // the clock of this machine is nobody's
	good("", "ledger", "export", "mine.txt")
	good("1 record", "ledger", "verify", "-f", "mine.txt")
	good("1 record", "ledger", "verify", "--node", "n1")
	var target target
	ring, err := target.openFleet()
	must(t, err)
	if warning, err := unlisted(ring, "ada", ring.Operator().Key); warning != "" || err != nil {
		t.Errorf("ada is not listed: %q, %v", warning, err)
	}
	if warning, err := unlisted(ring, "bob", ""); !strings.Contains(warning, "a certificate alone gives no rights") || err != nil {
		t.Errorf("bob is listed: %q, %v", warning, err)
	}
	text, err := os.ReadFile("mine.txt")
	must(t, err)
	must(t, os.WriteFile("bent.txt", bytes.Replace(text, []byte(`"rule": "majority"`), []byte(`"rule": "majoritz"`), 1), 0o600))
	bad("record 1: ", "ledger", "verify", "-f", "bent.txt")

	must(t, os.Remove(filepath.Join(ring.Dir, "ledger.txt")))
	bad("its ledger is empty", "ledger", "verify")
	good("1 record", "ledger", "fetch")
	good("1 record", "ledger", "verify")

	// A node that cannot read its ledger has not lost it, and one that has none is not the fleet.
	first := filepath.Join("ledger", "1")
	text, err = os.ReadFile(first)
	must(t, err)
	must(t, os.WriteFile(first, text[1:], 0o600))
	bad("not to be relied on", "ledger", "verify", "--node", "n1")
	bad("not to be relied on", "ledger", "fetch", "n1")
	good("is founded already", "fleet", "found", "n1")
	good("1 record", "ledger", "verify", "--node", "n1")
	must(t, os.Rename("ledger", "away"))
	bad("node n1 has no record of the ledger, and the fleet's folder has 1", "ledger", "verify", "--node", "n1")
	must(t, os.Rename("away", "ledger"))
	good("1 record", "ledger", "verify", "--node", "n1")

	// The folder signs no other record 1.
	must(t, os.Remove(filepath.Join(ring.Dir, "ledger.txt")))
	applicants, err := operate.Applicants(t.Context(), ring, []string{"n1"}, notice)
	must(t, err)
	applicants[0].Height = 0
	operators, err := operate.Operators(ring)
	must(t, err)
	v, err := operate.Plan(ring.Genesis, operators, applicants, operate.Wish{Domains: map[string]string{"n1": "attic"}})
	must(t, err)
	owner := ownerFlags{sheets: ring.Sheets()}
	keys, err := owner.open(t.Context(), ring)
	must(t, err)
	d, err := operate.Draft(ring.Genesis, v)
	must(t, err)
	if _, err = operate.SignDraft(ring, d, keys, document.Hash{}); !errors.Is(err, keyring.ErrOtherFirst) {
		t.Errorf("a second record 1: %v", err)
	}
	// The same owner founds it once more, on a computer that has not asked.
	must(t, os.Remove(filepath.Join(ring.Dir, "firsts.json")))
	d, err = operate.SignDraft(ring, d, keys, document.Hash{})
	must(t, err)
	_, err = operate.Begin(ring, d)
	must(t, err)
	for _, args := range [][]string{{"ledger", "verify", "-f", "mine.txt"}, {"ledger", "verify", "--node", "n1"}, {"ledger", "fetch"}, {"fleet", "found", "n1"}} {
		bad("two histories: record 1 is ", args...)
		if _, err := run(args...); !errors.As(err, new(hinted)) {
			t.Errorf("%v: no hint: %v", args, err)
		}
	}
}
