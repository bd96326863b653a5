package keyring

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// file is a name and what it holds.
type file struct {
	name string
	data []byte
}

// Save writes a fleet that [Create] made to a new folder, dir. With a passphrase the
// owner key and the operator CA's key are encrypted under it; "" leaves them open. The
// folder is for the user alone (0700, files 0600). It appears whole or not at all,
// whenever the power fails, and an existing one is [ErrExists] and stays as it is.
// After Save, f no longer has the owner keys.
func (k *Keyring) Save(dir, passphrase string) error {
	if k.owners == nil {
		return fmt.Errorf("save fleet %s: it is saved already", k.Genesis.Name)
	}
	if taken(dir) { // before the seconds that a passphrase costs; publish makes sure
		return fmt.Errorf("save fleet %s: %s %w", k.Genesis.Name, dir, ErrExists)
	}
	files, err := k.contents(passphrase)
	if err != nil {
		return fmt.Errorf("save fleet %s: %w", k.Genesis.Name, err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("save fleet %s: %w", k.Genesis.Name, err)
	}
	if err := publish(userDisk{}, dir, files); err != nil {
		return fmt.Errorf("save fleet %s: %w", k.Genesis.Name, err)
	}
	k.Dir, k.owners = dir, nil
	return nil
}

// taken says whether anything but an empty folder is at dir.
func taken(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// contents are the files of a new fleet's folder.
func (k *Keyring) contents(passphrase string) ([]file, error) {
	first, err := document.Encode(operatorsFile{operatorsVersion, []IssuedOperator{issuedOperator(k.peer, k.me.Leaf)}})
	if err != nil {
		return nil, err
	}
	files := append(k.public(), file{operatorsName, first})
	for _, f := range []struct {
		name       string
		key        any
		passphrase string
	}{
		{operatorKeyName, k.me.PrivateKey, ""},
		{nodeCAKey, k.nodeCA, ""},
		{operatorCAKey, k.operatorCA, passphrase},
		{ownerName(1), k.owners[1], passphrase},
	} {
		name, text, err := k.keyFile(f.name, f.key, f.passphrase)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, text})
	}
	for i := 2; i <= owners; i++ {
		files = append(files, file{sheetName(i), sheetText(k.Genesis, k.owners[i], k.made)})
	}
	return files, nil
}

// public are the files that hold no secret.
func (k *Keyring) public() []file {
	return []file{
		{genesisName, k.Genesis.Bytes()},
		{operatorCertName, document.EncodePEM(document.CertificateBlock, k.me.Certificate[0])},
		{operatorCACert, document.EncodePEM(document.CertificateBlock, k.Genesis.OperatorCA.Raw)},
		{nodeCACert, document.EncodePEM(document.CertificateBlock, k.Genesis.NodeCA.Raw)},
	}
}

// keyFile is the name and text of the file that keeps a private key.
func (k *Keyring) keyFile(name string, key any, passphrase string) (string, []byte, error) {
	text, err := document.EncodeKey(key)
	if err == nil && passphrase != "" {
		name += lockedSuffix
		text, err = lock(text, passphrase, k.work)
	}
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", name, err)
	}
	return name, text, nil
}

// disk is a file system on which a folder appears. userDisk is the real one; the tests
// have one that loses power.
type disk interface {
	MkdirTemp(dir, pattern string) (string, error)
	Create(name string, data []byte) error // a new file, not synced
	Sync(name string) error                // a file, or a folder
	Rename(from, to string) error          // of a folder, to one that is not there or empty
	RemoveAll(name string) error
}

// publish makes the folder dir with files in it. After a cut at any point dir is not
// there, or is whole:
//
//  1. make a folder of another name beside it, hidden
//  2. write each file and sync it
//  3. sync the folder, so that it has all its names
//  4. rename it
//  5. sync the folder around it, so that it stays
func publish(d disk, dir string, files []file) error {
	around := filepath.Dir(dir)
	temp, err := d.MkdirTemp(around, "."+filepath.Base(dir)+".new-")
	if err != nil {
		return err
	}
	if err := fill(d, temp, dir, files); err != nil {
		return errors.Join(err, d.RemoveAll(temp)) // secrets of a fleet that never was
	}
	return d.Sync(around)
}

// fill does steps 2 to 4 of publish.
func fill(d disk, temp, dir string, files []file) error {
	for _, f := range files {
		name := filepath.Join(temp, f.name)
		if err := d.Create(name, f.data); err != nil {
			return err
		}
		if err := d.Sync(name); err != nil {
			return err
		}
	}
	if err := d.Sync(temp); err != nil {
		return err
	}
	err := d.Rename(temp, dir)
	if err != nil && taken(dir) {
		return fmt.Errorf("%s %w", dir, ErrExists)
	}
	return err
}

// userDisk is the file system of the machine. What it makes is for its user alone.
type userDisk struct{}

func (userDisk) MkdirTemp(dir, pattern string) (string, error) { return os.MkdirTemp(dir, pattern) }
func (userDisk) RemoveAll(name string) error                   { return os.RemoveAll(name) }

// Rename is the system call: os.Rename refuses an empty folder.
func (userDisk) Rename(from, to string) error {
	if err := unix.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (userDisk) Create(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func (userDisk) Sync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// replaceFile replaces one file of a folder: after a power cut it is the old or the
// new one.
func replaceFile(name string, data []byte) error { return durable.Replace(name, data, 0o600) }

// Alone runs change while no other program changes the folder. Such a program takes a
// few milliseconds, and so does the wait.
func (k *Keyring) Alone(change func() error) error {
	guard, err := os.OpenFile(k.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer guard.Close() // which lets go of the lock
	for {
		err := unix.Flock(int(guard.Fd()), unix.LOCK_EX)
		if err == nil {
			return change()
		}
		if err != unix.EINTR {
			return fmt.Errorf("lock %s: %w", k.Dir, err)
		}
	}
}

// saveInvited writes the folder of an operator who was invited: the genesis, the key
// that he made and the certificate in DER that the fleet signed for it. As with
// [Keyring.Save] the folder appears whole or not at all, and never over another.
func saveInvited(dir string, g *fleet.Genesis, key *ecdsa.PrivateKey, certificate []byte) (*Keyring, error) {
	k := &Keyring{Genesis: g, work: scryptWork}
	if err := k.saveOperator(dir, key, certificate); err != nil {
		return nil, fmt.Errorf("save fleet %s: %w", g.Name, err)
	}
	return k, nil
}

func (k *Keyring) saveOperator(dir string, key *ecdsa.PrivateKey, certificate []byte) error {
	if err := k.setOperator(certificate, key); err != nil {
		return err
	}
	text, err := document.EncodeKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	k.Dir = dir
	return publish(userDisk{}, dir, append(k.public(), file{operatorKeyName, text}))
}
