package keyring

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// Newcomer is somebody on his way into a fleet: he was invited, has made his key, and
// waits for his certificate. Until that is there he has a hidden folder beside those
// of the fleets:
//
//	genesis.json   of the fleet, as the invitation told it
//	operator.key   his key, which goes into the fleet's folder
//	request.json   what he asks for
type Newcomer struct {
	Name    string // of the fleet's folder to be
	Genesis *fleet.Genesis
	Request *OperatorRequest

	root string // the folder around
	key  *ecdsa.PrivateKey
}

const (
	newcomerSuffix = ".joining"
	requestName    = "request.json"
)

func (n *Newcomer) dir() string { return filepath.Join(n.root, "."+n.Name+newcomerSuffix) }

// Accept makes the key and the request of somebody who was invited, for a
// fleet's folder called name below root. The hidden folder appears whole or not at
// all. Started again for the same fleet it has the key that it had. [ErrExists] says
// that name is taken.
func Accept(root, name string, i *Invitation, now time.Time) (*Newcomer, error) {
	n, err := accept(root, name, i, now)
	if err != nil {
		return nil, fmt.Errorf("join fleet %s: %w", i.Genesis.Name, err)
	}
	return n, nil
}

func accept(root, name string, i *Invitation, now time.Time) (*Newcomer, error) {
	if err := fleet.CheckName(name); err != nil {
		return nil, err
	}
	if now.After(i.Expires) {
		return nil, fmt.Errorf("%w on %s", ErrInvitationExpired, i.Expires.Local().Format(time.DateOnly))
	}
	if dir := filepath.Join(root, name); taken(dir) {
		return nil, fmt.Errorf("%s %w", dir, ErrExists)
	}
	n, err := loadNewcomer(root, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// None, or one whose removal a power cut interrupted.
		n = &Newcomer{Name: name, Genesis: i.Genesis, root: root}
		if err := os.RemoveAll(n.dir()); err != nil {
			return nil, err
		}
		return n, n.begin(i)
	case err != nil:
		return nil, err
	case n.Genesis.ID() != i.Genesis.ID():
		return nil, fmt.Errorf("%s %w, for another fleet", n.dir(), ErrExists)
	}
	return n, n.again(i)
}

// begin makes the key and the folder.
func (n *Newcomer) begin(i *Invitation) error {
	var err error
	if n.key, err = fleet.NewKey(); err != nil {
		return err
	}
	key, err := document.EncodeKey(n.key)
	if err != nil {
		return err
	}
	request, err := n.ask(i)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.root, 0o700); err != nil {
		return err
	}
	return publish(userDisk{}, n.dir(), []file{{genesisName, n.Genesis.Bytes()}, {operatorKeyName, key}, {requestName, request}})
}

// again asks with the key that is there, maybe by another invitation.
func (n *Newcomer) again(i *Invitation) error {
	request, err := n.ask(i)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(n.dir(), requestName), request)
}

// ask makes the request, and its file.
func (n *Newcomer) ask(i *Invitation) ([]byte, error) {
	var err error
	if n.Request, err = newOperatorRequest(n.key, i.Genesis.ID(), i.Name, i.Role, i.Secret); err != nil {
		return nil, err
	}
	return MarshalRequest(n.Request)
}

// loadNewcomer reads a hidden folder. fs.ErrNotExist: it is not there, or not whole.
func loadNewcomer(root, name string) (*Newcomer, error) {
	n := &Newcomer{Name: name, root: root}
	raw, err := os.ReadFile(filepath.Join(n.dir(), genesisName))
	if err != nil {
		return nil, err
	}
	if n.Genesis, err = fleet.ParseGenesis(raw); err != nil {
		return nil, err
	}
	if n.key, err = readKey[*ecdsa.PrivateKey](filepath.Join(n.dir(), operatorKeyName)); err != nil {
		return nil, err
	}
	if n.key == nil {
		return nil, fmt.Errorf("%s: %w", operatorKeyName, fs.ErrNotExist)
	}
	if raw, err = os.ReadFile(filepath.Join(n.dir(), requestName)); err != nil {
		return nil, err
	}
	n.Request, err = ParseRequest(raw)
	return n, err
}

// Newcomers returns those below root that wait for a certificate, in alphabetical
// order.
func Newcomers(root string) ([]*Newcomer, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list fleets: %w", err)
	}
	var all []*Newcomer
	for _, e := range entries {
		name, ok := strings.CutSuffix(strings.TrimPrefix(e.Name(), "."), newcomerSuffix)
		if !ok || fleet.CheckName(name) != nil || !strings.HasPrefix(e.Name(), ".") {
			continue
		}
		n, err := loadNewcomer(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("join fleet %s: %w", name, err)
		}
		all = append(all, n)
	}
	return all, nil
}

// EncodeCertificate writes a certificate in DER as PEM, for a file of its own.
func EncodeCertificate(der []byte) []byte { return document.EncodePEM(document.CertificateBlock, der) }

// DecodeCertificate reads the file of a certificate.
func DecodeCertificate(text []byte) (*x509.Certificate, error) {
	if len(text) > maxLetter {
		return nil, fmt.Errorf("certificate: %d bytes: %d at most", len(text), maxLetter)
	}
	der, err := document.DecodePEM(document.CertificateBlock, text)
	if err != nil {
		if is := kindOf(text); is == "an "+invitationKind || is == "an "+requestKind {
			err = fmt.Errorf("it is %s", is)
		}
		return nil, fmt.Errorf("certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return cert, nil
}

// InstallOperator puts an operator's certificate where its key is: below root, in the
// folder of a fleet, whose certificate it renews, or in that of somebody who waits for
// it, who has a fleet's folder then. That one appears whole or not at all; after a
// power cut the same certificate can be installed again. A key that is not here is
// [ErrNoKey]. The certificate has to hold at now.
func InstallOperator(root string, cert *x509.Certificate, now time.Time) (*Keyring, error) {
	k, err := installOperator(root, cert, now)
	if err != nil {
		return nil, fmt.Errorf("install certificate: %w", err)
	}
	return k, nil
}

func installOperator(root string, cert *x509.Certificate, now time.Time) (*Keyring, error) {
	peer, err := fleet.PeerOf(cert)
	if err != nil {
		return nil, err
	}
	if peer.Kind != fleet.KindOperator {
		return nil, fmt.Errorf("%s: %w: an operator's wanted", peer, fleet.ErrKind)
	}
	waiting, err := Newcomers(root)
	if err != nil {
		return nil, err
	}
	var mine *Newcomer
	for _, n := range waiting {
		if n.Genesis.ID() == peer.Fleet && n.Request.Key() == peer.Key {
			mine = n
		}
	}
	k, err := fleetOf(root, peer)
	switch {
	case err != nil:
		return nil, err
	case k != nil:
		err = k.renewWith(cert, now)
	case mine != nil:
		k, err = mine.finish(cert, now)
	default:
		return nil, fmt.Errorf("%s, key %s: %w", peer, fleet.Short(peer.Key), ErrNoKey)
	}
	if err != nil || mine == nil {
		return k, err
	}
	return k, os.RemoveAll(mine.dir()) // the key is in the fleet's folder now, for good
}

// fleetOf finds the folder that has a peer's key; nil: none does.
func fleetOf(root string, peer fleet.Peer) (*Keyring, error) {
	names, err := List(root)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		k, err := Load(filepath.Join(root, name))
		if err != nil {
			continue // a damaged folder does not hide the others
		}
		if k.Genesis.ID() == peer.Fleet && k.peer.Key == peer.Key {
			return k, nil
		}
	}
	return nil, nil
}

// renewWith puts a certificate in the place of the one that the folder has.
func (k *Keyring) renewWith(cert *x509.Certificate, now time.Time) error {
	if _, err := k.Genesis.VerifyPeer(cert, nil, now, true, nil); err != nil {
		return err
	}
	if cert.NotAfter.Before(k.me.Leaf.NotAfter) {
		return fmt.Errorf("the folder has a later one, until %s", k.me.Leaf.NotAfter.Format(time.DateOnly))
	}
	return k.installCertificate(cert.Raw)
}

// finish makes the fleet's folder.
func (n *Newcomer) finish(cert *x509.Certificate, now time.Time) (*Keyring, error) {
	if _, err := n.Genesis.VerifyPeer(cert, nil, now, true, nil); err != nil {
		return nil, err
	}
	return saveInvited(filepath.Join(n.root, n.Name), n.Genesis, n.key, cert.Raw)
}
