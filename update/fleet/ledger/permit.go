package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Permit is the owner's leave for one node of a founded fleet to write one release into a slot
// and to arm it, once: until the fleet decides about releases itself, this is how its nodes
// are updated. It is used up by the arming whose number it names.
type Permit struct {
	Version int                `json:"version"` // of this document: 1
	Node    signed.Key         `json:"node"`    // the key of its seat, or the one that it has for a seat to come
	Release string             `json:"release"` // its digest, "sha256:…", or [RootName] of what an image brought
	Arming  int64              `json:"arming"`  // the number that the arming gets, as the node counts them
	Height  int64              `json:"height"`  // of the ledger, when it was given
	Owners  []signed.Signature `json:"owners"`  // by number of the owner's key
}

// ErrPermit is of a permit that is not for this node, this release and now.
var ErrPermit = errors.New("the owner has not permitted it")

// maxPermit is the bytes of a permit, at most.
const maxPermit = 8 << 10

// Encode writes the permit.
func (p Permit) Encode() []byte { return encode(p) }

// Bytes are what an owner signs.
func (p Permit) Bytes(fleet document.Hash) []byte {
	number := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	return document.Message("kogge/permit/v1", fleet[:], []byte(p.Node), []byte(p.Release), number(p.Arming), number(p.Height))
}

// ParsePermit reads a permit, and verifies nothing. The error wraps [ErrPermit].
func ParsePermit(raw []byte) (Permit, error) {
	if len(raw) > maxPermit {
		return Permit{}, fmt.Errorf("%w: %d bytes: %d at most", ErrPermit, len(raw), maxPermit)
	}
	p, err := document.DecodeExact[Permit](raw, version)
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return Permit{}, fmt.Errorf("%w: %w", ErrPermit, err)
	}
	return p, nil
}

// RootName is what a permit calls a release whose digest nobody knows, because an image
// brought it: by its root hash, in hexadecimal.
func RootName(root string) string { return "root:" + root }

// check says what is wrong with a permit by itself: one for no release, or for no arming,
// would be one for any of them that is as empty.
func (p Permit) check() error {
	kind, name, _ := strings.Cut(p.Release, ":")
	if _, err := document.ParseHash(name); err != nil || kind != "sha256" && kind != "root" {
		return fmt.Errorf("field release: %.80q is neither sha256: nor root: with a hash", p.Release)
	}
	if p.Arming < 1 {
		return fmt.Errorf("field arming: %d: armings are numbered from 1", p.Arming)
	}
	if p.Node == "" {
		return errors.New("field node: there is none")
	}
	return signed.CheckSignatures("owners", p.Owners)
}

// OwnerFor is the owner who permits what a node does: the one of its seat, or, if the node has
// none, the one who has founded the fleet.
func (s State) OwnerFor(node signed.Key) (roster.Owner, error) {
	name := s.Genesis.Name
	if seat, ok := s.Roster.ByKey(node); ok {
		name = seat.Owner
	}
	owner, ok := s.Roster.Owner(name)
	if !ok {
		return owner, fmt.Errorf("%w: the fleet's roster has no owner %s", ErrPermit, name)
	}
	return owner, nil
}

// Permits wants a permit to be for a node, by its key, from as many keys as act as its owner,
// at the height at which the ledger is. Which release and arming it is for is the caller's to
// compare. The error wraps [ErrPermit].
func (s State) Permits(p Permit, node signed.Key) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrPermit, err)
	}
	if p.Node != node {
		return fmt.Errorf("%w: it is for the node of key %s, and this one has key %s", ErrPermit, p.Node.ID().Short(), node.ID().Short())
	}
	if p.Height != s.Height {
		return fmt.Errorf("%w: it is of height %d, and the fleet's ledger is at %d", ErrPermit, p.Height, s.Height)
	}
	owner, err := s.OwnerFor(node)
	if err != nil {
		return err
	}
	if err := byOwner(p.Owners, owner, p.Bytes(s.Fleet())); err != nil {
		return fmt.Errorf("%w: %w", ErrPermit, err)
	}
	return nil
}
