package identity

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/token"
)

var bob, eve, dora = fleet.KeyID([]byte("bob")), fleet.KeyID([]byte("eve")), fleet.KeyID([]byte("dora"))

// toldDisk is the disk of a node that is to come in, and was told before a cut that bob and eve are revoked.
func toldDisk(t *testing.T) (*memoryFiles, func(n *Node) error) {
	f := savedFleet(t, "dev")
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	n, err := openNode(m)
	if err == nil {
		err = n.Join(invited(t, f))
	}
	if err != nil {
		t.Fatal(err)
	}
	m.left = 1
	if err := n.EnrolKnowing([]string{bob, eve}, nil, sign(t, f, n, "n1")); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	m.left = 1000
	return m, func(n *Node) error { return n.EnrolKnowing([]string{dora}, nil, sign(t, f, n, "n1")) }
}

// turns are those of the keys that a node turns away.
func turns(n *Node) (who string) {
	for _, key := range []struct{ name, id string }{{"bob", bob}, {"eve", eve}, {"dora", dora}} {
		if n.TurnsAway(key.id) {
			who += key.name + " "
		}
	}
	return strings.TrimSpace(who)
}

// TestToldUnread: where the disk does not give what the node was told, or a later release has written it, the
// node comes in all the same, and whom it turned away before it does at the next start.
func TestToldUnread(t *testing.T) {
	later := func(text string) string { return strings.Replace(text, `"version": 1`, `"version": 9`, 1) }
	for what, test := range map[string]struct {
		file      func(text string) string
		sick      bool
		soon      bool // the disk gives it when it is asked again
		now, then string
		whole     bool // at the next start
	}{
		"it is not given":           {nil, true, false, "dora", "bob eve dora", true},
		"it is given a second time": {nil, true, true, "bob eve dora", "bob eve dora", true},
		"of a later release":        {later, false, false, "bob eve dora", "bob eve dora", false},
		"damaged":                   {func(text string) string { return strings.Replace(text, bob, "X"+bob[1:], 1) }, false, false, "eve dora", "eve dora", false},
	} {
		m, enrol := toldDisk(t)
		if test.file != nil {
			m.disk[toldName] = test.file(m.disk[toldName])
		}
		before := m.disk[toldName]
		sick := &unread{m, ""}
		if test.sick {
			sick.name = toldName
		}
		n, err := openNode(sick)
		if err != nil || n.Problem() == nil || n.Forgets() {
			t.Fatalf("%s: it knows all: %v", what, err)
		}
		if test.soon {
			sick.name = ""
		}
		if err = enrol(n); err != nil || turns(n) != test.now || (n.Problem() == nil) != test.soon {
			t.Errorf("%s: %v, it turns away %s; %v", what, err, turns(n), n.Problem())
		}
		if n, err = openNode(m); err != nil || !n.Adopted() || turns(n) != test.then || (n.Problem() == nil) != test.whole {
			t.Errorf("%s: at the next start: %v, it turns away %s; %v", what, err, turns(n), n.Problem())
		}
		if (test.sick && !test.soon || what == "of a later release") && m.disk[toldName] != before {
			t.Errorf("%s: the file is %s", what, m.disk[toldName])
		}
		if what != "of a later release" {
			if err := n.RevokeAll(); err != nil || n.Problem() != nil || turns(n) != test.then {
				t.Errorf("%s: an operator says who is revoked: %v, %v, it turns away %s", what, err, n.Problem(), turns(n))
			}
			if n, err = openNode(m); err != nil || n.Problem() != nil || turns(n) != test.then {
				t.Errorf("%s: he has said so, at the next start: %v, %v, it turns away %s", what, err, n.Problem(), turns(n))
			}
		}
	}
}

// TestLetInDamaged: a key is let in of a list that is damaged, that a later release has written or that the
// disk does not give, with a cut at each write. The others stay turned away, and what is wrong stays said;
// who cannot be let in is no silent matter.
func TestLetInDamaged(t *testing.T) {
	whole, enrol := toldDisk(t)
	n, err := openNode(unread{whole, toldName})
	if err == nil {
		err = enrol(n)
	}
	if err != nil { // bob and eve stand in the one file now, dora in the other
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		name string
		file string
		key  string
		then string
		fail error
	}{
		"whole":                      {toldName, whole.disk[toldName], eve, "bob dora", nil},
		"whole, of the other file":   {toldName, whole.disk[toldName], dora, "bob eve", nil},
		"damaged":                    {toldName, strings.Replace(whole.disk[toldName], bob, "X"+bob[1:], 1), eve, "dora", nil},
		"damaged, of the other file": {toldName, whole.disk[toldName][:100], dora, "bob", nil},
		"the other file is damaged":  {addedToldName, "junk", eve, "bob", nil},
		"later":                      {toldName, strings.Replace(whole.disk[toldName], `"version": 1`, `"version": 9`, 1), eve, "bob eve dora", document.ErrNewer},
		"later, of the other file":   {toldName, strings.Replace(whole.disk[toldName], `"version": 1`, `"version": 9`, 1), dora, "bob eve", nil},
		"not given":                  {toldName, "", eve, "bob eve dora", errDisk},
		"not given, the other file":  {toldName, "", dora, "bob eve dora", errDisk},
	} {
		for writes := 0; ; writes++ {
			done := false
			for _, lands := range []bool{false, true} {
				m := &memoryFiles{disk: maps.Clone(whole.disk), left: writes, lands: lands}
				sick := unread{m, ""}
				if test.file == "" {
					sick.name = toldName
				} else {
					m.disk[test.name] = test.file
				}
				n, err := openNode(sick)
				if err != nil {
					t.Fatal(err)
				}
				wrong := n.Problem() != nil
				err = n.LetIn(test.key)
				if done = !errors.Is(err, errCut); done && (!errors.Is(err, test.fail) || (n.Problem() != nil) != wrong || test.fail == nil && turns(n) != test.then) {
					t.Errorf("%s: %v, it turns away %s; %v", what, err, turns(n), n.Problem())
				}
				if n, err = openNode(m); err != nil || done && turns(n) != test.then || (n.Problem() != nil) != (wrong && sick.name == "") {
					t.Errorf("%s, writes=%d lands=%v, at the next start: %v, it turns away %s; %v", what, writes, lands, err, turns(n), n.Problem())
				}
				if test.fail == nil {
					m.left = 1000
					if err := n.LetIn(test.key); err != nil || turns(n) != test.then {
						t.Errorf("%s, writes=%d lands=%v, again: %v, it turns away %s", what, writes, lands, err, turns(n))
					}
				}
			}
			if done {
				break
			}
		}
	}
}

// TestToldSpares: no member's word turns away the first operator, or whose token the node has: it has no
// other way to them. So it is also with what another member told it before a cut.
func TestToldSpares(t *testing.T) {
	m, enrol := toldDisk(t)
	n, err := openNode(m)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := n.Enrolment()
	first, carol := n.Genesis().FirstOperatorID(), ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	record := ledgertest.Must[token.Paper](t)(token.Issue(e.Record.Fleet, ledgertest.Must[token.Record](t)(token.OpenRecord(e.Record)), carol))
	issuer := document.HashOf(record.Issuer).String()
	f := n.enrolment
	f.Record = record.Bytes()
	if err := n.enrols(f); err != nil {
		t.Fatal(err)
	}
	for _, version := range []int{1, 9} {
		disk := maps.Clone(m.disk)
		disk[toldName] = fmt.Sprintf(`{"version": %d, "keys": ["%s"]}`, version, strings.Join(slices.Sorted(slices.Values([]string{bob, first, issuer})), `", "`))
		files := &memoryFiles{disk: disk, left: 1000}
		n, err := openNode(files)
		for _, step := range []string{"told before", "come in", "the next start"} {
			switch step {
			case "come in":
				err = enrol(n)
			case "the next start":
				n, err = openNode(files)
			}
			if err != nil || n.TurnsAway(first) || n.TurnsAway(issuer) || !n.TurnsAway(bob) || slices.Contains(n.Told(), issuer) {
				t.Errorf("version %d, %s: %v, it turns away the first operator %v, the issuer %v, bob %v", version, step, err, n.TurnsAway(first), n.TurnsAway(issuer), n.TurnsAway(bob))
			}
		}
	}
}

// TestRevokedAside: keys of a list that was laid aside stay revoked once the disk gives it again.
func TestRevokedAside(t *testing.T) {
	for _, name := range []string{revokedName, addedName} {
		m := &memoryFiles{disk: map[string]string{name: `{"version": 1, "keys": ["` + bob + `"]}`}, left: 1000}
		n, err := openNode(unread{m, name})
		if err == nil {
			err = n.RevokeAll(dora)
		}
		if err != nil || n.Forgets() || !n.Revoked(dora) || m.disk[durable.AsideName(name, 1)] == "" {
			t.Fatalf("%s: %v, it forgets: %v", name, err, n.Forgets())
		}
		if n, err = openNode(m); err != nil || !n.Revoked(bob) || !n.Revoked(dora) || n.Problem() != nil {
			t.Errorf("%s: at the next start: %v, bob %v, dora %v, %v", name, err, n.Revoked(bob), n.Revoked(dora), n.Problem())
		}
		m.disk[name] = "junk"
		if n, err = openNode(m); err == nil {
			err = n.RevokeAll(eve)
		}
		if err != nil || !n.Revoked(bob) || !strings.Contains(m.disk[name], bob) {
			t.Errorf("%s: all that are revoked are said once more: %v, bob %v", name, err, n.Revoked(bob))
		}
	}
}
