package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// TestFleetSign founds a fleet whose owner keys are in two places, with a file that travels.
func TestFleetSign(t *testing.T) {
	w := &world{}
	w.open(t)
	var target target
	ring, err := target.openFleet()
	must(t, err)
	run := func(args ...string) (string, error) {
		root := rootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	bad := func(want string, args ...string) {
		t.Helper()
		if out, err := run(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("kogge %s: %q, %v", strings.Join(args, " "), out, err)
		}
	}
	must(t, os.WriteFile("nodes.txt", []byte("# ours\n\n  n1  # in the attic\n"), 0o600))
	must(t, os.WriteFile("wrong.txt", []byte("n1\nN 2\n"), 0o600))
	must(t, os.WriteFile("empty.txt", []byte("# nobody\n"), 0o600))
	bad("which nodes?", "fleet", "found", "n1", "-f", "nodes.txt")
	bad("wrong.txt:2: name \"N 2\"", "fleet", "found", "-f", "wrong.txt")
	bad("names no node", "fleet", "found", "-f", "empty.txt")
	bad("no such file", "fleet", "sign", "draft.txt")

	found := []string{"fleet", "found", "-f", "nodes.txt", "--sign-with", "draft.txt"}
	out, err := run(found...)
	if err == nil || !strings.Contains(err.Error(), "no terminal") || !strings.Contains(out, "ada ") || !strings.Contains(out, "n1 ") {
		t.Fatalf("signed unseen: %s, %v", out, err)
	}
	if _, err := os.Stat("draft.txt"); err == nil {
		t.Fatal("signed unseen")
	}
	record := regexp.MustCompile(`[0-9a-f]{64}`).FindString(out)
	bad("and not", append(found, "--record", strings.Repeat("0", 64))...)
	bad("and not", append(found, "--record", record[:11])...)
	found = append(found, "--record", record[:12])
	if out, err := run(found...); err != nil || !strings.Contains(out, "draft.txt is signed by 1 owner key; 2 found the fleet") || !strings.Contains(out, "kogge fleet sign draft.txt") {
		t.Fatal(out, err)
	}
	bad("its ledger is empty", "ledger", "log")
	if again, err := run(found...); err != nil || !strings.Contains(again, record) {
		t.Errorf("%q, %v: the record is another one", again, err)
	}
	sheet := ring.Sheets()[1]
	sign := []string{"fleet", "sign", "draft.txt", "--sheet", sheet, "--record"}
	bad("and not", append(sign, strings.Repeat("0", 64))...)
	bad("and not", append(sign, record[:4])...)
	text, err := os.ReadFile("draft.txt")
	must(t, err)
	must(t, os.WriteFile("draft.txt", bytes.Replace(text, []byte(`"name": "n1"`), []byte(`"name": "n2"`), 1), 0o600))
	bad("field value", append(sign, record)...)
	must(t, os.WriteFile("draft.txt", text, 0o600))
	bad("have signed it already", "fleet", "sign", "draft.txt", "--record", record)
	if out, err := run(append(sign, record[:12])...); err != nil || !strings.Contains(out, "draft.txt is signed by 2 owner keys") || !strings.Contains(out, "ada ") || !strings.Contains(out, "n1 ") {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run("fleet", "found", "-f", "nodes.txt", "--sign-with", "draft.txt"); err == nil || strings.Contains(out, "is founded.") {
		t.Errorf("%q, %v: founded unseen", out, err)
	}
	if out, err := run(found...); err != nil || !strings.Contains(out, "Fleet hanse is founded.") {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run("ledger", "verify", "--node", "n1"); err != nil || !strings.Contains(out, "1 record") {
		t.Errorf("%q, %v", out, err)
	}
}

// TestFleetSignOther: what comes back in the place of the file that went is not signed, nor does it
// found the fleet, whoever has signed it.
func TestFleetSignOther(t *testing.T) {
	w := &world{}
	w.open(t)
	var target target
	ring, err := target.openFleet()
	must(t, err)
	run := func(args ...string) (string, error) {
		root := rootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	applicants, err := operate.Applicants(t.Context(), ring, []string{"n1"}, notice)
	must(t, err)
	operators, err := operate.Operators(ring)
	must(t, err)
	draft := func(change func(*ledger.Founding)) ledger.Draft {
		v, err := operate.Plan(ring.Genesis, operators, applicants, operate.Wish{})
		must(t, err)
		change(v.Founding)
		d, err := operate.Draft(ring.Genesis, v)
		must(t, err)
		return d
	}
	ours := draft(func(*ledger.Founding) {})
	owner := ownerFlags{sheets: ring.Sheets()}
	keys, err := owner.open(t.Context(), ring)
	must(t, err)
	stranger := *ring // signs on another computer
	stranger.Dir = t.TempDir()
	found := func(d ledger.Draft, more ...string) (string, error) {
		return run(append([]string{"fleet", "found", "n1", "--sign-with", "draft.txt", "--record", d.State.Record.String()}, more...)...)
	}
	if out, err := found(ours); err != nil {
		t.Fatal(out, err)
	}
	theirs := draft(func(f *ledger.Founding) { f.Roster.Seats[0].Domain = "cellar" })
	for _, signed := range []bool{false, true} {
		d := theirs
		if signed {
			d, err = operate.SignDraft(&stranger, d, keys, document.Hash{})
			must(t, err)
		}
		must(t, os.WriteFile("draft.txt", ledger.FormatEntry(1, d.Entry()), 0o600))
		out, err := found(theirs)
		if err == nil || !strings.Contains(err.Error(), ours.State.Record.Short()+" was agreed to here on ") || !strings.Contains(err.Error(), "with owner key 1") {
			t.Errorf("signed %t: %q, %v", signed, out, err)
		}
		if out, err := found(theirs, "--instead", theirs.State.Record.String()); err == nil {
			t.Errorf("signed %t, in the place of itself: %q", signed, out)
		}
	}
	// One with another seat key, or an operator of their own, is not founded even so.
	for what, change := range map[string]func(*ledger.Founding){
		"its seat would be of key": func(f *ledger.Founding) { f.Roster.Seats[0].Key = ledgertest.Key(t, "another") },
		"and is none here": func(f *ledger.Founding) {
			f.Operators = append(f.Operators, ledgertest.Operator(t, "zoe", fleet.RoleAdmin))
		},
	} {
		d := draft(change)
		must(t, os.WriteFile("draft.txt", ledger.FormatEntry(1, d.Entry()), 0o600))
		if out, err := found(d, "--instead", ours.State.Record.String()); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%q, %v: want %s", out, err, what)
		}
	}
	// Whoever knows that nobody has enough signatures of the first one gives it up by name.
	must(t, os.WriteFile("draft.txt", ledger.FormatEntry(1, theirs.Entry()), 0o600))
	if out, err := found(theirs, "--instead", ours.State.Record.String()); err != nil || !strings.Contains(out, "signed by 1 owner key") {
		t.Errorf("%q, %v", out, err)
	}
	must(t, os.WriteFile("draft.txt", ledger.FormatEntry(1, ours.Entry()), 0o600))
	if out, err := run("fleet", "sign", "draft.txt", "--sheet", ring.Sheets()[0], "--record", ours.State.Record.String()); err == nil || !strings.Contains(err.Error(), theirs.State.Record.Short()+" was agreed to") {
		t.Errorf("what was given up is signed: %q, %v", out, err)
	}
	if l, _, err := operate.Ledger(ring); err != nil || l.State().Height != 0 {
		t.Errorf("founded: %v", err)
	}
}
