package fleet

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// A certificate is renewed for the key and the name that it has, by who holds the key
// of the CA: an operator's by his own computer or that of the founder, a node's by
// whichever admin calls it in the last third of its life. A certificate that is over is
// renewed like any other, after any absence: its dates say that it is old, and not
// that it was somebody else's.

// Why a certificate is not renewed.
var (
	// ErrNoRenewal is of a certificate that does not follow on the one that is there.
	ErrNoRenewal = errors.New("not a renewal")
	// ErrClock is of a clock by which nothing can be signed.
	ErrClock = errors.New("this computer's clock is wrong, or the certificate has expired")
)

// RenewDue says whether less than a third of a certificate's life is left, and the CA
// that signed it has more of its own.
func RenewDue(cert, ca *x509.Certificate, now time.Time) bool {
	return cert.NotAfter.Sub(now) < cert.NotAfter.Sub(cert.NotBefore)/3 && cert.NotAfter.Before(ca.NotAfter)
}

// ClockError says by which certificate now cannot be.
func ClockError(c *x509.Certificate, now time.Time) error {
	return fmt.Errorf("%w: %s", ErrClock, outOfTime([]*x509.Certificate{c}, now, true))
}

// Follows wants that next is what a renewal of old brings.
func Follows(old, next *x509.Certificate) error {
	before, err := PeerOf(old)
	if err != nil {
		return err
	}
	after, err := PeerOf(next)
	switch {
	case err != nil:
		return err
	case before != after:
		return fmt.Errorf("%w: it is for %s, key %s, and not for %s, key %s", ErrNoRenewal, after, Short(after.Key), before, Short(before.Key))
	case !next.NotAfter.After(old.NotAfter):
		return fmt.Errorf("%w: it is good until %s, and the one before until %s", ErrNoRenewal,
			next.NotAfter.UTC().Format(time.DateTime), old.NotAfter.UTC().Format(time.DateTime))
	}
	return nil
}
