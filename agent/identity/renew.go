package identity

import (
	"crypto/ecdsa"
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

// clockError says by which certificate now cannot be.
func clockError(c *x509.Certificate, now time.Time) error {
	return fmt.Errorf("%w: %s", ErrClock, outOfTime([]*x509.Certificate{c}, now))
}

// follows wants that next is what a renewal of old brings.
func follows(old, next *x509.Certificate) error {
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

// RenewOperator gives this folder's operator a certificate for a year from now, for
// the same key and with the same name and role. After a power cut the folder has the
// old certificate or the new one. [ErrLocked] and [ErrNoKey] are of the operator CA.
func (f *Fleet) RenewOperator(now time.Time) error {
	csr, err := f.operatorRequest(now)
	if err != nil {
		return fmt.Errorf("fleet %s: renew operator %s: %w", f.Genesis.Name, f.peer.Name, err)
	}
	der, err := f.SignOperator(csr, f.peer.Name, f.peer.Role, now)
	if err != nil {
		return err
	}
	return f.InstallCertificate(der)
}

func (f *Fleet) operatorRequest(now time.Time) ([]byte, error) {
	key, ok := f.me.PrivateKey.(*ecdsa.PrivateKey)
	switch {
	case !ok:
		return nil, ErrNoKey
	case now.Before(f.me.Leaf.NotBefore):
		return nil, clockError(f.me.Leaf, now)
	}
	return NewRequest(key)
}

// RenewNode makes the certificate in DER that follows on a node's: for the same key
// and name, for a year from now; it is old itself where that is as good, because it was
// made a moment ago or ends with the CA. That the node has the key is for the connection
// to show in which old came. The error wraps [ErrNoKey], [ErrClock] (old is from after
// now), [ErrNoRenewal] (now is before the time old was made at) or an error of
// [Genesis.VerifyPeer].
func (f *Fleet) RenewNode(old *x509.Certificate, now time.Time) ([]byte, error) {
	der, err := f.renewNode(old, now)
	if err != nil {
		return nil, fmt.Errorf("fleet %s: renew node: %w", f.Genesis.Name, err)
	}
	return der, nil
}

func (f *Fleet) renewNode(old *x509.Certificate, now time.Time) ([]byte, error) {
	peer, err := f.Genesis.VerifyPeer(old, nil, time.Time{}, false, nil)
	switch {
	case err != nil:
		return nil, err
	case peer.Kind != KindNode:
		return nil, fmt.Errorf("%s: %w: a node's wanted", peer, ErrKind)
	case now.Before(old.NotBefore):
		return nil, fmt.Errorf("%s: %w", peer, clockError(old, now))
	}
	key, err := p256(old.PublicKey)
	if err != nil {
		return nil, err
	}
	der, err := f.signKey(peer, key, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", peer, err)
	}
	next, err := x509.ParseCertificate(der)
	switch {
	case err != nil:
		return nil, err
	case next.NotAfter.Equal(old.NotAfter):
		return old.Raw, nil
	}
	return der, follows(old, next)
}
