package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/serve/care"
)

// typist types commands for a world.
type typist struct{ t *testing.T }

func (o typist) run(args ...string) (string, error) {
	root := rootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(o.t.Context())
	return out.String(), err
}

// does wants a command to go well and to print something.
func (o typist) does(want string, args ...string) {
	o.t.Helper()
	if out, err := o.run(args...); err != nil || !strings.Contains(out, want) {
		o.t.Errorf("kogge %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// lacks wants one to go well, and not to print something.
func (o typist) lacks(what string, args ...string) {
	o.t.Helper()
	if out, said, err := o.heard(args...); err != nil || strings.Contains(out, what) || strings.Contains(said, what) {
		o.t.Errorf("kogge %s: %v: %s%s", strings.Join(args, " "), err, out, said)
	}
}

// warns wants one to go well, and to say something beside what it shows.
func (o typist) warns(want string, args ...string) {
	o.t.Helper()
	if out, said, err := o.heard(args...); err != nil || !strings.Contains(said, want) || strings.Contains(out, want) {
		o.t.Errorf("kogge %s: %v: %s%s", strings.Join(args, " "), err, out, said)
	}
}

// heard is run, and what is said on the terminal beside what is shown.
func (o typist) heard(args ...string) (out, said string, err error) {
	o.t.Helper()
	terminal, wrong := os.Create(filepath.Join(o.t.TempDir(), "stderr"))
	must(o.t, wrong)
	defer terminal.Close()
	defer func(before *os.File) { os.Stderr = before }(os.Stderr)
	os.Stderr = terminal
	out, err = o.run(args...)
	text, wrong := os.ReadFile(terminal.Name())
	must(o.t, wrong)
	return out, string(text), err
}

// fails wants one to fail with an error, and with advice.
func (o typist) fails(want, hint string, args ...string) {
	o.t.Helper()
	out, err := o.run(args...)
	var h hinted
	errors.As(err, &h)
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(h.hint, hint) {
		o.t.Errorf("kogge %s: %v (%s): %s", strings.Join(args, " "), err, h.hint, out)
	}
}

// TestCare orders what operators order about a node, sees it in the fleet's status, and takes it
// back; copies etcd, and has it begin anew.
func TestCare(t *testing.T) {
	w := &world{}
	w.open(t)
	o := typist{t}
	var target target
	ring, err := target.openFleet()
	must(t, err)
	o.fails("no seat", "kogge fleet nodes", "node", "cordon", "n1")
	sheet := ring.Sheets()[0]
	founding := foundFlags{all: true, owner: ownerFlags{sheets: ring.Sheets()}, consent: consent{given: true}}
	must(t, founding.run(t.Context(), ring, nil, io.Discard))

	o.does("Node n1 is cordoned. The order lies on 1 node: n1.", "node", "cordon", "n1", "--why", "its fan is loud")
	o.does("n1: cordoned, by ada: its fan is loud", "fleet", "status")
	o.does("cordoned, by ada: its fan is loud", "fleet", "nodes")
	o.does("Node n1 is away until ", "node", "away", "n1", "--until", "48h")
	o.does("away until ", "fleet", "nodes")
	o.does("Node n1 is back.", "node", "back", "n1")
	o.lacks("away", "fleet", "status")
	o.fails("no time", "2026-12-24", "node", "away", "n1", "--until", "soon")
	o.fails("has passed", "", "node", "away", "n1", "--until", "-1h")

	o.fails("operators alone may isolate 0", "--sheet "+sheet, "fleet", "isolate", "n1")
	o.does("Node n1 is isolated.", "fleet", "isolate", "n1", "--why", "stolen", "--sheet", sheet)
	o.does("it is isolated, by ada: stolen\n      kogge fleet rejoin n1", "fleet", "status")
	o.does("Node n1 is not isolated any more.", "fleet", "rejoin", "n1")
	o.lacks("isolated", "fleet", "status")

	o.does("hanse.tar has etcd of node n1 (revision 7, 4.0 KiB) and 1 record of the ledger.", "fleet", "backup", "hanse.tar")
	o.fails("exists", "", "fleet", "backup", "hanse.tar")
	o.fails("on which node?", "--node", "fleet", "restore", "hanse.tar")
	o.fails("too few owner keys", "--sheet", "fleet", "restore", "hanse.tar", "--node", "n1")
	o.does("Node n1 begins etcd anew from the backup of ", "fleet", "restore", "hanse.tar", "--node", "n1", "--sheet", sheet)
	if w.restored != "ada: 4128 bytes" {
		t.Error(w.restored)
	}
	o.does("Node n1 begins etcd anew from what is on its disk.", "fleet", "restore", "--node", "n1", "--sheet", sheet)
	if w.restored != "ada: its own" {
		t.Error(w.restored)
	}
	must(t, os.WriteFile("junk.tar", []byte("junk"), 0o600))
	o.fails("not a backup", "", "fleet", "restore", "junk.tar", "--node", "n1", "--sheet", sheet)
	o.fails("it is the node that is to be called", "", "node", "status", "n1", "--via", "n1")
	o.fails("through which n1 is to be called", "", "node", "status", "n1", "--via", "n2")
}

// TestSlowDisk: a node whose disk is too slow for etcd is named with its figures, and nothing is
// founded with it.
func TestSlowDisk(t *testing.T) {
	w := &world{disk: care.Disk{Writes: 200, Unfit: "its disk is too slow for etcd, or busy: 99 in 100 writes took up to 900ms"}}
	w.open(t)
	o := typist{t}
	var target target
	ring, err := target.openFleet()
	must(t, err)
	for _, more := range [][]string{nil, {"--member", "n1"}} {
		o.fails("node n1", "as an SSD does", append([]string{"fleet", "found", "n1", "--sheet", ring.Sheets()[0]}, more...)...)
	}
	_, err = o.run("fleet", "found", "n1", "--sheet", ring.Sheets()[0])
	for _, want := range []string{"or busy: 99 in 100 writes took up to 900ms (measured 3 times)"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	w.disk = care.Disk{Writes: 64}
	founding := foundFlags{all: true, owner: ownerFlags{sheets: ring.Sheets()}, consent: consent{given: true}}
	must(t, founding.run(t.Context(), ring, nil, io.Discard))
}

// TestUntil reads when an absence is over.
func TestUntil(t *testing.T) {
	now := time.Date(2026, 12, 1, 8, 0, 0, 500, time.FixedZone("CET", 3600))
	for text, want := range map[string]string{
		"48h": "2026-12-03T07:00:00Z", "2026-12-24": "2026-12-23T23:00:00Z", "2026-12-24T18:00:00+01:00": "2026-12-24T17:00:00Z",
		"": "0001-01-01T00:00:00Z", "-1h": "", "2026-11-30": "", "9000h": "", "soon": "",
	} {
		at, err := parseUntil(text, now)
		if (err != nil) != (want == "") || err == nil && at.Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %s, %v", text, at.Format(time.RFC3339Nano), err)
		}
	}
}
