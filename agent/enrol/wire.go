// Package enrol is how a node comes into its fleet, and how its certificate is renewed, by any
// member and without an operator's computer:
//
//	node ── the token's record, which is public ─▶ member: did a listed operator sign it?
//	node ◀─ the member's word for its TLS key ──── member
//	node ◀─ the ledger, from the first record ──── member     is it the checkpoint's? is that a seat?
//	node ── the use: the token signs its keys ───▶ member     checked, and kept before the answer
//	node ◀─ the certificate, and revoked keys ──── member     noted; the token is wiped
//
// A node that is in visits members now and then: for records that it lacks, for its acceptance,
// and for the certificate that follows on its own, which may be over since any time. One that is new
// shows its use: whoever let it in may have told nobody.
//
// In come connections on the port of the API, after the handshake; out go certificates, the
// ledger and papers of that one node. Each side proves the key of its handshake: a seat by its
// word, a node by its envelope. Who may have what is update/fleet's to say. A secret is never
// sent. Strangers, who can be anybody with the record of a token, are few at a time, and have a
// limit of time and bytes.
package enrol

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// Protocol is what is spoken, as TLS negotiates it (ALPN), on the port of the API.
const Protocol = "kogge-enrol/1"

// A frame is its length as an unsigned varint, one byte that says what it is, and its content.
// What a node says has an even kind, and what a member answers an odd one.
const (
	sayRecord  = 2  // of a token: a paper
	sayVisit   = 4  // an envelope of the node's key: who it is
	askLedger  = 6  // records from a height on
	sayUse     = 8  // of the token: an envelope
	askSigned  = 10 // a certificate for the key of the connection
	askPapers  = 12 // the node's acceptance
	askRevoked = 14 // the keys that the member has as revoked
	sayCame    = 16 // a visit, and the use of the token by which the node came
	isWord     = 1  // the member's, for its TLS key: an envelope
	isEntry    = 3  // height and entry, as it stands in a file
	isEnd      = 5  // of the ledger: its height
	isSigned   = 7  // the certificate, in DER
	isPaper    = 9  // the acceptance
	isNone     = 11 // there is no acceptance
	isRefusal  = 13 // why not, in words
	isRevoked  = 15 // keys, 32 bytes each
	maxText    = 300
	maxAnswer  = ledger.MaxEntry + 1<<10
	maxSaid    = token.MaxPaper + 1<<10
	maxDER     = 8 << 10
	maxRevoked = 10_000           // keys
	maxPiece   = 16 << 10         // bytes
	wordsLimit = 20 * time.Second // for so many bytes of one frame
)

// ErrRefused is of a member that has said why it does not do what it was asked for.
var ErrRefused = errors.New("the member refuses")

// errFrame is of a peer that does not speak the protocol.
var errFrame = errors.New("not a frame of the enrolment")

// wire is a connection on which frames go, after its handshake.
type wire struct {
	conn  net.Conn
	state tls.ConnectionState
	r     *bufio.Reader
}

func newWire(conn *tls.Conn) *wire {
	return &wire{conn, conn.ConnectionState(), bufio.NewReaderSize(conn, 4<<10)}
}

// send writes a frame, piece by piece: who takes no piece in time is gone, and who is slow is not.
func (w *wire) send(kind byte, content []byte) error {
	frame := binary.AppendUvarint(nil, uint64(1+len(content)))
	frame = append(append(frame, kind), content...)
	for piece := range slices.Chunk(frame, maxPiece) {
		if err := w.conn.SetWriteDeadline(time.Now().Add(wordsLimit)); err != nil {
			return err
		}
		if _, err := w.conn.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// receive is the next frame, of at most so many bytes.
func (w *wire) receive(most int) (kind byte, content []byte, err error) {
	if err := w.conn.SetReadDeadline(time.Now().Add(wordsLimit)); err != nil {
		return 0, nil, err
	}
	size, err := binary.ReadUvarint(w.r)
	if err != nil {
		return 0, nil, err
	}
	if size == 0 || size > uint64(most) {
		return 0, nil, fmt.Errorf("%w: %d bytes", errFrame, size)
	}
	frame := make([]byte, size)
	for piece := range slices.Chunk(frame, maxPiece) {
		if err := w.conn.SetReadDeadline(time.Now().Add(wordsLimit)); err != nil {
			return 0, nil, err
		}
		if _, err := io.ReadFull(w.r, piece); err != nil {
			return 0, nil, err
		}
	}
	return frame[0], frame[1:], nil
}

// answer is the next frame, which has to be of one of some kinds. A refusal is an error, whose
// words are shown as a terminal may show them.
func (w *wire) answer(kinds ...byte) (byte, []byte, error) {
	kind, content, err := w.receive(maxAnswer)
	if err != nil {
		return 0, nil, err
	}
	if kind == isRefusal {
		return 0, nil, fmt.Errorf("%w: %s", ErrRefused, notice.Text(string(content[:min(len(content), maxText)])))
	}
	for _, k := range kinds {
		if k == kind {
			return kind, content, nil
		}
	}
	return 0, nil, fmt.Errorf("%w: kind %d", errFrame, kind)
}

// number reads content that is one number.
func number(content []byte) (int64, error) {
	n, size := binary.Uvarint(content)
	if size <= 0 || size != len(content) || n > 1<<62 {
		return 0, fmt.Errorf("%w: no number", errFrame)
	}
	return int64(n), nil
}

// entryFrame writes an entry, and parseEntry reads it.
func entryFrame(height int64, e ledger.Entry) []byte {
	return append(binary.AppendUvarint(nil, uint64(height)), ledger.FormatEntry(height, e)...)
}

func parseEntry(content []byte) (int64, ledger.Entry, error) {
	height, size := binary.Uvarint(content)
	if size <= 0 || height < 1 || height > 1<<62 {
		return 0, ledger.Entry{}, fmt.Errorf("%w: an entry of no height", errFrame)
	}
	e, err := ledger.ParseEntry(content[size:], int64(height))
	return int64(height), e, err
}

// revokedFrame writes keys, as in fleet.Peer.Key, and parseRevoked reads them: those that operators have
// revoked, and behind a key of zeros, which is nobody's, those that a member alone has called so.
func revokedFrame(keys, told []string) (content []byte) {
	if len(told) > 0 {
		keys = slices.Concat(keys, []string{document.Hash{}.String()}, told)
	}
	for _, key := range keys[:min(len(keys), maxRevoked)] {
		if id, err := document.ParseHash(key); err == nil {
			content = append(content, id[:]...)
		}
	}
	return content
}

func parseRevoked(content []byte) (keys, told []string, err error) {
	const size = len(document.Hash{})
	if len(content)%size != 0 || len(content) > maxRevoked*size {
		return nil, nil, fmt.Errorf("%w: revoked keys of %d bytes", errFrame, len(content))
	}
	into := &keys
	for ; len(content) > 0; content = content[size:] {
		if key := document.Hash(content[:size]); key.IsZero() {
			into = &told
		} else {
			*into = append(*into, key.String())
		}
	}
	return keys, told, nil
}

// tlsKeyOf is the fingerprint of the key by which the other end made the handshake.
func tlsKeyOf(state tls.ConnectionState) (document.Hash, error) {
	if state.NegotiatedProtocol != Protocol || len(state.PeerCertificates) == 0 {
		return document.Hash{}, fmt.Errorf("%w: it speaks %.40q, and shows %d certificates", errFrame, state.NegotiatedProtocol, len(state.PeerCertificates))
	}
	return document.HashOf(state.PeerCertificates[0].RawSubjectPublicKeyInfo), nil
}

// channel names one connection: both ends know it, and nobody has another one of that name.
func channel(state tls.ConnectionState) ([]byte, error) {
	return state.ExportKeyingMaterial("EXPORTER-kogge-enrol", nil, 32)
}

// VisitKind is the kind of the envelope by which a node says who it is. Its key for its seat
// signs it.
const VisitKind = "kogge/visit/v1"

// visit is the body of it. It is good on one connection.
type visit struct {
	Version int           `json:"version"` // of this document: 1
	Channel []byte        `json:"channel"`
	TLSKey  document.Hash `json:"tlsKey"`
}

const version = 1

// cameTag begins what a node says that is new: its visit, and its use.
const cameTag = "kogge/came/v1"

func cameFrame(visit, use []byte) []byte { return document.Message(cameTag, visit, use) }

func parseCame(content []byte) (visit, use []byte, err error) {
	fields, rest, ok := document.Fields(content, 3)
	if !ok || len(rest) > 0 || string(fields[0]) != cameTag {
		return nil, nil, fmt.Errorf("%w: no visit and use", errFrame)
	}
	return fields[1], fields[2], nil
}

// openVisit says by whose key a visit is, on a connection.
func openVisit(raw []byte, fleet document.Hash, state tls.ConnectionState) (signed.Key, error) {
	e, err := signed.Open(raw)
	if err != nil {
		return "", err
	}
	if e.Kind != VisitKind || e.Fleet != fleet {
		return "", fmt.Errorf("%w: its kind is %.40q, of fleet %s", errFrame, e.Kind, e.Fleet.Short())
	}
	v, err := document.DecodeExact[visit](e.Body, version)
	if err != nil {
		return "", err
	}
	tlsKey, err := tlsKeyOf(state)
	if err != nil {
		return "", err
	}
	here, err := channel(state)
	if err != nil {
		return "", err
	}
	if v.TLSKey != tlsKey || string(v.Channel) != string(here) {
		return "", fmt.Errorf("%w: it is of another connection", errFrame)
	}
	return e.By, nil
}
