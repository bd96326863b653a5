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

// maxWork is what Unlock takes from a file, which somebody else may have made: 512 MiB.
// The next one would be a GiB.
const maxWork = Work + 1

// maxPlain is how long a secret may be, in bytes.
const maxPlain = 64 << 10

// Lock encrypts under a passphrase, with so much work for each guess. What Unlock would
// not open is an error here.
func Lock(plain []byte, passphrase string, work int) ([]byte, error) {
	if len(plain) > maxPlain {
		return nil, fmt.Errorf("a secret of %d bytes: at most %d", len(plain), maxPlain)
	}
	if work < 1 || work > maxWork {
		return nil, fmt.Errorf("work factor %d: want 1 to %d", work, maxWork)
	}
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

// Unlock decrypts what Lock made. A wrong passphrase is [ErrPassphrase]. It takes neither
// more memory nor a longer secret than Lock does.
func Unlock(text []byte, passphrase string) ([]byte, error) {
	if passphrase == "" {
		return nil, ErrPassphrase
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, err
	}
	identity.SetMaxWorkFactor(maxWork)
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(text)), identity)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, ErrPassphrase
	}
	if err != nil {
		return nil, fmt.Errorf("damaged, or not made by Kogge: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxPlain+1))
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	if len(plain) > maxPlain {
		return nil, fmt.Errorf("not made by Kogge: the secret is longer than %d bytes", maxPlain)
	}
	return plain, nil
}

// Is says whether text is something that Lock made.
func Is(text []byte) bool { return bytes.HasPrefix(text, []byte(armor.Header)) }
