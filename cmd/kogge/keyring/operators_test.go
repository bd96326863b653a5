package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

// TestOperators signs people, renews one and revokes one with two keys.
func TestOperators(t *testing.T) {
	k := savedFleet(t, "dev")
	var b strings.Builder
	seen := map[string]string{}
	show := func(title string) {
		all, err := k.Operators()
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(title + "\n")
		for _, o := range all {
			if seen[o.Key] == "" {
				seen[o.Key] = fmt.Sprint("key", len(seen)+1)
			}
			revoked := "-"
			if o.Revoked != nil {
				revoked = o.Revoked.Format(time.DateOnly)
			}
			fmt.Fprintf(&b, "    %-5s %-8s %s until %s, revoked %s\n", o.Name, o.Role, seen[o.Key], o.Until.Format(time.DateOnly), revoked)
		}
	}
	sign := func(csr []byte, name string, role fleet.Role, now time.Time) error {
		_, err := k.SignOperator(csr, name, role, now)
		return err
	}
	show("a new fleet")
	laptop, _ := request(t)
	desktop, _ := request(t)
	carol, _ := request(t)
	later := today.AddDate(0, 6, 0)
	if err := errors.Join(sign(laptop, "bob", fleet.RoleReader, today), sign(desktop, "bob", fleet.RoleOperator, today), sign(carol, "carol", fleet.RoleReader, today)); err != nil {
		t.Fatal(err)
	}
	show("bob with two computers, and carol")
	if err := errors.Join(sign(carol, "carol", fleet.RoleAdmin, later), k.RenewOperator(later)); err != nil {
		t.Fatal(err)
	}
	show("half a year later carol is an admin, and ada renews herself")
	for range 2 {
		if keys, err := k.RevokeOperator("bob", later); err != nil || len(keys) != 2 {
			t.Fatal(keys, err)
		}
		later = later.AddDate(0, 1, 0)
	}
	show("bob is revoked, twice")
	if err := sign(laptop, "bob", fleet.RoleReader, later); !errors.Is(err, fleet.ErrRevoked) {
		t.Errorf("his laptop is signed again: %v", err)
	}
	if err := sign(laptop, "bobby", fleet.RoleReader, later); !errors.Is(err, fleet.ErrRevoked) {
		t.Errorf("his laptop is signed under another name: %v", err)
	}
	if _, err := k.RevokeOperator("ada", later); err == nil {
		t.Error("ada revokes herself")
	}
	if _, err := k.RevokeOperator("dora", later); !errors.Is(err, ErrNoOperator) {
		t.Error(err)
	}
	golden.Compare(t, "operators.txt", b.String())
}

// TestOperatorsDamaged wants that nobody is signed who could not be found again.
func TestOperatorsDamaged(t *testing.T) {
	k := savedFleet(t, "dev")
	good, err := os.ReadFile(k.path(operatorsName))
	if err != nil {
		t.Fatal(err)
	}
	csr, _ := request(t)
	for title, text := range map[string][]byte{
		"empty": {}, "torn": good[:len(good)/2],
		"the next version": bytes.Replace(good, []byte(`"version": 1`), []byte(`"version": 2`), 1),
		"another role":     bytes.Replace(good, []byte(`"admin"`), []byte(`"root"`), 1),
		"another name":     bytes.Replace(good, []byte(`"ada"`), []byte(`"ADA"`), 1),
		"a short key":      bytes.Replace(good, []byte(`"key": "`), []byte(`"key": "a`), 1),
	} {
		if err := os.WriteFile(k.path(operatorsName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		der, err := k.SignOperator(csr, "bob", fleet.RoleReader, today)
		if now, _ := os.ReadFile(k.path(operatorsName)); err == nil || der != nil || !bytes.Equal(now, text) {
			t.Errorf("%s: %v", title, err)
		}
	}
}
