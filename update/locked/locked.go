// Package locked keeps small secrets under a passphrase. In comes text and a
// passphrase, out comes text that the tool age opens too (age -d), and the other way
// round. Where it lies, and what it is, is the caller's.
package locked

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// ErrPassphrase says that a passphrase does not open what it was tried on.
var ErrPassphrase = errors.New("the passphrase is wrong")

// Work is the logarithm of scrypt's N for new files: about a second and 256 MiB for
// each guess.
const Work = 18

// maxPlain is how much Unlock returns at most, in bytes.
const maxPlain = 64 << 10

// Lock encrypts under a passphrase, with so much work for each guess.
func Lock(plain []byte, passphrase string, work int) ([]byte, error) {
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	recipient.SetWorkFactor(work)
	var text bytes.Buffer
	armored := armor.NewWriter(&text)
	w, err := age.Encrypt(armored, recipient)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), armored.Close()); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

// Unlock decrypts what Lock made. A wrong passphrase is [ErrPassphrase].
func Unlock(text []byte, passphrase string) ([]byte, error) {
	if passphrase == "" {
		return nil, ErrPassphrase
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(text)), identity)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, ErrPassphrase
	}
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxPlain))
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	return plain, nil
}

// Is says whether text is something that Lock made.
func Is(text []byte) bool { return bytes.HasPrefix(text, []byte(armor.Header)) }
