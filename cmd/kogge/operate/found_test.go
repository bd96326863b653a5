package operate

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	"kogge.example/agent/serve/records"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// adopted is a fleet's keyring with so many nodes, adopted and answering: n1, n2, ….
func adopted(t *testing.T, n int) (k *keyring.Keyring, stop []func()) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	k, err := keyring.Create("hanse", "ada", time.Now())
	must(err)
	must(k.Save(filepath.Join(t.TempDir(), "hanse"), ""))
	return k, serving(t, k, n, nil).stop
}

// founded is adopted, founded by the first so many of the nodes, which have the first record; and
// what serves them.
func founded(t *testing.T, nodes, seats int) (*keyring.Keyring, *servers) {
	t.Helper()
	k, err := keyring.Create("hanse", "ada", time.Now())
	if err == nil {
		err = k.Save(filepath.Join(t.TempDir(), "hanse"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	s := serving(t, k, nodes, nil)
	s.found(t, k, seats)
	return k, s
}

// found founds the fleet with the first so many nodes, and gives them the record.
func (s *servers) found(t *testing.T, k *keyring.Keyring, seats int) {
	t.Helper()
	var names []string
	for i := range seats {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	tell := func(n Notice) { t.Errorf("%+v", n) }
	applicants, err := Applicants(t.Context(), k, names, tell)
	if err != nil {
		t.Fatal(err)
	}
	operators, err := Operators(k)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Plan(k.Genesis, operators, applicants, Wish{})
	if err != nil {
		t.Fatal(err)
	}
	owner, err := k.OwnerKeys(nil, sheets(t, k)[0])
	if err != nil {
		t.Fatal(err)
	}
	e, err := foundBy(k, v, owner)
	if err != nil {
		t.Fatal(err)
	}
	told, err := Give(t.Context(), k, names, []ledger.Entry{e}, tell)
	for _, n := range told {
		if err != nil || n.Err != nil {
			t.Fatal(n, err)
		}
	}
}

// foundBy makes record 1 with a value, signed by the owner.
func foundBy(k *keyring.Keyring, v ledger.Value, owner keyring.OwnerKeys) (ledger.Entry, error) {
	d, err := Draft(k.Genesis, v)
	if err == nil {
		d, err = SignDraft(k, d, owner, document.Hash{})
	}
	if err != nil {
		return ledger.Entry{}, err
	}
	return Begin(k, d)
}

// elsewhere is the same folder on another computer.
func elsewhere(t *testing.T, k *keyring.Keyring) *keyring.Keyring {
	t.Helper()
	other := *k
	other.Dir = t.TempDir()
	if err := os.CopyFS(other.Dir, os.DirFS(k.Dir)); err != nil {
		t.Fatal(err)
	}
	return &other
}

// servers are nodes that answer: who they are, what ends each, and its STATE.
type servers struct {
	nodes  []*identity.Node
	stop   []func()
	states []string
}

// serveNodes has so many nodes of a fleet answer, adopted; ready is whether each may know a
// fleet with a ledger.
func serveNodes(t *testing.T, k *keyring.Keyring, n int, ready func(i int) error) []*identity.Node {
	t.Helper()
	return serving(t, k, n, ready).nodes
}

func serving(t *testing.T, k *keyring.Keyring, n int, ready func(i int) error) *servers {
	t.Helper()
	return servingSince(t, k, n, ready, time.Now())
}

// servingSince is serving, of nodes that were adopted at a time.
func servingSince(t *testing.T, k *keyring.Keyring, n int, ready func(i int) error, then time.Time) *servers {
	t.Helper()
	all := &servers{}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		name, state := fmt.Sprintf("n%d", i+1), t.TempDir()
		node, err := identity.OpenNode(filepath.Join(state, "identity"))
		must(err)
		ledgerOf := func(node *identity.Node) *pinned.Ledger {
			return pinned.Open(filepath.Join(state, "ledger"), node.Genesis())
		}
		token, err := k.NewToken(keyring.Terms{Node: name, Life: time.Hour}, then)
		must(err)
		must(node.Join(&fleet.JoinFile{Genesis: k.Genesis, Token: token.Token}))
		csr, err := node.Request()
		must(err)
		der, err := k.SignNode(csr, name, then)
		must(err)
		must(node.Adopt(der))
		server, err := serve.Listen("127.0.0.1:0", serve.Config{
			Node: node, Machine: machine.Machine{Run: state, State: state}, ClockSure: func() bool { return true }, LogDir: state, Known: func(who fleet.Peer) (fleet.Peer, error) { return ledgerOf(node).Known(who) },
			Containers: func() serve.Containers { return nil }, Projects: func() serve.Projects { return nil }, Images: func() serve.Images { return nil },
			Records: records.Records{Open: func() (*identity.Seat, *pinned.Ledger, error) {
				seat, err := identity.OpenSeat(filepath.Join(state, "identity"))
				return seat, ledgerOf(node), err
			}, Addresses: func() []netip.Addr {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
			}, Ready: func() (func(), error) {
				if ready == nil {
					return func() {}, nil
				}
				return func() {}, ready(i)
			}},
		})
		must(err)
		ctx, cancel := context.WithCancel(context.Background())
		over := make(chan error, 1)
		go func() { over <- server.Serve(ctx) }()
		t.Cleanup(cancel)
		all.nodes, all.states = append(all.nodes, node), append(all.states, state)
		all.stop = append(all.stop, func() { cancel(); <-over })
		must(RememberNode(k, name, Node{Address: server.Address().String(), Adopted: then, Until: node.Certificate().Leaf.NotAfter}))
	}
	return all
}

// sheets are the owner's recovery sheets, as they lie in a new folder.
func sheets(t *testing.T, k *keyring.Keyring) (all [][]byte) {
	t.Helper()
	for _, name := range k.Sheets() {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}

// TestFound founds a fleet of three over the API: each node has the first record, and what
// they give out is what the folder has.
func TestFound(t *testing.T) {
	k, stop := adopted(t, 4)
	names := []string{"n3", "n1", "n2"}
	tell := func(n Notice) { t.Errorf("%+v", n) }
	applicants, err := Applicants(t.Context(), k, names, tell)
	if err != nil {
		t.Fatal(err)
	}
	operators, err := Operators(k)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Plan(k.Genesis, operators, applicants, Wish{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.OwnerKeys(nil); !errors.Is(err, keyring.ErrOwners) {
		t.Errorf("one owner key of two: %v", err)
	}
	owner, err := k.OwnerKeys(nil, sheets(t, k)[0])
	if err != nil {
		t.Fatal(err)
	}
	e, err := foundBy(k, v, owner)
	if err != nil {
		t.Fatal(err)
	}
	stop[2]() // n3 goes: it is named, and the others have it
	told, err := Give(t.Context(), k, []string{"n1", "n2", "n3"}, []ledger.Entry{e}, tell)
	if err != nil || told[0].Err != nil || told[1].Err != nil || told[2].Err == nil {
		t.Errorf("%v, %v", told, err)
	}
	l, entries, err := Ledger(k)
	if err != nil || l.State().Height != 1 || l.State().Roster.Quorum() != 2 || len(entries) != 1 {
		t.Fatalf("%+v, %v", l.State(), err)
	}
	if _, ok := l.State().Roster.ByName("n4"); ok {
		t.Error("n4 has a seat, and nobody asked for it")
	}
	nodes, err := Nodes(k)
	if err != nil {
		t.Fatal(err)
	}
	err = Remote{Keys: k, Name: "n2", Address: nodes["n2"].Address, Tell: tell}.Call(t.Context(), func(ctx context.Context, c *api.Client) error {
		got, _, err := Fetch(ctx, k, c, "n2")
		if err == nil && got.State().Tree != l.State().Tree {
			t.Error("n2 has another ledger")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := foundBy(k, v, owner); !errors.Is(err, ErrFounding) {
		t.Errorf("a second founding: %v", err)
	}
	late := lateAdmin(t, k)
	for name, want := range map[string]apiv1.Reason{"n1": apiv1.Reason_REASON_UNLISTED, "n4": apiv1.Reason_REASON_UNSPECIFIED} {
		c := api.Dial(nodes[name].Address, name, k.Genesis, late)
		if _, err := c.Status(t.Context(), connect.NewRequest(&apiv1.StatusRequest{})); (err == nil) != (want == 0) || err != nil && api.ReasonOf(err) != want {
			t.Errorf("%s, and somebody whom the CA signed later: %v", name, err)
		}
		c.Close()
	}
	// Another folder of the same owner founds it once more: no node takes that.
	other := l.State()
	again := *k
	again.Dir = t.TempDir()
	v.Founding.Roster.Seats[0].Domain = "attic"
	second, err := foundBy(&again, v, owner)
	if err != nil {
		t.Fatal(err)
	}
	told, err = Give(t.Context(), k, []string{"n1"}, []ledger.Entry{second}, tell)
	if err != nil || told[0].Err == nil || !strings.Contains(told[0].Err.Error(), "two records for one height") {
		t.Errorf("%v, %v", told, err)
	}
	if l, _, err := Ledger(k); err != nil || l.State().Record != other.Record {
		t.Errorf("%v", err)
	}
}

// lateAdmin is the certificate of an admin whom the CA signs now.
func lateAdmin(t *testing.T, k *keyring.Keyring) tls.Certificate {
	t.Helper()
	key, err := fleet.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := fleet.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := k.SignOperator(csr, "late", fleet.RoleAdmin, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestSeatless founds a fleet, and has a node that has no seat in it take its ledger and be
// permitted an update; so is a node that had taken nothing.
func TestSeatless(t *testing.T) {
	k, _ := adopted(t, 3)
	tell := func(n Notice) { t.Errorf("%+v", n) }
	applicants, err := Applicants(t.Context(), k, []string{"n1", "n2"}, tell)
	if err != nil {
		t.Fatal(err)
	}
	operators, err := Operators(k)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Plan(k.Genesis, operators, applicants, Wish{})
	if err != nil {
		t.Fatal(err)
	}
	owner, err := k.OwnerKeys(nil, sheets(t, k)[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := foundBy(k, v, owner); err != nil {
		t.Fatal(err)
	}
	nodes, err := Nodes(k)
	if err != nil {
		t.Fatal(err)
	}
	if is, err := Adopt(t.Context(), k, nodes["n3"].Address, "", tell); err != nil || !is.Before {
		t.Fatal(is, err)
	}
	if all, err := Applicants(t.Context(), k, []string{"n3"}, tell); err != nil || all[0].Height != 1 {
		t.Errorf("n3 was adopted into a founded fleet: %+v, %v", all, err)
	}
	const digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	for _, name := range []string{"n2", "n3"} {
		err := Remote{Keys: k, Name: name, Address: nodes[name].Address, Tell: tell}.Call(t.Context(), func(ctx context.Context, c *api.Client) error {
			l, a, err := Level(ctx, k, c, name)
			if err != nil {
				return err
			}
			if a.Height != 1 {
				t.Errorf("%s has height %d", name, a.Height)
			}
			raw, err := Permit(l.State(), a, digest, &apiv1.ListSlotsResponse{NextArming: 2}, owner)
			if err != nil {
				return err
			}
			p, err := ledger.ParsePermit(raw)
			if err != nil {
				return err
			}
			if _, err := Permit(l.State(), a, digest, &apiv1.ListSlotsResponse{}, owner); err == nil {
				t.Error("a node that has lost count is permitted an update")
			}
			if _, err := Permit(l.State(), a, "", &apiv1.ListSlotsResponse{NextArming: 2}, owner); !errors.Is(err, ledger.ErrPermit) {
				t.Errorf("a permit for no release: %v", err)
			}
			if a.Key = seatKey(t); name == "n2" {
				if _, err := Permit(l.State(), a, digest, &apiv1.ListSlotsResponse{NextArming: 2}, owner); err == nil {
					t.Error("a node that has lost its seat's key is permitted an update")
				}
			}
			return l.State().Permits(p, p.Node)
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// seatKey is a key that nobody has.
func seatKey(t *testing.T) signed.Key {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signed.KeyOf(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestPlan is the table of who runs etcd, and of what cannot be.
func TestPlan(t *testing.T) {
	k, err := keyring.Create("hanse", "ada", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	operators, err := Operators(k)
	if err != nil {
		t.Fatal(err)
	}
	boards := func(archs ...string) (all []Applicant) {
		for i, arch := range archs {
			all = append(all, Applicant{
				Name: fmt.Sprintf("n%d", i+1), Key: seatKey(t), Journal: roster.NewID(), Arch: arch,
				Reached: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1)),
				Own:     []netip.Addr{netip.MustParseAddr("10.0.2.15"), netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1))},
			})
		}
		return all
	}
	behind := func(at string, own ...string) []Applicant { // a router
		all := boards("amd64", "amd64", "amd64")
		all[1].Reached = netip.MustParseAddr(at)
		all[1].Own = nil
		for _, text := range own {
			all[1].Own = append(all[1].Own, netip.MustParseAddr(text))
		}
		return all
	}
	x86 := func(n int) []Applicant { return boards(slices.Repeat([]string{"amd64"}, n)...) }
	var b strings.Builder
	for _, c := range []struct {
		name       string
		applicants []Applicant
		wish       Wish
	}{
		{"one", x86(1), Wish{}}, {"two", x86(2), Wish{}}, {"three", x86(3), Wish{}}, {"four", x86(4), Wish{}}, {"seven", x86(7), Wish{}},
		{"boards", boards("arm", "arm64", "riscv64", "amd64", "arm64"), Wish{}}, {"boards alone", boards("arm", "riscv64"), Wish{}},
		{"spares", x86(5), Wish{Spares: []string{"n1", "n2"}}},
		{"domains", x86(5), Wish{Domains: map[string]string{"n1": "attic", "n2": "attic", "n3": "cellar"}, Spares: []string{"n5"}}},
		{"wished", x86(5), Wish{Members: []string{"n5", "n2", "n4"}}},
		{"two members", x86(5), Wish{Members: []string{"n5", "n2"}}},
		{"a stranger", x86(3), Wish{Members: []string{"n9"}}},
		{"a board that cannot", boards("arm", "amd64"), Wish{Members: []string{"n1"}}},
		{"member and spare", x86(3), Wish{Members: []string{"n1"}, Spares: []string{"n1"}}},
		{"a stranger's domain", x86(3), Wish{Domains: map[string]string{"n9": "attic"}}},
		{"nobody", nil, Wish{}},
		{"behind a router", behind("203.0.113.7", "10.0.2.15", "10.9.9.9"), Wish{}},
		{"behind one with the address of others", behind("203.0.113.7", "10.0.2.15"), Wish{}},
		{"by the address of another", behind("192.0.2.1", "192.0.2.1"), Wish{}},
		{"without an address", behind("203.0.113.7"), Wish{}},
	} {
		v, err := Plan(k.Genesis, operators, c.applicants, c.wish)
		if err == nil {
			_, err = ledger.New(k.Genesis).State().Next(v)
		}
		if err != nil {
			fmt.Fprintf(&b, "%s\n    %v\n", c.name, err)
			continue
		}
		fmt.Fprintf(&b, "%s\n    %s, %d of %d;", c.name, v.Founding.Roster.Rule, v.Founding.Roster.Quorum(), v.Founding.Roster.Votes())
		for i, a := range v.Founding.Cluster {
			s, _ := v.Founding.Roster.Seat(a.Seat)
			fmt.Fprintf(&b, "%s %s (%s)", []string{" etcd on", ","}[min(i, 1)], s.Name, a.Address)
		}
		fmt.Fprintln(&b)
	}
	golden.Compare(t, "plan.txt", b.String())
}

// TestOperators lists the operators of record 1: everybody once who is not revoked, and nobody
// where it is not sure which key is whose.
func TestOperators(t *testing.T) {
	k, _ := adopted(t, 0)
	sign := func(name string) {
		t.Helper()
		key, err := fleet.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := fleet.NewRequest(key)
		if err == nil {
			_, err = k.SignOperator(csr, name, fleet.RoleAdmin, time.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	names := func() (all []string) {
		operators, err := Operators(k)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range operators {
			all = append(all, o.Name)
		}
		return all
	}
	sign("bob")
	sign("zoe")
	if got := names(); !slices.Equal(got, []string{"ada", "bob", "zoe"}) {
		t.Error(got)
	}
	sign("bob")
	issued, err := k.Operators()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Operators(k)
	if !errors.Is(err, ErrFounding) || !strings.Contains(err.Error(), fleet.Short(issued[1].Key)) || !strings.Contains(err.Error(), fleet.Short(issued[3].Key)) {
		t.Errorf("bob with two keys: %v", err)
	}
	if _, err := k.RevokeOperator("bob", time.Now()); err != nil {
		t.Fatal(err)
	}
	sign("bob")
	if got := names(); !slices.Equal(got, []string{"ada", "bob", "zoe"}) {
		t.Error(got)
	}
	// Who was invited does not know whom the fleet has signed: his list is no fleet's.
	v, err := Plan(k.Genesis, []ledger.Operator{{Name: "carl", Role: fleet.RoleAdmin, Key: document.HashOf([]byte("carl"))}}, []Applicant{{
		Name: "n1", Key: seatKey(t), Journal: roster.NewID(), Arch: "amd64", Own: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}}, Wish{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Draft(k.Genesis, v); !errors.Is(err, ErrFounding) || !strings.Contains(err.Error(), "first operator") {
		t.Errorf("without who made the fleet: %v", err)
	}
}

// TestFits prints what is said of a draft that comes back, where it is not what would be written
// now.
func TestFits(t *testing.T) {
	k, _ := adopted(t, 0)
	operators, err := Operators(k)
	if err != nil {
		t.Fatal(err)
	}
	bob := ledger.Operator{Name: "bob", Role: fleet.RoleAdmin, Key: document.HashOf([]byte("bob"))}
	key := func(name string) signed.Key { return ledgertest.Key(t, name) }
	nodes := func(names ...string) (all []Applicant) {
		for i, name := range names {
			all = append(all, Applicant{Name: name, Key: key(name), Journal: roster.ID{byte(i + 1)}, Arch: "amd64", Own: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1))}})
		}
		return all
	}
	wish := Wish{Members: []string{"n1"}, Spares: []string{"n2"}, Domains: map[string]string{"n1": "attic"}}
	draft := func(operators []ledger.Operator, w Wish, names ...string) ledger.Draft {
		v, err := Plan(k.Genesis, operators, nodes(names...), w)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Draft(k.Genesis, v)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	good := draft(operators, wish, "n1", "n2", "n3")
	three := []string{"n1", "n2", "n3"}
	reset, moved, knowing := nodes(three...), nodes(three...), nodes(three...)
	reset[1].Key = key("another")
	moved[0].Own = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	knowing[2].Height = 1
	var b strings.Builder
	for _, c := range []struct {
		name       string
		draft      ledger.Draft
		names      []string
		applicants []Applicant
		wish       Wish
	}{
		{"as it was", good, three, nodes(three...), wish},
		{"as it was, said shortly", good, three, nodes(three...), Wish{}},
		{"one does not answer", good, three, nodes("n1", "n2"), wish},
		{"one has another address", good, three, moved, wish},
		{"one was reset", good, three, reset, wish},
		{"one was founded meanwhile", good, three, knowing, wish},
		{"one more is named", good, append(three, "n4"), nodes("n1", "n2", "n3", "n4"), wish},
		{"one is not named", good, []string{"n1", "n2"}, nodes("n1", "n2"), wish},
		{"other members", good, three, nodes(three...), Wish{Members: []string{"n3"}, Spares: []string{"n1"}}},
		{"another domain", good, three, nodes(three...), Wish{Domains: map[string]string{"n1": "cellar"}}},
		{"another operator", draft(append(operators, bob), wish, three...), three, nodes(three...), wish},
		{"one operator less", draft(operators[:1], wish, three...), three, nodes(three...), wish},
	} {
		all := operators
		if c.name == "one operator less" {
			all = append(slices.Clone(operators), bob)
		}
		err := Fits(c.draft, c.names, c.applicants, all, c.wish)
		if err != nil && !errors.Is(err, ErrFounding) {
			t.Errorf("%s: %v", c.name, err)
		}
		text := strings.ReplaceAll(fmt.Sprint(err), "\n", "\n    ")
		fmt.Fprintf(&b, "%s\n    %s\n", c.name, text)
	}
	golden.Compare(t, "fits.txt", b.String())
}
