package ballot

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"kogge.example/update/fleet/document"
)

// Question is what a seat asks the other voters after each boot: the newest ballot of mine that
// you have seen. A disk that was restored from a copy has a journal that lacks ballots, and only
// others can tell. Nobody has to sign it.
//
//	boot ─▶ Asking ─q answers, its own counted─▶ votes, if nobody shows what the journal lacks;
//	                                             else Behind: abstains up to the height after the
//	                                             highest one that those who answered are at
//
// An own ballot that the journal lacks has the same effect whenever it is seen.
type Question struct {
	Nonce [32]byte // another one each time
	Seat  int      // who asks
}

// Answer is another voter's.
type Answer struct {
	Question
	Fleet     document.Hash
	By        int     // who answers
	At        int64   // the height that its seat votes about
	Ballot    *Ballot // of who asks; nil: none was seen
	Signature []byte
}

const answerTag = "kogge/last-ballot/v1"

func (a Answer) message() []byte {
	var ballot []byte
	if a.Ballot != nil {
		ballot = a.Ballot.Bytes()
	}
	return document.Message(answerTag, a.Fleet[:], a.Nonce[:], binary.BigEndian.AppendUint32(nil, uint32(a.Seat)),
		binary.BigEndian.AppendUint32(nil, uint32(a.By)), binary.BigEndian.AppendUint64(nil, uint64(a.At)), ballot)
}

// Sign is the answer with the signature of who answers.
func (a Answer) Sign(key ed25519.PrivateKey) Answer {
	a.Signature = ed25519.Sign(key, a.message())
	return a
}

// Bytes are the answer as it travels.
func (a Answer) Bytes() []byte { return append(a.message(), a.Signature...) }

// OpenAnswer reads an answer to a question and verifies its signatures. The error wraps
// [ErrBallot], [ErrForeign] or [ErrSignature].
func OpenAnswer(raw []byte, at Height, q Question) (Answer, error) {
	f, rest, ok := document.Fields(raw, 7)
	if !ok || len(rest) != ed25519.SignatureSize || string(f[0]) != answerTag || len(f[1]) != len(Nil) || len(f[2]) != len(q.Nonce) ||
		len(f[3]) != 4 || len(f[4]) != 4 || len(f[5]) != 8 {
		return Answer{}, fmt.Errorf("%w, nor an answer about one: its %d bytes do not add up", ErrBallot, len(raw))
	}
	a := Answer{
		Question: Question{[32]byte(f[2]), int(binary.BigEndian.Uint32(f[3]))}, Fleet: document.Hash(f[1]),
		By: int(binary.BigEndian.Uint32(f[4])), At: int64(binary.BigEndian.Uint64(f[5])), Signature: rest,
	}
	by, self := at.Index(a.By), at.Index(q.Seat)
	if a.Question != q || a.Fleet != at.Fleet || by < 0 || self < 0 || a.By == q.Seat {
		return Answer{}, fmt.Errorf("%w: seat %d answers another question", ErrForeign, a.By)
	}
	if len(f[6]) > 0 {
		b, err := Parse(f[6])
		if err != nil {
			return Answer{}, err
		}
		if b.Fleet != at.Fleet || b.Seat != q.Seat {
			return Answer{}, fmt.Errorf("%w: seat %d shows a ballot of somebody else", ErrForeign, a.By)
		}
		if err := b.Verify(at.Voters[self].Key); err != nil {
			return Answer{}, err
		}
		a.Ballot = b
	}
	if !at.Voters[by].Key.Verify(a.message(), a.Signature) {
		return Answer{}, fmt.Errorf("%w: answer of seat %d", ErrSignature, a.By)
	}
	return a, nil
}
