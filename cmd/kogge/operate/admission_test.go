package operate_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/papers"
	"kogge.example/agent/serve"
	"kogge.example/cmd/kogge/admission"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// These are the tests of package admission, in the folder where tests have nodes that answer.

// useOf proves the token of a join.yaml for a node with a key of its own.
func useOf(t *testing.T, j *fleet.JoinFile, name string) (use []byte, node signed.Key) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if node, err = signed.KeyOf(private.Public().(ed25519.PublicKey)); err != nil {
		t.Fatal(err)
	}
	record, err := token.ParsePaper(j.Record)
	if err != nil {
		t.Fatal(err)
	}
	u, err := token.NewUse(j.Token, record, node, document.HashOf([]byte("TLS key")), name, func(kind string, id document.Hash, sequence uint64, body []byte) (signed.Envelope, error) {
		return signed.Seal(kind, id, private, sequence, body)
	})
	if err != nil {
		t.Fatal(err)
	}
	return u.Bytes(), node
}

// TestHand gives members the node CA's key over the API, each for itself; a node without a seat that
// is to have it gets none.
func TestHand(t *testing.T) {
	k, found := operate.ServeTwo(t)
	found()
	l, _, err := operate.Ledger(k)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it is given once, and asked for twice
		told, err := admission.Hand(t.Context(), k, l.State(), func(n operate.Notice) { t.Errorf("%+v", n) })
		if err != nil || len(told) != 1 || told[0].Node != "n1" || told[0].Err != nil {
			t.Fatalf("%+v, %v", told, err)
		}
	}
	s := l.State()
	seats := append(s.Roster.Seats[:0:0], s.Roster.Seats...)
	seats[1].Spare = true // this computer is wrong about n2, whose own ledger says otherwise
	s.Roster.Seats = seats
	told, err := admission.Hand(t.Context(), k, s, func(operate.Notice) {})
	if err != nil || len(told) != 2 || told[1].Err == nil || !strings.Contains(told[1].Err.Error(), "neither runs etcd nor may") {
		t.Errorf("%+v, %v", told, err)
	}
	if err := os.Remove(filepath.Join(k.Dir, "node-ca.key")); err != nil {
		t.Fatal(err)
	}
	again, err := keyring.Load(k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admission.Hand(t.Context(), again, s, func(operate.Notice) {}); !errors.Is(err, keyring.ErrNoKey) {
		t.Errorf("without the CA's key: %v", err)
	}
}

// TestAccept lets nobody in twice: a node that came, as two nodes tell of it, is accepted by its key.
func TestAccept(t *testing.T) {
	k, found := operate.ServeTwo(t)
	if j, _, err := admission.Invite(k, keyring.Terms{Node: "n9"}, time.Now()); err != nil || len(j.Record) > 0 {
		t.Errorf("before the founding: %+v, %v", j, err)
	}
	found()
	j, issued, err := admission.Invite(k, keyring.Terms{Node: "n9", Labels: map[string]string{"region": "eu"}}, time.Now())
	if err != nil || len(j.Record) == 0 || fmt.Sprint(j.Members) != "[192.0.2.1:7443]" {
		t.Fatalf("%+v, %v", j, err)
	}
	use, node := useOf(t, j, "n9")
	tell := func(n operate.Notice) { t.Errorf("%+v", n) }
	told, err := admission.GivePapers(t.Context(), k, []string{"n1"}, [][]byte{use}, tell)
	if err != nil || told[0].Err != nil {
		t.Fatal(told, err)
	}
	a, err := admission.Papers(t.Context(), k, []string{"n1", "n2"}, tell)
	if err != nil || len(a.Asked) != 2 {
		t.Fatal(a, err)
	}
	u, err := a.Waiting("n9")
	key, labels := u.Node, u.Record.Labels
	if err != nil || key != node || labels["region"] != "eu" {
		t.Errorf("%v, %v, %v", key, labels, err)
	}
	if _, err := a.Waiting("n8"); !errors.Is(err, admission.ErrNoSuchNode) {
		t.Errorf("%v", err)
	}
	h := operate.Health{Nodes: []operate.NodeHealth{{Node: "n9"}, {Node: "n7"}}, Problems: []operate.Problem{{Node: "n9", What: "silent"}, {Node: "n7", What: "silent"}}}
	a.Note(&h)
	if h.Nodes[0].Admitted != admission.New || h.Nodes[1].Admitted != admission.Adopted || len(h.Problems) != 1 || fmt.Sprint(admission.Waits(h)) != "[n9]" {
		t.Errorf("%+v", h)
	}
	paper, err := k.AcceptNode(key, u.TLSKey, "n9", labels, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if told, err := admission.GivePapers(t.Context(), k, []string{"n1", "n2"}, [][]byte{paper.Bytes()}, tell); err != nil || told[0].Err != nil || told[1].Err != nil {
		t.Fatal(told, err)
	}
	if a, err = admission.Papers(t.Context(), k, []string{"n2"}, tell); err != nil {
		t.Fatal(err)
	}
	h = operate.Health{Nodes: []operate.NodeHealth{}}
	a.Note(&h)
	if accepted, ok := a.Set.Accepted(node); !ok || accepted.Attested.Labels["region"] != "eu" || len(h.Nodes) != 1 || h.Nodes[0].Admitted != admission.Accepted {
		t.Errorf("%+v, %+v", accepted, h)
	}
	// Once the key of who accepted it is revoked, it has to be accepted anew; that is said until it is.
	l, _, err := operate.Ledger(k)
	if err != nil {
		t.Fatal(err)
	}
	issuer := document.HashOf(paper.Issuer).String()
	a.Set.Withdraw(l.State().Without(func(key string) bool { return key == issuer }))
	for _, seat := range []int{0, 1} {
		h = operate.Health{Nodes: []operate.NodeHealth{{Node: "n9", Seat: roster.Seat{Number: seat}}, {Node: "n7"}}}
		a.Note(&h)
		if said := len(h.Problems) == 1 && h.Problems[0].Node == "n9" && strings.Contains(h.Problems[0].Do, "kogge fleet accept n9"); said != (seat == 0) || seat > 0 && len(h.Problems) > 0 {
			t.Errorf("who accepted it is revoked, seat %d: %+v", seat, h.Problems)
		}
	}
	a.Set.Withdraw(l.State())
	h = operate.Health{Nodes: []operate.NodeHealth{{Node: "n9"}}}
	if a.Note(&h); len(h.Problems) > 0 {
		t.Errorf("who accepted it is not revoked: %+v", h.Problems)
	}
	public, err := issued.Key()
	if err != nil {
		t.Fatal(err)
	}
	end, err := k.EndToken(public, issued.Expires)
	if err != nil {
		t.Fatal(err)
	}
	told, err = admission.GivePapers(t.Context(), k, []string{"n2"}, [][]byte{end.Bytes(), []byte("junk")}, tell)
	if err != nil || connect.CodeOf(told[0].Err) != connect.CodeInvalidArgument {
		t.Errorf("junk: %v, %v", told, err)
	}
	if a, err = admission.Papers(t.Context(), k, []string{"n2"}, tell); err != nil || !a.Set.Ended(public) || a.Refused["not signed by an operator"] != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestManyPapers has a node tell of more than goes into one message about the fleet.
func TestManyPapers(t *testing.T) {
	const many = 1000
	dir := t.TempDir()
	k, found := operate.ServeTwo(t, func(_ int, c *serve.Config) {
		open := c.Records.Open
		c.Records.Papers = func() *papers.Store {
			store, err := papers.Open(dir, func() ledger.State {
				_, taken, err := open()
				if err != nil {
					t.Error(err)
				}
				return taken.State()
			})
			if err != nil {
				t.Error(err)
			}
			return store
		}
	})
	found()
	labels := notice.Labels{}
	for i := range 25 {
		labels[fmt.Sprintf("label%d", i)] = strings.Repeat("x", 100)
	}
	bytes := 0
	for i := range many {
		node, name := keyOf(t, i), fmt.Sprintf("a%d", i)
		paper, err := k.AcceptNode(node, document.HashOf([]byte(name)), name, labels, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		raw := paper.Bytes()
		if err := os.WriteFile(filepath.Join(dir, paper.ID().String()), append([]byte(document.HashOf(raw).String()+"\n"), raw...), 0o600); err != nil {
			t.Fatal(err)
		}
		bytes += len(raw)
	}
	if bytes < api.MaxEntry {
		t.Fatalf("%d bytes go into one message", bytes)
	}
	a, err := admission.Papers(t.Context(), k, []string{"n1"}, func(n operate.Notice) { t.Errorf("%+v", n) })
	if err != nil || a.Set.Len() != many {
		t.Errorf("%d papers of %d, %v", a.Set.Len(), many, err)
	}
}

// keyOf is the key of a node that is only told of.
func keyOf(t *testing.T, i int) signed.Key {
	t.Helper()
	seed := document.HashOf(fmt.Append(nil, i))
	key, err := signed.KeyOf(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return key
}
