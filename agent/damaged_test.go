package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/deeds"
	"kogge.example/agent/identity"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/orders"
	"kogge.example/agent/papers"
	"kogge.example/agent/pinned"
	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/deed"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/token"
	"kogge.example/update/fleet/wrapped"
	"kogge.example/update/memory"
)

// words are what the agent writes into its log.
type words struct {
	mu  sync.Mutex // guards all
	all bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

// whole is the folder of STATE of a seat, with every file of the fleet that a node has there.
func whole(t *testing.T) (f *ledgertest.Fleet, state string, ada tls.Certificate) {
	t.Helper()
	key, err := fleet.NewKey()
	must(t, err)
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(t, err)
	f = ledgertest.Begun(t, 2)
	v := f.Founding(t)
	first := v.Founding.Operators[0]
	first.Name = "zoe"
	v.Founding.Operators = []ledger.Operator{{Name: "ada", Role: fleet.RoleAdmin, Key: document.HashOf(spki)}, first}
	f.Take(t, f.Decided(t, v, 2))
	ada = tls.Certificate{Certificate: [][]byte{f.SignAt(t, fleet.KindOperator, "ada", fleet.RoleAdmin, &key.PublicKey, time.Now())}, PrivateKey: key}
	s := f.Log.State()

	state = t.TempDir()
	in := func(names ...string) string { return filepath.Join(append([]string{state}, names...)...) }
	node, err := identity.OpenNode(in("identity"))
	must(t, err)
	seed := fleet.NewToken()
	public, err := token.KeyOf(seed)
	must(t, err)
	record, err := token.Issue(s.Fleet(), token.Record{Version: 1, Key: public, Count: 1, Height: 1, Root: s.Tree, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second)}, key)
	must(t, err)
	must(t, node.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: seed, Record: record.Bytes()}))
	csr, err := node.Request()
	must(t, err)
	own, _, err := fleet.RequestKey(csr)
	must(t, err)
	must(t, node.Enrol(f.SignAt(t, fleet.KindNode, "n1", "", own, time.Now())))
	must(t, node.Revoke(fleet.KeyID([]byte("eve"))))
	identitytest.Sit(t, state, 1)
	must(t, pinned.Open(in("kogge", "ledger"), f.Genesis).Take(1, f.Entries[0]))
	self, second := ledgertest.Key(t, "n1"), ledgertest.Key(t, "n2")
	paper, err := token.SignAccept(s.Fleet(), token.Accept{Version: 1, Node: self, Name: "n1", Number: 1}, key)
	must(t, err)
	store, err := papers.Open(in("kogge", "papers"), f.Log.State)
	must(t, err)
	_, err = store.Take(paper.Bytes())
	must(t, err)
	away, err := order.Seal(s.Fleet(), key, 1, order.Isolation{Seat: 2, Key: second, Isolated: true, Why: "its key was stolen"})
	must(t, err)
	_, err = orders.Open(in("kogge", "orders")).Keep(s, away)
	must(t, err)
	must(t, deeds.Open(in("kogge", "deeds")).Note(deed.Deed{Time: 1, Boot: "b", Kind: deed.Armed, Slot: "A", Release: "1.0", Root: document.HashOf(nil), By: "ada", Height: 1}))
	must(t, memory.Votes(s.Roster.Votes()).Write(memory.In(in("kogge", "update"))))
	held, err := identity.OpenCustody(in("identity"), s.Fleet(), self)
	must(t, err)
	sealed, err := wrapped.Wrap(f.CA(fleet.KindNode), held.Says(1).Key, wrapped.For{Fleet: s.Fleet(), Seat: self, CA: wrapped.CAOf(f.Genesis.NodeCA)})
	must(t, err)
	must(t, held.Take(sealed, f.Genesis.NodeCA))
	identity.OpenNumbers(in("identity")).Next()
	must(t, os.WriteFile(in("kogge", "peers"), []byte("kogge/peers/v1\n"), 0o600))
	return f, state, ada
}

var apiAt = regexp.MustCompile(`agent: API on (\S+),`)

// TestDamagedState damages every file of the fleet on STATE in turn: the node answers on the port of
// its API, gossips if it has what that takes, and says what is wrong, or mends it.
func TestDamagedState(t *testing.T) {
	f, state, ada := whole(t)
	var files []string
	must(t, filepath.WalkDir(state, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, err = filepath.Rel(state, name)
			files = append(files, name)
		}
		return err
	}))
	kinds := make(map[string]bool)
	for _, name := range files {
		kind := name
		if dir := filepath.Dir(name); dir == "kogge/papers" || dir == "kogge/orders" {
			kind = dir
		}
		kinds[kind] = true
		raw, err := os.ReadFile(filepath.Join(state, name))
		must(t, err)
		flipped := bytes.Clone(raw)
		flipped[len(raw)/3] ^= 1
		for what, damaged := range map[string][]byte{"one byte": flipped, "empty": {}, "cut": raw[:len(raw)/2], "huge": raw} {
			t.Run(strings.ReplaceAll(kind, "/", " ")+" "+what, func(t *testing.T) {
				dir := t.TempDir()
				must(t, os.CopyFS(dir, os.DirFS(state)))
				must(t, os.WriteFile(filepath.Join(dir, name), damaged, 0o600))
				if what == "huge" {
					must(t, os.Truncate(filepath.Join(dir, name), 1<<40)) // of zeroes, which take no room
				}
				said, answer := boots(t, f, dir, ada, mute[kind])
				said += fmt.Sprint(answer)
				if want := tells[kind]; !strings.Contains(said, want) {
					t.Errorf("want %q in what it says:\n%s", want, said)
				}
				if now, err := durable.Read(filepath.Join(dir, name), 1<<20); tells[kind] == "" && (err != nil || !bytes.Equal(now, raw)) {
					t.Errorf("it is %q now, %v", now, err)
				}
			})
		}
	}
	if len(kinds) != len(tells) {
		t.Errorf("STATE has %v", kinds)
	}
	if said, answer := boots(t, f, state, ada, false); len(answer.Degraded) > 0 && strings.Contains(fmt.Sprint(answer.Degraded), "ledger") {
		t.Errorf("whole, it says %s %v", said, answer)
	}
}

// TestDiskGivesLater: who the node is and the disk does not give at first is waited for, and then done
// without, as what else it does not give is at once; a folder in the place of a file is nothing that could
// be read.
func TestDiskGivesLater(t *testing.T) {
	_, state, _ := whole(t)
	most := waitForDisk("")
	for name, waits := range map[string]bool{"node.key": true, "membership.json": true, "enrolment.json": false, "revoked.json": false, "told.json": false} {
		name = filepath.Join(state, "identity", name)
		if err := os.Rename(name, name+".away"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		must(t, os.Mkdir(name, 0o700))
		for tries := 1; tries < most; tries++ {
			if node, err := openNode(state, tries, most); waits != errors.Is(err, syscall.EISDIR) || !waits && node.Problem() == nil {
				t.Errorf("%s, try %d: %v", name, tries, err)
			}
		}
		if node, err := openNode(state, most, most); err != nil || node.Problem() == nil {
			t.Errorf("%s, the last try: %v", name, err)
		}
		must(t, os.Remove(name))
		if err := os.Rename(name+".away", name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if node, err := openNode(state, most-1, most); err != nil || node.Problem() != nil || node.Name() != "n1" {
			t.Errorf("%s, given again: %v", name, err)
		}
	}
}

// TestWaitForDisk: a node that waits for its disk can be good in time, whatever time node.yaml gives it.
func TestWaitForDisk(t *testing.T) {
	config := filepath.Join(t.TempDir(), "node.yaml")
	for text, want := range map[string]int{"": 15, "assess: {timeout: 1h}": 18, "assess: {timeout: 4m}": 6, "assess: {timeout: 1m}": 1, "assess: {timeout: 10s, for: 1s}": 1} {
		must(t, os.WriteFile(config, []byte(text), 0o600))
		if got := waitForDisk(config); got != want {
			t.Errorf("%s: %d tries, want %d", text, got, want)
		}
	}
}

// mute are the files without which a node does not gossip.
var mute = map[string]bool{"identity/node.key": true, "identity/membership.json": true, "identity/seat.json": true, "kogge/ledger/1": true}

// tells is what a node says of a damaged file: in its log, by its answer or by its status. "": it is
// written again as it was.
var tells = map[string]string{
	"identity/node.key":        "this node is in no fleet",
	"identity/membership.json": "this node is in no fleet",
	"identity/enrolment.json":  "enrolment.json",
	"identity/revoked.json":    "revoked.json",
	"identity/seat.json":       "seat.json",
	"identity/wrap.json":       "ca.json", // what it opens
	"identity/ca.json":         "ca.json",
	"identity/numbers.json":    "numbers.json",
	"kogge/ledger/1":           "ledger on STATE is damaged",
	"kogge/ledger/head":        "",
	"kogge/update/votes.json":  "",
	"kogge/papers":             "papers of the fleet",
	"kogge/orders":             "orders about seats",
	"kogge/deeds/1":            "log of deeds is damaged",
	"kogge/peers":              "what the node remembers of others",
}

// boots starts the agent's API and its part in the fleet on a folder of STATE, until it has answered
// a call, and gossips. It returns its log, and its status.
func boots(t *testing.T, f *ledgertest.Fleet, state string, ada tls.Certificate, mute bool) (string, *apiv1.StatusResponse) {
	t.Helper()
	var said words
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() { stop(); running.Wait() }()
	at := paths{state: state, run: t.TempDir(), api: "127.0.0.1:0"}
	now := parts{parent: &supervisor{}}
	running.Go(func() {
		if err := serveOnce(ctx, at, &now, installer(at, &now), 1); err != nil && ctx.Err() == nil {
			t.Errorf("the API: %v", err)
			stop()
		}
	})
	until(t, "it serves", func() bool { return ctx.Err() != nil || apiAt.MatchString(said.String()) })
	if ctx.Err() != nil {
		return said.String(), nil
	}
	if !mute {
		until(t, "it gossips", func() bool { return strings.Contains(said.String(), "talks to its fleet as seat key") })
	}
	where := apiAt.FindStringSubmatch(said.String())[1]
	chain, err := api.PeerCertificates(t.Context(), where)
	if err != nil || len(chain) == 0 {
		t.Errorf("nobody answers: %v", err)
	}
	client := api.Dial(where, "n1", f.Genesis, ada)
	defer client.Close()
	answer, err := client.Status(t.Context(), rpc.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		fmt.Fprintf(&said, "answer: %v\n", err)
		return said.String(), nil
	}
	return said.String(), answer.Msg
}
