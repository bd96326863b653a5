package keyring

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// IssuedOperator is an operator whom the fleet signed: one key of one person.
type IssuedOperator struct {
	Name    string     `json:"name"`
	Role    fleet.Role `json:"role"`
	Key     string     `json:"key"` // as in Peer.Key
	Until   time.Time  `json:"until"`
	Revoked *time.Time `json:"revoked,omitempty"` // nil: never
}

type operatorsFile struct {
	Version   int              `json:"version"`
	Operators []IssuedOperator `json:"operators"`
}

const operatorsVersion = 1

// ErrNoOperator says that nobody of that name was signed.
var ErrNoOperator = errors.New("no operator of that name")

func issuedOperator(p fleet.Peer, cert *x509.Certificate) IssuedOperator {
	return IssuedOperator{Name: p.Name, Role: p.Role, Key: p.Key, Until: cert.NotAfter.UTC()}
}

// Operators are those whom the operator CA signed from this folder, the first one
// first; none in the folder of an operator who was invited.
func (k *Keyring) Operators() ([]IssuedOperator, error) { return operatorList.all(k) }

// RevokeOperator notes, durably, that all keys of an operator are revoked, and returns
// them, those of earlier calls too: the nodes have to be told. Whose folder this is cannot
// be revoked in it.
func (k *Keyring) RevokeOperator(name string, now time.Time) ([]string, error) {
	var keys []string
	err := operatorList.edit(k, func(all []IssuedOperator) ([]IssuedOperator, error) {
		if name == k.peer.Name {
			return nil, errors.New("it is you")
		}
		when := now.UTC().Truncate(time.Second)
		for i := range all {
			if all[i].Name != name {
				continue
			}
			if keys = append(keys, all[i].Key); all[i].Revoked == nil {
				all[i].Revoked = &when
			}
		}
		if keys == nil {
			return nil, ErrNoOperator
		}
		return all, nil
	})
	if err != nil {
		return nil, fmt.Errorf("fleet %s: revoke operator %s: %w", k.Genesis.Name, name, err)
	}
	return keys, nil
}

// noteOperator adds the operator of a certificate to the list, or renews his line.
func (k *Keyring) noteOperator(der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	peer, err := fleet.PeerOf(cert)
	if err != nil {
		return err
	}
	return operatorList.edit(k, func(all []IssuedOperator) ([]IssuedOperator, error) {
		i := slices.IndexFunc(all, func(o IssuedOperator) bool { return o.Key == peer.Key })
		if i < 0 {
			return append(all, issuedOperator(peer, cert)), nil
		}
		if all[i].Revoked != nil {
			return nil, fmt.Errorf("%w, since %s: an operator who returns makes a new key", fleet.ErrRevoked, all[i].Revoked.Format(time.DateOnly))
		}
		all[i] = issuedOperator(peer, cert)
		return all, nil
	})
}

// operatorList is operators.json.
var operatorList = list[IssuedOperator]{name: operatorsName, most: 4 << 20, parse: parseOperators, file: func(all []IssuedOperator) any {
	return operatorsFile{operatorsVersion, all}
}}

func parseOperators(raw []byte) ([]IssuedOperator, error) {
	var file operatorsFile
	if err := document.Decode(raw, operatorsVersion, &file); err != nil {
		return nil, err
	}
	for _, o := range file.Operators {
		if err := fleet.CheckOperatorName(o.Name); err != nil {
			return nil, err
		}
		if _, err := fleet.ParseRole(string(o.Role)); err != nil {
			return nil, err
		}
		if !fleet.IsHash(o.Key) {
			return nil, fmt.Errorf("operator %s: %q names no key", o.Name, o.Key)
		}
	}
	return file.Operators, nil
}
