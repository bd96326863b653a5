package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Seat is the key with which a node takes part in its fleet: it signs what the node says
// there, and its votes. It is made together with the id of the journal in which the votes are
// noted, and never without it: a key whose journal is gone may have signed what nobody
// remembers.
type Seat struct {
	Key     signed.Key
	Journal roster.ID

	private ed25519.PrivateKey
}

const (
	seatName    = "seat.json"
	seatVersion = 1
)

type seatFile struct {
	Version int       `json:"version"`
	Key     []byte    `json:"key"` // the private key's seed, 32 bytes
	Journal roster.ID `json:"journal"`
	// Sum is of the two, because disks decay: another key would be a stranger's.
	Sum document.Hash `json:"sum"`
}

func (f seatFile) sum() document.Hash {
	return document.HashOf(document.Message("kogge/seat-file/v1", f.Key, f.Journal[:]))
}

// OpenSeat reads the key of this node's seat from the folder of its identity, and makes one if
// there is none. After a power cut there is none or a whole one, and the one that OpenSeat
// returned with is there for good. A file that cannot be read is an error and is never
// replaced.
func OpenSeat(dir string) (*Seat, error) {
	s, err := openSeat(folder(dir))
	if err != nil {
		return nil, fmt.Errorf("seat of this node: %s: %s: %w", dir, seatName, err)
	}
	return s, nil
}

func openSeat(files files) (*Seat, error) {
	raw, err := files.Read(seatName)
	if errors.Is(err, fs.ErrNotExist) {
		return makeSeat(files)
	}
	if err != nil {
		return nil, err
	}
	f, err := document.DecodeExact[seatFile](raw, seatVersion)
	if err != nil {
		return nil, err
	}
	return seatOf(f)
}

func makeSeat(files files) (*Seat, error) {
	f := seatFile{Version: seatVersion, Key: make([]byte, ed25519.SeedSize), Journal: roster.NewID()}
	rand.Read(f.Key) // never fails: it ends the program instead
	f.Sum = f.sum()
	s, err := seatOf(f)
	if err != nil {
		return nil, err
	}
	raw, err := document.Encode(f)
	if err != nil {
		return nil, err
	}
	return s, files.Replace(seatName, raw)
}

func seatOf(f seatFile) (*Seat, error) {
	if len(f.Key) != ed25519.SeedSize || f.Journal == (roster.ID{}) {
		return nil, errors.New("it has no whole key, or no journal")
	}
	if f.Sum != f.sum() {
		return nil, errors.New("its bytes are not those that were written")
	}
	s := &Seat{Journal: f.Journal, private: ed25519.NewKeyFromSeed(f.Key)}
	var err error
	s.Key, err = signed.KeyOf(s.private.Public().(ed25519.PublicKey))
	return s, err
}

// Seal signs an object for the fleet, as [signed.Seal].
func (s *Seat) Seal(kind string, fleet document.Hash, sequence uint64, body []byte) (signed.Envelope, error) {
	return signed.Seal(kind, fleet, s.private, sequence, body)
}

// Cast signs a ballot.
func (s *Seat) Cast(b ballot.Ballot) *ballot.Ballot { return b.Sign(s.private) }

// Answer signs what the seat answers about another one's ballots.
func (s *Seat) Answer(a ballot.Answer) ballot.Answer { return a.Sign(s.private) }

// Opine signs an opinion, under a number that rises.
func (s *Seat) Opine(fleet document.Hash, number uint64, o proposal.Opinion) (signed.Envelope, error) {
	return proposal.SealOpinion(fleet, s.private, number, o)
}

// String says which key it is, and nothing secret.
func (s *Seat) String() string { return "seat key " + s.Key.ID().Short() }

// Format prints that, under every verb: fmt would print the private key's bytes.
func (s *Seat) Format(w fmt.State, _ rune) { fmt.Fprint(w, s.String()) }

// HasSeat says whether the folder of a node's identity has the key of a seat. None is made.
func HasSeat(dir string) bool {
	_, err := folder(dir).Read(seatName)
	return !errors.Is(err, fs.ErrNotExist)
}
