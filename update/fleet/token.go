package fleet

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"kogge.example/update/fleet/document"
)

// Token lets a node into a fleet. It is 32 random bytes that only join.yaml and the
// fleet's folder have; a node proves it with [Mac] and never sends it. It prints as
// "(token)" under every verb: only Text shows it. The zero Token is none.
type Token struct {
	// The secret hides in a function because fmt, which does not call the methods of
	// unexported fields, prints the bytes of anything else. nil: no token.
	secret func() *[32]byte
}

func tokenOf(secret *[32]byte) Token { return Token{func() *[32]byte { return secret }} }

// tokenPrefix starts a token's text; three bytes of check stand at its end.
const (
	tokenPrefix = "kogge-"
	tokenCheck  = 3
)

// base32Lower is RFC 4648's alphabet in lower case: no 0, 1, 8 or 9 to misread.
var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewToken makes a token.
func NewToken() Token {
	secret := new([32]byte)
	rand.Read(secret[:]) // never fails: it ends the program instead
	return tokenOf(secret)
}

// IsZero says whether there is no token.
func (t Token) IsZero() bool { return t.secret == nil }

// Format prints that there is a token, and not which.
func (t Token) Format(w fmt.State, _ rune) { io.WriteString(w, t.String()) }

// String says that there is a token, and not which.
func (t Token) String() string {
	if t.IsZero() {
		return "(no token)"
	}
	return "(token)"
}

// ID tells tokens apart without giving one away: 12 hexadecimal digits, "" for none.
func (t Token) ID() string {
	if t.IsZero() {
		return ""
	}
	sum := sha256.Sum256(document.Message("kogge/token-id/v1", t.secret()[:]))
	return Short(hex.EncodeToString(sum[:]))
}

// Text is the token itself, as [ParseToken] reads it: "kogge-" and 56 characters. It
// is a secret. "" for none.
func (t Token) Text() string {
	if t.IsZero() {
		return ""
	}
	secret := t.secret()[:]
	sum := sha256.Sum256(document.Message("kogge/token/v1", secret))
	return tokenPrefix + base32Lower.EncodeToString(append(bytes.Clone(secret), sum[:tokenCheck]...))
}

// ErrToken is the error of [ParseToken]. What was parsed is never in the message.
var ErrToken = errors.New("not a token")

// ParseToken reads a token's text. Capitals are fine, and so is space around it.
func ParseToken(text string) (Token, error) {
	body, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(text)), tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("%w: it starts with %q", ErrToken, tokenPrefix)
	}
	const length = (32 + tokenCheck) * 8 / 5
	if len(body) != length {
		return Token{}, fmt.Errorf("%w: %d characters behind %q, %d wanted", ErrToken, len(body), tokenPrefix, length)
	}
	raw, err := base32Lower.DecodeString(body)
	if err != nil || len(raw) != 32+tokenCheck {
		return Token{}, fmt.Errorf("%w: it has only letters and the digits 2 to 7", ErrToken)
	}
	sum := sha256.Sum256(document.Message("kogge/token/v1", raw[:32]))
	if !bytes.Equal(sum[:tokenCheck], raw[32:]) {
		return Token{}, fmt.Errorf("%w: a character is wrong", ErrToken)
	}
	return tokenOf((*[32]byte)(raw)), nil
}

// NonceSize is the bytes of the random number that an adoption answers.
const NonceSize = 32

// Mac proves a token to whoever knows it too, for one node key in one fleet:
// HMAC-SHA256 over the fleet's id, the node's public key (SubjectPublicKeyInfo in DER)
// and the nonce of the one who asks. It is nil without a token.
func Mac(token Token, fleetID string, spki, nonce []byte) []byte {
	return token.Prove("kogge/adopt/v1", []byte(fleetID), spki, nonce)
}

// Prove is HMAC-SHA256 under the token over what the proof is for, and fields. It is nil
// without a token.
func (t Token) Prove(purpose string, fields ...[]byte) []byte {
	if t.IsZero() {
		return nil
	}
	h := hmac.New(sha256.New, t.secret()[:])
	h.Write(document.Message(purpose, fields...))
	return h.Sum(nil)
}

// CheckMac says whether mac is what [Mac] gives, in a time that does not tell how
// nearly. Without a token, or with a nonce of another size than [NonceSize], nothing
// is.
func CheckMac(token Token, fleetID string, spki, nonce, mac []byte) bool {
	return !token.IsZero() && len(nonce) == NonceSize && hmac.Equal(Mac(token, fleetID, spki, nonce), mac)
}
