package identity

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
)

// Joining is somebody on his way into a fleet: he was invited, has made his key, and
// waits for his certificate. Until that is there he has a hidden folder beside those
// of the fleets:
//
//	genesis.json   of the fleet, as the invitation told it
//	operator.key   his key, which goes into the fleet's folder
//	request.json   what he asks for
type Joining struct {
	Name    string // of the fleet's folder to be
	Genesis *Genesis
	Request *OperatorRequest

	root string // the folder around
	key  *ecdsa.PrivateKey
}

const (
	joiningSuffix = ".joining"
	requestName   = "request.json"
)

func (j *Joining) dir() string { return filepath.Join(j.root, "."+j.Name+joiningSuffix) }

// StartJoining makes the key and the request of somebody who was invited, for a
// fleet's folder called name below root. The hidden folder appears whole or not at
// all. Started again for the same fleet it has the key that it had. [ErrExists] says
// that name is taken.
func StartJoining(root, name string, i *Invitation, now time.Time) (*Joining, error) {
	j, err := startJoining(root, name, i, now)
	if err != nil {
		return nil, fmt.Errorf("join fleet %s: %w", i.Genesis.Name, err)
	}
	return j, nil
}

func startJoining(root, name string, i *Invitation, now time.Time) (*Joining, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if now.After(i.Expires) {
		return nil, fmt.Errorf("%w on %s", ErrInvitationExpired, i.Expires.Local().Format(time.DateOnly))
	}
	if dir := filepath.Join(root, name); taken(dir) {
		return nil, fmt.Errorf("%s %w", dir, ErrExists)
	}
	j, err := loadJoining(root, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// None, or one whose removal a power cut interrupted.
		j = &Joining{Name: name, Genesis: i.Genesis, root: root}
		if err := os.RemoveAll(j.dir()); err != nil {
			return nil, err
		}
		return j, j.begin(i)
	case err != nil:
		return nil, err
	case j.Genesis.ID() != i.Genesis.ID():
		return nil, fmt.Errorf("%s %w, for another fleet", j.dir(), ErrExists)
	}
	return j, j.again(i)
}

// begin makes the key and the folder.
func (j *Joining) begin(i *Invitation) error {
	var err error
	if j.key, err = newKey(); err != nil {
		return err
	}
	key, err := encodeKey(j.key)
	if err != nil {
		return err
	}
	request, err := j.ask(i)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(j.root, 0o700); err != nil {
		return err
	}
	return publish(userDisk{}, j.dir(), []file{{genesisName, j.Genesis.Bytes()}, {operatorKeyName, key}, {requestName, request}})
}

// again asks with the key that is there, maybe by another invitation.
func (j *Joining) again(i *Invitation) error {
	request, err := j.ask(i)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(j.dir(), requestName), request)
}

// ask makes the request, and its file.
func (j *Joining) ask(i *Invitation) ([]byte, error) {
	var err error
	if j.Request, err = newOperatorRequest(j.key, i.Genesis.ID(), i.Name, i.Role, i.Secret); err != nil {
		return nil, err
	}
	return MarshalRequest(j.Request)
}

// loadJoining reads a hidden folder. fs.ErrNotExist: it is not there, or not whole.
func loadJoining(root, name string) (*Joining, error) {
	j := &Joining{Name: name, root: root}
	raw, err := os.ReadFile(filepath.Join(j.dir(), genesisName))
	if err != nil {
		return nil, err
	}
	if j.Genesis, err = ParseGenesis(raw); err != nil {
		return nil, err
	}
	if j.key, err = readKey[*ecdsa.PrivateKey](filepath.Join(j.dir(), operatorKeyName)); err != nil {
		return nil, err
	}
	if j.key == nil {
		return nil, fmt.Errorf("%s: %w", operatorKeyName, fs.ErrNotExist)
	}
	if raw, err = os.ReadFile(filepath.Join(j.dir(), requestName)); err != nil {
		return nil, err
	}
	j.Request, err = ParseRequest(raw)
	return j, err
}

// ListJoining returns those below root that wait for a certificate, in alphabetical
// order.
func ListJoining(root string) ([]*Joining, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list fleets: %w", err)
	}
	var all []*Joining
	for _, e := range entries {
		name, ok := strings.CutSuffix(strings.TrimPrefix(e.Name(), "."), joiningSuffix)
		if !ok || CheckName(name) != nil || !strings.HasPrefix(e.Name(), ".") {
			continue
		}
		j, err := loadJoining(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("join fleet %s: %w", name, err)
		}
		all = append(all, j)
	}
	return all, nil
}

// EncodeCertificate writes a certificate in DER as PEM, for a file of its own.
func EncodeCertificate(der []byte) []byte { return encodePEM(certificateBlock, der) }

// DecodeCertificate reads the file of a certificate.
func DecodeCertificate(text []byte) (*x509.Certificate, error) {
	if len(text) > maxLetter {
		return nil, fmt.Errorf("certificate: %d bytes: %d at most", len(text), maxLetter)
	}
	der, err := decodePEM(certificateBlock, text)
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
func InstallOperator(root string, cert *x509.Certificate, now time.Time) (*Fleet, error) {
	f, err := installOperator(root, cert, now)
	if err != nil {
		return nil, fmt.Errorf("install certificate: %w", err)
	}
	return f, nil
}

func installOperator(root string, cert *x509.Certificate, now time.Time) (*Fleet, error) {
	peer, err := PeerOf(cert)
	if err != nil {
		return nil, err
	}
	if peer.Kind != KindOperator {
		return nil, fmt.Errorf("%s: %w: an operator's wanted", peer, ErrKind)
	}
	waiting, err := ListJoining(root)
	if err != nil {
		return nil, err
	}
	var mine *Joining
	for _, j := range waiting {
		if j.Genesis.ID() == peer.Fleet && j.Request.Key() == peer.Key {
			mine = j
		}
	}
	f, err := fleetOf(root, peer)
	switch {
	case err != nil:
		return nil, err
	case f != nil:
		err = f.renewWith(cert, now)
	case mine != nil:
		f, err = mine.finish(cert, now)
	default:
		return nil, fmt.Errorf("%s, key %s: %w", peer, Short(peer.Key), ErrNoKey)
	}
	if err != nil || mine == nil {
		return f, err
	}
	return f, os.RemoveAll(mine.dir()) // the key is in the fleet's folder now, for good
}

// fleetOf finds the folder that has a peer's key; nil: none does.
func fleetOf(root string, peer Peer) (*Fleet, error) {
	names, err := List(root)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		f, err := LoadFleet(filepath.Join(root, name))
		if err != nil {
			continue // a damaged folder does not hide the others
		}
		if f.Genesis.ID() == peer.Fleet && f.peer.Key == peer.Key {
			return f, nil
		}
	}
	return nil, nil
}

// renewWith puts a certificate in the place of the one that the folder has.
func (f *Fleet) renewWith(cert *x509.Certificate, now time.Time) error {
	if _, err := f.Genesis.VerifyPeer(cert, nil, now, true, nil); err != nil {
		return err
	}
	if cert.NotAfter.Before(f.me.Leaf.NotAfter) {
		return fmt.Errorf("the folder has a later one, until %s", f.me.Leaf.NotAfter.Format(time.DateOnly))
	}
	return f.InstallCertificate(cert.Raw)
}

// finish makes the fleet's folder.
func (j *Joining) finish(cert *x509.Certificate, now time.Time) (*Fleet, error) {
	if _, err := j.Genesis.VerifyPeer(cert, nil, now, true, nil); err != nil {
		return nil, err
	}
	return SaveOperator(filepath.Join(j.root, j.Name), j.Genesis, j.key, cert.Raw)
}
