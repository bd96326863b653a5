// Package checkpoint is how far a ledger has come, in the words of C2SP: in go a height, a root and
// the keys of seats; out go signed notes, and which seats have signed one.
package checkpoint

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
)

// Checkpoint is how far a ledger has come: what two who compare ledgers show each other, and
// what a seat signs to say "I have seen all of it". As text it is a C2SP checkpoint, a signed
// note of origin "kogge/" and the fleet's id; the key of a seat is called by the origin, "/seat/"
// and its number.
//
// Source: c2sp.org/tlog-checkpoint and c2sp.org/signed-note.
type Checkpoint struct {
	Fleet  document.Hash
	Height int64         // of the last record
	Root   document.Hash // of the tree over all records
}

// ErrCheckpoint is of text that is no checkpoint of the fleet, or that nobody has signed who
// has a seat.
var ErrCheckpoint = errors.New("not a checkpoint of this fleet")

// maxCheckpoint is the bytes of a checkpoint, at most: a thousand signatures.
const maxCheckpoint = 256 << 10

func origin(fleet document.Hash) string { return "kogge/" + fleet.String() }

// Text is what its seats sign.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin(c.Fleet), c.Height, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// Sign is the checkpoint as a note that a seat signs.
func (c Checkpoint) Sign(seat int, key ed25519.PrivateKey) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.Text()}, seatKey{SeatName(c.Fleet, seat), key})
}

// SeatName is what a seat's key is called.
func SeatName(fleet document.Hash, seat int) string {
	return origin(fleet) + "/seat/" + strconv.Itoa(seat)
}

// seatKey is a seat's key as package note wants it.
type seatKey struct {
	name string
	key  ed25519.PrivateKey
}

func (k seatKey) Name() string { return k.name }

func (k seatKey) KeyHash() uint32 { return keyHash(k.name, k.key.Public().(ed25519.PublicKey)) }

func (k seatKey) Sign(message []byte) ([]byte, error) { return ed25519.Sign(k.key, message), nil }

// keyHash is the id of an Ed25519 key, whose number of an algorithm is 1.
//
// Source: c2sp.org/signed-note.
func keyHash(name string, public ed25519.PublicKey) uint32 {
	sum := sha256.Sum256(slices.Concat([]byte(name), []byte("\n\x01"), public))
	return binary.BigEndian.Uint32(sum[:])
}

// Open reads a checkpoint of a fleet and says which seats of the roster have signed
// it: at least one. The error wraps [ErrCheckpoint].
func Open(text []byte, fleet document.Hash, seats roster.Roster) (Checkpoint, []int, error) {
	c, signers, err := open(text, fleet, seats)
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	return c, signers, nil
}

func open(text []byte, fleet document.Hash, seats roster.Roster) (Checkpoint, []int, error) {
	if len(text) > maxCheckpoint {
		return Checkpoint{}, nil, fmt.Errorf("%d bytes: %d at most", len(text), maxCheckpoint)
	}
	signed, signers, err := openNote(text, fleet, seats)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	c := Checkpoint{Fleet: fleet}
	lines := strings.Split(signed, "\n")
	if len(lines) == 4 {
		c.Height, err = strconv.ParseInt(lines[1], 10, 64)
		if root, bad := tlog.ParseHash(lines[2]); bad == nil {
			c.Root = document.Hash(root)
		}
	}
	if err != nil || c.Height < 0 || c.Text() != signed {
		return Checkpoint{}, nil, errors.New("its lines are not origin, height and root")
	}
	return c, signers, nil
}

// noteSignatures is how many signatures package note reads of one note.
const noteSignatures = 100

// openNote is the text of a note, and which seats have signed it, each once and in order. A
// fleet may have more voters than package note reads signatures: it gets them by the hundred.
func openNote(text []byte, fleet document.Hash, seats roster.Roster) (string, []int, error) {
	at := bytes.LastIndex(text, []byte("\n\n"))
	if at < 0 {
		_, err := note.Open(text, nil) // which knows best what is wrong
		return "", nil, err
	}
	signed, lines := text[:at+2], bytes.SplitAfter(text[at+2:], []byte("\n"))
	if len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	var signers []int
	var unverified error
	for some := range slices.Chunk(lines, noteSignatures) {
		n, err := note.Open(slices.Concat(signed, bytes.Join(some, nil)), verifiers{fleet, seats})
		if errors.As(err, new(*note.UnverifiedNoteError)) {
			unverified = err
			continue
		}
		if err != nil {
			return "", nil, err
		}
		for _, s := range n.Sigs {
			if number, ok := seatNumber(fleet, s.Name); ok {
				signers = append(signers, number)
			}
		}
	}
	if len(signers) == 0 {
		return "", nil, cmp.Or(unverified, errors.New("nobody has signed it"))
	}
	slices.Sort(signers)
	return string(signed[:at+1]), slices.Compact(signers), nil
}

// seatNumber is the number of the seat that a key's name names.
func seatNumber(fleet document.Hash, name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, origin(fleet)+"/seat/")
	number, err := strconv.Atoi(digits)
	return number, ok && err == nil && strconv.Itoa(number) == digits
}

// verifiers finds the keys of a roster's seats for package note.
type verifiers struct {
	fleet document.Hash
	seats roster.Roster
}

func (v verifiers) Verifier(name string, hash uint32) (note.Verifier, error) {
	unknown := &note.UnknownVerifierError{Name: name, KeyHash: hash}
	number, ok := seatNumber(v.fleet, name)
	if !ok {
		return nil, unknown
	}
	seat, ok := v.seats.Seat(number)
	if !ok {
		return nil, unknown
	}
	public := ed25519.PublicKey(seat.Key[1:])
	if keyHash(name, public) != hash {
		return nil, unknown
	}
	return seatVerifier{name, hash, seat}, nil
}

type seatVerifier struct {
	name string
	hash uint32
	seat roster.Seat
}

func (v seatVerifier) Name() string    { return v.name }
func (v seatVerifier) KeyHash() uint32 { return v.hash }
func (v seatVerifier) Verify(message, signature []byte) bool {
	return v.seat.Key.Verify(message, signature)
}
