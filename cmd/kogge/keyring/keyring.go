// Package keyring is the folder in which an operator keeps a fleet's keys, and what they
// sign: nodes by a token, operators by an invitation, and their renewals.
//
// In come certificate requests, files that came by mail (an invitation, a request, a
// certificate), a recovery sheet, passphrases and the time; out go certificates, and files
// in the folder, whose lists tell what was given out from there. No private key ever
// leaves the folder it was made in, but on paper.
//
// The package opens no connection, asks nobody and reads no clock and no environment. The
// rules that it keeps are update/fleet's; the node's side of them is agent/identity.
package keyring

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

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// A Keyring is an operator's folder for a fleet, and what it can sign:
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
//	firsts.json                which record 1 of the ledger was signed from here
//	ledger.txt                 what the fleet has decided (operate); public
//
// An invited operator's folder has the first three lines alone. Files with .age are
// encrypted under the founder's passphrase. The operator CA's key is, because a key of
// it makes admins whom no revocation knows: whoever steals the folder is then one
// operator, who can be revoked. The node CA's key is not: what it signs can be reached
// and nothing more, and a script has to be able to adopt a node.
//
// Its methods may be called from one goroutine; folders may be used by several
// programs at a time.
type Keyring struct {
	Genesis *fleet.Genesis
	Dir     string // "" until Save

	me         tls.Certificate
	peer       fleet.Peer
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
	revokedNodesName = "revoked-nodes.json"
	invitationsName  = "invitations.json"
	firstsName       = "firsts.json"
	lockName         = ".lock" // empty; held by who changes a file
	lockedSuffix     = ".age"
)

func ownerName(i int) string { return fmt.Sprintf("owner-%d.key", i) }
func sheetName(i int) string { return fmt.Sprintf("recovery-%d.txt", i) }

// The numbers of a new fleet: its owner keys, and how many of them are the owner.
const owners, threshold = 3, 2

// Create makes the keys of a new fleet and its genesis, with operator as the first
// admin. It touches no disk: [Keyring.Save] makes it last.
func Create(name, operator string, now time.Time) (*Keyring, error) {
	return CreateWith(fleet.DefaultPolicy(), name, operator, now)
}

// CreateWith is [Create] of a fleet with another policy than the default.
func CreateWith(policy fleet.Policy, name, operator string, now time.Time) (*Keyring, error) {
	k, err := create(policy, name, operator, now)
	if err != nil {
		return nil, fmt.Errorf("create fleet %s: %w", name, err)
	}
	return k, nil
}

func create(policy fleet.Policy, name, operator string, now time.Time) (*Keyring, error) {
	if err := fleet.CheckName(name); err != nil {
		return nil, err
	}
	if err := fleet.CheckOperatorName(operator); err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	k := &Keyring{owners: make(map[int]ed25519.PrivateKey), made: now, work: scryptWork}
	var public []ed25519.PublicKey
	for i := range owners {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		public, k.owners[i+1] = append(public, pub), key
	}
	operatorCA, operatorKey, err := fleet.NewCA(name, fleet.KindOperator, now)
	if err != nil {
		return nil, fmt.Errorf("operator CA: %w", err)
	}
	nodeCA, nodeKey, err := fleet.NewCA(name, fleet.KindNode, now)
	if err != nil {
		return nil, fmt.Errorf("node CA: %w", err)
	}
	own, err := fleet.NewKey()
	if err != nil {
		return nil, err
	}
	k.Genesis, err = fleet.NewGenesis(fleet.Founding{
		Name: name, Owners: public, Threshold: threshold, OperatorCA: operatorCA, NodeCA: nodeCA, First: &own.PublicKey,
		Policy: policy,
	})
	if err != nil {
		return nil, err
	}
	k.operatorCA, k.nodeCA = operatorKey, nodeKey
	csr, err := fleet.NewRequest(own)
	if err != nil {
		return nil, err
	}
	cert, err := k.SignOperator(csr, operator, fleet.RoleAdmin, now)
	if err != nil {
		return nil, err
	}
	return k, k.setOperator(cert, own)
}

// setOperator checks that a certificate and a key belong to each other and to the
// fleet, and makes them this folder's.
func (k *Keyring) setOperator(der []byte, key *ecdsa.PrivateKey) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return errors.New("certificate and key do not belong together")
	}
	// The dates are for who is called to judge: an old certificate can be renewed.
	peer, err := k.Genesis.VerifyPeer(cert, nil, time.Time{}, false, nil)
	if err != nil {
		return err
	}
	if peer.Kind != fleet.KindOperator {
		return fmt.Errorf("%s: %w: an operator's wanted", peer, fleet.ErrKind)
	}
	k.peer = peer
	k.me = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}
	return nil
}

// Operator is whose folder this is.
func (k *Keyring) Operator() fleet.Peer { return k.peer }

// Certificate is the operator's certificate and key, for connections.
func (k *Keyring) Certificate() tls.Certificate { return k.me }

// Load reads the folder of a fleet. Keys under a passphrase stay closed until
// [Keyring.Unlock]. [ErrNoFleet] says that there is none.
func Load(dir string) (*Keyring, error) {
	k, err := load(dir)
	if err != nil {
		return nil, fmt.Errorf("fleet %s: %w", filepath.Base(dir), err)
	}
	return k, nil
}

func load(dir string) (*Keyring, error) {
	k := &Keyring{Dir: dir, work: scryptWork}
	raw, err := os.ReadFile(k.path(genesisName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoFleet, dir)
	}
	if err != nil {
		return nil, err
	}
	if k.Genesis, err = fleet.ParseGenesis(raw); err != nil {
		return nil, err
	}
	key, err := readKey[*ecdsa.PrivateKey](k.path(operatorKeyName))
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, fmt.Errorf("%s: %w", operatorKeyName, ErrNoKey)
	}
	text, err := os.ReadFile(k.path(operatorCertName))
	if err != nil {
		return nil, err
	}
	der, err := document.DecodePEM(document.CertificateBlock, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operatorCertName, err)
	}
	if err := k.setOperator(der, key); err != nil {
		return nil, fmt.Errorf("%s: %w", operatorCertName, err)
	}
	for name, ca := range map[string]**ecdsa.PrivateKey{operatorCAKey: &k.operatorCA, nodeCAKey: &k.nodeCA} {
		if *ca, err = readKey[*ecdsa.PrivateKey](k.path(name)); err != nil {
			return nil, err
		}
	}
	return k, k.checkCAs()
}

// checkCAs wants that the CA keys at hand are those of the genesis.
func (k *Keyring) checkCAs() error {
	if k.operatorCA != nil && !k.operatorCA.PublicKey.Equal(k.Genesis.OperatorCA.PublicKey) {
		return fmt.Errorf("%s is not the key of %s", operatorCAKey, operatorCACert)
	}
	if k.nodeCA != nil && !k.nodeCA.PublicKey.Equal(k.Genesis.NodeCA.PublicKey) {
		return fmt.Errorf("%s is not the key of %s", nodeCAKey, nodeCACert)
	}
	return nil
}

func (k *Keyring) path(name string) string { return filepath.Join(k.Dir, name) }

// has says whether the folder has a file.
func (k *Keyring) has(name string) bool {
	_, err := os.Lstat(k.path(name))
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
	key, err := document.DecodeKey[K](text)
	if err != nil {
		return none, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return key, nil
}

// Locked says whether [Keyring.Unlock] has to come before [Keyring.SignOperator].
func (k *Keyring) Locked() bool { return k.operatorCA == nil && k.has(operatorCAKey+lockedSuffix) }

// Unlock opens the operator CA's key with the founder's passphrase, or says
// [ErrPassphrase]. It takes about a second. A fleet that is not locked stays as it is.
func (k *Keyring) Unlock(passphrase string) error {
	if !k.Locked() {
		return nil
	}
	key, err := openKey[*ecdsa.PrivateKey](k, operatorCAKey, passphrase)
	if err != nil {
		return fmt.Errorf("fleet %s: operator CA: %w", k.Genesis.Name, err)
	}
	k.operatorCA = key
	return k.checkCAs()
}

// openKey reads a key under a passphrase.
func openKey[K any](k *Keyring, name, passphrase string) (K, error) {
	var none K
	text, err := os.ReadFile(k.path(name + lockedSuffix))
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
	return document.DecodeKey[K](plain)
}

// SignNode signs the key of a certificate request as the node called name, for a year,
// and returns the certificate in DER. The same key may come again at any time; one that was
// revoked is [fleet.ErrRevoked].
func (k *Keyring) SignNode(csr []byte, name string, now time.Time) ([]byte, error) {
	_, spki, err := fleet.RequestKey(csr)
	if err == nil {
		err = k.trustsNode(fleet.KeyID(spki))
	}
	if err != nil {
		return nil, fmt.Errorf("fleet %s: sign node %s: %w", k.Genesis.Name, name, err)
	}
	der, err := k.sign(csr, fleet.Peer{Kind: fleet.KindNode, Name: name, Fleet: k.Genesis.ID()}, now)
	if err != nil {
		return nil, fmt.Errorf("fleet %s: sign node %s: %w", k.Genesis.Name, name, err)
	}
	return der, nil
}

// SignOperator signs the key of a certificate request as an operator, for a year, notes
// him among [Keyring.Operators] and returns the certificate in DER. A key that is there
// already is renewed; one that was revoked is [fleet.ErrRevoked]. [ErrLocked] asks for
// [Keyring.Unlock].
func (k *Keyring) SignOperator(csr []byte, name string, role fleet.Role, now time.Time) ([]byte, error) {
	der, err := k.sign(csr, fleet.Peer{Kind: fleet.KindOperator, Name: name, Role: role, Fleet: k.Genesis.ID()}, now)
	if err == nil && k.Dir != "" {
		err = k.noteOperator(der)
	}
	if err != nil {
		return nil, fmt.Errorf("fleet %s: sign operator %s: %w", k.Genesis.Name, name, err)
	}
	return der, nil
}

func (k *Keyring) sign(csr []byte, p fleet.Peer, now time.Time) ([]byte, error) {
	check := fleet.CheckName
	if p.Kind == fleet.KindOperator {
		check = fleet.CheckOperatorName
		if _, err := fleet.ParseRole(string(p.Role)); err != nil {
			return nil, err
		}
	}
	if err := check(p.Name); err != nil {
		return nil, err
	}
	public, _, err := fleet.RequestKey(csr)
	if err != nil {
		return nil, err
	}
	return k.signKey(p, public, now)
}

// signKey signs a key as that of p, with the CA of its kind.
func (k *Keyring) signKey(p fleet.Peer, public *ecdsa.PublicKey, now time.Time) ([]byte, error) {
	ca, key := k.Genesis.NodeCA, k.nodeCA
	if p.Kind == fleet.KindOperator {
		ca, key = k.Genesis.OperatorCA, k.operatorCA
	}
	switch {
	case key == nil && p.Kind == fleet.KindOperator && k.Locked():
		return nil, fmt.Errorf("operator CA: %w", ErrLocked)
	case key == nil:
		return nil, fmt.Errorf("%s CA: %w", p.Kind, ErrNoKey)
	case now.Before(ca.NotBefore) || now.After(ca.NotAfter):
		return nil, fmt.Errorf("%s CA: %w", p.Kind, fleet.ClockError(ca, now))
	}
	return fleet.SignPeer(p, public, ca, key, now)
}

// installCertificate puts a new certificate for this folder's key in the place of the
// old one, durably.
func (k *Keyring) installCertificate(der []byte) error {
	next := *k
	key, _ := k.me.PrivateKey.(*ecdsa.PrivateKey)
	err := next.setOperator(der, key)
	if err == nil {
		err = k.Alone(func() error {
			return replaceFile(k.path(operatorCertName), document.EncodePEM(document.CertificateBlock, der))
		})
	}
	if err != nil {
		return fmt.Errorf("fleet %s: install certificate: %w", k.Genesis.Name, err)
	}
	k.me, k.peer = next.me, next.peer
	return nil
}

// Sheets are the recovery sheets that still lie in the folder: they belong elsewhere.
func (k *Keyring) Sheets() []string {
	var all []string
	for i := range k.Genesis.Owners {
		if k.has(sheetName(i + 1)) {
			all = append(all, k.path(sheetName(i+1)))
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
func (k *Keyring) HoldsOwner(i int) Holding {
	if h := k.holds(ownerName(i)); h != Elsewhere {
		return h
	}
	if k.has(sheetName(i)) {
		return OnSheet
	}
	return Elsewhere
}

// HoldsCA says where the key of the CA is that signs peers of a kind.
func (k *Keyring) HoldsCA(kind fleet.PeerKind) Holding {
	if kind == fleet.KindOperator {
		return k.holds(operatorCAKey)
	}
	return k.holds(nodeCAKey)
}

func (k *Keyring) holds(name string) Holding {
	switch {
	case k.has(name):
		return Open
	case k.has(name + lockedSuffix):
		return Closed
	}
	return Elsewhere
}

// Recover puts the owner key of a recovery sheet back into the folder, under a
// passphrase or, with "", open, and returns its number. With check it only says which
// it is. A key that the genesis does not name is refused, and so is one that is here.
func (k *Keyring) Recover(sheet []byte, passphrase string, check bool) (int, error) {
	key, err := parseSheet(sheet)
	if err != nil {
		return 0, err
	}
	i := k.Genesis.Owner(key.Public().(ed25519.PublicKey))
	if i == 0 {
		return 0, fmt.Errorf("%w of fleet %s: the sheet is sound, but belongs to another", ErrNotOwner, k.Genesis.Name)
	}
	if check {
		return i, nil
	}
	if k.holds(ownerName(i)) != Elsewhere {
		return i, fmt.Errorf("owner key %d of fleet %s %w", i, k.Genesis.Name, ErrExists)
	}
	name, text, err := k.keyFile(ownerName(i), key, passphrase)
	if err == nil {
		err = k.Alone(func() error { return replaceFile(k.path(name), text) })
	}
	if err != nil {
		return i, fmt.Errorf("fleet %s: owner key %d: %w", k.Genesis.Name, i, err)
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
