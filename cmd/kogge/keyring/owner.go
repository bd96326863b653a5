package keyring

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"

	"kogge.example/update/fleet/signed"
)

// ErrOwners is of too few owner keys for what only the owner can do.
var ErrOwners = errors.New("too few owner keys")

// OwnerKeys are owner keys of a fleet, for one deed: they lie in memory alone. Their values
// print as nothing.
type OwnerKeys struct{ keys map[int]ed25519.PrivateKey }

// Format prints which keys there are.
func (o OwnerKeys) Format(w fmt.State, _ rune) { fmt.Fprintf(w, "owner keys %v", o.numbers()) }

func (o OwnerKeys) numbers() []int {
	var all []int
	for i := range o.keys {
		all = append(all, i)
	}
	slices.Sort(all)
	return all
}

// OwnerKeys opens as many owner keys as act as the owner: those of recovery sheets, and if they
// are too few, those of the folder. passphrase is asked at most once, and only if there are
// enough keys and one of those that are needed is encrypted; nil: there is none. The error wraps
// [ErrOwners] if they are fewer than the genesis wants, [ErrPassphrase], [ErrLocked], [ErrSheet]
// or [ErrNotOwner].
func (k *Keyring) OwnerKeys(passphrase func() (string, error), sheets ...[]byte) (OwnerKeys, error) {
	o, here, err := k.ownerKeys(sheets)
	if err != nil {
		return OwnerKeys{}, err
	}
	missing := k.Genesis.Threshold - len(o.keys)
	if missing > len(here) {
		return OwnerKeys{}, fmt.Errorf("fleet %s: %w: here is %d, and any %d of %d act as the owner", k.Genesis.Name, ErrOwners, len(o.keys)+len(here), k.Genesis.Threshold, len(k.Genesis.Owners))
	}
	return k.openOwners(o, here[:max(missing, 0)], passphrase)
}

// SomeOwnerKeys opens the owner keys that are at hand, as [Keyring.OwnerKeys], but no more than
// act as the owner: for what several people sign, each at a place of his own. The error wraps
// [ErrOwners] if there is none.
func (k *Keyring) SomeOwnerKeys(passphrase func() (string, error), sheets ...[]byte) (OwnerKeys, error) {
	o, here, err := k.ownerKeys(sheets)
	if err != nil {
		return OwnerKeys{}, err
	}
	if len(o.keys)+len(here) == 0 {
		return OwnerKeys{}, fmt.Errorf("fleet %s: %w: here is none", k.Genesis.Name, ErrOwners)
	}
	return k.openOwners(o, here[:min(max(k.Genesis.Threshold-len(o.keys), 0), len(here))], passphrase)
}

// ownerKeys are the owner keys of sheets, and the numbers of the others that the folder has.
func (k *Keyring) ownerKeys(sheets [][]byte) (o OwnerKeys, here []int, err error) {
	o = OwnerKeys{make(map[int]ed25519.PrivateKey)}
	for _, sheet := range sheets {
		key, err := parseSheet(sheet)
		if err != nil {
			return OwnerKeys{}, nil, err
		}
		i := k.Genesis.Owner(key.Public().(ed25519.PublicKey))
		if i == 0 {
			return OwnerKeys{}, nil, fmt.Errorf("%w of fleet %s: the sheet is sound, but belongs to another", ErrNotOwner, k.Genesis.Name)
		}
		o.keys[i] = key
	}
	return o, k.heldBeside(o), nil
}

// openOwners adds owner keys of the folder to those that are open.
func (k *Keyring) openOwners(o OwnerKeys, numbers []int, passphrase func() (string, error)) (OwnerKeys, error) {
	secret := ""
	for _, i := range numbers {
		closed := k.holds(ownerName(i)) == Closed
		if closed && secret == "" && passphrase != nil {
			var err error
			if secret, err = passphrase(); err != nil {
				return OwnerKeys{}, err
			}
		}
		var err error
		if closed {
			o.keys[i], err = openKey[ed25519.PrivateKey](k, ownerName(i), secret)
		} else {
			o.keys[i], err = readKey[ed25519.PrivateKey](k.path(ownerName(i)))
		}
		if err != nil {
			return OwnerKeys{}, fmt.Errorf("fleet %s: owner key %d: %w", k.Genesis.Name, i, err)
		}
	}
	return o, nil
}

// heldBeside are the owner keys of the folder that are not among others: first those that are
// not encrypted.
func (k *Keyring) heldBeside(o OwnerKeys) (all []int) {
	for _, how := range []Holding{Open, Closed} {
		for i := range k.Genesis.Owners {
			if _, there := o.keys[i+1]; !there && k.holds(ownerName(i+1)) == how {
				all = append(all, i+1)
			}
		}
	}
	return all
}

// Without has the keys that are not of numbers.
func (o OwnerKeys) Without(numbers ...int) OwnerKeys {
	rest := OwnerKeys{maps.Clone(o.keys)}
	for _, i := range numbers {
		delete(rest.keys, i)
	}
	return rest
}

// Sign has as many keys as the owner needs sign a message, or all, if they are fewer.
func (o OwnerKeys) Sign(message []byte, threshold int) []signed.Signature {
	var all []signed.Signature
	for _, i := range o.numbers()[:min(threshold, len(o.keys))] {
		all = append(all, signed.Sign(i, o.keys[i], message))
	}
	return all
}
