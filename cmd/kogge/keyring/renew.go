package keyring

import (
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"time"

	"kogge.example/update/fleet"
)

// RenewOperator gives this folder's operator a certificate for a year from now, for
// the same key and with the same name and role. After a power cut the folder has the
// old certificate or the new one. [ErrLocked] and [ErrNoKey] are of the operator CA.
func (k *Keyring) RenewOperator(now time.Time) error {
	csr, err := k.operatorRequest(now)
	if err != nil {
		return fmt.Errorf("fleet %s: renew operator %s: %w", k.Genesis.Name, k.peer.Name, err)
	}
	der, err := k.SignOperator(csr, k.peer.Name, k.peer.Role, now)
	if err != nil {
		return err
	}
	return k.installCertificate(der)
}

func (k *Keyring) operatorRequest(now time.Time) ([]byte, error) {
	key, ok := k.me.PrivateKey.(*ecdsa.PrivateKey)
	switch {
	case !ok:
		return nil, ErrNoKey
	case now.Before(k.me.Leaf.NotBefore):
		return nil, fleet.ClockError(k.me.Leaf, now)
	}
	return fleet.NewRequest(key)
}

// RenewNode makes the certificate in DER that follows on a node's: for the same key
// and name, for a year from now; it is old itself where that is as good, because it was
// made a moment ago or ends with the CA. That the node has the key is for the connection
// to show in which old came. The error wraps [ErrNoKey], [ErrClock] (old is from after
// now), [ErrNoRenewal] (now is before the time old was made at) or an error of
// [fleet.Genesis.VerifyPeer].
func (k *Keyring) RenewNode(old *x509.Certificate, now time.Time) ([]byte, error) {
	der, err := k.renewNode(old, now)
	if err != nil {
		return nil, fmt.Errorf("fleet %s: renew node: %w", k.Genesis.Name, err)
	}
	return der, nil
}

func (k *Keyring) renewNode(old *x509.Certificate, now time.Time) ([]byte, error) {
	peer, err := k.Genesis.VerifyPeer(old, nil, time.Time{}, false, nil)
	switch {
	case err != nil:
		return nil, err
	case peer.Kind != fleet.KindNode:
		return nil, fmt.Errorf("%s: %w: expected that of a node", peer, fleet.ErrKind)
	case now.Before(old.NotBefore):
		return nil, fmt.Errorf("%s: %w", peer, fleet.ClockError(old, now))
	}
	key, err := fleet.P256(old.PublicKey)
	if err == nil {
		err = k.trustsNode(peer.Key)
	}
	if err != nil {
		return nil, err
	}
	der, err := k.signKey(peer, key, now)
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
	return der, fleet.Follows(old, next)
}
