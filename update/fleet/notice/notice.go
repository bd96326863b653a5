// Package notice is what a seat says of itself to its fleet, again and again: what the node
// is, how it is, which TLS key is its own, and to which key secrets for it are encrypted.
//
// In come facts of a machine, or envelopes from anybody; out go documents that a seat signs, or
// the same read and checked, and rules for when to sign and under which number. The package
// measures nothing, opens nothing and reads no clock. That a key has a seat is the ledger's
// state's to say, and what follows from a notice is for whoever acts on it: a node can say of
// itself what it likes, but for labels that an operator attests.
package notice

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// The kinds of envelopes that hold a notice.
const (
	NodeKind   = "kogge/node/v1"
	StatusKind = "kogge/status/v1"
	TLSKeyKind = "kogge/tls-key/v1"

	WrapKeyKind = "kogge/wrap-key/v1"
	CAKeyKind   = "kogge/ca-key/v1"
)

const version = 1

// ErrNotice is of bytes that are no notice.
var ErrNotice = errors.New("not a notice of a seat")

// ErrOlder is of an object of a seat of which others know a newer one: the disk of its node was
// restored from a copy, or another machine has its key.
var ErrOlder = errors.New("a newer object of this seat is known")

// Pace is the time between two objects of a seat that are carried, in the long run, and Burst how
// many may come at once: whoever signs more than that is heard of less often, whichever way it goes.
const (
	Pace  = 10 * time.Second
	Burst = 8
)

// Kind is a kind of signed objects of which only the newest of each seat counts, or about each
// seat.
type Kind struct {
	Name string
	// Number is the kind's where nodes compare what they know, from 1 on. No other kind ever gets
	// it: nodes of two releases speak with each other.
	Number int
	// Least and Most are bounds, in bytes, of an envelope: in every fleet so much is taken, and
	// in none more. Between them, the more seats a fleet has the less each of them may take.
	Least, Most int
	// Pace and Burst are the kind's own; zero: those of notices.
	Pace  time.Duration
	Burst int
	// Few says that only those say it who hold the fleet's secrets, as roster.Custodians lists
	// them: all others together could say much.
	Few bool
	// Voters says that only seats with a vote say it.
	Voters bool
	// Check says what is wrong with a body by itself.
	Check func(body []byte) error
	// About says about which seat an object is, by its body, and May whether who signed it may do
	// so, as the ledger lists him. nil: a seat signs it, about itself.
	About func(body []byte) (signed.Key, error)
	May   func(ledger.State, signed.Envelope) bool
	// Early says of who may not that he may once the ledger is further, and cannot have made that up. nil:
	// nobody can say so.
	Early func(ledger.State, signed.Envelope) bool
	// Says is what a body says, where that counts whoever has signed it: of one number and that there is
	// one object, or anybody could make any number of them. nil, or of a body that it cannot read: each
	// body and signer is another one.
	Says func(fleet document.Hash, body []byte) []byte
}

// Kinds are the kinds of notices.
func Kinds() []Kind {
	return []Kind{
		{Name: NodeKind, Number: 1, Least: 2 << 10, Most: 8 << 10, Check: func(b []byte) error { _, err := ParseNode(b); return err }},
		{Name: StatusKind, Number: 2, Least: 1 << 10, Most: 4 << 10, Check: func(b []byte) error { _, err := ParseStatus(b); return err }},
		{Name: TLSKeyKind, Number: 3, Least: 512, Most: 512, Check: func(b []byte) error { _, err := ParseTLSKey(b); return err }},
		{Name: WrapKeyKind, Number: 4, Least: 512, Most: 512, Few: true, Check: func(b []byte) error { _, err := ParseWrapKey(b); return err }},
		{Name: CAKeyKind, Number: 5, Least: 2 << 10, Most: 2 << 10, Few: true, Check: func(b []byte) error { _, err := ParseCAKey(b); return err }},
	}
}

// parse reads a document that checks itself. The error wraps [ErrNotice].
func parse[T interface{ check() error }](what string, body []byte) (T, error) {
	v, err := document.DecodeExact[T](body, version)
	if err == nil {
		err = v.check()
	}
	if err != nil {
		var none T
		return none, fmt.Errorf("%w: %s: %w", ErrNotice, what, err)
	}
	return v, nil
}

// open reads the body of an envelope of a kind.
func open[T any](e signed.Envelope, kind string, parse func([]byte) (T, error)) (T, error) {
	if e.Kind != kind {
		var none T
		return none, fmt.Errorf("%w: its kind is %.70q, and %s is wanted", ErrNotice, e.Kind, kind)
	}
	return parse(e.Body)
}

// encode writes a document of this package, whose types JSON can always write.
func encode(value any) []byte {
	raw, err := document.Encode(value)
	if err != nil {
		panic(err)
	}
	return raw
}

// checkText wants text that a terminal shows and does not obey.
func checkText(field, text string, most int) error {
	if len(text) > most {
		return fmt.Errorf("field %s: %d bytes: %d at most", field, len(text), most)
	}
	for _, r := range text {
		if !document.Printable(r) {
			return fmt.Errorf("field %s: %.40q has what cannot be shown", field, text)
		}
	}
	return nil
}

// plain is text as [checkText] wants it: what cannot be shown becomes a space, and what is too
// long ends in dots.
func plain(text string, most int) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !document.Printable(r) {
			return ' '
		}
		return r
	}, text))
	if len(text) <= most {
		return text
	}
	const dots = "…"
	end := max(0, most-len(dots))
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + dots
}

// Text is a line that people read, as a notice may have it.
func Text(text string) string { return plain(text, maxText) }
