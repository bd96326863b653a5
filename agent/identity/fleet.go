package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Fleet is an operator's folder for a fleet, and what it can sign:
//
//	genesis.json               how the fleet began; public
//	operator.crt, operator.key this operator's certificate and key, for curl --cert too
//	operator-ca.crt, node-ca.crt  the two CA certificates; public, and in the genesis
//	node-ca.key                signs nodes
//	operator-ca.key[.age]      signs operators
//	owner-1.key[.age]          one of the three owner keys
//	recovery-2.txt, -3.txt     the two others, to be printed and moved elsewhere
//	tokens.json                the tokens that were given out
//	operators.json             whom the operator CA signed, and who was revoked
//	invitations.json           who was invited to be signed; its secrets too
//
// An invited operator's folder has the first three lines alone. Files with .age are
// encrypted under the founder's passphrase. The operator CA's key is, because a key of
// it makes admins whom no revocation knows: whoever steals the folder is then one
// operator, who can be revoked. The node CA's key is not: what it signs can be reached
// and nothing more, and a script has to be able to adopt a node.
//
// Its methods may be called from one goroutine; folders may be used by several
// programs at a time.
type Fleet struct {
	Genesis *Genesis
	Dir     string // "" until Save

	me         tls.Certificate
	peer       Peer
	operatorCA *ecdsa.PrivateKey          // nil: locked, or not in this folder
	nodeCA     *ecdsa.PrivateKey          // nil: not in this folder
	owners     map[int]ed25519.PrivateKey // between Create and Save only
	made       time.Time
	work       int // logarithm of scrypt's N
}

// Why a folder cannot do what was asked.
var (
	ErrNoFleet = errors.New("no such fleet here")
	ErrExists  = errors.New("exists already")
	ErrLocked  = errors.New("the key is encrypted")
	ErrNoKey   = errors.New("the key is not in this folder")
	// ErrNotOwner is of a key that the genesis does not name.
	ErrNotOwner = errors.New("not an owner key")
)

// The files of a fleet's folder. A private key may have the suffix locked.
const (
	genesisName      = "genesis.json"
	operatorCertName = "operator.crt"
	operatorKeyName  = "operator.key"
	operatorCACert   = "operator-ca.crt"
	operatorCAKey    = "operator-ca.key"
	nodeCACert       = "node-ca.crt"
	nodeCAKey        = "node-ca.key"
	tokensName       = "tokens.json"
	operatorsName    = "operators.json"
	invitationsName  = "invitations.json"
	lockName         = ".lock" // empty; held by who changes a file
	lockedSuffix     = ".age"
)

func ownerName(i int) string { return fmt.Sprintf("owner-%d.key", i) }
func sheetName(i int) string { return fmt.Sprintf("recovery-%d.txt", i) }

// Create makes the keys of a new fleet and its genesis, with operator as the first
// admin. It touches no disk: [Fleet.Save] makes it last.
func Create(name, operator string, now time.Time) (*Fleet, error) {
	f, err := create(name, operator, now)
	if err != nil {
		return nil, fmt.Errorf("create fleet %s: %w", name, err)
	}
	return f, nil
}

func create(name, operator string, now time.Time) (*Fleet, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := CheckOperatorName(operator); err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	f := &Fleet{owners: make(map[int]ed25519.PrivateKey), made: now, work: scryptWork}
	var public []ed25519.PublicKey
	for i := range owners {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		public, f.owners[i+1] = append(public, pub), key
	}
	operatorCA, operatorKey, err := newCA(name, KindOperator, now)
	if err != nil {
		return nil, fmt.Errorf("operator CA: %w", err)
	}
	nodeCA, nodeKey, err := newCA(name, KindNode, now)
	if err != nil {
		return nil, fmt.Errorf("node CA: %w", err)
	}
	own, err := newKey()
	if err != nil {
		return nil, err
	}
	if f.Genesis, err = newGenesis(name, public, operatorCA, nodeCA, &own.PublicKey); err != nil {
		return nil, err
	}
	f.operatorCA, f.nodeCA = operatorKey, nodeKey
	csr, err := NewRequest(own)
	if err != nil {
		return nil, err
	}
	cert, err := f.SignOperator(csr, operator, RoleAdmin, now)
	if err != nil {
		return nil, err
	}
	return f, f.setOperator(cert, own)
}

// setOperator checks that a certificate and a key belong to each other and to the
// fleet, and makes them this folder's.
func (f *Fleet) setOperator(der []byte, key *ecdsa.PrivateKey) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return errors.New("certificate and key do not belong together")
	}
	// The dates are for who is called to judge: an old certificate can be renewed.
	peer, err := f.Genesis.VerifyPeer(cert, nil, time.Time{}, false, nil)
	if err != nil {
		return err
	}
	if peer.Kind != KindOperator {
		return fmt.Errorf("%s: %w: an operator's wanted", peer, ErrKind)
	}
	f.peer = peer
	f.me = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}
	return nil
}

// Operator is whose folder this is.
func (f *Fleet) Operator() Peer { return f.peer }

// Certificate is the operator's certificate and key, for connections.
func (f *Fleet) Certificate() tls.Certificate { return f.me }

// LoadFleet reads the folder of a fleet. Keys under a passphrase stay closed until
// [Fleet.Unlock]. [ErrNoFleet] says that there is none.
func LoadFleet(dir string) (*Fleet, error) {
	f, err := loadFleet(dir)
	if err != nil {
		return nil, fmt.Errorf("fleet %s: %w", filepath.Base(dir), err)
	}
	return f, nil
}

func loadFleet(dir string) (*Fleet, error) {
	f := &Fleet{Dir: dir, work: scryptWork}
	raw, err := os.ReadFile(f.path(genesisName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoFleet, dir)
	}
	if err != nil {
		return nil, err
	}
	if f.Genesis, err = ParseGenesis(raw); err != nil {
		return nil, err
	}
	key, err := readKey[*ecdsa.PrivateKey](f.path(operatorKeyName))
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, fmt.Errorf("%s: %w", operatorKeyName, ErrNoKey)
	}
	text, err := os.ReadFile(f.path(operatorCertName))
	if err != nil {
		return nil, err
	}
	der, err := decodePEM(certificateBlock, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operatorCertName, err)
	}
	if err := f.setOperator(der, key); err != nil {
		return nil, fmt.Errorf("%s: %w", operatorCertName, err)
	}
	for name, ca := range map[string]**ecdsa.PrivateKey{operatorCAKey: &f.operatorCA, nodeCAKey: &f.nodeCA} {
		if *ca, err = readKey[*ecdsa.PrivateKey](f.path(name)); err != nil {
			return nil, err
		}
	}
	return f, f.checkCAs()
}

// checkCAs wants that the CA keys at hand are those of the genesis.
func (f *Fleet) checkCAs() error {
	if f.operatorCA != nil && !f.operatorCA.PublicKey.Equal(f.Genesis.OperatorCA.PublicKey) {
		return fmt.Errorf("%s is not the key of %s", operatorCAKey, operatorCACert)
	}
	if f.nodeCA != nil && !f.nodeCA.PublicKey.Equal(f.Genesis.NodeCA.PublicKey) {
		return fmt.Errorf("%s is not the key of %s", nodeCAKey, nodeCACert)
	}
	return nil
}

func (f *Fleet) path(name string) string { return filepath.Join(f.Dir, name) }

// has says whether the folder has a file.
func (f *Fleet) has(name string) bool {
	_, err := os.Lstat(f.path(name))
	return err == nil
}

// readKey reads a private key that lies open. None is no error: the key is nil.
func readKey[K any](path string) (K, error) {
	var none K
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	key, err := decodeKey[K](text)
	if err != nil {
		return none, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return key, nil
}

// Locked says whether [Fleet.Unlock] has to come before [Fleet.SignOperator].
func (f *Fleet) Locked() bool { return f.operatorCA == nil && f.has(operatorCAKey+lockedSuffix) }

// Unlock opens the operator CA's key with the founder's passphrase, or says
// [ErrPassphrase]. It takes about a second. A fleet that is not locked stays as it is.
func (f *Fleet) Unlock(passphrase string) error {
	if !f.Locked() {
		return nil
	}
	key, err := openKey[*ecdsa.PrivateKey](f, operatorCAKey, passphrase)
	if err != nil {
		return fmt.Errorf("fleet %s: operator CA: %w", f.Genesis.Name, err)
	}
	f.operatorCA = key
	return f.checkCAs()
}

// OwnerKey opens owner key i, from 1, of this folder; the passphrase is that of the
// founder, or "" for a key that lies open. [ErrNoKey] says that it is not here.
func (f *Fleet) OwnerKey(i int, passphrase string) (ed25519.PrivateKey, error) {
	key, err := readKey[ed25519.PrivateKey](f.path(ownerName(i)))
	if err == nil && key == nil {
		key, err = openKey[ed25519.PrivateKey](f, ownerName(i), passphrase)
	}
	if err == nil && f.Genesis.owner(key.Public().(ed25519.PublicKey)) != i {
		err = ErrNotOwner
	}
	if err != nil {
		return nil, fmt.Errorf("fleet %s: owner key %d: %w", f.Genesis.Name, i, err)
	}
	return key, nil
}

// openKey reads a key under a passphrase.
func openKey[K any](f *Fleet, name, passphrase string) (K, error) {
	var none K
	text, err := os.ReadFile(f.path(name + lockedSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return none, ErrNoKey
	}
	if err != nil {
		return none, err
	}
	if passphrase == "" {
		return none, ErrLocked
	}
	plain, err := unlock(text, passphrase)
	if err != nil {
		return none, err
	}
	return decodeKey[K](plain)
}

// SignNode signs the key of a certificate request as the node called name, for a year,
// and returns the certificate in DER. The same key may come again at any time.
func (f *Fleet) SignNode(csr []byte, name string, now time.Time) ([]byte, error) {
	der, err := f.sign(csr, Peer{Kind: KindNode, Name: name, Fleet: f.Genesis.ID()}, now)
	if err != nil {
		return nil, fmt.Errorf("fleet %s: sign node %s: %w", f.Genesis.Name, name, err)
	}
	return der, nil
}

// SignOperator signs the key of a certificate request as an operator, for a year, notes
// him among [Fleet.Operators] and returns the certificate in DER. A key that is there
// already is renewed; one that was revoked is [ErrRevoked]. [ErrLocked] asks for
// [Fleet.Unlock].
func (f *Fleet) SignOperator(csr []byte, name string, role Role, now time.Time) ([]byte, error) {
	der, err := f.sign(csr, Peer{Kind: KindOperator, Name: name, Role: role, Fleet: f.Genesis.ID()}, now)
	if err == nil && f.Dir != "" {
		err = f.noteOperator(der)
	}
	if err != nil {
		return nil, fmt.Errorf("fleet %s: sign operator %s: %w", f.Genesis.Name, name, err)
	}
	return der, nil
}

func (f *Fleet) sign(csr []byte, p Peer, now time.Time) ([]byte, error) {
	check := CheckName
	if p.Kind == KindOperator {
		check = CheckOperatorName
		if _, err := ParseRole(string(p.Role)); err != nil {
			return nil, err
		}
	}
	if err := check(p.Name); err != nil {
		return nil, err
	}
	public, _, err := RequestKey(csr)
	if err != nil {
		return nil, err
	}
	return f.signKey(p, public, now)
}

// signKey signs a key as that of p, with the CA of its kind.
func (f *Fleet) signKey(p Peer, public *ecdsa.PublicKey, now time.Time) ([]byte, error) {
	ca, key := f.Genesis.NodeCA, f.nodeCA
	if p.Kind == KindOperator {
		ca, key = f.Genesis.OperatorCA, f.operatorCA
	}
	switch {
	case key == nil && p.Kind == KindOperator && f.Locked():
		return nil, fmt.Errorf("operator CA: %w", ErrLocked)
	case key == nil:
		return nil, fmt.Errorf("%s CA: %w", p.Kind, ErrNoKey)
	case now.Before(ca.NotBefore) || now.After(ca.NotAfter):
		return nil, fmt.Errorf("%s CA: %w", p.Kind, clockError(ca, now))
	}
	return signPeer(p, public, ca, key, now)
}

// InstallCertificate puts a new certificate for this folder's key in the place of the
// old one, durably.
func (f *Fleet) InstallCertificate(der []byte) error {
	next := *f
	key, _ := f.me.PrivateKey.(*ecdsa.PrivateKey)
	err := next.setOperator(der, key)
	if err == nil {
		err = f.Alone(func() error { return replaceFile(f.path(operatorCertName), encodePEM(certificateBlock, der)) })
	}
	if err != nil {
		return fmt.Errorf("fleet %s: install certificate: %w", f.Genesis.Name, err)
	}
	f.me, f.peer = next.me, next.peer
	return nil
}

// Sheets are the recovery sheets that still lie in the folder: they belong elsewhere.
func (f *Fleet) Sheets() []string {
	var all []string
	for i := range f.Genesis.Owners {
		if f.has(sheetName(i + 1)) {
			all = append(all, f.path(sheetName(i+1)))
		}
	}
	return all
}

// Holding is where a private key of the fleet is, as far as this folder knows.
type Holding string

// Where a private key may be.
const (
	Elsewhere Holding = "elsewhere"
	Open      Holding = "here"
	Closed    Holding = "here, under a passphrase"
	OnSheet   Holding = "on a recovery sheet that is still here"
)

// HoldsOwner says where owner key i is, from 1.
func (f *Fleet) HoldsOwner(i int) Holding {
	if h := f.holds(ownerName(i)); h != Elsewhere {
		return h
	}
	if f.has(sheetName(i)) {
		return OnSheet
	}
	return Elsewhere
}

// HoldsCA says where the key of the CA is that signs peers of a kind.
func (f *Fleet) HoldsCA(kind PeerKind) Holding {
	if kind == KindOperator {
		return f.holds(operatorCAKey)
	}
	return f.holds(nodeCAKey)
}

func (f *Fleet) holds(name string) Holding {
	switch {
	case f.has(name):
		return Open
	case f.has(name + lockedSuffix):
		return Closed
	}
	return Elsewhere
}

// Recover puts the owner key of a recovery sheet back into the folder, under a
// passphrase or, with "", open, and returns its number. With check it only says which
// it is. A key that the genesis does not name is refused, and so is one that is here.
func (f *Fleet) Recover(sheet []byte, passphrase string, check bool) (int, error) {
	key, err := ParseSheet(sheet)
	if err != nil {
		return 0, err
	}
	i := f.Genesis.owner(key.Public().(ed25519.PublicKey))
	if i == 0 {
		return 0, fmt.Errorf("%w of fleet %s: the sheet is sound, but belongs to another", ErrNotOwner, f.Genesis.Name)
	}
	if check {
		return i, nil
	}
	if f.holds(ownerName(i)) != Elsewhere {
		return i, fmt.Errorf("owner key %d of fleet %s %w", i, f.Genesis.Name, ErrExists)
	}
	name, text, err := f.keyFile(ownerName(i), key, passphrase)
	if err == nil {
		err = f.Alone(func() error { return replaceFile(f.path(name), text) })
	}
	if err != nil {
		return i, fmt.Errorf("fleet %s: owner key %d: %w", f.Genesis.Name, i, err)
	}
	return i, nil
}

// List returns the names of the fleets below dir, in alphabetical order. A folder that
// is none is passed over, and so is a dir that is not there.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list fleets: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // one that is being made
		}
		if _, err := os.Stat(filepath.Join(dir, e.Name(), genesisName)); err == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
