package token

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// UseKind is the kind of the envelope of a use. The node signs it, with the key that it has for
// its seat.
const UseKind = "kogge/token-use/v1"

// Use is a node's proof that it has a token. It is for the keys of that node, so whoever has it
// besides can do nothing with it.
type Use struct {
	Node   signed.Key    // that the node has for its seat
	TLSKey document.Hash // fingerprint of the key of its certificate, as fleet.Peer has it
	Name   string        // that it wants
	Token  Paper         // the token's record

	Record   Record // what Token says
	envelope signed.Envelope
}

// useBody is the body of the envelope.
type useBody struct {
	Version int           `json:"version"` // of this document: 1
	Token   []byte        `json:"token"`   // a paper of kind kogge/token/v1
	TLSKey  document.Hash `json:"tlsKey"`
	Name    string        `json:"name"`
	Proof   []byte        `json:"proof"` // Ed25519 by the token's key over proofBytes
}

// Why a token does not let a node in.
var (
	ErrUse     = errors.New("not the use of a token of this fleet")
	ErrUsed    = errors.New("the token is used up")
	ErrExpired = errors.New("the token has expired")
	ErrOther   = errors.New("the token is for another node")
	ErrRevoked = errors.New("the token was revoked")
	ErrName    = errors.New("another node of the fleet has that name")
)

// proofBytes are what the token's key signs: which node it lets in.
func (u Use) proofBytes(id document.Hash) []byte {
	return document.Message("kogge/token-proof/v1", id[:], []byte(u.Record.Key), []byte(u.Node), u.TLSKey[:], []byte(u.Name))
}

// Seal signs as a node's key for its seat does; agent/identity's Seat fits.
type Seal func(kind string, fleet document.Hash, sequence uint64, body []byte) (signed.Envelope, error)

// NewUse proves a token for a node: by the token's key, and the node's own.
func NewUse(t fleet.Token, record Paper, node signed.Key, tlsKey document.Hash, name string, seal Seal) (Use, error) {
	u := Use{Node: node, TLSKey: tlsKey, Name: name, Token: record}
	var err error
	if u.Record, err = OpenRecord(record); err != nil {
		return Use{}, err
	}
	private, err := Private(t)
	if err != nil {
		return Use{}, err
	}
	if key, err := KeyOf(t); err != nil || key != u.Record.Key {
		return Use{}, fmt.Errorf("%w: the record is that of another token", ErrUse)
	}
	body := useBody{version, record.Bytes(), tlsKey, name, ed25519.Sign(private, u.proofBytes(record.Fleet))}
	u.envelope, err = seal(UseKind, record.Fleet, 0, encode(body))
	if err != nil {
		return Use{}, err
	}
	return OpenUse(u.envelope.Bytes())
}

// OpenUse reads a use, and checks the signatures of the node and of the token: whoever has made
// it has both. Whether an operator has given that token out is [Use.Verify]'s to say. The error
// wraps [ErrUse].
func OpenUse(raw []byte) (Use, error) {
	u, err := openUse(raw)
	if err != nil {
		return Use{}, fmt.Errorf("%w: %w", ErrUse, err)
	}
	return u, nil
}

func openUse(raw []byte) (Use, error) {
	if len(raw) > MaxPaper {
		return Use{}, fmt.Errorf("%d bytes: %d at most", len(raw), MaxPaper)
	}
	e, err := signed.Parse(raw)
	if err != nil {
		return Use{}, err
	}
	if e.Kind != UseKind || e.Sequence != 0 {
		return Use{}, fmt.Errorf("its kind is %.70q, its number %d", e.Kind, e.Sequence)
	}
	b, err := document.DecodeExact[useBody](e.Body, version)
	if err != nil {
		return Use{}, err
	}
	u := Use{Node: e.By, TLSKey: b.TLSKey, Name: b.Name, envelope: e}
	if err := fleet.CheckName(b.Name); err != nil {
		return Use{}, fmt.Errorf("field name: %w", err)
	}
	if b.TLSKey.IsZero() {
		return Use{}, errors.New("field tlsKey: there is none")
	}
	if u.Token, err = ParsePaper(b.Token); err != nil {
		return Use{}, fmt.Errorf("field token: %w", err)
	}
	if u.Record, err = OpenRecord(u.Token); err != nil {
		return Use{}, fmt.Errorf("field token: %w", err)
	}
	if u.Token.Fleet != e.Fleet {
		return Use{}, fmt.Errorf("field token: it is of fleet %s", u.Token.Fleet.Short())
	}
	if !u.Record.Key.Verify(u.proofBytes(e.Fleet), b.Proof) {
		return Use{}, errors.New("field proof: the signature is not the token's")
	}
	return u, e.Verify()
}

// Verify says which operator has given out the token of a use: one whom the ledger lists as an
// admin. The error wraps [ErrPaper].
func (u Use) Verify(s ledger.State) (ledger.Operator, error) { return u.Token.Verify(s) }

// Bytes are the use as it travels. Do not change them.
func (u Use) Bytes() []byte { return u.envelope.Bytes() }

// ID stands for what the use says, as [Paper.ID]. Of the proof it is not told: one node that
// proves one token has used it once.
func (u Use) ID() document.Hash {
	return document.HashOf(document.Message("kogge/token-use-id/v1", u.proofBytes(u.envelope.Fleet)))
}

// Admits says whether a token lets a node in now, by what is known of it: nil, or why not. A
// node that came in by it may come again: its certificate may have been lost on the way. The
// error wraps [ErrPaper], [ErrRevoked], [ErrOther], [ErrUsed], [ErrExpired] or [ErrName].
func (s *Set) Admits(u Use, state ledger.State, now time.Time) error {
	if _, err := u.Verify(state); err != nil {
		return err
	}
	id := u.Record.Key.ID().Short()
	if _, over := s.ends[u.Record.Key]; over {
		return fmt.Errorf("token %s: %w", id, ErrRevoked)
	}
	if u.Record.Node != "" && u.Record.Node != u.Name {
		return fmt.Errorf("token %s: %w: it is for %s, and %s came", id, ErrOther, u.Record.Node, u.Name)
	}
	again := false
	for _, used := range s.uses[u.Record.Key] {
		again = again || used.Node == u.Node && used.Name == u.Name
	}
	if before := s.uses[u.Record.Key]; !again && len(before) >= u.Record.Count {
		return fmt.Errorf("token %s: %w: node %s has used it", id, ErrUsed, before[len(before)-1].Name)
	}
	if !again && now.After(u.Record.Expires) {
		return fmt.Errorf("token %s: %w on %s", id, ErrExpired, u.Record.Expires.Format(time.DateOnly))
	}
	return s.nameFree(u, state)
}

// Opens says whether a token lets in anybody more, or the one that holds a TLS key and has come by it
// before. It is what can be said before a use is shown. The error wraps [ErrRevoked], [ErrUsed] or
// [ErrExpired].
func (s *Set) Opens(r Record, tlsKey document.Hash, now time.Time) error {
	id := r.Key.ID().Short()
	if s.Ended(r.Key) {
		return fmt.Errorf("token %s: %w", id, ErrRevoked)
	}
	uses := s.uses[r.Key]
	for _, u := range uses {
		if u.TLSKey == tlsKey {
			return nil
		}
	}
	if len(uses) >= r.Count {
		return fmt.Errorf("token %s: %w: node %s has used it", id, ErrUsed, uses[len(uses)-1].Name)
	}
	if now.After(r.Expires) {
		return fmt.Errorf("token %s: %w on %s", id, ErrExpired, r.Expires.Format(time.DateOnly))
	}
	return nil
}

// nameFree wants that nobody else has a name: no seat, no node that was accepted, and none that
// came by a token and waits. A token for that very name is an operator's word: it lets a node in
// besides the one that was accepted, which keeps the name until he accepts the other in its place,
// and besides one that came under the name by a token for any.
func (s *Set) nameFree(u Use, state ledger.State) error {
	if seat, ok := state.Roster.ByName(u.Name); ok && seat.Key != u.Node {
		return fmt.Errorf("%w: %s has seat %d", ErrName, u.Name, seat.Number)
	}
	holder, held := s.Holder(u.Name)
	if a, ok := s.accepted[u.Node]; ok {
		switch {
		case a.accept.Name != u.Name:
			return fmt.Errorf("%w: this one was accepted as %s", ErrName, a.accept.Name)
		case holder.Node != u.Node:
			return fmt.Errorf("%w: %s was accepted in the place of this one, with key %s", ErrName, u.Name, holder.Node.ID().Short())
		}
	}
	if held && holder.Node != u.Node && u.Record.Node == "" {
		return fmt.Errorf("%w: %s was accepted with key %s: a token for that name lets another one in", ErrName, u.Name, holder.Node.ID().Short())
	}
	for _, uses := range s.uses {
		for _, other := range uses {
			if other.Name != u.Name || other.Node == u.Node || !s.Waits(other) || u.Record.Node != "" && other.Record.Node == "" {
				continue
			}
			return fmt.Errorf("%w: %s came by token %s with key %s, and waits: it is gone when that token is revoked", ErrName, u.Name, other.Record.Key.ID().Short(), other.Node.ID().Short())
		}
	}
	return nil
}
