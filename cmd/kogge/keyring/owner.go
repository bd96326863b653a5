package keyring

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"kogge.example/update/fleet/ledger"
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

// OwnerKeys opens owner keys: those of the folder, with the passphrase where they are
// encrypted, and those of recovery sheets. The error wraps [ErrOwners] if they are fewer than
// the genesis wants, [ErrPassphrase], [ErrLocked], [ErrSheet] or [ErrNotOwner].
func (k *Keyring) OwnerKeys(passphrase string, sheets ...[]byte) (OwnerKeys, error) {
	o := OwnerKeys{make(map[int]ed25519.PrivateKey)}
	for i := range k.Genesis.Owners {
		var key ed25519.PrivateKey
		var err error
		switch k.holds(ownerName(i + 1)) {
		case Open:
			key, err = readKey[ed25519.PrivateKey](k.path(ownerName(i + 1)))
		case Closed:
			key, err = openKey[ed25519.PrivateKey](k, ownerName(i+1), passphrase)
		default:
			continue
		}
		if err != nil {
			return OwnerKeys{}, fmt.Errorf("fleet %s: owner key %d: %w", k.Genesis.Name, i+1, err)
		}
		o.keys[i+1] = key
	}
	for _, sheet := range sheets {
		key, err := parseSheet(sheet)
		if err != nil {
			return OwnerKeys{}, err
		}
		i := k.Genesis.Owner(key.Public().(ed25519.PublicKey))
		if i == 0 {
			return OwnerKeys{}, fmt.Errorf("%w of fleet %s: the sheet is sound, but belongs to another", ErrNotOwner, k.Genesis.Name)
		}
		o.keys[i] = key
	}
	if len(o.keys) < k.Genesis.Threshold {
		return OwnerKeys{}, fmt.Errorf("fleet %s: %w: here is %d, and any %d of %d act as the owner", k.Genesis.Name, ErrOwners, len(o.keys), k.Genesis.Threshold, len(k.Genesis.Owners))
	}
	return o, nil
}

// Sign has as many keys as the owner needs sign a message.
func (o OwnerKeys) Sign(message []byte, threshold int) []ledger.Signature {
	var all []ledger.Signature
	for _, i := range o.numbers()[:threshold] {
		all = append(all, ledger.Sign(i, o.keys[i], message))
	}
	return all
}
