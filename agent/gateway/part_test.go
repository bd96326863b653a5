package gateway_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"kogge.example/agent/door"
	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway"
	"kogge.example/agent/gateway/client"
	"kogge.example/agent/gateway/wire"
	"kogge.example/agent/gossip"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// partEnv has this program be a part of TestAgents, of that file: a member's gateway, or some of
// the agents.
const partEnv = "KOGGE_TEST_PART"

// partSetup is what a part has to know.
type partSetup struct {
	Genesis []byte
	Entries [][]byte
	Seats   int // of the roster
	Where   map[int]netip.AddrPort
	Idle    time.Duration

	Gateway int // seat; 0: it is agents
	Socket  string
	From    int // the first agent's seat
	To      int // that after the last one's
}

// firstAgent is the first seat that only follows.
const firstAgent = 5

// bigLedger is a ledger whose roster has more seats than the founding names: four voters have
// founded it, and the others were admitted since.
type bigLedger struct {
	mu     sync.Mutex // guards log
	log    *ledger.Log
	seats  roster.Roster
	grown  func(height int64)
	wanted []ledger.Entry
}

func (l *bigLedger) State() ledger.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.log.State()
	s.Roster = l.seats
	return s
}

func (l *bigLedger) Take(height int64, e ledger.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if height != l.log.State().Height+1 {
		return nil
	}
	err := l.log.Append(e)
	if err == nil && l.grown != nil {
		l.grown(height)
	}
	return err
}

func (l *bigLedger) Entry(height int64) (ledger.Entry, error) { return l.wanted[height-1], nil }

func (l *bigLedger) Proved(int64, ledger.Entry) error { return nil }

func (l *bigLedger) Problem() error { return nil }

// fleetOf is what all parts know.
func fleetOf(s partSetup) (*bigLedger, error) {
	g, err := fleet.ParseGenesis(s.Genesis)
	if err != nil {
		return nil, err
	}
	l := &bigLedger{log: ledger.New(g)}
	for i, raw := range s.Entries {
		e, err := ledger.ParseEntry(raw, int64(i+1))
		if err == nil && i < 2 {
			err = l.log.Append(e)
		}
		if err != nil {
			return nil, err
		}
		l.wanted = append(l.wanted, e)
	}
	l.seats = l.log.State().Roster
	for n := len(l.seats.Seats) + 1; n <= s.Seats; n++ {
		key, err := signed.KeyOf(seatKey(n).Public().(ed25519.PublicKey))
		if err != nil {
			return nil, err
		}
		l.seats.Seats = append(l.seats.Seats, roster.Seat{Number: n, Name: fmt.Sprintf("n%d", n), Key: key})
	}
	return l, nil
}

func seatKey(n int) ed25519.PrivateKey { return ledgertest.Private(fmt.Sprintf("n%d", n)) }

// transportOf is TLS for a seat, with a key of its own.
func transportOf(seat int, state ledger.State, where map[int]netip.AddrPort) (*gossip.TLS, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(int64(seat)), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	word, err := signed.Seal(notice.TLSKeyKind, state.Fleet(), seatKey(seat), 1, notice.TLSKey{Version: 1, Seat: seat, Key: document.HashOf(spki)}.Encode())
	if err != nil {
		return nil, err
	}
	return &gossip.TLS{
		Speaks:      wire.Protocol,
		Certificate: func() tls.Certificate { return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key} },
		Word:        func() (signed.Envelope, error) { return word, nil },
		Admit: func(raw []byte, key document.Hash) (roster.Seat, error) {
			e, err := signed.Open(raw)
			if err != nil {
				return roster.Seat{}, err
			}
			return notice.Bound(e, state, key)
		},
		Addresses: func(s roster.Seat) []netip.AddrPort { return []netip.AddrPort{where[s.Number]} },
	}, nil
}

func runPart(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var s partSetup
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	l, err := fleetOf(s)
	if err != nil {
		return err
	}
	if s.Gateway > 0 {
		return runGateway(s, l)
	}
	return runCrowd(s, l)
}

// runGateway is a member's gateway, behind the door of the API's port. It takes the entries of the
// ledger that it is told to.
func runGateway(s partSetup, l *bigLedger) error {
	debug.SetGCPercent(60) // as the agent does
	state := l.State()
	of := shelf.New(state.Fleet(), notice.Kinds())
	of.Follow(l.seats)
	g := gateway.New(gateway.Config{Ledger: l, Shelf: &oneShelf{shelf: of}})
	g.Members([]int{1, 2, 3})
	transport, err := transportOf(s.Gateway, state, s.Where)
	if err != nil {
		return err
	}
	st, err := store.Open(s.Socket)
	if err != nil {
		return err
	}
	listener, err := door.Listen(s.Where[s.Gateway].String())
	if err != nil {
		return err
	}
	ctx := context.Background()
	conns := door.NewListener(listener)
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0), ConnState: conns.ConnState, ConnContext: door.WithConn,
		TLSConfig: door.TLS(&tls.Config{
			MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{transport.Certificate()}, SessionTicketsDisabled: true,
		}),
	}
	door.Speak(server, map[string]func(*tls.Conn){wire.Protocol: func(conn *tls.Conn) {
		if session, err := transport.Take(conn, func() { door.LetGo(conn.NetConn()) }); err == nil {
			_ = g.Serve(ctx, session)
		}
	}})
	go g.Run(ctx, st)
	go func() { log.Fatal(server.ServeTLS(conns, "", "")) }()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var height int64
		if _, err := fmt.Sscanf(lines.Text(), "take %d", &height); err != nil {
			return err
		}
		if err := l.Take(height, l.wanted[height-1]); err != nil {
			return err
		}
		g.Advanced()
	}
	return nil
}

// oneShelf is a shelf for many.
type oneShelf struct {
	mu    sync.Mutex // guards shelf
	shelf *shelf.Shelf
}

func (s *oneShelf) Put(raw []byte) (shelf.Verdict, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shelf.Put(raw), nil
}

func (s *oneShelf) Object(kind string, by signed.Key) (signed.Envelope, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shelf.Get(kind, by)
}

// runCrowd is some agents, and says once a second how they are.
func runCrowd(s partSetup, l *bigLedger) error {
	state := l.State()
	var told atomic.Int64
	var clients []*client.Client
	var ledgers []*bigLedger
	var puts []*gateCounter
	spread := client.Spread(s.Seats)
	for n := s.From; n < s.To; n++ {
		transport, err := transportOf(n, state, s.Where)
		if err != nil {
			return err
		}
		seat := l.seats.Seats[n-1]
		own := &bigLedger{log: l.log.Clone(), seats: l.seats, grown: func(int64) { told.Store(time.Now().UnixNano()) }}
		counter := &gateCounter{}
		c := client.New(client.Config{
			Self: seat.Key, Ledger: own, Logf: log.Printf,
			Judge: func(raw []byte) (shelf.Verdict, error) {
				if _, err := signed.Open(raw); err != nil {
					return shelf.BadSignature, nil
				}
				return shelf.Known, nil
			},
			Dial: func(ctx context.Context, seat roster.Seat) (client.Session, error) {
				session, err := transport.Dial(ctx, seat)
				if err != nil {
					return nil, err
				}
				return &counted{session, counter}, nil
			},
		})
		for kind, body := range map[string][]byte{notice.NodeKind: recordOf(seat.Name, "qemu-x86_64"), notice.StatusKind: statusOf("nothing is wrong with this node, and it says so in about as many words as others")} {
			e, err := signed.Seal(kind, state.Fleet(), seatKey(n), 1, body)
			if err != nil {
				return err
			}
			c.Say(e)
		}
		clients, ledgers, puts = append(clients, c), append(ledgers, own), append(puts, counter)
		go func() {
			time.Sleep(mathrand.N(spread)) // nobody starts ten thousand machines at one instant
			c.Run(context.Background())
		}()
	}
	for {
		f := figures{Height: 1 << 40, Told: told.Load(), With: make(map[int]int)}
		for i, c := range clients {
			if k := c.Known(); k.Gateway != 0 {
				f.Connected++
				f.With[k.Gateway]++
			}
			f.Height = min(f.Height, ledgers[i].State().Height)
			f.Put += min(2, int(puts[i].done.Load()))
		}
		raw, err := json.Marshal(f)
		if err != nil {
			return err
		}
		if _, err := fmt.Println(string(raw)); err != nil {
			return err // nobody listens any more
		}
		time.Sleep(time.Second)
	}
}

// gateCounter counts what was put.
type gateCounter struct{ done atomic.Int64 }

// counted is a session that counts what the gateway has put.
type counted struct {
	client.Session
	of *gateCounter
}

func (c *counted) Receive() ([]byte, error) {
	raw, err := c.Session.Receive()
	if err == nil {
		if f, err := wire.Decode(raw); err == nil {
			if d, ok := f.(wire.Done); ok && d.Why == wire.None {
				c.of.done.Add(1)
			}
		}
	}
	return raw, err
}
