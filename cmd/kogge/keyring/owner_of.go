package keyring

import (
	"crypto/ed25519"
	"fmt"
	"slices"

	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// KeysOf opens the keys of an owner, as the ledger has him now, that are at hand: those of recovery sheets, and if
// they are fewer than needed, those of the folder. They have the numbers that the ledger gives them. passphrase is
// asked as by [Keyring.OwnerKeys]. The error wraps [ErrOwners] if there is none, [ErrPassphrase], [ErrSheet] or
// [ErrNotOwner].
func (k *Keyring) KeysOf(o roster.Owner, needed int, passphrase func() (string, error), sheets ...[]byte) (OwnerKeys, error) {
	all := OwnerKeys{make(map[int]ed25519.PrivateKey)}
	for _, sheet := range sheets {
		key, err := parseSheet(sheet)
		if err != nil {
			return OwnerKeys{}, err
		}
		i := numberOf(o, key.Public().(ed25519.PublicKey))
		if i == 0 {
			return OwnerKeys{}, fmt.Errorf("%w %s: the sheet is sound, and has another key", ErrNotOwner, o.Name)
		}
		all.keys[i] = key
	}
	var here []int // by the numbers of the genesis, by which the folder has them
	for _, i := range k.heldBeside(OwnerKeys{}) {
		if n := numberOf(o, k.Genesis.Owners[i-1]); n > 0 && all.keys[n] == nil {
			here = append(here, i)
		}
	}
	if len(all.keys)+len(here) == 0 {
		return OwnerKeys{}, fmt.Errorf("owner %s: %w: here is none", o.Name, ErrOwners)
	}
	missing := max(0, needed-len(all.keys))
	opened, err := k.openOwners(OwnerKeys{make(map[int]ed25519.PrivateKey)}, here[:min(missing, len(here))], passphrase)
	if err != nil {
		return OwnerKeys{}, err
	}
	for _, key := range opened.keys {
		all.keys[numberOf(o, key.Public().(ed25519.PublicKey))] = key
	}
	return all, nil
}

// numberOf is the number of an owner's key, from 1; 0: it is none of his.
func numberOf(o roster.Owner, public ed25519.PublicKey) int {
	key, err := signed.KeyOf(public)
	if err != nil {
		return 0
	}
	return slices.Index(o.Keys, key) + 1
}
