package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

// invited is an invitation as bob reads it from his mail.
func invited(t testing.TB, k *Keyring, name string, role fleet.Role) *Invitation {
	t.Helper()
	i, err := k.Invite(name, role, 0, today)
	if err != nil {
		t.Fatal(err)
	}
	text, err := MarshalInvitation(i)
	if err != nil {
		t.Fatal(err)
	}
	if i, err = ParseInvitation(text); err != nil {
		t.Fatal(err)
	}
	return i
}

// joining is somebody who has made his key below root.
func joining(t testing.TB, root string, i *Invitation) *Newcomer {
	t.Helper()
	n, err := Accept(root, i.Genesis.Name, i, today)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sent is a request as it arrives.
func sent(t testing.TB, r *OperatorRequest) *OperatorRequest {
	t.Helper()
	text, err := MarshalRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = ParseRequest(text); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestInvitation brings bob into a fleet, and renews him three years later.
func TestInvitation(t *testing.T) {
	k, root := savedFleet(t, "dev"), t.TempDir()
	i := invited(t, k, "bob", fleet.RoleOperator)
	n := joining(t, root, i)
	if again := joining(t, root, i); again.Request.Key() != n.Request.Key() {
		t.Error("asked twice, bob has two keys")
	}
	der, err := k.SignRequest(sent(t, n.Request), today)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := DecodeCertificate(bytes.ReplaceAll(EncodeCertificate(der), []byte("\n"), []byte("\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time as after a power cut
		bob, err := InstallOperator(root, cert, today)
		if err != nil || bob.Operator().Name != "bob" || bob.Operator().Role != fleet.RoleOperator || bob.Operator().Key != n.Request.Key() {
			t.Fatalf("%v, %v", bob, err)
		}
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 {
		t.Errorf("below the root are %v (%v)", left, err)
	}
	if info, err := os.Stat(filepath.Join(root, "dev", operatorKeyName)); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	later := today.AddDate(3, 0, 0)
	bob, err := Load(filepath.Join(root, "dev"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := bob.RenewalRequest()
	if err != nil {
		t.Fatal(err)
	}
	if known, err := k.CheckRequest(sent(t, r), later); err != nil || !known {
		t.Errorf("known: %v, %v", known, err)
	}
	if der, err = k.SignRequest(sent(t, r), later); err != nil {
		t.Fatal(err)
	}
	renewed, err := InstallOperator(root, parse(t, der, nil), later)
	if err != nil || !renewed.Certificate().Leaf.NotAfter.After(later) {
		t.Fatalf("%v, %v", renewed, err)
	}
	if _, err := InstallOperator(root, cert, later); !errors.Is(err, fleet.ErrExpired) {
		t.Errorf("the old one is installed: %v", err)
	}
	if _, err := InstallOperator(root, cert, today); err == nil || !strings.Contains(err.Error(), "a later one") {
		t.Errorf("the old one is installed: %v", err)
	}
}

// TestRequestRefused prints what the founder says of requests that are not as he
// invited.
func TestRequestRefused(t *testing.T) {
	k, foreign := savedFleet(t, "dev"), savedFleet(t, "other")
	i := invited(t, k, "bob", fleet.RoleReader)
	bob, eve := joining(t, t.TempDir(), i), joining(t, t.TempDir(), i)
	stranger := joining(t, t.TempDir(), invited(t, foreign, "bob", fleet.RoleReader))
	edit := func(r *OperatorRequest, change func(*OperatorRequest)) *OperatorRequest {
		other := *r
		change(&other)
		return sent(t, &other)
	}
	var b strings.Builder
	try := func(title string, r *OperatorRequest, now time.Time) {
		before, _ := k.Operators()
		der, err := k.SignRequest(r, now)
		after, _ := k.Operators()
		if (der == nil) != (err != nil) || err != nil && len(after) != len(before) {
			t.Errorf("%s: signed in part", title)
		}
		text := fmt.Sprint(err)
		for name, key := range map[string]string{"BOB": bob.Request.Key(), "EVE": eve.Request.Key(), "OTHER": foreign.Genesis.ID()} {
			text = strings.ReplaceAll(text, fleet.Short(key), name)
		}
		fmt.Fprintf(&b, "%-40s %s\n", title, text)
	}
	try("of another fleet", sent(t, stranger.Request), today)
	try("that says it is of this one", edit(stranger.Request, func(r *OperatorRequest) { r.Fleet = k.Genesis.ID() }), today)
	try("without a proof", edit(bob.Request, func(r *OperatorRequest) { r.Proof = nil }), today)
	try("with half a proof", edit(bob.Request, func(r *OperatorRequest) { r.Proof = r.Proof[:16] }), today)
	try("with the proof of another key", edit(eve.Request, func(r *OperatorRequest) { r.Proof = bob.Request.Proof }), today)
	try("for another name", edit(bob.Request, func(r *OperatorRequest) { r.Name = "carol" }), today)
	try("for the founder's name", edit(bob.Request, func(r *OperatorRequest) { r.Name = "ada" }), today)
	try("for a higher role", edit(bob.Request, func(r *OperatorRequest) { r.Role = fleet.RoleAdmin }), today)
	try("a month late", sent(t, bob.Request), today.AddDate(0, 1, 0))
	try("as it should be", sent(t, bob.Request), today)
	try("again, a month late", sent(t, bob.Request), today.AddDate(0, 1, 0))
	try("with the same invitation, another key", sent(t, eve.Request), today)
	try("a renewal for another name", edit(bob.Request, func(r *OperatorRequest) { r.Name, r.Proof = "carol", nil }), today)
	try("a renewal for a higher role", edit(bob.Request, func(r *OperatorRequest) { r.Role, r.Proof = fleet.RoleAdmin, nil }), today)
	try("a renewal", edit(bob.Request, func(r *OperatorRequest) { r.Proof = nil }), today)
	if _, err := k.RevokeOperator("bob", today); err != nil {
		t.Fatal(err)
	}
	try("of a revoked key", sent(t, bob.Request), today)
	again := joining(t, t.TempDir(), invited(t, k, "bob", fleet.RoleReader))
	if n, err := k.Withdraw("bob"); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	try("of an invitation that was withdrawn", sent(t, again.Request), today)
	golden.Compare(t, "requests.txt", b.String())
}

// TestInstallRefused brings certificates to where they do not belong: nothing changes.
func TestInstallRefused(t *testing.T) {
	k, foreign := savedFleet(t, "dev"), savedFleet(t, "dev")
	root := t.TempDir()
	n := joining(t, root, invited(t, k, "bob", fleet.RoleReader))
	before := listing(t, root)
	key := &n.key.PublicKey
	forged := func(ring *Keyring, p fleet.Peer) []byte {
		p.Fleet = k.Genesis.ID()
		ca, caKey := ring.Genesis.OperatorCA, ring.operatorCA
		if p.Kind == fleet.KindNode {
			ca, caKey = ring.Genesis.NodeCA, ring.nodeCA
		}
		der, err := fleet.SignPeer(p, key, ca, caKey, today)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	other, _ := request(t)
	stray, err := k.SignOperator(other, "bob", fleet.RoleReader, today)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		title string
		der   []byte
		at    time.Time
		want  error
	}{
		{"of another fleet's CA", forged(foreign, fleet.Peer{Kind: fleet.KindOperator, Name: "bob", Role: fleet.RoleReader}), today, fleet.ErrForeign},
		{"of a node", forged(k, fleet.Peer{Kind: fleet.KindNode, Name: "bob"}), today, fleet.ErrKind},
		{"of another key", stray, today, ErrNoKey},
		{"that is over", forged(k, fleet.Peer{Kind: fleet.KindOperator, Name: "bob", Role: fleet.RoleReader}), today.AddDate(2, 0, 0), fleet.ErrExpired},
	} {
		if _, err := InstallOperator(root, parse(t, c.der, nil), c.at); !errors.Is(err, c.want) {
			t.Errorf("a certificate %s: %v", c.title, err)
		}
	}
	if after := listing(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	for _, text := range []string{"", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", string(EncodeCertificate(stray)) + "x"} {
		if _, err := DecodeCertificate([]byte(text)); err == nil {
			t.Errorf("%q is a certificate", text)
		}
	}
}

// TestNewcomerLeftovers starts where a power cut, or another invitation, left something.
func TestNewcomerLeftovers(t *testing.T) {
	k, foreign, root := savedFleet(t, "dev"), savedFleet(t, "dev"), t.TempDir()
	first := joining(t, root, invited(t, k, "bob", fleet.RoleReader))
	second := joining(t, root, invited(t, k, "bob", fleet.RoleOperator))
	if second.Request.Key() != first.Request.Key() || second.Request.Role != fleet.RoleOperator {
		t.Errorf("a second invitation makes %+v", second.Request)
	}
	if _, err := Accept(root, "dev", invited(t, foreign, "bob", fleet.RoleReader), today); !errors.Is(err, ErrExists) {
		t.Errorf("another fleet of the same name: %v", err)
	}
	if _, err := Accept(root, "other", invited(t, k, "bob", fleet.RoleReader), today.AddDate(1, 0, 0)); !errors.Is(err, ErrInvitationExpired) {
		t.Errorf("an old invitation: %v", err)
	}
	// The removal of a folder was interrupted: what is left is no key of anybody.
	if err := os.Remove(filepath.Join(second.dir(), genesisName)); err != nil {
		t.Fatal(err)
	}
	if all, err := Newcomers(root); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	joining(t, root, invited(t, k, "bob", fleet.RoleReader))
	if all, err := Newcomers(root); len(all) != 1 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	if err := os.WriteFile(filepath.Join(second.dir(), operatorKeyName), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Accept(root, "dev", invited(t, k, "bob", fleet.RoleReader), today); err == nil {
		t.Error("a key that cannot be read is replaced")
	}
}

// TestLettersDamaged changes each kind of file in small ways: none is read as good.
func TestLettersDamaged(t *testing.T) {
	k := savedFleet(t, "dev")
	i := invited(t, k, "bob", fleet.RoleReader)
	invitation, err := MarshalInvitation(i)
	if err != nil {
		t.Fatal(err)
	}
	request, err := MarshalRequest(joining(t, t.TempDir(), i).Request)
	if err != nil {
		t.Fatal(err)
	}
	noted, err := os.ReadFile(k.path(invitationsName))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		good []byte
		read func([]byte) error
	}{
		"invitation":  {invitation, func(raw []byte) error { return second(ParseInvitation(raw)) }},
		"request":     {request, func(raw []byte) error { return second(ParseRequest(raw)) }},
		"invitations": {noted, func(raw []byte) error { return second(parseInvitations(raw)) }},
	} {
		if err := c.read(c.good); err != nil {
			t.Fatal(err)
		}
		swap := func(old, new string) []byte { return bytes.Replace(c.good, []byte(old), []byte(new), 1) }
		bad := map[string][]byte{
			"empty": nil, "torn": c.good[:len(c.good)/2], "two": append(bytes.Clone(c.good), c.good...), "large": bytes.Repeat([]byte(" "), maxLetter+1),
			"the next version": swap(`"version": 1`, `"version": 2`), "another key": swap(`"name"`, `"naam"`), "a bad name": swap(`"bob"`, `"Bob"`), "a bad role": swap(`"reader"`, `"root"`),
			"a letter of the secret": swap(`"secret": "kogge-`, `"secret": "kogge-2`), "another kind": swap(`"kind": "operator`, `"kind": "node`),
			"the genesis": swap(`"genesis": "ey`, `"genesis": "ew`), "the key request": swap(`"request": "MIG`, `"request": "MIH`), "a short fleet": swap(`"fleet": "`, `"fleet": "0`),
		}
		for title, raw := range bad {
			if err := c.read(raw); err == nil && !bytes.Equal(raw, c.good) {
				t.Errorf("%s: %s is good", name, title)
			} else if err != nil && strings.Contains(err.Error(), i.Secret.Text()[10:20]) {
				t.Errorf("%s: %s: the error shows the secret: %v", name, title, err)
			}
		}
	}
	// A founder who cannot read what he gave out signs nobody, and keeps the file.
	r := joining(t, t.TempDir(), i).Request
	if err := os.WriteFile(k.path(invitationsName), noted[:len(noted)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignRequest(r, today); err == nil {
		t.Error("signed")
	}
	if _, err := k.Invite("carol", fleet.RoleReader, 0, today); err == nil {
		t.Error("invited")
	}
	if now, _ := os.ReadFile(k.path(invitationsName)); len(now) != len(noted)/2 {
		t.Error("the file was replaced")
	}
}

// FuzzLetters reads each kind of file that comes by mail: what is taken is written
// back as the same.
func FuzzLetters(f *testing.F) {
	ring := newFleet(f, "dev")
	i := &Invitation{Genesis: ring.Genesis, Name: "bob", Role: fleet.RoleReader, Expires: today, Secret: knownToken(f)}
	invitation, _ := MarshalInvitation(i)
	f.Add(invitation)
	key, _ := fleet.NewKey()
	r, err := newOperatorRequest(key, ring.Genesis.ID(), "bob", fleet.RoleReader, i.Secret)
	if err != nil {
		f.Fatal(err)
	}
	request, _ := MarshalRequest(r)
	f.Add(request)
	f.Add(EncodeCertificate(ring.me.Certificate[0]))
	notes, _ := json.Marshal(invitationsFile{1, []invitationRecord{{"bob", fleet.RoleReader, knownText, today, today, ""}}})
	f.Add(notes)
	f.Add([]byte(`{"version":1,"kind":"operator request"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if i, err := ParseInvitation(raw); err == nil {
			text, err := MarshalInvitation(i)
			again, err2 := ParseInvitation(text)
			if err != nil || err2 != nil || again.Name != i.Name || again.Role != i.Role || again.Genesis.ID() != i.Genesis.ID() || again.Secret.Text() != i.Secret.Text() {
				t.Errorf("%q: %v, %v", raw, err, err2)
			}
		}
		if r, err := ParseRequest(raw); err == nil {
			text, err := MarshalRequest(r)
			again, err2 := ParseRequest(text)
			if err != nil || err2 != nil || again.Key() != r.Key() || again.Name != r.Name || !bytes.Equal(again.Proof, r.Proof) {
				t.Errorf("%q: %v, %v", raw, err, err2)
			}
		}
		if c, err := DecodeCertificate(raw); err == nil {
			if again, err := DecodeCertificate(EncodeCertificate(c.Raw)); err != nil || !again.Equal(c) {
				t.Errorf("%q: %v", raw, err)
			}
		}
		if all, err := parseInvitations(raw); err == nil {
			for _, i := range all {
				_ = i.admits("bob", fleet.RoleReader, "", today)
			}
		}
	})
}

// TestInvitationOnce has ten people come by one invitation at a time, and a power cut
// between the two notes of the one who is first.
func TestInvitationOnce(t *testing.T) {
	k := savedFleet(t, "dev")
	i := invited(t, k, "bob", fleet.RoleReader)
	signed := make(chan string)
	const people = 10
	for range people {
		n := joining(t, t.TempDir(), i)
		go func() {
			founder, err := Load(k.Dir) // as another program
			if err == nil {
				_, err = founder.SignRequest(n.Request, today)
			}
			switch {
			case err == nil:
				signed <- n.Request.Key()
			case errors.Is(err, ErrInvitationUsed):
				signed <- ""
			default:
				signed <- err.Error()
			}
		}()
	}
	var keys []string
	for range people {
		if key := <-signed; key != "" {
			keys = append(keys, key)
		}
	}
	all, err := k.Operators()
	if err != nil || len(keys) != 1 || len(all) != 2 || all[1].Key != keys[0] {
		t.Fatalf("signed are %v; the list has %v (%v)", keys, all, err)
	}

	i = invited(t, k, "carol", fleet.RoleReader)
	carol, eve := joining(t, t.TempDir(), i), joining(t, t.TempDir(), i)
	closed := *k
	closed.operatorCA = nil
	if _, err := closed.SignRequest(eve.Request, today); !errors.Is(err, ErrNoKey) {
		t.Errorf("without the CA's key: %v", err)
	}
	err = invitationList.edit(k, func(all []IssuedInvitation) ([]IssuedInvitation, error) {
		all[len(all)-1].Key = carol.Request.Key() // here the power fails
		return all, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignRequest(eve.Request, today); !errors.Is(err, ErrInvitationUsed) {
		t.Errorf("eve comes in between: %v", err)
	}
	if _, err := k.SignRequest(carol.Request, today); err != nil {
		t.Errorf("carol comes again: %v", err)
	}
}
