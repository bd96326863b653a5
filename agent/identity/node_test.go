package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// adopted lets a node into a fleet, as an operator does it.
func adopted(t testing.TB, f *keyring.Keyring, n *Node, name string) {
	t.Helper()
	token, err := f.NewToken(keyring.Terms{}, today)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token}); err != nil {
		t.Fatal(err)
	}
	if err := n.Adopt(sign(t, f, n, name)); err != nil {
		t.Fatal(err)
	}
}

// sign asks a node for its answer and has the fleet sign it.
func sign(t testing.TB, f *keyring.Keyring, n *Node, name string) []byte {
	t.Helper()
	nonce := make([]byte, fleet.NonceSize)
	rand.Read(nonce)
	csr, mac, err := n.Answer(nonce)
	if err != nil {
		t.Fatal(err)
	}
	der, err := f.AdoptNode(csr, nonce, mac, name, "", today)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func openedNode(t testing.TB, dir string) *Node {
	t.Helper()
	n, err := OpenNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestAdoption follows a node from its first boot to its second year.
func TestAdoption(t *testing.T) {
	f, dir := savedFleet(t, "dev"), filepath.Join(t.TempDir(), "identity")
	n := openedNode(t, dir)
	key := n.Key()
	if n.Adopted() || n.Genesis() != nil || n.Name() != "" || n.String() != "node of no fleet, key "+fleet.Short(key) {
		t.Fatalf("a new node is %v", n)
	}
	leaf := n.Certificate().Leaf
	if fleet.KeyID(leaf.RawSubjectPublicKeyInfo) != key || leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) != nil {
		t.Fatal("its first certificate is not its own")
	}
	if _, err := f.Genesis.VerifyPeer(leaf, nil, today, false, nil); !errors.Is(err, fleet.ErrForeign) {
		t.Fatalf("the fleet says of it: %v", err)
	}
	if _, _, err := n.Answer(make([]byte, fleet.NonceSize)); !errors.Is(err, ErrNoJoin) {
		t.Fatalf("it answers: %v", err)
	}
	if err := n.Adopt(otherNode(t, f, "n1", today)); !errors.Is(err, ErrNoJoin) {
		t.Fatalf("it is adopted by anybody: %v", err)
	}

	// join.yaml is read, and the node restarts.
	token, err := f.NewToken(keyring.Terms{Node: "n1"}, today)
	if err != nil {
		t.Fatal(err)
	}
	j, err := ParseJoinFile(fleet.JoinName, fleet.MarshalJoinFile(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token}))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Join(j); err != nil {
		t.Fatal(err)
	}
	n = openedNode(t, dir)
	if n.Key() != key || n.Adopted() || n.Genesis().ID() != f.Genesis.ID() || !strings.Contains(n.String(), "waits for fleet dev") {
		t.Fatalf("after join.yaml it is %v", n)
	}
	for _, size := range []int{0, 16, 33} {
		if _, _, err := n.Answer(make([]byte, size)); err == nil {
			t.Errorf("it answers to %d bytes", size)
		}
	}

	// It is adopted, and restarts.
	if err := n.Adopt(sign(t, f, n, "n1")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !n.Adopted() || n.Name() != "n1" || n.Key() != key {
			t.Fatalf("after adoption it is %v", n)
		}
		peer, err := f.Genesis.VerifyPeer(n.Certificate().Leaf, nil, today, true, nil)
		if err != nil || peer.Kind != fleet.KindNode || peer.Name != "n1" || peer.Key != key {
			t.Fatalf("%v, %v", peer, err)
		}
		if _, _, err := n.Answer(make([]byte, fleet.NonceSize)); !errors.Is(err, ErrAdopted) {
			t.Fatalf("it answers again: %v", err)
		}
		n = openedNode(t, dir)
	}
	for _, name := range []string{membershipName, nodeKeyName} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || bytes.Contains(text, []byte("kogge-")) {
			t.Errorf("%s: %v, or the token is still there", name, err)
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}

	// The same join.yaml once more changes nothing, another fleet's is refused.
	if err := n.Join(j); err != nil || !n.Adopted() {
		t.Errorf("the same join.yaml: %v", err)
	}
	other := savedFleet(t, "other")
	if err := n.Join(&fleet.JoinFile{Genesis: other.Genesis, Token: fleet.NewToken()}); !errors.Is(err, ErrOtherFleet) {
		t.Errorf("another fleet's join.yaml: %v", err)
	}

	// Three years later the certificate is long over, and is renewed all the same.
	later := today.AddDate(3, 0, 0)
	if _, err := f.Genesis.VerifyPeer(n.Certificate().Leaf, nil, later, true, nil); !errors.Is(err, fleet.ErrExpired) {
		t.Error(err)
	}
	der, err := f.RenewNode(n.Certificate().Leaf, later)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Renew(der); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Genesis.VerifyPeer(openedNode(t, dir).Certificate().Leaf, nil, later, true, nil); err != nil {
		t.Error(err)
	}
}

// TestAdoptRefused offers a node certificates that are not for it.
func TestAdoptRefused(t *testing.T) {
	f, other := savedFleet(t, "dev"), savedFleet(t, "other")
	n := openedNode(t, t.TempDir())
	token, err := f.NewToken(keyring.Terms{}, today)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Join(&fleet.JoinFile{Genesis: other.Genesis, Token: fleet.NewToken()}); err != nil {
		t.Fatal(err)
	}
	// Not adopted yet, it follows the later join.yaml.
	if err := n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token}); err != nil {
		t.Fatal(err)
	}
	csr, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.SignNode(csr, "n1", today)
	if err != nil {
		t.Fatal(err)
	}
	operator, err := f.SignOperator(csr, "n1", fleet.RoleAdmin, today)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"of another fleet": foreign, "an operator's": operator, "for another key": otherNode(t, f, "n1", today),
		"its own": n.Certificate().Certificate[0], "none": nil, "garbage": []byte("certificate"),
	} {
		if err := n.Adopt(der); err == nil {
			t.Errorf("a certificate %s is taken", name)
		}
	}
	if n.Adopted() {
		t.Fatal("it is adopted")
	}
	if err := n.Adopt(sign(t, f, n, "n1")); err != nil {
		t.Fatal(err)
	}
}

// TestMemberSigns adopts a node by the key of a member below the node CA.
func TestMemberSigns(t *testing.T) {
	f, n := savedFleet(t, "dev"), openedNode(t, t.TempDir())
	member, memberKey := signMember(t, f)
	if err := n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: fleet.NewToken()}); err != nil {
		t.Fatal(err)
	}
	der, err := fleet.SignPeer(fleet.Peer{Kind: fleet.KindNode, Name: "n1", Fleet: f.Genesis.ID()}, &n.key.PublicKey, member, memberKey, today)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Adopt(der); !errors.Is(err, fleet.ErrForeign) {
		t.Errorf("without the member's certificate: %v", err)
	}
	if err := n.Adopt(der, member.Raw); err != nil {
		t.Fatal(err)
	}
	if len(n.Certificate().Certificate) != 2 {
		t.Error("it does not show the chain")
	}
}

// memoryFiles is a folder on STATE that loses power at one of its writes; whether that
// one came to the disk, the test decides.
type memoryFiles struct {
	disk  map[string]string
	left  int
	lands bool
}

func (m *memoryFiles) Read(name string) ([]byte, error) {
	if text, ok := m.disk[name]; ok {
		return []byte(text), nil
	}
	return nil, fs.ErrNotExist
}

func (m *memoryFiles) Keep(name string) error {
	text, ok := m.disk[name]
	if !ok {
		return fs.ErrNotExist
	}
	for n := 1; ; n++ {
		as := durable.AsideName(name, n)
		if kept, there := m.disk[as]; !there {
			return m.Replace(as, []byte(text))
		} else if kept == text {
			return nil
		}
	}
}

func (m *memoryFiles) Replace(name string, data []byte) error {
	if m.left--; m.left >= 0 {
		m.disk[name] = string(data)
		return nil
	}
	if m.left == -1 && m.lands {
		m.disk[name] = string(data)
	}
	return errCut
}

// TestNodePowerCut cuts the power at every write from the first boot to a revoked
// operator: each time the node comes up as it was before or after that write, with the
// key that it had shown to anybody, and goes on from there.
func TestNodePowerCut(t *testing.T) {
	f := savedFleet(t, "dev")
	token, err := f.NewToken(keyring.Terms{Count: 100}, today)
	if err != nil {
		t.Fatal(err)
	}
	eve := fleet.KeyID([]byte("eve"))
	// life goes on from wherever the node is; shown is the key that others have seen.
	life := func(files *memoryFiles, shown *string) error {
		n, err := openNode(files)
		if err != nil {
			return err
		}
		if *shown != "" && n.Key() != *shown {
			t.Fatalf("the node has another key")
		}
		*shown = n.Key()
		if !n.Adopted() {
			if err := n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token}); err != nil {
				return err
			}
			if err := n.Adopt(sign(t, f, n, "n1")); err != nil {
				return err
			}
		}
		return n.Revoke(eve)
	}
	for writes := 0; ; writes++ {
		done := false
		for _, lands := range []bool{false, true} {
			shown := ""
			m := &memoryFiles{disk: make(map[string]string), left: writes, lands: lands}
			err := life(m, &shown)
			if err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			done = err == nil
			after := &memoryFiles{disk: maps.Clone(m.disk), left: 100}
			if err := life(after, &shown); err != nil {
				t.Fatalf("writes=%d lands=%v: after the cut: %v", writes, lands, err)
			}
			n, err := openNode(after)
			if err != nil || !n.Adopted() || !n.Revoked(eve) {
				t.Fatalf("writes=%d lands=%v: %v, %v", writes, lands, n, err)
			}
		}
		if done {
			if writes != 4 {
				t.Errorf("a life takes %d writes", writes)
			}
			return
		}
	}
}

// TestAdoptKnowing cuts the power at every write of an adoption that brings revoked
// keys: an adopted node knows them all. A call that is refused leaves none of them.
func TestAdoptKnowing(t *testing.T) {
	f := savedFleet(t, "dev")
	token, err := f.NewToken(keyring.Terms{Count: 100}, today)
	if err != nil {
		t.Fatal(err)
	}
	revoked := []string{fleet.KeyID([]byte("eve")), fleet.KeyID([]byte("mallory"))}
	ready := func(files *memoryFiles) *Node {
		n, err := openNode(files)
		if err == nil {
			err = n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token})
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	n := ready(m)
	good := sign(t, f, n, "n1")
	for title, err := range map[string]error{
		"a bad certificate":  n.AdoptKnowing(revoked, operator(t, f, "bob", fleet.RoleReader)),
		"no certificate":     n.AdoptKnowing(revoked, []byte("x")),
		"the node's own key": n.AdoptKnowing([]string{revoked[0], n.Key()}, good),
		"a key that is none": n.AdoptKnowing([]string{revoked[0], "eve"}, good),
	} {
		if err == nil || n.Adopted() || len(n.RevokedKeys()) != 0 || m.disk[revokedName] != "" {
			t.Errorf("%s: %v; knows %v", title, err, n.RevokedKeys())
		}
	}
	for writes := 0; ; writes++ {
		done := false
		for _, lands := range []bool{false, true} {
			m := &memoryFiles{disk: make(map[string]string), left: 100}
			n := ready(m)
			der := sign(t, f, n, "n1")
			m.left, m.lands = writes, lands
			err := n.AdoptKnowing(revoked, der)
			if done = err == nil; !done && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			after, err := openNode(&memoryFiles{disk: maps.Clone(m.disk), left: 100})
			if err != nil || after.Adopted() && len(after.RevokedKeys()) != 2 || done && !after.Adopted() {
				t.Fatalf("writes=%d lands=%v: %v knows %v, %v", writes, lands, after, after.RevokedKeys(), err)
			}
			if err := after.AdoptKnowing(revoked, der); err != nil || !after.Adopted() || !after.Revoked(revoked[1]) {
				t.Fatalf("writes=%d lands=%v: after the cut: %v", writes, lands, err)
			}
		}
		if done {
			return
		}
	}
}

// TestRevoke tries what can be revoked.
func TestRevoke(t *testing.T) {
	dir := t.TempDir()
	n := openedNode(t, dir)
	for _, key := range []string{"", "eve", strings.ToUpper(n.Key()), n.Key()} {
		if err := n.Revoke(key); err == nil {
			t.Errorf("key %q is revoked", key)
		}
	}
	a, b := fleet.KeyID([]byte("a")), fleet.KeyID([]byte("b"))
	for _, key := range []string{a, b, a} {
		if err := n.Revoke(key); err != nil {
			t.Fatal(err)
		}
	}
	c := fleet.KeyID([]byte("c"))
	if err := n.Revoke(c, "eve"); err == nil || n.Revoked(c) {
		t.Errorf("half of a list is revoked: %v", err)
	}
	many := make([]string, maxRevoked+1)
	for i := range many {
		many[i] = fleet.KeyID([]byte{byte(i), byte(i >> 8)})
	}
	if err := n.Revoke(many...); err == nil || len(n.RevokedKeys()) != 2 {
		t.Errorf("%d keys: %v", len(many), err)
	}
	n = openedNode(t, dir)
	if !n.Revoked(a) || !n.Revoked(b) || n.Revoked(n.Key()) || len(n.RevokedKeys()) != 2 {
		t.Errorf("%v", n.RevokedKeys())
	}
}

// slowFiles is a folder on a card that is slow: during is called while it writes.
type slowFiles struct {
	keeping
	during func()
}

func (s slowFiles) Replace(name string, data []byte) error {
	s.during()
	return s.keeping.Replace(name, data)
}

// TestRevokedMeanwhile asks whether a key was revoked while the node writes: the answer does not wait.
func TestRevokedMeanwhile(t *testing.T) {
	n := openedNode(t, t.TempDir())
	a, b := fleet.KeyID([]byte("a")), fleet.KeyID([]byte("b"))
	if err := n.Revoke(a); err != nil {
		t.Fatal(err)
	}
	asked := false
	n.files = slowFiles{n.files, func() {
		asked = true
		answer := make(chan bool, 1)
		go func() { answer <- n.Revoked(a) && !n.Revoked(b) && len(n.RevokedKeys()) == 1 }()
		select {
		case right := <-answer:
			if !right {
				t.Error("it knows what is not written yet, or has forgotten what was")
			}
		case <-time.After(10 * time.Second):
			t.Error("it waits for the disk")
		}
	}}
	if err := n.Revoke(b); err != nil || !asked || !n.Revoked(b) {
		t.Errorf("%v; asked: %v", err, asked)
	}
}

// TestNodeAtOnce asks a node from many sides while it is adopted.
func TestNodeAtOnce(t *testing.T) {
	f, n := savedFleet(t, "dev"), openedNode(t, t.TempDir())
	var asked sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		asked.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if n.Adopted() && n.Certificate().Leaf.Subject.CommonName != "n1" {
					t.Error("adopted, and without its certificate")
				}
				_, _, _, _ = n.Genesis(), n.Name(), n.String(), n.Revoked("")
			}
		})
	}
	adopted(t, f, n, "n1")
	if err := n.Revoke(fleet.KeyID([]byte("eve"))); err != nil {
		t.Error(err)
	}
	close(stop)
	asked.Wait()
}

// signMember makes a member of a fleet below its node CA, which signs nodes.
func signMember(t *testing.T, f *keyring.Keyring) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(f.Dir, "node-ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	caKey, err := document.DecodeKey[*ecdsa.PrivateKey](text)
	if err != nil {
		t.Fatal(err)
	}
	key, err := fleet.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		NotBefore: today, NotAfter: today.AddDate(1, 0, 0), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, f.Genesis.NodeCA, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// TestTokenHidden prints a node that waits for its fleet in every way there is.
func TestTokenHidden(t *testing.T) {
	token, err := fleet.ParseToken("kogge-aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyp5clio")
	if err != nil {
		t.Fatal(err)
	}
	m := membership{token: token}
	var printed strings.Builder
	for _, value := range []any{m, &m, &Node{m: m, spki: []byte("x")}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%p"} {
			fmt.Fprintf(&printed, verb+"\n", value)
		}
		text, err := json.Marshal(value)
		fmt.Fprintf(&printed, "%s %v\n", text, err)
	}
	for _, form := range []string{token.Text()[10:20], "05060708090a", "5 6 7 8", "0x5, 0x6, 0x7", "5,6,7"} {
		if at := strings.Index(strings.ToLower(printed.String()), form); at >= 0 {
			t.Errorf("the token is printed: %s", printed.String()[max(0, at-60):at+20])
		}
	}
}
