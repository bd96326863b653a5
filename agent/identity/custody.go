package identity

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"kogge.example/update/durable"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/wrapped"
)

// Custody is the key of the fleet's node CA, if this node's seat is one of those that hold it,
// and the key to which it is encrypted. On STATE it lies wrapped. Its methods may be called from
// any goroutine.
type Custody struct {
	files   files
	id      document.Hash // of the fleet
	seat    signed.Key
	own     *ecdh.PrivateKey
	problem error // at the start

	mu   sync.Mutex // guards what follows
	held document.Hash
	key  *ecdsa.PrivateKey
}

const (
	wrapName       = "wrap.json"
	heldName       = "ca.json"
	custodyVersion = 1
)

// wrapFile is the private key that opens what is encrypted for this seat.
type wrapFile struct {
	Version int    `json:"version"`
	Key     []byte `json:"key"` // X25519, 32 bytes
}

// heldFile is the key of the CA, wrapped.
type heldFile struct {
	Version int           `json:"version"`
	CA      document.Hash `json:"ca"`
	Sealed  []byte        `json:"sealed"`
}

// OpenCustody reads what the node holds for a fleet from the folder of its identity, and makes
// the key for secrets if there is none, or if it is damaged: what it opens can be given again to
// another one, and the damaged file is kept beside it. After a power cut there is none or a whole
// one, and the one that OpenCustody returned with is there for good. One that the disk does not
// give is an error: it may give it later. A CA's key that cannot be opened is none: the node is
// given it again.
func OpenCustody(dir string, id document.Hash, seat signed.Key) (*Custody, error) {
	c, err := openCustody(folder(dir), id, seat)
	if err != nil {
		return nil, fmt.Errorf("key for secrets of this node: %s: %s: %w", dir, wrapName, err)
	}
	return c, nil
}

func openCustody(files keeping, id document.Hash, seat signed.Key) (*Custody, error) {
	c := &Custody{files: files, id: id, seat: seat}
	raw, err := files.Read(wrapName)
	damaged := errors.Is(err, durable.ErrTooLarge)
	if err == nil {
		c.own, err = parseWrap(raw)
		damaged = err != nil && !errors.Is(err, document.ErrNewer) // after going back to this release
	}
	switch {
	case damaged:
		c.problem = fmt.Errorf("key for secrets of this node: %s: %w: it has made another one, and is given the node CA's key again", wrapName, err)
		if err = (damage{wrapName: {why: err}}).aside(files, wrapName); err == nil {
			err = c.make()
		}
	case errors.Is(err, fs.ErrNotExist):
		err = c.make()
	}
	if err != nil {
		return nil, err
	}
	raw, err = files.Read(heldName)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	var f heldFile
	if err == nil {
		f, err = document.DecodeExact[heldFile](raw, custodyVersion)
	}
	if err == nil && !f.CA.IsZero() { // it was not forgotten
		if c.key, err = wrapped.Open(f.Sealed, c.own, c.whom(f.CA)); err == nil {
			c.held = f.CA
		}
	}
	if err != nil {
		c.problem = errors.Join(c.problem, fmt.Errorf("the node CA's key: %s: %w: this node is given it again", heldName, err))
	}
	return c, nil
}

// Problem says what was damaged when the node started, and heals by itself; nil: nothing.
func (c *Custody) Problem() error { return c.problem }

func parseWrap(raw []byte) (*ecdh.PrivateKey, error) {
	f, err := document.DecodeExact[wrapFile](raw, custodyVersion)
	if err != nil {
		return nil, err
	}
	return wrapped.ParseKey(f.Key)
}

func (c *Custody) make() (err error) {
	if c.own, err = wrapped.NewKey(); err != nil {
		return err
	}
	raw, err := document.Encode(wrapFile{custodyVersion, c.own.Bytes()})
	if err != nil {
		return err
	}
	return c.files.Replace(wrapName, raw)
}

func (c *Custody) whom(ca document.Hash) wrapped.For {
	return wrapped.For{Fleet: c.id, Seat: c.seat, CA: ca}
}

// Says is what the seat says of it to its fleet.
func (c *Custody) Says(seat int) notice.WrapKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return notice.WrapKey{Version: 1, Seat: seat, Key: c.own.PublicKey().Bytes(), Holds: c.held}
}

// Take keeps the key of a CA that somebody has wrapped for this seat, durably once it returns
// nil. Who that was does not matter: only whoever has the key can wrap it. The error wraps
// [wrapped.ErrWrapped] if it is not that. After a cut the node has what it had, or this.
func (c *Custody) Take(sealed []byte, ca *x509.Certificate) error {
	is := wrapped.CAOf(ca)
	key, err := wrapped.Open(sealed, c.own, c.whom(is))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == is {
		return nil
	}
	raw, err := document.Encode(heldFile{custodyVersion, is, sealed})
	if err == nil {
		err = c.files.Replace(heldName, raw)
	}
	if err != nil {
		return fmt.Errorf("keep the node CA's key: %w", err)
	}
	c.held, c.key = is, key
	return nil
}

// CA is the key of a CA; nil: this node does not hold it. No custody holds none.
func (c *Custody) CA(ca *x509.Certificate) *ecdsa.PrivateKey {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key == nil || c.held != wrapped.CAOf(ca) {
		return nil
	}
	return c.key
}

// Forget has the node hold no CA's key any more, durably once it returns nil: its seat is none of
// those that do.
func (c *Custody) Forget() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key == nil {
		return nil
	}
	raw, err := document.Encode(heldFile{Version: custodyVersion}) // which opens as nothing
	if err == nil {
		err = c.files.Replace(heldName, raw)
	}
	if err != nil {
		return fmt.Errorf("forget the node CA's key: %w", err)
	}
	c.held, c.key = document.Hash{}, nil
	return nil
}

// Wrap encrypts the key of a CA for another seat, by the key that this seat has certified. The
// error says that this node does not hold it, or that the other key is none.
func (c *Custody) Wrap(ca *x509.Certificate, to notice.WrapKey, seat signed.Key) ([]byte, error) {
	key := c.CA(ca)
	if key == nil {
		return nil, errors.New("this node does not hold the node CA's key")
	}
	return wrapped.Wrap(key, to.Key, wrapped.For{Fleet: c.id, Seat: seat, CA: wrapped.CAOf(ca)})
}

// Format prints whether a key is held, under every verb: fmt would print private keys' bytes.
func (c *Custody) Format(w fmt.State, _ rune) {
	fmt.Fprint(w, "custody of seat key ", c.seat.ID().Short())
}
