package enrol

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// said is a connection on which a stranger has said all that it says, and what it is answered.
type said struct {
	*bytes.Reader
	answer bytes.Buffer
	from   string
}

func (s *said) Write(p []byte) (int, error)      { return s.answer.Write(p) }
func (s *said) Close() error                     { return nil }
func (s *said) LocalAddr() net.Addr              { return address(s.from) }
func (s *said) RemoteAddr() net.Addr             { return address(s.from) }
func (s *said) SetDeadline(time.Time) error      { return nil }
func (s *said) SetReadDeadline(time.Time) error  { return nil }
func (s *said) SetWriteDeadline(time.Time) error { return nil }

type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// book is a fleet's ledger, and nobody's papers.
type book struct {
	*ledgertest.Fleet
	set *token.Set
}

func (b book) State() ledger.State { return b.Log.State() }

func (b book) Entry(height int64) (ledger.Entry, error) {
	if height < 1 || height > int64(len(b.Entries)) {
		return ledger.Entry{}, ledger.ErrHeight
	}
	return b.Entries[height-1], nil
}

func (b book) Admit(u token.Use, now time.Time) error {
	if err := b.set.Admits(u, b.State(), now); err != nil {
		return err
	}
	_, err := b.set.Put(u.Bytes(), b.State())
	return err
}

func (b book) Accepted(node signed.Key) (token.Accept, []byte, bool) {
	a, ok := b.set.Accepted(node)
	return a, b.set.PaperOf(node), ok
}

func (b book) Opens(r token.Record, tlsKey document.Hash, now time.Time) error {
	return b.set.Opens(r, tlsKey, now)
}

func (b book) Take(raw []byte) (bool, error) {
	c, err := b.set.Put(raw, b.State())
	return c.News, err
}

func (b book) CameBy(node signed.Key) (token.Use, bool) { return b.set.CameBy(node) }
func (b book) Refused() map[string]uint64               { return nil }

// member0 is a member that signs for whoever may have it, and a TLS key of a stranger.
func member0(t testing.TB) (*Member, book, tls.ConnectionState) {
	t.Helper()
	b := book{ledgertest.Founded(t, 3, 1), token.NewSet()}
	key := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	der := b.Sign(t, fleet.KindNode, "n9", "", &key.PublicKey)
	leaf := ledgertest.Must[*x509.Certificate](t)(x509.ParseCertificate(der))
	m := &Member{
		Ledger: b, Papers: b, Revoked: func(string) bool { return false }, Now: time.Now, CanSign: func() error { return nil },
		RevokedKeys: func() []string { return nil }, Told: func() []string { return nil },
		TLSKey: func(signed.Key) (document.Hash, bool) { return document.Hash{}, false }, Refuse: func(roster.Seat) error { return nil },
		Word: func() (signed.Envelope, error) {
			return signed.Seal(notice.TLSKeyKind, b.State().Fleet(), ledgertest.Private("n1"), 1, notice.TLSKey{Version: 1, Seat: 1, Key: document.HashOf(nil)}.Encode())
		},
		Sign: func(name string, key *ecdsa.PublicKey) ([]byte, error) {
			return []byte("a certificate for " + name), nil
		},
	}
	return m, b, tls.ConnectionState{NegotiatedProtocol: Protocol, PeerCertificates: []*x509.Certificate{leaf}}
}

func frame(kind byte, content []byte) []byte {
	return append(append(binary.AppendUvarint(nil, uint64(1+len(content))), kind), content...)
}

// hear has a member hear a stranger to the end, and returns what it answered, frame by frame.
func hear(t testing.TB, m *Member, state tls.ConnectionState, says []byte) (answers []string, err error) {
	t.Helper()
	conn := &said{Reader: bytes.NewReader(says), from: "192.0.2.9:1"}
	w := &wire{conn, state, bufio.NewReader(conn)}
	if err = m.attend(w, func() {}, func() {}); err != nil {
		m.refuse(w, err)
	}
	back := &wire{conn: &said{Reader: bytes.NewReader(nil)}, r: bufio.NewReader(&conn.answer)}
	for {
		kind, content, err := back.receive(maxAnswer)
		if err != nil {
			break
		}
		answers = append(answers, fmt.Sprintf("%d: %.60q", kind, content))
	}
	return answers, err
}

// TestStrangers has strangers say what they like: each is refused, counted, and gets nothing.
func TestStrangers(t *testing.T) {
	m, b, state := member0(t)
	other, stranger := ledgertest.Founded(t, 3, 1), ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	seed := fleet.NewToken()
	record := ledgertest.Must[token.Paper](t)(token.Issue(b.State().Fleet(), token.Record{
		Version: 1, Key: ledgertest.Must[signed.Key](t)(token.KeyOf(seed)), Count: 1, Height: 1, Root: b.State().Tree, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}, stranger))
	use := ledgertest.Must[token.Use](t)(token.NewUse(seed, record, ledgertest.Key(t, "a"), document.HashOf(state.PeerCertificates[0].RawSubjectPublicKeyInfo), "n9",
		func(kind string, id document.Hash, sequence uint64, body []byte) (signed.Envelope, error) {
			return signed.Seal(kind, id, ledgertest.Private("a"), sequence, body)
		}))
	visit := ledgertest.Must[signed.Envelope](t)(signed.Seal(VisitKind, other.Log.State().Fleet(), ledgertest.Private("n1"), 0, nil))
	for _, c := range []struct {
		what string
		says []byte
		is   error
	}{
		{"the ledger, by nobody", frame(askLedger, []byte{1}), errFrame},
		{"a certificate, by nobody", frame(askSigned, nil), errFrame},
		{"a kind that is none", frame(99, nil), errFrame},
		{"a use, by nobody", frame(sayUse, use.Bytes()), errFrame},
		{"a record of no operator", frame(sayRecord, record.Bytes()), token.ErrPaper},
		{"no record", frame(sayRecord, []byte("junk")), token.ErrPaper},
		{"a visit from another fleet", frame(sayVisit, visit.Bytes()), ErrStranger},
		{"no visit", frame(sayVisit, []byte("junk")), ErrStranger},
		{"too much", frame(sayRecord, make([]byte, maxSaid+1)), errFrame},
		{"nothing", nil, errEnded},
	} {
		answers, err := hear(t, m, state, c.says)
		if !errors.Is(err, c.is) || c.is != errEnded && (len(answers) != 1 || answers[0][:3] != "13:") || c.is == errEnded && len(answers) > 0 {
			t.Errorf("%s: %v; %q", c.what, err, answers)
		}
	}
	if got := fmt.Sprint(m.Refused()); got != "map[not signed by an operator:2 not the protocol:5 stranger:2]" {
		t.Error(got)
	}
	if b.set.Len() > 0 {
		t.Error("something is kept")
	}
	m.Revoked = func(string) bool { return true }
	if _, err := hear(t, m, state, frame(sayRecord, record.Bytes())); !errors.Is(err, fleet.ErrRevoked) {
		t.Errorf("a revoked key: %v", err)
	}
}

// FuzzStranger has bytes of strangers be said to a member: it never signs anything for them, and
// never keeps anything.
func FuzzStranger(f *testing.F) {
	m, b, state := member0(f)
	f.Add(frame(sayRecord, []byte("record")))
	f.Add(append(frame(sayVisit, []byte("visit")), frame(askSigned, nil)...))
	f.Add(frame(askLedger, []byte{1}))
	f.Add(frame(sayCame, cameFrame([]byte("visit"), []byte("use"))))
	f.Fuzz(func(t *testing.T, says []byte) {
		answers, err := hear(t, m, state, says)
		if err == nil || b.set.Len() > 0 || len(answers) > 1 {
			t.Errorf("%x is answered %q", says, answers)
		}
	})
}

// FuzzEntry has bytes of a hostile member be an entry.
func FuzzEntry(f *testing.F) {
	f.Add(entryFrame(1, ledgertest.Founded(f, 1, 1).Entries[0]))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		height, e, err := parseEntry(raw)
		if err == nil && !bytes.HasSuffix(raw, ledger.FormatEntry(height, e)) {
			t.Errorf("%x is read as another entry", raw)
		}
	})
}

// FuzzRevoked has bytes of a hostile member be a list of revoked keys.
func FuzzRevoked(f *testing.F) {
	one, two := document.HashOf([]byte("a")).String(), document.HashOf(nil).String()
	f.Add(revokedFrame([]string{one, two}, nil))
	f.Add(revokedFrame([]string{one}, []string{two}))
	f.Add(revokedFrame(nil, []string{one, two}))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		keys, told, err := parseRevoked(raw)
		if (err == nil) != (len(raw)%32 == 0 && len(raw) <= 32*maxRevoked) {
			t.Errorf("%d bytes are read as %d keys: %v", len(raw), len(keys), err)
		}
		again, alone, twice := parseRevoked(revokedFrame(keys, told))
		if err == nil && (twice != nil || !slices.Equal(again, keys) || !slices.Equal(alone, told)) {
			t.Errorf("%d and %d keys are read as %d and %d: %v", len(keys), len(told), len(again), len(alone), twice)
		}
	})
}

// TestOwns: the fleet knows an accepted node by the TLS key that an operator has seen last, and no longer
// by that with which it came, also where that was revoked.
func TestOwns(t *testing.T) {
	m, b, _ := member0(t)
	operator, seed := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey()), fleet.NewToken()
	id, node := b.State().Fleet(), ledgertest.Key(t, "a")
	before, now := document.HashOf([]byte("before")), document.HashOf([]byte("now"))
	record := ledgertest.Must[token.Paper](t)(token.Issue(id, token.Record{
		Version: 1, Key: ledgertest.Must[signed.Key](t)(token.KeyOf(seed)), Count: 1, Height: 1, Root: b.State().Tree, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}, operator))
	use := ledgertest.Must[token.Use](t)(token.NewUse(seed, record, node, before, "n9", func(kind string, id document.Hash, sequence uint64, body []byte) (signed.Envelope, error) {
		return signed.Seal(kind, id, ledgertest.Private("a"), sequence, body)
	}))
	issuer := document.HashOf(record.Issuer).String()
	accept := func(number int64, tlsKey document.Hash) []byte {
		return ledgertest.Must[token.Paper](t)(token.SignAccept(id, token.Accept{Version: 1, Node: node, Name: "n9", TLSKey: tlsKey, Number: number}, operator)).Bytes()
	}
	for _, step := range []struct {
		what    string
		paper   []byte
		revoked document.Hash
		is      map[document.Hash]error
		gone    bool // the operator's key is revoked
	}{
		{"it came", use.Bytes(), document.Hash{}, map[document.Hash]error{before: nil, now: ErrOtherKey}, false},
		{"it came, and was revoked", nil, before, map[document.Hash]error{before: fleet.ErrRevoked, now: fleet.ErrRevoked}, false},
		{"an operator has seen no TLS key", accept(1, document.Hash{}), before, map[document.Hash]error{before: fleet.ErrRevoked, now: fleet.ErrRevoked}, false},
		{"he has seen another one", accept(2, now), document.Hash{}, map[document.Hash]error{before: ErrOtherKey, now: nil}, false},
		{"and the first one was revoked", nil, before, map[document.Hash]error{before: ErrOtherKey, now: nil}, false},
		{"and that, too", nil, now, map[document.Hash]error{before: fleet.ErrRevoked, now: fleet.ErrRevoked}, false},
		{"he was revoked, and with him the first one", nil, before, map[document.Hash]error{before: fleet.ErrRevoked, now: nil}, true},
		{"he was revoked, who may have seen nothing", nil, now, map[document.Hash]error{before: nil, now: fleet.ErrRevoked, document.HashOf([]byte("another")): fleet.ErrRevoked}, true},
		{"he alone was revoked", nil, document.Hash{}, map[document.Hash]error{before: nil, now: nil, document.HashOf([]byte("another")): ErrOtherKey}, true},
	} {
		if step.paper != nil {
			ledgertest.Must[token.Change](t)(b.set.Recall(step.paper))
		}
		m.Revoked = func(key string) bool { return key == step.revoked.String() || step.gone && key == issuer }
		for tlsKey, is := range step.is {
			if known, err := m.owns(node, tlsKey); !known || !errors.Is(err, is) || is == nil && err != nil {
				t.Errorf("%s, TLS key %s: %v, %v", step.what, tlsKey.Short(), known, err)
			}
		}
	}
}
