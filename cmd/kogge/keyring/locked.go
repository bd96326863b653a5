package keyring

import "kogge.example/update/locked"

// ErrPassphrase says that a passphrase does not open what it was tried on.
var ErrPassphrase = locked.ErrPassphrase

// scryptWork is what guessing a passphrase of a new file costs.
const scryptWork = locked.Work

func lock(plain []byte, passphrase string, work int) ([]byte, error) {
	return locked.Lock(plain, passphrase, work)
}

func unlock(text []byte, passphrase string) ([]byte, error) { return locked.Unlock(text, passphrase) }
