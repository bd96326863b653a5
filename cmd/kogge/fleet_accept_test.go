package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/papers"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	"kogge.example/agent/serve/records"
	"kogge.example/agent/workload"
	"kogge.example/cmd/kogge/admission"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	keys "kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// TestAcceptCommand follows a node that came by a token through the commands: it is new, and seen,
// and not accepted by a wrong fingerprint; then it is, and the token is revoked.
func TestAcceptCommand(t *testing.T) {
	(&world{units: []workload.UnitStatus{{ID: "db", State: workload.Running}}}).open(t)
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		root := rootCommand()
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	says := func(want string, args ...string) {
		t.Helper()
		if out, err := run(args...); err != nil || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("kogge %s: %v\n%s\nwant %s", strings.Join(args, " "), err, out, want)
		}
	}
	refuses := func(want string, args ...string) {
		t.Helper()
		if out, err := run(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("kogge %s: %v\n%s\nwant %s", strings.Join(args, " "), err, out, want)
		}
	}
	says(`comes in by itself, and is new`, "fleet", "token", "create", "hanse", "--node", "n9", "--label", "region=eu", "-o", "n9.yaml")
	text, err := os.ReadFile("n9.yaml")
	must(t, err)
	j, err := identity.ParseJoinFile("n9.yaml", text)
	must(t, err)
	comes := func(j *fleet.JoinFile) token.Use {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		must(t, err)
		node, err := keys.KeyOf(private.Public().(ed25519.PublicKey))
		must(t, err)
		record, err := token.ParsePaper(j.Record)
		must(t, err)
		use, err := token.NewUse(j.Token, record, node, document.HashOf([]byte(node)), "n9", func(kind string, id document.Hash, sequence uint64, body []byte) (keys.Envelope, error) {
			return keys.Seal(kind, id, private, sequence, body)
		})
		must(t, err)
		return use
	}
	use := comes(j)
	node := use.Node
	refuses("no node of that name came by a token", "fleet", "accept", "n9", "--fleet", "hanse")
	ring, err := loadFleet("hanse")
	must(t, err)
	told, err := admission.GivePapers(t.Context(), ring, []string{"n1"}, [][]byte{use.Bytes()}, notice)
	must(t, err)
	must(t, told[0].Err)
	says(`(?m)^new +n9 +- .* silent `, "fleet", "nodes", "--fleet", "hanse")
	says(`(?m)^new +n9: kogge fleet accept NODE accepts it$`, "fleet", "status", "--fleet", "hanse")
	refuses("there is no terminal to ask", "fleet", "accept", "n9", "--fleet", "hanse")
	refuses("and not", "fleet", "accept", "n9", "--fleet", "hanse", "--key", "0123456789ab")
	says(`(?s)with region=eu.*`+node.ID().String()+`.*Node n9 is accepted: 1 of 1 node with a seat took it`, "fleet", "accept", "n9", "--fleet", "hanse", "--key", node.ID().Short())
	says(`Node n9 is accepted already`, "fleet", "accept", "n9", "--fleet", "hanse")
	says(`(?m)^accepted +n9 `, "fleet", "nodes", "--fleet", "hanse")
	says(`(?m)^[0-9a-f]{12} +`+use.Record.Key.ID().Short()+` +used +.* n9 +n9$`, "fleet", "token", "list", "hanse")
	says(`is revoked: 1 of 1 node with a seat took it`, "fleet", "token", "revoke", "hanse", use.Record.Key.ID().Short())
	says(` revoked +.* n9 +n9`, "fleet", "token", "list", "hanse")
	a, err := askPapers(t.Context(), ring)
	must(t, err)
	// Its disk has died. Another one comes under its name, and is accepted in its place.
	says(`comes in by itself`, "fleet", "token", "create", "hanse", "--node", "n9", "-o", "n9b.yaml")
	text, err = os.ReadFile("n9b.yaml")
	must(t, err)
	j, err = identity.ParseJoinFile("n9b.yaml", text)
	must(t, err)
	second := comes(j)
	told, err = admission.GivePapers(t.Context(), ring, []string{"n1"}, [][]byte{second.Bytes()}, notice)
	must(t, err)
	must(t, told[0].Err)
	short := second.Node.ID().Short()
	refuses("a node of that name was accepted with key "+node.ID().Short(), "fleet", "accept", "n9", "--fleet", "hanse", "--key", short)
	refuses("a node of that name was accepted", "fleet", "accept", "n9", "--fleet", "hanse", "--key", short, "--instead", "0123456789ab")
	says(`Node n9 is accepted: `, "fleet", "accept", "n9", "--fleet", "hanse", "--key", short, "--instead", node.ID().Short())
	now, err := askPapers(t.Context(), ring)
	must(t, err)
	if _, ok := now.Set.Accepted(node); ok {
		t.Error("the old one has the name")
	}
	if accepted, ok := now.Set.Accepted(second.Node); !ok || accepted.TLSKey != second.TLSKey {
		t.Errorf("%+v, %v", accepted, ok)
	}
	says(`Node n9 is accepted already`, "fleet", "accept", "n9", "--fleet", "hanse")
	if accepted, ok := a.Set.Accepted(node); !ok || accepted.Attested.Labels["region"] != "eu" || time.Since(time.Unix(accepted.Number, 0)) > time.Hour {
		t.Errorf("%+v", accepted)
	}
}

// TestAcceptAdopted accepts a node that was adopted by hand, and has no seat, by both its keys. It comes
// before the others by its name, is never asked who came, and to be told by it alone is not enough.
func TestAcceptAdopted(t *testing.T) {
	(&world{units: []workload.UnitStatus{{ID: "db", State: workload.Running}}}).open(t)
	o := typist{t}
	ring, err := loadFleet("hanse")
	must(t, err)
	o.fails("no node of that name came by a token", "kogge node adopt ADDRESS", "fleet", "accept", "a0", "--fleet", "hanse")
	o.fails("node n1 has seat 1", "", "fleet", "accept", "n1", "--fleet", "hanse")

	state := t.TempDir()
	node, err := identity.OpenNode(filepath.Join(state, "identity"))
	must(t, err)
	issued, err := ring.NewToken(keyring.Terms{Node: "a0"}, time.Now())
	must(t, err)
	must(t, node.Join(&fleet.JoinFile{Genesis: ring.Genesis, Token: issued.Token}))
	taken := func() *pinned.Ledger { return pinned.Open(filepath.Join(state, "ledger"), ring.Genesis) }
	store, err := papers.Open(filepath.Join(state, "papers"), func() ledger.State { return taken().State() })
	must(t, err)
	open := func() (*identity.Seat, *pinned.Ledger, error) {
		seat, err := identity.OpenSeat(filepath.Join(state, "identity"))
		return seat, taken(), err
	}
	server, err := serve.Listen("127.0.0.1:0", serve.Config{
		Node: node, Machine: machine.Machine{Run: state, State: state}, ClockSure: func() bool { return true }, LogDir: state,
		Containers: func() serve.Containers { return nil }, Projects: func() serve.Projects { return nil }, Images: func() serve.Images { return nil },
		Records: records.Records{Open: open, Papers: func() *papers.Store { return store }, Addresses: func() []netip.Addr { return nil }},
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- server.Serve(ctx) }()
	t.Cleanup(func() { cancel(); must(t, <-over) })
	must(t, adopt(t.Context(), ring, server.Address().String(), "", io.Discard))
	seat, _, err := open()
	must(t, err)

	if names, err := admission.Tellers(ring, ledgerState(t, ring)); err != nil || fmt.Sprint(names) != "[n1]" {
		t.Errorf("asked are %v, %v", names, err)
	}
	// It was accepted before, with labels, and has another key for its certificate since.
	use := func() []byte {
		j := joinFile(t, ring, "a0")
		record, err := token.ParsePaper(j.Record)
		must(t, err)
		use, err := token.NewUse(j.Token, record, seat.Key, document.HashOf([]byte("old key")), "a0", seat.Seal)
		must(t, err)
		return use.Bytes()
	}()
	paper, err := ring.AcceptNode(seat.Key, document.HashOf([]byte("old key")), "a0", map[string]string{"region": "eu"}, time.Now().Add(time.Hour))
	must(t, err)
	told, err := admission.GivePapers(t.Context(), ring, []string{"n1"}, [][]byte{use, paper.Bytes()}, notice)
	must(t, err)
	must(t, told[0].Err)
	o.does("Node a0 is accepted: 1 of 1 node with a seat took it", "fleet", "accept", "a0", "--fleet", "hanse", "--key", seat.Key.ID().Short())
	o.does("accepted already", "fleet", "accept", "a0", "--fleet", "hanse")
	accepted, _, ok := store.Accepted(seat.Key)
	if !ok || accepted.TLSKey.String() != node.Key() || accepted.Name != "a0" || accepted.Attested == nil || accepted.Attested.Labels["region"] != "eu" {
		t.Errorf("%+v, %v", accepted, ok)
	}
	// Another node has its name since, with other labels: those are not its own.
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	other, err := keys.KeyOf(private.Public().(ed25519.PublicKey))
	must(t, err)
	paper, err = ring.AcceptNode(other, document.HashOf([]byte("other")), "a0", map[string]string{"region": "us"}, time.Now().Add(2*time.Hour))
	must(t, err)
	told, err = admission.GivePapers(t.Context(), ring, []string{"n1"}, [][]byte{paper.Bytes()}, notice)
	must(t, err)
	must(t, told[0].Err)
	o.does("Node a0 came by a token, with region=eu", "fleet", "accept", "a0", "--fleet", "hanse", "--key", seat.Key.ID().Short(), "--instead", other.ID().Short())
	arrivals, err := askPapers(t.Context(), ring)
	must(t, err)
	if accepted, _, ok := arrivals.Set.Acceptance(seat.Key); !ok || accepted.Attested.Labels["region"] != "eu" {
		t.Errorf("%+v, %v", accepted, ok)
	}
	// The seats are silent: what a node without one has counts for nothing.
	must(t, operate.ChangeNodes(ring, func(nodes map[string]operate.Node) {
		n := nodes["n1"]
		n.Address = "127.0.0.1:1"
		nodes["n1"] = n
	}))
	key, err := issued.Key()
	must(t, err)
	o.fails("no node with a seat has taken it", "kogge fleet status", "fleet", "token", "revoke", "hanse", key.ID().Short())
	o.fails("no node of the fleet has told", "kogge fleet status", "fleet", "accept", "a0", "--fleet", "hanse")
	must(t, operate.ChangeNodes(ring, func(nodes map[string]operate.Node) { delete(nodes, "n1") }))
	o.fails("of no node that has a seat", "kogge fleet status", "fleet", "accept", "a0", "--fleet", "hanse")
}

// joinFile is the join.yaml of a token for a name.
func joinFile(t *testing.T, ring *keyring.Keyring, name string) *fleet.JoinFile {
	t.Helper()
	j, _, err := admission.Invite(ring, keyring.Terms{Node: name}, time.Now())
	must(t, err)
	return j
}

func ledgerState(t *testing.T, ring *keyring.Keyring) ledger.State {
	t.Helper()
	l, _, err := operate.Ledger(ring)
	must(t, err)
	return l.State()
}
