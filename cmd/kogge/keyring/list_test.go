package keyring

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"

	"kogge.example/update/fleet"
)

// TestLists damages each list of a fleet's folder: it is told in words, and whoever
// wanted to add to it leaves it as it is.
func TestLists(t *testing.T) {
	k := savedFleet(t, "hanse")
	for _, l := range []struct {
		name string
		most int
		read func() error
		add  func() error
	}{
		{tokensName, tokenList.most, func() error { return second(k.Tokens()) }, func() error { return second(k.NewToken(Terms{}, today)) }},
		{invitationsName, invitationList.most, func() error { return second(k.Invitations()) }, func() error { return second(k.Invite("bob", fleet.RoleReader, 0, today)) }},
		{revokedNodesName, revokedNodeList.most, func() error { return second(k.RevokedNodes()) }, func() error { return second(k.RevokeNode("n1", []string{strings.Repeat("0", 64)}, today)) }},
		{operatorsName, operatorList.most, func() error { return second(k.Operators()) }, func() error { return k.RenewOperator(today) }},
	} {
		if err := l.add(); err != nil {
			t.Fatal(err)
		}
		good, err := os.ReadFile(k.path(l.name))
		if err != nil {
			t.Fatal(err)
		}
		for what, bad := range map[string][]byte{
			"empty": {}, "torn": good[:len(good)/2], "large": append(bytes.Repeat([]byte(" "), l.most), good...),
			"the next version": bytes.Replace(good, []byte(`"version": 1`), []byte(`"version": 2`), 1),
		} {
			if err := os.WriteFile(k.path(l.name), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			for verb, do := range map[string]func() error{"read": l.read, "add": l.add} {
				if err := do(); err == nil || !strings.Contains(err.Error(), l.name+": ") {
					t.Errorf("%s, %s: %s: %v", l.name, what, verb, err)
				}
			}
			if now, err := os.ReadFile(k.path(l.name)); err != nil || !bytes.Equal(now, bad) {
				t.Errorf("%s, %s: the file was changed: %v", l.name, what, err)
			}
		}
		if err := os.WriteFile(k.path(l.name), good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListTogether has several programs add to one list: nothing of it is lost.
func TestListTogether(t *testing.T) {
	k := savedFleet(t, "hanse")
	var wait sync.WaitGroup
	for range 8 {
		mine, err := Load(k.Dir)
		if err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			for range 5 {
				if _, err := mine.NewToken(Terms{}, today); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if all, err := k.Tokens(); err != nil || len(all) != 40 {
		t.Errorf("%d of 40 tokens are there: %v", len(all), err)
	}
}
