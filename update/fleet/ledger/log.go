package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// emptyTree is the root of a tree without leaves.
var emptyTree = document.Hash(sha256.Sum256(nil))

// Entry is one height of a ledger as it lies somewhere: three documents, in bytes.
type Entry struct {
	Record, Value, Certificate []byte
}

// Log is a ledger that was verified from its genesis on. It keeps the hashes of the tree (64
// bytes a record), not the entries. Its methods may be called from one goroutine.
type Log struct {
	state  State
	hashes tree
	used   []document.Hash // see [State]
}

// tree holds the hashes of a tree as tlog stores them.
type tree []tlog.Hash

// ReadHashes gives hashes by their storage index.
func (t tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		if i < 0 || i >= int64(len(t)) {
			return nil, fmt.Errorf("hash %d of %d", i, len(t))
		}
		out = append(out, t[i])
	}
	return out, nil
}

// New is the ledger of a fleet before its first record.
func New(g *fleet.Genesis) *Log { return &Log{state: begin(g)} }

// State is what the ledger has decided so far.
func (l *Log) State() State { return l.state }

// Clone is a ledger that grows by itself.
func (l *Log) Clone() *Log { return &Log{l.state, slices.Clip(l.hashes), slices.Clip(l.used)} }

// Append verifies the entry that follows and takes it. On an error, which names record and
// field, the ledger is as it was. The error wraps [ErrRecord], [ErrValue] or [ErrCertificate];
// [ErrBreakGlass] where owners have signed in the place of votes.
func (l *Log) Append(e Entry) error { return l.take(e, check{signatures: true}) }

// AppendBroken is [Log.Append] for who takes the owners' word in the place of votes: because he has
// waited for as long as the policy says, or because he only reads what others have taken.
func (l *Log) AppendBroken(e Entry) error { return l.take(e, check{signatures: true, broken: true}) }

// Recall takes an entry that was verified before: all of it is checked but the signatures. The
// error wraps [ErrRecord] or [ErrValue].
func (l *Log) Recall(e Entry) error { return l.take(e, check{broken: true}) }

// ErrBreakGlass is of a record that owners have signed in the place of votes. A node takes it when no
// quorum has answered it for as long as the policy says, and nobody objects.
var ErrBreakGlass = errors.New("owners have signed it in the place of votes (break-glass)")

// check is what is looked at before an entry is taken.
type check struct {
	signatures bool // they are verified
	broken     bool // owners may have signed in the place of votes
}

func (l *Log) take(e Entry, c check) error {
	after, id, err := l.verify(e, c)
	if err == nil {
		err = l.grow(&after, e.Record)
	}
	if err != nil {
		return fmt.Errorf("record %d: %w", l.state.Height+1, err)
	}
	l.used = append(l.used, id)
	after.used = l.used[:len(l.used):len(l.used)]
	l.state = after
	return nil
}

// verify is the state after an entry, but for the tree, and the id of the proposal that it decides.
// Nothing that is not proved is read further than to see that it is not.
func (l *Log) verify(e Entry, check check) (after State, id document.Hash, err error) {
	before := l.state
	r, err := ParseRecord(e.Record)
	if err != nil {
		return State{}, id, err
	}
	next := before.next()
	if before.Height == 0 {
		next.Roster = r.Roster // the one that is founded
	}
	if err := r.follows(next); err != nil {
		return State{}, id, err
	}
	if got := document.HashOf(e.Value); got != r.Value {
		return State{}, id, fmt.Errorf("%w: field value: the record names %s, and the value is %s", ErrValue, r.Value, got)
	}
	c, err := ParseCertificate(e.Certificate)
	if err != nil {
		return State{}, id, err
	}
	if check.signatures {
		if err := before.proved(r, c); err != nil {
			return State{}, id, before.why(r, e.Value, err)
		}
	}
	v, err := ParseValue(e.Value)
	if err != nil {
		return State{}, id, err
	}
	broken := before.Height > 0 && len(c.Owners) > 0
	switch {
	case broken && v.BreakGlass == nil:
		return State{}, id, fmt.Errorf("%w: field owners: above the founding owners sign to break the glass, and this decision is of kind %s", ErrCertificate, v.Kind())
	case !broken && v.BreakGlass != nil:
		return State{}, id, fmt.Errorf("%w: field seats: votes do not break the glass, its owner does", ErrCertificate)
	}
	if after, id, err = before.decide(v, c.Evidence, check.signatures); err != nil {
		return State{}, id, fmt.Errorf("%w: %w", ErrValue, err)
	}
	if before.Height == 0 && after.rosterHash != r.Roster {
		return State{}, id, notFounded(r, after.rosterHash)
	}
	if broken && !check.broken { // all else is good: it is worth waiting for
		return State{}, id, ErrBreakGlass
	}
	after.Height, after.Record = r.Height, r.Hash()
	if after.Claim != nil && after.Claim.Height == r.Height {
		after.Claim.Record = after.Record // a new one, of this decision
	}
	return after, id, nil
}

func notFounded(r Record, roster document.Hash) error {
	return fmt.Errorf("%w: field roster: it is %v, and %v is founded", ErrRecord, r.Roster, roster)
}

// why is the error of a record that is not proved. The roster of record 1 is nobody's to compare
// before: signatures that do not fit may be its fault, and then the value tells.
func (s State) why(r Record, value []byte, err error) error {
	if s.Height > 0 {
		return err
	}
	if v, bad := ParseValue(value); bad == nil && v.Founding != nil && v.Founding.Roster.Hash() != r.Roster {
		return notFounded(r, v.Founding.Roster.Hash())
	}
	return err
}

// proved wants a certificate of the record that follows on this state.
func (s State) proved(r Record, c Certificate) error {
	if s.Height > 0 && len(c.Owners) == 0 {
		return c.byVotes(r, s.Roster, s.Tree)
	}
	owner, err := s.Owner()
	if err != nil {
		return err
	}
	if s.Height > 0 {
		return c.byOwners(owner, BreakGlassBytes(r))
	}
	return c.byOwners(owner, FoundingBytes(r))
}

// grow adds a record to the tree and notes its root.
func (l *Log) grow(after *State, record []byte) error {
	more, err := tlog.StoredHashes(l.state.Height, record, l.hashes)
	if err != nil {
		return err
	}
	hashes := append(l.hashes, more...)
	root, err := tlog.TreeHash(after.Height, hashes)
	if err != nil {
		return err
	}
	l.hashes, after.Tree = hashes, document.Hash(root)
	return nil
}

// ErrHeight is of a height that the ledger does not have.
var ErrHeight = errors.New("the ledger has no such height")

// Record is the hash of the record of a height; at height 0 there is none, and it is zero. The
// error wraps [ErrHeight].
func (l *Log) Record(height int64) (document.Hash, error) {
	if height < 0 || height > l.state.Height {
		return document.Hash{}, fmt.Errorf("%w: %d of %d", ErrHeight, height, l.state.Height)
	}
	if height == 0 {
		return document.Hash{}, nil
	}
	return document.Hash(l.hashes[tlog.StoredHashIndex(0, height-1)]), nil
}

// Root is the root of the tree over the records up to a height. The error wraps [ErrHeight].
func (l *Log) Root(height int64) (document.Hash, error) {
	if height < 0 || height > l.state.Height {
		return document.Hash{}, fmt.Errorf("%w: %d of %d", ErrHeight, height, l.state.Height)
	}
	root, err := tlog.TreeHash(height, l.hashes)
	return document.Hash(root), err
}

// ProveRecord proves to whoever knows the root at height size that a record is in the tree;
// tlog.CheckRecord checks it, with record-1 as its number.
func (l *Log) ProveRecord(size, record int64) (tlog.RecordProof, error) {
	if size > l.state.Height || record < 1 || record > size {
		return nil, fmt.Errorf("%w: record %d of %d", ErrHeight, record, size)
	}
	return tlog.ProveRecord(size, record-1, l.hashes)
}

// ProveTree proves that the tree at a height grew into the one at a larger height;
// tlog.CheckTree checks it.
func (l *Log) ProveTree(larger, smaller int64) (tlog.TreeProof, error) {
	if larger > l.state.Height || smaller < 1 || smaller > larger {
		return nil, fmt.Errorf("%w: %d of %d", ErrHeight, smaller, larger)
	}
	return tlog.ProveTree(larger, smaller, l.hashes)
}
