package keyring

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// successionName is the file that shows that a fleet follows on another: nodes of that one want
// to see it.
const successionName = "succession.json"

// handedOn are the files that a successor's folder takes over: owners and CAs keep their keys,
// and this operator his.
func (k *Keyring) handedOn() []string {
	names := []string{operatorKeyName, nodeCAKey, operatorCAKey, operatorCAKey + lockedSuffix, revokedNodesName}
	for i := range k.Genesis.Owners {
		names = append(names, ownerName(i+1), ownerName(i+1)+lockedSuffix, sheetName(i+1))
	}
	return names
}

// Succeed makes the fleet of version 2 that this one, of version 1, becomes, in a folder of its
// own: its owners, CAs and first operator are the same, and the owner signs that it follows. The
// operator CA has to be open ([Keyring.Unlock]). Other operators are not in it yet: they make
// new requests. This folder stays as it is, for the nodes that are still of the old fleet. The
// new one appears whole or not at all; an existing one is [ErrExists].
func (k *Keyring) Succeed(dir string, policy fleet.Policy, owner OwnerKeys, now time.Time) (*Keyring, error) {
	next, err := k.succeed(dir, policy, owner, now)
	if err != nil {
		return nil, fmt.Errorf("successor of fleet %s: %w", k.Genesis.Name, err)
	}
	return next, nil
}

func (k *Keyring) succeed(dir string, policy fleet.Policy, owner OwnerKeys, now time.Time) (*Keyring, error) {
	if !k.Genesis.Alone() {
		return nil, errors.New("it is of version 2 already")
	}
	if taken(dir) {
		return nil, fmt.Errorf("%s %w", dir, ErrExists)
	}
	predecessor, err := document.ParseHash(k.Genesis.ID())
	if err != nil {
		return nil, err
	}
	next := &Keyring{nodeCA: k.nodeCA, operatorCA: k.operatorCA, work: k.work}
	next.Genesis, err = fleet.NewGenesis(fleet.Founding{
		Name: k.Genesis.Name, Owners: k.Genesis.Owners, Threshold: k.Genesis.Threshold, First: k.Genesis.FirstOperator,
		OperatorCA: k.Genesis.OperatorCA.Raw, NodeCA: k.Genesis.NodeCA.Raw, Policy: policy, Predecessor: predecessor,
	})
	if err != nil {
		return nil, err
	}
	s := fleet.Succession{Version: 1, Genesis: next.Genesis.Bytes(), Owners: owner.Sign(k.Genesis.SuccessionBytes(next.Genesis), k.Genesis.Threshold)}
	proof, err := s.Encode()
	if err == nil {
		_, err = k.Genesis.Successor(proof) // as nodes will see it
	}
	if err != nil {
		return nil, err
	}
	key, ok := k.me.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, ErrNoKey
	}
	cert, err := next.signKey(fleet.Peer{Kind: fleet.KindOperator, Name: k.peer.Name, Role: k.peer.Role, Fleet: next.Genesis.ID()}, &key.PublicKey, now)
	if err != nil {
		return nil, err
	}
	if err := next.setOperator(cert, key); err != nil {
		return nil, err
	}
	known, err := k.knownOperators(next)
	if err != nil {
		return nil, err
	}
	files := append(next.public(), file{operatorsName, known}, file{successionName, proof})
	for _, name := range k.handedOn() {
		data, err := os.ReadFile(k.path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, data})
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	if err := publish(userDisk{}, dir, files); err != nil {
		return nil, err
	}
	next.Dir = dir
	return next, nil
}

// knownOperators is the list of operators that a successor begins with: this one, and all who
// were revoked, so that the nodes go on turning them away.
func (k *Keyring) knownOperators(next *Keyring) ([]byte, error) {
	all, err := k.Operators()
	if err != nil {
		return nil, err
	}
	list := []IssuedOperator{issuedOperator(next.peer, next.me.Leaf)}
	for _, o := range all {
		if o.Revoked != nil {
			list = append(list, o)
		}
	}
	return document.Encode(operatorsFile{operatorsVersion, list})
}

// Succession is the proof that this fleet follows on another, for the nodes of that one. The
// error wraps [fs.ErrNotExist] where it follows on none.
func (k *Keyring) Succession() ([]byte, error) { return os.ReadFile(k.path(successionName)) }

// TakeOver signs the certificate of a node of the predecessor, for the name and the key that it
// has there.
func (k *Keyring) TakeOver(predecessor *fleet.Genesis, old *x509.Certificate, now time.Time) ([]byte, error) {
	peer, err := predecessor.VerifyPeer(old, nil, time.Time{}, false, nil)
	if err == nil && peer.Kind != fleet.KindNode {
		err = fleet.ErrKind
	}
	if err == nil {
		err = k.trustsNode(peer.Key)
	}
	if err != nil {
		return nil, fmt.Errorf("fleet %s: take node over: %w", k.Genesis.Name, err)
	}
	key, err := fleet.P256(old.PublicKey)
	if err != nil {
		return nil, err
	}
	peer.Fleet, peer.Key = k.Genesis.ID(), ""
	return k.signKey(peer, key, now)
}
