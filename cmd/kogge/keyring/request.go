package keyring

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"errors"
	"fmt"
	"slices"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// OperatorRequest is what an operator sends to who can sign him, as a file: his public
// key, what he wants to be called and to do, and, where he was invited, the proof of
// the invitation. There is no secret in it. Without a proof it asks for a new
// certificate for a key that the fleet knows.
type OperatorRequest struct {
	Fleet string // id
	Name  string
	Role  fleet.Role
	CSR   []byte // PKCS #10 in DER
	Proof []byte // HMAC-SHA256 under the invitation's secret; nil: a renewal

	spki []byte
}

// requestFile is a request on its way.
type requestFile struct {
	Version int        `json:"version"`
	Kind    string     `json:"kind"`
	Fleet   string     `json:"fleet"`
	Name    string     `json:"name"`
	Role    fleet.Role `json:"role"`
	Request []byte     `json:"request"`
	Proof   []byte     `json:"proof,omitempty"`
}

// Key is the key that is to be signed, as in Peer.Key.
func (r *OperatorRequest) Key() string { return fleet.KeyID(r.spki) }

// MarshalRequest writes the file of a request.
func MarshalRequest(r *OperatorRequest) ([]byte, error) {
	return document.Encode(requestFile{letterVersion, requestKind, r.Fleet, r.Name, r.Role, r.CSR, r.Proof})
}

// ParseRequest reads the file of a request, and checks that who made it has the key.
func ParseRequest(raw []byte) (*OperatorRequest, error) {
	r, err := parseRequest(raw)
	if err != nil {
		return nil, fmt.Errorf("operator request: %w", err)
	}
	return r, nil
}

func parseRequest(raw []byte) (*OperatorRequest, error) {
	var f requestFile
	if err := decodeLetter(raw, requestKind, &f); err != nil {
		return nil, err
	}
	if !fleet.IsHash(f.Fleet) {
		return nil, fmt.Errorf("%q names no fleet", f.Fleet)
	}
	if err := checkAsked(f.Name, f.Role); err != nil {
		return nil, err
	}
	_, spki, err := fleet.RequestKey(f.Request)
	if err != nil {
		return nil, err
	}
	return &OperatorRequest{f.Fleet, f.Name, f.Role, f.Request, f.Proof, spki}, nil
}

// newOperatorRequest makes a request for a key; a zero secret makes a renewal.
func newOperatorRequest(key *ecdsa.PrivateKey, fleetID, name string, role fleet.Role, secret fleet.Token) (*OperatorRequest, error) {
	csr, err := fleet.NewRequest(key)
	if err != nil {
		return nil, err
	}
	_, spki, err := fleet.RequestKey(csr)
	if err != nil {
		return nil, err
	}
	r := &OperatorRequest{Fleet: fleetID, Name: name, Role: role, CSR: csr, spki: spki}
	if !secret.IsZero() {
		r.Proof = proof(secret, fleetID, spki)
	}
	return r, nil
}

// RenewalRequest asks for a new certificate for this folder's key, which may have
// expired long ago.
func (k *Keyring) RenewalRequest() (*OperatorRequest, error) {
	key, ok := k.me.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("fleet %s: %w", k.Genesis.Name, ErrNoKey)
	}
	r, err := newOperatorRequest(key, k.Genesis.ID(), k.peer.Name, k.peer.Role, fleet.Token{})
	if err != nil {
		return nil, fmt.Errorf("fleet %s: operator request: %w", k.Genesis.Name, err)
	}
	return r, nil
}

// CheckRequest says whether [Keyring.SignRequest] would sign, and whether the key is
// known: then it was compared once, and need not be again. The error wraps
// [ErrOtherFleet], [fleet.ErrRevoked], [ErrNotInvited], [ErrInvitationUsed],
// [ErrInvitationExpired] or [ErrAskedOther].
func (k *Keyring) CheckRequest(r *OperatorRequest, now time.Time) (known bool, err error) {
	known, err = k.checkRequest(r, now)
	if err != nil {
		return false, fmt.Errorf("fleet %s: request of operator %s: %w", k.Genesis.Name, r.Name, err)
	}
	return known, nil
}

func (k *Keyring) checkRequest(r *OperatorRequest, now time.Time) (known bool, err error) {
	if r.Fleet != k.Genesis.ID() {
		return false, fmt.Errorf("%w, %s", ErrOtherFleet, fleet.Short(r.Fleet))
	}
	people, err := operatorList.read(k)
	if err != nil {
		return false, err
	}
	if i := slices.IndexFunc(people, func(o IssuedOperator) bool { return o.Key == r.Key() }); i >= 0 {
		switch o := people[i]; {
		case o.Revoked != nil:
			return false, fmt.Errorf("%w, since %s", fleet.ErrRevoked, o.Revoked.Format(time.DateOnly))
		case o.Name != r.Name || o.Role != r.Role:
			return false, fmt.Errorf("%w: the key is that of %s, who is %s", ErrAskedOther, o.Name, o.Role)
		}
		return true, nil
	}
	all, err := invitationList.read(k)
	if err != nil {
		return false, err
	}
	i := invitationOf(all, r)
	if i < 0 {
		return false, ErrNotInvited
	}
	return false, all[i].admits(r.Name, r.Role, r.Key(), now)
}

// ErrOtherFleet says that a request was made for another fleet.
var ErrOtherFleet = errors.New("it is for another fleet")

// invitationOf finds the invitation that a request proves; -1: none.
func invitationOf(all []IssuedInvitation, r *OperatorRequest) int {
	return slices.IndexFunc(all, func(i IssuedInvitation) bool {
		return hmac.Equal(proof(i.secret, r.Fleet, r.spki), r.Proof)
	})
}

// SignRequest signs a request that [Keyring.CheckRequest] passes, for a year, and returns
// the certificate in DER. Name and role are those of the folder's notes. The same
// request may come again at any time; with an invitation another key may not. After a
// power cut nobody has a certificate that the folder does not know of:
//
//  1. note that the invitation is this key's
//  2. sign, and note the operator
//
// [ErrLocked] asks for [Keyring.Unlock].
func (k *Keyring) SignRequest(r *OperatorRequest, now time.Time) ([]byte, error) {
	known, err := k.CheckRequest(r, now)
	if err != nil {
		return nil, err
	}
	if !known && k.operatorCA != nil { // without it SignOperator says what is missing
		err := invitationList.edit(k, func(all []IssuedInvitation) ([]IssuedInvitation, error) {
			i := invitationOf(all, r)
			if i < 0 {
				return nil, ErrNotInvited
			}
			if err := all[i].admits(r.Name, r.Role, r.Key(), now); err != nil {
				return nil, err
			}
			all[i].Key = r.Key()
			return all, nil
		})
		if err != nil {
			return nil, fmt.Errorf("fleet %s: request of operator %s: %w", k.Genesis.Name, r.Name, err)
		}
	}
	return k.SignOperator(r.CSR, r.Name, r.Role, now)
}
