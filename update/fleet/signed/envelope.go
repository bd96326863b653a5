package signed

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
)

// Envelope is an object with the word of a seat, or of an operator, that it is its own: what the
// object is, for which fleet, by which key and its number among the objects of its kind. Fields
// are read-only.
type Envelope struct {
	Kind     string        // what the object is: "kogge/status/v1"
	Fleet    document.Hash // fleet id
	By       Key           // of who signed it
	Sequence uint64        // rises with each object of its kind, of one seat or about one
	Body     []byte        // the object; its form is the kind's

	raw []byte
}

// What an envelope may hold.
const (
	MaxEnvelope = 64 << 10 // bytes, with the signature
	maxKind     = 64
)

// Why an envelope is not taken.
var (
	ErrEnvelope  = errors.New("not an envelope")
	ErrSignature = errors.New("the signature does not fit")
)

// Seal signs an object. The key is the seat's; what is too large is an error.
func Seal(kind string, fleet document.Hash, key ed25519.PrivateKey, sequence uint64, body []byte) (Envelope, error) {
	by, err := KeyOf(key.Public().(ed25519.PublicKey))
	if err != nil {
		return Envelope{}, err
	}
	return sealWith(Envelope{Kind: kind, Fleet: fleet, By: by, Sequence: sequence, Body: body}, func(message []byte) ([]byte, error) {
		return ed25519.Sign(key, message), nil
	})
}

// SealByOperator is [Seal] with the key of an operator.
func SealByOperator(kind string, fleet document.Hash, key *ecdsa.PrivateKey, sequence uint64, body []byte) (Envelope, error) {
	by, err := OperatorKey(&key.PublicKey)
	if err != nil {
		return Envelope{}, err
	}
	return sealWith(Envelope{Kind: kind, Fleet: fleet, By: by, Sequence: sequence, Body: body}, func(message []byte) ([]byte, error) {
		return signByOperator(key, message)
	})
}

func sealWith(e Envelope, sign func(message []byte) ([]byte, error)) (Envelope, error) {
	kind, message := e.Kind, e.message()
	signature, err := sign(message)
	if err != nil {
		return Envelope{}, err
	}
	e.raw = append(message, signature...)
	if len(kind) < 1 || len(kind) > maxKind {
		return Envelope{}, fmt.Errorf("%w: its kind has %d bytes: 1 to %d", ErrEnvelope, len(kind), maxKind)
	}
	if len(e.raw) > MaxEnvelope {
		return Envelope{}, fmt.Errorf("%w: %d bytes: %d at most", ErrEnvelope, len(e.raw), MaxEnvelope)
	}
	return e, nil
}

// message is what is signed: the kind, which separates what signatures are for, and the
// fields. An envelope is this and the signature behind it.
func (e Envelope) message() []byte {
	return document.Message(e.Kind, e.Fleet[:], []byte(e.By), binary.BigEndian.AppendUint64(nil, e.Sequence), e.Body)
}

// Open reads an envelope of a seat and checks its signature. Whether its key has a seat, and its
// sequence is news, is the caller's to ask. What it returns points into raw. The error wraps
// [ErrEnvelope], [ErrKey] or [ErrSignature].
func Open(raw []byte) (Envelope, error) {
	e, err := Parse(raw)
	if err == nil && e.By[0] != algorithm {
		err = fmt.Errorf("%w: it is an operator's, and a seat's is wanted", ErrKey)
	}
	if err == nil {
		err = e.Verify()
	}
	if err != nil {
		return Envelope{}, err
	}
	return e, nil
}

// Parse reads an envelope, and verifies nothing: for whoever looks first whether its signature
// is worth the work. What it returns points into raw. The error wraps [ErrEnvelope] or
// [ErrKey].
func Parse(raw []byte) (Envelope, error) {
	e, _, err := parse(raw)
	return e, err
}

// Verify checks the signature. The error wraps [ErrSignature].
func (e Envelope) Verify() error {
	if !e.By.Verify(e.Message(), e.Signature()) {
		return fmt.Errorf("%w: object %s of key %s", ErrSignature, printable(e.Kind), e.By.ID().Short())
	}
	return nil
}

// Message is what the signature is over. Two envelopes of one message are one object, though
// whoever holds the key can sign it in many ways. Do not change it.
func (e Envelope) Message() []byte { return e.raw[:max(0, len(e.raw)-ed25519.SignatureSize)] }

// Signature is the seat's. Do not change it.
func (e Envelope) Signature() []byte { return e.raw[len(e.Message()):] }

// Again is the same object with another number and signature, which is not verified. A
// signature of another size than [ed25519.SignatureSize] fits nothing.
func (e Envelope) Again(sequence uint64, signature []byte) Envelope {
	e.Sequence = sequence
	e.raw = append(e.message(), signature...)
	return e
}

// parse takes an envelope apart, into fields that alone make these bytes.
func parse(raw []byte) (e Envelope, message []byte, err error) {
	if len(raw) > MaxEnvelope {
		return e, nil, fmt.Errorf("%w: %d bytes: %d at most", ErrEnvelope, len(raw), MaxEnvelope)
	}
	fields, rest, ok := document.Fields(raw, 5)
	if !ok || len(rest) != ed25519.SignatureSize {
		return e, nil, fmt.Errorf("%w: its %d bytes do not add up", ErrEnvelope, len(raw))
	}
	kind, fleet, by, sequence, body := fields[0], fields[1], fields[2], fields[3], fields[4]
	if len(kind) < 1 || len(kind) > maxKind || len(fleet) != len(e.Fleet) || len(sequence) != 8 {
		return e, nil, fmt.Errorf("%w: a field has the wrong size", ErrEnvelope)
	}
	e = Envelope{Kind: string(kind), Fleet: document.Hash(fleet), Sequence: binary.BigEndian.Uint64(sequence), Body: body, raw: raw}
	if e.By, err = parseSigner(by); err != nil {
		return e, nil, err
	}
	return e, raw[:len(raw)-len(rest)], nil
}

// Bytes are the envelope as it travels. Do not change them.
func (e Envelope) Bytes() []byte { return e.raw }

// printable quotes what a stranger may have written.
func printable(text string) string { return fmt.Sprintf("%.70q", text) }
