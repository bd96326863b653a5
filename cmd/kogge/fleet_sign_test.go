package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
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
	if err != nil || !strings.Contains(out, "draft.txt is signed by 1 owner key; 2 found the fleet") || !strings.Contains(out, "kogge fleet sign draft.txt") {
		t.Fatal(out, err)
	}
	record := regexp.MustCompile(`[0-9a-f]{64}`).FindString(out)
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
	if out, err := run(found...); err != nil || !strings.Contains(out, "Fleet hanse is founded.") {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run("ledger", "verify", "--node", "n1"); err != nil || !strings.Contains(out, "1 record") {
		t.Errorf("%q, %v", out, err)
	}
}
