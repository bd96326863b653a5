package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
)

// thief is somebody who has stolen the key of the node CA. He makes himself a TLS key, a key as
// seats have them, and a certificate for any name that he likes; and he keeps what he is shown.
//
// He speaks the protocols by their bytes, as a program that is not ours would: their formats are
// in agent/gossip/tls.go, agent/gateway/wire and agent/enrol/wire.go.
type thief struct {
	genesis *fleet.Genesis
	ca      *ecdsa.PrivateKey
	own     ed25519.PrivateKey
	keys    map[string]*ecdsa.PrivateKey // TLS keys, by name
	words   map[int]signed.Envelope      // of seats, for their TLS keys, as he was shown them
}

// visit is how somebody comes: by which name, with which certificate and TLS key.
type visit struct {
	name        string
	certificate tls.Certificate
	tlsKey      document.Hash
}

// stealing is the command thief of the scripts; doc.go describes it.
func stealing(ts *testscript.TestScript, neg bool, args []string) {
	b := ts.Value(benchKey{}).(*bench)
	ctx, cancel := context.WithTimeoutCause(b.ctx, b.limit, fmt.Errorf("nothing within %s", b.limit))
	defer cancel()
	flags := flag.NewFlagSet("thief", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	own := flags.Bool("own", false, "")
	operator := flags.Bool("operator", false, "")
	ts.Check(flags.Parse(args))
	if flags.NArg() < 3 {
		ts.Fatalf("usage: thief [-own|-operator] NAME PROTOCOL NODE [ARG...]")
	}
	name, protocol, node, rest := flags.Arg(0), flags.Arg(1), flags.Arg(2), flags.Args()[3:]
	if b.thief == nil {
		var err error
		b.thief, err = newThief(filepath.Join(ts.Getenv("KOGGE_CONFIG"), ts.Getenv("KOGGE_FLEET")))
		ts.Check(err)
	}
	var v visit
	var err error
	switch {
	case *own:
		v, err = honest(ctx, b.vms[name], name)
	case *operator:
		v, err = b.thief.mint(fleet.Peer{Kind: fleet.KindOperator, Name: name, Role: fleet.RoleAdmin, Fleet: b.thief.genesis.ID()})
	default:
		v, err = b.thief.mint(fleet.Peer{Kind: fleet.KindNode, Name: name, Fleet: b.thief.genesis.ID()})
	}
	ts.Check(err)
	said, err := b.thief.call(ctx, v, protocol, func(port int) string { return ts.Getenv(fmt.Sprintf("%s_%d", node, port)) }, rest, ts.ReadFile)
	if err == nil {
		fmt.Fprint(ts.Stdout(), said)
	}
	switch {
	case err != nil && !neg:
		ts.Fatalf("thief %s %s %s: %v", name, protocol, node, err)
	case err == nil && neg:
		ts.Fatalf("thief %s %s %s: he got: %s", name, protocol, node, said)
	case err != nil:
		fmt.Fprintln(ts.Stderr(), err)
	}
}

// newThief has what lies in a fleet's folder.
func newThief(dir string) (*thief, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "genesis.json"))
	if err != nil {
		return nil, err
	}
	t := &thief{keys: make(map[string]*ecdsa.PrivateKey), words: make(map[int]signed.Envelope)}
	if t.genesis, err = fleet.ParseGenesis(raw); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "node-ca.key"))
	if err != nil {
		return nil, err
	}
	if t.ca, err = document.DecodeKey[*ecdsa.PrivateKey](text); err != nil {
		return nil, err
	}
	_, t.own, err = ed25519.GenerateKey(rand.Reader)
	return t, err
}

// mint makes a certificate with the stolen key. One name has one TLS key.
func (t *thief) mint(p fleet.Peer) (visit, error) {
	key := t.keys[p.Name]
	if key == nil {
		var err error
		if key, err = fleet.NewKey(); err != nil {
			return visit{}, err
		}
		t.keys[p.Name] = key
	}
	der, err := fleet.SignPeer(p, &key.PublicKey, t.genesis.NodeCA, t.ca, time.Now())
	if err != nil {
		return visit{}, err
	}
	return visitBy(p.Name, [][]byte{der}, key)
}

// honest is a node by its own key and certificate, as they lie on its disk: what a thief does not
// get has to be there for it.
func honest(ctx context.Context, n *node, name string) (visit, error) {
	if n == nil {
		return visit{}, fmt.Errorf("there is no VM %s", name)
	}
	text, err := n.ask(ctx, command{Op: "read", Args: []string{"/state/identity/node.key"}})
	if err != nil {
		return visit{}, err
	}
	key, err := document.DecodeKey[*ecdsa.PrivateKey]([]byte(text))
	if err != nil {
		return visit{}, err
	}
	if text, err = n.ask(ctx, command{Op: "read", Args: []string{"/state/identity/membership.json"}}); err != nil {
		return visit{}, err
	}
	var m struct {
		Certificates [][]byte `json:"certificates"`
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return visit{}, err
	}
	return visitBy(name, m.Certificates, key)
}

func visitBy(name string, chain [][]byte, key *ecdsa.PrivateKey) (visit, error) {
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	return visit{name, tls.Certificate{Certificate: chain, PrivateKey: key}, document.HashOf(spki)}, err
}

// What the port of the API speaks besides it, as TLS negotiates it, and where etcd answers members.
const (
	gossipProtocol  = "kogge-gossip/1"
	gatewayProtocol = "kogge-gateway/1"
	enrolProtocol   = "kogge-enrol/1"
	memberPort      = 7444
)

// call calls a node, and returns in words what it gave. The error says how it has refused that.
func (t *thief) call(ctx context.Context, v visit, protocol string, at func(port int) string, args []string, read func(string) string) (string, error) {
	switch {
	case protocol == "api" && len(args) == 1:
		return v.api(ctx, at(apiPort), args[0], "{}")
	case protocol == "etcd" && len(args) == 0:
		return v.etcd(ctx, at(memberPort))
	case (protocol == "gossip" || protocol == "gateway") && len(args) < 2:
		word, err := t.word(v, args)
		if err != nil {
			return "", err
		}
		names := map[string]string{"gossip": gossipProtocol, "gateway": gatewayProtocol}
		return v.greet(ctx, at(apiPort), names[protocol], word)
	case protocol == "enrol" && len(args) < 2:
		var record []byte
		if len(args) == 1 {
			found := regexp.MustCompile(`(?m)^record: (\S+)$`).FindStringSubmatch(read(args[0]))
			if found == nil {
				return "", fmt.Errorf("%s has no record of a token", args[0])
			}
			var err error
			if record, err = base64.StdEncoding.DecodeString(found[1]); err != nil {
				return "", err
			}
		}
		return t.enrol(ctx, v, at(apiPort), record)
	}
	return "", fmt.Errorf("usage: thief NAME api NODE METHOD | etcd NODE | gossip|gateway NODE [SEAT] | enrol NODE [JOINFILE]")
}

// word is the one that a visitor brings: that of a seat, as it was shown, or one of his own making
// that says that he has seat 1.
func (t *thief) word(v visit, args []string) (signed.Envelope, error) {
	if len(args) == 0 {
		id, err := document.ParseHash(t.genesis.ID())
		if err != nil {
			return signed.Envelope{}, err
		}
		return signed.Seal(notice.TLSKeyKind, id, t.own, 1, notice.TLSKey{Version: 1, Seat: 1, Key: v.tlsKey}.Encode())
	}
	for seat, word := range t.words {
		if args[0] == fmt.Sprint(seat) {
			return word, nil
		}
	}
	return signed.Envelope{}, fmt.Errorf("nobody has shown the word of seat %s", args[0])
}

// config is how a visitor shows his certificate, whomever the other side asks for. He does not
// mind who that is.
func (v visit) config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols, InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &v.certificate, nil },
	}
}

// api calls a method with a request in JSON, as curl would, and returns the answer.
func (v visit) api(ctx context.Context, address, method, request string) (string, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+"/kogge.v1."+method, strings.NewReader(request))
	if err != nil {
		return "", err
	}
	q.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: v.config("http/1.1")}}
	answer, err := client.Do(q)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return string(body) + "\n", err
}

// dial makes the handshake, after which the connection has a minute.
func (v visit) dial(ctx context.Context, address string, protocols ...string) (*tls.Conn, error) {
	d := tls.Dialer{Config: v.config(protocols...)}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), conn.SetDeadline(time.Now().Add(time.Minute))
}

// etcd asks a member how its etcd stands, as members ask each other.
func (v visit) etcd(ctx context.Context, address string) (string, error) {
	conn, err := v.dial(ctx, address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /kogge/status HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return fmt.Sprintf("%s\n%s\n", answer.Status, body), err
}

// errHungUp is of a node that ends the connection before it has said anything.
var errHungUp = errors.New("it hangs up without a word")

// greet says a hello, and returns what the node says then: in gossip its own word, and at the
// gateway how the visitor is received.
func (v visit) greet(ctx context.Context, address, protocol string, word signed.Envelope) (string, error) {
	conn, err := v.dial(ctx, address, protocol)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := conn.Write(framed(word.Bytes())); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	hello, err := readFrame(r)
	if err != nil {
		return "", hungUp(err)
	}
	seat, _, err := seatBy(hello)
	if err != nil || protocol == gossipProtocol {
		return fmt.Sprintf("it answers with the word of seat %d\n", seat), err
	}
	answer, err := readFrame(r)
	if err != nil {
		return "", hungUp(err)
	}
	switch answer[0] { // as agent/gateway/wire numbers its frames
	case 4:
		return fmt.Sprintf("the gateway of seat %d says welcome\n", seat), nil
	case 5:
		return "", fmt.Errorf("the gateway of seat %d refuses", seat)
	}
	return fmt.Sprintf("the gateway of seat %d says %d\n", seat, answer[0]), nil
}

// hungUp is the error of a connection that the other side has ended.
func hungUp(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || regexp.MustCompile(`reset by peer|unexpected EOF`).MatchString(err.Error()) {
		return errHungUp
	}
	return err
}

// framed is content behind its length, and readFrame reads that.
func framed(content []byte) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(content))), content...)
}

func readFrame(r *bufio.Reader) ([]byte, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if size == 0 || size > 4<<20 {
		return nil, fmt.Errorf("a frame of %d bytes", size)
	}
	frame := make([]byte, size)
	_, err = io.ReadFull(r, frame)
	return frame, err
}

// seatBy is the seat whose word for its TLS key these bytes are.
func seatBy(raw []byte) (int, signed.Envelope, error) {
	e, err := signed.Open(bytes.Clone(raw))
	if err != nil {
		return 0, e, err
	}
	word, err := notice.OpenTLSKey(e)
	return word.Seat, e, err
}

// The frames of an enrolment, by their kinds.
const (
	sayRecord = 2
	sayVisit  = 4
	askLedger = 6
	askSigned = 10
	isWord    = 1
	isEntry   = 3
	isEnd     = 5
	isSigned  = 7
	isRefusal = 13
)

// enrol comes as a node that wants in, with the public record of a token and not the token, or
// without one as a node that says that it is in. It asks for the ledger and for a certificate, and
// returns in words what it got. A refusal before anything was given is an error.
func (t *thief) enrol(ctx context.Context, v visit, address string, record []byte) (string, error) {
	conn, err := v.dial(ctx, address, enrolProtocol)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	ask := func(kind byte, content []byte) error {
		_, err := conn.Write(framed(append([]byte{kind}, content...)))
		return err
	}
	first, says := byte(sayRecord), record
	if record == nil {
		first = sayVisit
		if says, err = t.visit(conn, v); err != nil {
			return "", err
		}
	}
	if err := ask(first, says); err != nil {
		return "", err
	}
	answer, err := readFrame(r)
	if err != nil {
		return "", hungUp(err)
	}
	if answer[0] == isRefusal {
		return "", fmt.Errorf("refused: %s", answer[1:])
	}
	if answer[0] != isWord {
		return "", fmt.Errorf("it answers with kind %d", answer[0])
	}
	seat, word, err := seatBy(answer[1:])
	if err != nil {
		return "", err
	}
	t.words[seat] = word
	got := fmt.Sprintf("the word of seat %d\n", seat)
	if err := ask(askLedger, binary.AppendUvarint(nil, 1)); err != nil {
		return got, err
	}
	records := 0
	for answer[0] != isEnd {
		if answer, err = readFrame(r); err != nil {
			return got, err
		}
		if answer[0] == isEntry {
			records++
		}
	}
	got += fmt.Sprintf("records of the ledger: %d\n", records)
	if err := ask(askSigned, nil); err != nil {
		return got, err
	}
	if answer, err = readFrame(r); err != nil {
		return got, err
	}
	switch answer[0] {
	case isSigned:
		return got + "a certificate\n", nil
	case isRefusal:
		return got + fmt.Sprintf("refused: %s\n", answer[1:]), nil
	}
	return got + fmt.Sprintf("kind %d\n", answer[0]), nil
}

// visit says who he is, by the key that he has made, on this connection.
func (t *thief) visit(conn *tls.Conn, v visit) ([]byte, error) {
	state := conn.ConnectionState()
	channel, err := state.ExportKeyingMaterial("EXPORTER-kogge-enrol", nil, 32)
	if err != nil {
		return nil, err
	}
	body, err := document.Encode(struct {
		Version int           `json:"version"`
		Channel []byte        `json:"channel"`
		TLSKey  document.Hash `json:"tlsKey"`
	}{1, channel, v.tlsKey})
	if err != nil {
		return nil, err
	}
	id, err := document.ParseHash(t.genesis.ID())
	if err != nil {
		return nil, err
	}
	e, err := signed.Seal("kogge/visit/v1", id, t.own, 0, body)
	return e.Bytes(), err
}
