package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// InvitationLife is how long an invitation is good if nobody says otherwise.
const InvitationLife = 14 * 24 * time.Hour

// Invitation is what an admin sends to somebody who is to be an operator, as a file.
// Only the fleet's own note of it decides about name and role; here they are to be
// read.
//
// The secret is good for one key. It keeps out who never saw the file, and who came
// second: an invitation that a stranger used first is used up, and the invited one
// learns it. It does not keep out who reads the file on its way and is faster: against
// him the two compare the key's fingerprint, by another way than the file went. Nor
// does it tell the invited one whose fleet it is: that is the fleet's id to compare.
type Invitation struct {
	Genesis *fleet.Genesis
	Name    string
	Role    fleet.Role
	Expires time.Time
	Secret  fleet.Token
}

// invitationFile is an invitation on its way.
type invitationFile struct {
	Version int        `json:"version"`
	Kind    string     `json:"kind"`
	Name    string     `json:"name"`
	Role    fleet.Role `json:"role"`
	Expires time.Time  `json:"expires"`
	Secret  string     `json:"secret"`
	Genesis []byte     `json:"genesis"`
}

// The kinds of files that go between an admin and an operator. A certificate goes as
// PEM and needs none.
const (
	invitationKind = "operator invitation"
	requestKind    = "operator request"
	letterVersion  = 1
	maxLetter      = 2 * fleet.MaxGenesis // bytes
)

// decodeLetter reads a file that went by mail: the kind that is wanted, and no other.
func decodeLetter(raw []byte, kind string, into any) error {
	if len(raw) > maxLetter {
		return fmt.Errorf("%d bytes: %d at most", len(raw), maxLetter)
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	if is := kindOf(raw); is != "an "+kind {
		return fmt.Errorf("it is %s, no %s", is, kind)
	}
	return document.Decode(raw, letterVersion, into)
}

// stranger is what kindOf says of what it does not know.
const stranger = "something else"

// kindOf says what a file is that somebody may have taken for another.
func kindOf(raw []byte) string {
	var head struct {
		Kind string `json:"kind"`
	}
	switch {
	case bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN "+document.CertificateBlock)):
		return "a certificate"
	case json.Unmarshal(raw, &head) != nil || head.Kind != invitationKind && head.Kind != requestKind:
		return stranger
	}
	return "an " + head.Kind
}

// MarshalInvitation writes the file of an invitation. It holds the secret.
func MarshalInvitation(i *Invitation) ([]byte, error) {
	return document.Encode(invitationFile{letterVersion, invitationKind, i.Name, i.Role, i.Expires, i.Secret.Text(), i.Genesis.Bytes()})
}

// ParseInvitation reads the file of an invitation. Errors show no secret.
func ParseInvitation(raw []byte) (*Invitation, error) {
	i, err := parseInvitation(raw)
	if err != nil {
		return nil, fmt.Errorf("invitation: %w", err)
	}
	return i, nil
}

func parseInvitation(raw []byte) (*Invitation, error) {
	var f invitationFile
	if err := decodeLetter(raw, invitationKind, &f); err != nil {
		return nil, err
	}
	i := &Invitation{Name: f.Name, Role: f.Role, Expires: f.Expires}
	if err := checkAsked(f.Name, f.Role); err != nil {
		return nil, err
	}
	var err error
	if i.Secret, err = fleet.ParseToken(f.Secret); err != nil {
		return nil, err
	}
	i.Genesis, err = fleet.ParseGenesis(f.Genesis)
	return i, err
}

// checkAsked checks what an operator is to be called and may do.
func checkAsked(name string, role fleet.Role) error {
	if err := fleet.CheckOperatorName(name); err != nil {
		return err
	}
	_, err := fleet.ParseRole(string(role))
	return err
}

// proof proves an invitation's secret for one key in one fleet.
func proof(secret fleet.Token, fleetID string, spki []byte) []byte {
	return secret.Prove("kogge/invitation/v1", []byte(fleetID), spki)
}

// Why a request is not signed.
var (
	ErrNotInvited        = errors.New("no invitation of this fleet matches")
	ErrInvitationUsed    = errors.New("the invitation is used up")
	ErrInvitationExpired = errors.New("the invitation has expired")
	ErrAskedOther        = errors.New("it asks for something else than it may have")
)

// IssuedInvitation is an invitation that this folder gave out.
type IssuedInvitation struct {
	Name    string
	Role    fleet.Role
	Issued  time.Time
	Expires time.Time
	Key     string // that it was used for, as in Peer.Key; "" while it is open

	secret fleet.Token
}

// Open says whether somebody may still come by it.
func (i IssuedInvitation) Open(now time.Time) bool { return i.Key == "" && !now.After(i.Expires) }

// admits says whether the invitation lets a key in. The one that came by it may come
// again: its certificate may have been lost on the way.
func (i IssuedInvitation) admits(name string, role fleet.Role, key string, now time.Time) error {
	switch {
	case i.Name != name || i.Role != role:
		return fmt.Errorf("%w: invited was %s as %s", ErrAskedOther, i.Name, i.Role)
	case i.Key == key:
		return nil
	case i.Key != "":
		return fmt.Errorf("%w: key %s has used it", ErrInvitationUsed, fleet.Short(i.Key))
	case now.After(i.Expires):
		return fmt.Errorf("%w on %s", ErrInvitationExpired, i.Expires.Format(time.DateOnly))
	}
	return nil
}

// invitationsFile is invitations.json.
type invitationsFile struct {
	Version     int                `json:"version"`
	Invitations []invitationRecord `json:"invitations"`
}

const invitationsVersion = 1

type invitationRecord struct {
	Name    string     `json:"name"`
	Role    fleet.Role `json:"role"`
	Secret  string     `json:"secret"`
	Issued  time.Time  `json:"issued"`
	Expires time.Time  `json:"expires"`
	Key     string     `json:"key,omitempty"`
}

// Invite makes an invitation and notes it in the fleet's folder, durably, before it
// tells. A life of 0 is [InvitationLife]. [ErrNoKey] says that this folder signs no
// operators.
func (k *Keyring) Invite(name string, role fleet.Role, life time.Duration, now time.Time) (*Invitation, error) {
	i, err := k.invite(name, role, life, now)
	if err != nil {
		return nil, fmt.Errorf("fleet %s: invite operator %s: %w", k.Genesis.Name, name, err)
	}
	return i, nil
}

func (k *Keyring) invite(name string, role fleet.Role, life time.Duration, now time.Time) (*Invitation, error) {
	if err := checkAsked(name, role); err != nil {
		return nil, err
	}
	switch {
	case name == k.peer.Name:
		return nil, errors.New("it is you, and you cannot revoke yourself: give your other computer a name of its own")
	case life < 0:
		return nil, fmt.Errorf("an invitation that expired %v ago", -life)
	case life == 0:
		life = InvitationLife
	}
	if k.HoldsCA(fleet.KindOperator) == Elsewhere {
		return nil, fmt.Errorf("operator CA: %w", ErrNoKey) // nobody here could keep the promise
	}
	issued := now.UTC().Truncate(time.Second)
	i := &Invitation{Genesis: k.Genesis, Name: name, Role: role, Expires: issued.Add(life), Secret: fleet.NewToken()}
	err := invitationList.edit(k, func(all []IssuedInvitation) ([]IssuedInvitation, error) {
		all = slices.DeleteFunc(all, func(old IssuedInvitation) bool { return now.Sub(old.Expires) > keepTokens })
		return append(all, IssuedInvitation{Name: name, Role: role, Issued: issued, Expires: i.Expires, secret: i.Secret}), nil
	})
	return i, err
}

// Invitations are those that were given out from this folder, the oldest first.
func (k *Keyring) Invitations() ([]IssuedInvitation, error) { return invitationList.all(k) }

// Withdraw forgets, durably, the invitations of an operator that nobody has used, and
// says how many they were.
func (k *Keyring) Withdraw(name string) (int, error) {
	before, err := invitationList.read(k)
	mine := func(i IssuedInvitation) bool { return i.Name == name && i.Key == "" }
	if err != nil || !slices.ContainsFunc(before, mine) {
		return 0, err
	}
	n := 0
	err = invitationList.edit(k, func(all []IssuedInvitation) ([]IssuedInvitation, error) {
		left := slices.DeleteFunc(slices.Clone(all), mine)
		n = len(all) - len(left)
		return left, nil
	})
	if err != nil {
		return 0, fmt.Errorf("fleet %s: withdraw the invitations of %s: %w", k.Genesis.Name, name, err)
	}
	return n, nil
}

// invitationList is invitations.json.
var invitationList = list[IssuedInvitation]{name: invitationsName, most: 4 << 20, parse: parseInvitations, file: func(all []IssuedInvitation) any {
	file := invitationsFile{Version: invitationsVersion, Invitations: []invitationRecord{}}
	for _, i := range all {
		file.Invitations = append(file.Invitations, invitationRecord{i.Name, i.Role, i.secret.Text(), i.Issued, i.Expires, i.Key})
	}
	return file
}}

func parseInvitations(raw []byte) ([]IssuedInvitation, error) {
	var file invitationsFile
	if err := document.Decode(raw, invitationsVersion, &file); err != nil {
		return nil, err
	}
	var all []IssuedInvitation
	for _, r := range file.Invitations {
		secret, err := fleet.ParseToken(r.Secret)
		if err == nil {
			err = checkAsked(r.Name, r.Role)
		}
		if err == nil && r.Key != "" && !fleet.IsHash(r.Key) {
			err = fmt.Errorf("%q names no key", r.Key)
		}
		if err != nil {
			return nil, fmt.Errorf("invitation of %q: %w", r.Name, err)
		}
		all = append(all, IssuedInvitation{r.Name, r.Role, r.Issued, r.Expires, r.Key, secret})
	}
	return all, nil
}
