package keyring

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

const passphrase = "correct horse battery staple"

// TestKeyring makes a fleet under a passphrase, closes it and opens it again.
func TestKeyring(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config", "kogge", "dev")
	k := newFleet(t, "dev")
	if err := k.Save(dir, passphrase); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "folder.txt", listing(t, filepath.Dir(dir)))
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	csr, _ := request(t)
	for _, k := range []*Keyring{k, loaded} {
		if k.Genesis.ID() != loaded.Genesis.ID() || k.Dir != dir || k.Operator().String() != "operator ada (admin)" {
			t.Errorf("%+v", k.Operator())
		}
		if _, err := k.SignNode(csr, "n1", today); err != nil {
			t.Error(err) // that takes no passphrase
		}
		if k.HoldsOwner(1) != Closed || k.HoldsOwner(2) != OnSheet || k.HoldsCA(fleet.KindOperator) != Closed || k.HoldsCA(fleet.KindNode) != Open {
			t.Error("keys are not where they belong")
		}
	}
	if _, err := loaded.SignOperator(csr, "bob", fleet.RoleReader, today); !errors.Is(err, ErrLocked) || !loaded.Locked() {
		t.Errorf("locked: %v", err)
	}
	for _, wrong := range []string{"", "Correct horse battery staple", passphrase + " "} {
		if err := loaded.Unlock(wrong); err == nil || !loaded.Locked() {
			t.Errorf("passphrase %q: %v", wrong, err)
		}
		if _, err := loaded.ownerKey(1, wrong); !errors.Is(err, ErrPassphrase) && !errors.Is(err, ErrLocked) {
			t.Errorf("owner key with passphrase %q: %v", wrong, err)
		}
	}
	if err := loaded.Unlock(passphrase); err != nil || loaded.Locked() {
		t.Fatal(err)
	}
	der, err := loaded.SignOperator(csr, "bob", fleet.RoleReader, today)
	bob := parse(t, der, err)
	if peer, err := k.Genesis.VerifyPeer(bob, nil, today, true, nil); err != nil || peer.String() != "operator bob (reader)" {
		t.Errorf("%v, %v", peer, err)
	}
	key, err := loaded.ownerKey(1, passphrase)
	if err != nil || !k.Genesis.Owners[0].Equal(key.Public()) {
		t.Errorf("owner key: %v", err)
	}
	if _, err := loaded.ownerKey(2, passphrase); !errors.Is(err, ErrNoKey) {
		t.Errorf("owner key 2: %v", err)
	}
	for _, bad := range []struct {
		name string
		role fleet.Role
	}{{"Bob", fleet.RoleReader}, {"", fleet.RoleReader}, {"bob", "root"}, {"bob", ""}} {
		if _, err := loaded.SignOperator(csr, bad.name, bad.role, today); err == nil {
			t.Errorf("signed operator %q with role %q", bad.name, bad.role)
		}
	}
	if _, err := loaded.SignNode(csr, "n1.local", today); err == nil {
		t.Error("signed node n1.local")
	}
}

// ownerKey opens owner key i, from 1, of this folder; the passphrase is that of the
// founder, or "" for a key that lies open. [ErrNoKey] says that it is not here.
func (k *Keyring) ownerKey(i int, passphrase string) (ed25519.PrivateKey, error) {
	key, err := readKey[ed25519.PrivateKey](k.path(ownerName(i)))
	if err == nil && key == nil {
		key, err = openKey[ed25519.PrivateKey](k, ownerName(i), passphrase)
	}
	if err == nil && k.Genesis.Owner(key.Public().(ed25519.PublicKey)) != i {
		err = ErrNotOwner
	}
	if err != nil {
		return nil, fmt.Errorf("fleet %s: owner key %d: %w", k.Genesis.Name, i, err)
	}
	return key, nil
}

// listing shows a folder's files with their modes, and which hold a key in the open.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := ""
		if !d.IsDir() {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			what, _, _ = strings.Cut(string(text), "\n")
		}
		rel, _ := filepath.Rel(filepath.Dir(dir), name)
		fmt.Fprintf(&b, "%v  %-35s %s\n", info.Mode(), filepath.ToSlash(rel), what)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestFleetOpen makes one without a passphrase, and never over another.
func TestFleetOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	k := newFleet(t, "dev")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err) // an empty folder is in nobody's way
	}
	if err := k.Save(dir, ""); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Locked() || loaded.Unlock("") != nil || loaded.HoldsOwner(1) != Open || loaded.HoldsCA(fleet.KindOperator) != Open {
		t.Error("it is locked")
	}
	if _, err := loaded.ownerKey(1, ""); err != nil {
		t.Error(err)
	}
	if err := k.Save(filepath.Join(t.TempDir(), "dev"), ""); err == nil {
		t.Error("it is saved twice, and the second time without owner keys")
	}
	before := listing(t, dir)
	if err := newFleet(t, "dev").Save(dir, ""); !errors.Is(err, ErrExists) {
		t.Errorf("over another: %v", err)
	}
	if after := listing(t, dir); after != before {
		t.Errorf("the other is changed:\n%s", after)
	}
	if err := publish(userDisk{}, dir, []file{{"x", nil}}); !errors.Is(err, ErrExists) {
		t.Errorf("over another at the last moment: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	names, err := List(filepath.Dir(dir))
	if err != nil || !slices.Equal(names, []string{"dev"}) {
		t.Errorf("%v, %v", names, err)
	}
	if names, err := List(filepath.Join(dir, "none")); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
}

// TestCreateRefused tries names.
func TestCreateRefused(t *testing.T) {
	for _, c := range [][2]string{{"", "ada"}, {"Dev", "ada"}, {"../dev", "ada"}, {"dev", ""}, {"dev", "ada l"}} {
		if _, err := Create(c[0], c[1], today); err == nil {
			t.Errorf("made fleet %q of %q", c[0], c[1])
		}
	}
}

// TestLoadDamaged shows what is said of a folder that is not as it was left.
func TestLoadDamaged(t *testing.T) {
	good, other := savedFleet(t, "dev"), savedFleet(t, "dev")
	var b strings.Builder
	for _, c := range []struct{ title, file, from string }{
		{"no genesis", genesisName, ""},
		{"another fleet's genesis", genesisName, genesisName},
		{"no certificate", operatorCertName, ""},
		{"another fleet's certificate", operatorCertName, operatorCertName},
		{"the CA's certificate", operatorCertName, operatorCACert},
		{"no key", operatorKeyName, ""},
		{"another key", operatorKeyName, nodeCAKey},
		{"a certificate for a key", operatorKeyName, operatorCertName},
		{"an owner's key", operatorKeyName, ownerName(1)},
		{"another operator CA's key", operatorCAKey, operatorCAKey},
		{"another node CA's key", nodeCAKey, nodeCAKey},
	} {
		dir := filepath.Join(t.TempDir(), "dev")
		if err := os.CopyFS(dir, os.DirFS(good.Dir)); err != nil {
			t.Fatal(err)
		}
		err := os.Remove(filepath.Join(dir, c.file))
		if c.from != "" {
			var text []byte
			if text, err = os.ReadFile(other.path(c.from)); err == nil {
				err = os.WriteFile(filepath.Join(dir, c.file), text, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = Load(dir)
		if err == nil {
			t.Errorf("%s: it loads", c.title)
			continue
		}
		why, _, _ := strings.Cut(err.Error(), ": x509")
		for _, id := range []string{fleet.Short(good.Genesis.ID()), fleet.Short(other.Genesis.ID())} {
			why = strings.ReplaceAll(why, id, "ID")
		}
		b.WriteString(c.title + "\n    " + strings.ReplaceAll(why, filepath.Dir(dir), "…") + "\n")
	}
	golden.Compare(t, "load-errors.txt", b.String())
	if _, err := Load(filepath.Join(good.Dir, "none")); !errors.Is(err, ErrNoFleet) {
		t.Error(err)
	}
}

// TestOperatorFolder makes the folder of an operator who was invited, and renews his
// certificate.
func TestOperatorFolder(t *testing.T) {
	founder := savedFleet(t, "dev")
	csr, key := request(t)
	der, err := founder.SignOperator(csr, "bob", fleet.RoleOperator, today)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "dev")
	if _, err := saveInvited(dir, founder.Genesis, key, founder.me.Certificate[0]); err == nil {
		t.Error("another's certificate is taken")
	}
	if _, err := saveInvited(dir, founder.Genesis, key, der); err != nil {
		t.Fatal(err)
	}
	if _, err := saveInvited(dir, founder.Genesis, key, der); !errors.Is(err, ErrExists) {
		t.Errorf("once more: %v", err)
	}
	bob, err := Load(dir)
	if err != nil || bob.Operator().String() != "operator bob (operator)" || bob.Certificate().PrivateKey == nil {
		t.Fatalf("%v, %v", bob.Operator(), err)
	}
	for what, err := range map[string]error{
		"sign nodes": second(bob.SignNode(csr, "n1", today)), "sign operators": second(bob.SignOperator(csr, "eve", fleet.RoleAdmin, today)),
		"make tokens": second(bob.NewToken(Terms{}, today)), "renew himself": bob.RenewOperator(today),
	} {
		if !errors.Is(err, ErrNoKey) {
			t.Errorf("bob can %s: %v", what, err)
		}
	}
	later := today.AddDate(2, 0, 0)
	der, err = founder.SignOperator(csr, "bob", fleet.RoleOperator, later)
	if err != nil {
		t.Fatal(err)
	}
	if err := bob.installCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := bob.installCertificate(founder.me.Certificate[0]); err == nil {
		t.Error("ada's certificate is bob's now")
	}
	if err := founder.RenewOperator(later); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{dir, founder.Dir} {
		again, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := founder.Genesis.VerifyPeer(again.Certificate().Leaf, nil, later, true, nil); err != nil {
			t.Error(err)
		}
	}
}

// TestRecover loses the disk's owner key and takes one back from paper.
func TestRecover(t *testing.T) {
	k, other := savedFleet(t, "dev"), savedFleet(t, "other")
	sheets := k.Sheets()
	if len(sheets) != 2 {
		t.Fatal(sheets)
	}
	text, err := os.ReadFile(sheets[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sheets {
		if err := os.Remove(s); err != nil {
			t.Fatal(err)
		}
	}
	if k.HoldsOwner(3) != Elsewhere || len(k.Sheets()) > 0 {
		t.Error("the sheets are still here")
	}
	if i, err := k.Recover(text, "", true); i != 3 || err != nil || k.HoldsOwner(3) != Elsewhere {
		t.Errorf("checked: %d, %v", i, err)
	}
	if i, err := k.Recover(text, passphrase, false); i != 3 || err != nil || k.HoldsOwner(3) != Closed {
		t.Errorf("%d, %v", i, err)
	}
	if _, err := k.ownerKey(3, passphrase); err != nil {
		t.Error(err)
	}
	if _, err := k.Recover(text, "", false); !errors.Is(err, ErrExists) {
		t.Errorf("twice: %v", err)
	}
	if _, err := other.Recover(text, "", false); !errors.Is(err, ErrNotOwner) {
		t.Errorf("in another fleet: %v", err)
	}
	var key ed25519.PrivateKey
	if key, err = parseSheet(text); err != nil || other.Genesis.Owner(key.Public().(ed25519.PublicKey)) != 0 {
		t.Error(err)
	}
}

// TestIssuedTokenHidden prints a token that was given out.
func TestIssuedTokenHidden(t *testing.T) {
	issued, err := savedFleet(t, "dev").NewToken(Terms{}, today)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(issued)
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %s", issued, issued, issued, text)
	if secret := issued.Token.Text(); strings.Contains(printed, secret[10:20]) || !strings.Contains(printed, "(token)") {
		t.Errorf("it is printed as %s", strings.ReplaceAll(printed, secret, "the token"))
	}
}

// TestTokens follows tokens through their lives.
func TestTokens(t *testing.T) {
	k := savedFleet(t, "dev")
	issue := func(terms Terms) IssuedToken {
		token, err := k.NewToken(terms, today)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	one, three, named, brief := issue(Terms{}), issue(Terms{Count: 3}), issue(Terms{Node: "n1"}), issue(Terms{Life: time.Hour})
	later, muchLater := today.Add(2*time.Hour), today.AddDate(0, 2, 0)
	var b strings.Builder
	for _, c := range []struct {
		title, id, node, key string
		now                  time.Time
	}{
		{"one: n1 comes", one.ID, "n1", "k1", later},
		{"one: n1 comes again", one.ID, "n1", "k1", later},
		{"one: n1 comes again after it has expired", one.ID, "n1", "k1", muchLater},
		{"one: n2 comes", one.ID, "n2", "k2", later},
		{"one: n1 with another key", one.ID, "n1", "k2", later},
		{"three: n1 comes", three.ID, "n1", "k1", later},
		{"three: n2 comes", three.ID, "n2", "k2", later},
		{"three: n3 comes too late", three.ID, "n3", "k3", muchLater},
		{"three: n3 comes", three.ID, "n3", "k3", later},
		{"three: n4 comes", three.ID, "n4", "k4", later},
		{"named: n2 comes", named.ID, "n2", "k2", later},
		{"named: n1 comes", named.ID, "n1", "k1", later},
		{"brief: n1 comes", brief.ID, "n1", "k1", later},
		{"unknown: n1 comes", "000000000000", "n1", "k1", later},
	} {
		err := k.useToken(c.id, c.node, c.key, c.now)
		answer := "yes"
		if err != nil {
			answer = err.Error()
		}
		fmt.Fprintf(&b, "%-42s %s\n", c.title, answer)
	}
	all, err := k.Tokens()
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range all {
		fmt.Fprintf(&b, "token %s until %s: %d of %d, %s\n", token.ID, token.Expires.Format(time.DateTime), len(token.Used), token.Count, token.State(later))
	}
	text := b.String()
	for name, token := range map[string]IssuedToken{"ONE": one, "THREE": three, "NAMED": named, "BRIEF": brief} {
		text = strings.ReplaceAll(text, token.ID, name)
	}
	golden.Compare(t, "tokens.txt", text)
	for _, bad := range []Terms{{Node: "N1"}, {Node: "n1", Count: 2}, {Count: -1}, {Count: 1_000_000}, {Life: -time.Second}} {
		if _, err := k.NewToken(bad, today); err == nil {
			t.Errorf("made a token with %+v", bad)
		}
	}
	// A year later only the new one is in the list.
	if _, err := k.NewToken(Terms{}, today.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if all, err := k.Tokens(); err != nil || len(all) != 1 {
		t.Errorf("%d tokens, %v", len(all), err)
	}
}

// TestAdoptNode answers with proofs that are none.
func TestAdoptNode(t *testing.T) {
	k := savedFleet(t, "dev")
	token, err := k.NewToken(Terms{Node: "n1"}, today)
	if err != nil {
		t.Fatal(err)
	}
	csr, _ := request(t)
	_, spki, err := fleet.RequestKey(csr)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := request(t)
	nonce := bytes.Repeat([]byte{7}, fleet.NonceSize)
	mac := fleet.Mac(token.Token, k.Genesis.ID(), spki, nonce)
	for _, c := range []struct {
		title      string
		csr, nonce []byte
		mac        []byte
		name       string
		want       error
	}{
		{"another's request", other, nonce, mac, "n1", ErrTokenUnknown},
		{"an old nonce", csr, bytes.Repeat([]byte{8}, fleet.NonceSize), mac, "n1", ErrTokenUnknown},
		{"no proof", csr, nonce, nil, "n1", ErrTokenUnknown},
		{"a token nobody gave out", csr, nonce, fleet.Mac(fleet.NewToken(), k.Genesis.ID(), spki, nonce), "n1", ErrTokenUnknown},
		{"another fleet's", csr, nonce, fleet.Mac(token.Token, strings.Repeat("0", 64), spki, nonce), "n1", ErrTokenUnknown},
		{"another name", csr, nonce, mac, "n2", ErrTokenNode},
	} {
		if der, err := k.AdoptNode(c.csr, c.nonce, c.mac, c.name, "", today); !errors.Is(err, c.want) || der != nil {
			t.Errorf("%s: %v", c.title, err)
		}
	}
	for range 2 { // the answer may be lost on the way
		der, err := k.AdoptNode(csr, nonce, mac, "n1", "", today)
		if peer, err := fleet.PeerOf(parse(t, der, err)); err != nil || peer.Name != "n1" {
			t.Errorf("%v, %v", peer, err)
		}
	}
	mac = fleet.Mac(token.Token, k.Genesis.ID(), mustSPKI(t, other), nonce)
	if _, err := k.AdoptNode(other, nonce, mac, "n1", "", today); !errors.Is(err, ErrTokenUsed) {
		t.Errorf("a second node: %v", err)
	}
}

func mustSPKI(t *testing.T, csr []byte) []byte {
	t.Helper()
	_, spki, err := fleet.RequestKey(csr)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

// TestTokensAtOnce makes and uses tokens from several programs at a time: none is lost
// and none is used twice.
func TestTokensAtOnce(t *testing.T) {
	k := savedFleet(t, "dev")
	shared, err := k.NewToken(Terms{Count: 10}, today)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	came := 0
	var programs sync.WaitGroup
	for i := range 4 {
		programs.Go(func() {
			mine, err := Load(k.Dir)
			if err != nil {
				t.Error(err)
				return
			}
			for j := range 5 {
				if _, err := mine.NewToken(Terms{}, today); err != nil {
					t.Error(err)
				}
				err := mine.useToken(shared.ID, "n", fmt.Sprint(i, j), today)
				if err == nil {
					mu.Lock()
					came++
					mu.Unlock()
				} else if !errors.Is(err, ErrTokenUsed) {
					t.Error(err)
				}
			}
		})
	}
	programs.Wait()
	all, err := k.Tokens()
	if err != nil || len(all) != 21 || came != 10 || len(all[0].Used) != 10 {
		t.Errorf("%d tokens, %d nodes came in, %v", len(all), came, err)
	}
}

// TestTokensDamaged wants that a list that cannot be read is not taken for an empty
// one.
func TestTokensDamaged(t *testing.T) {
	k := savedFleet(t, "dev")
	if _, err := k.NewToken(Terms{}, today); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(k.path(tokensName))
	if err != nil {
		t.Fatal(err)
	}
	for title, text := range map[string][]byte{
		"empty": {}, "torn": good[:len(good)/2], "the next version": bytes.Replace(good, []byte(`"version": 1`), []byte(`"version": 2`), 1),
		"more in it":      bytes.Replace(good, []byte(`"count"`), []byte(`"label": "x", "count"`), 1),
		"an edited token": bytes.Replace(good, []byte(`"kogge-`), []byte(`"kogge-a`), 1),
		"an edited id":    bytes.Replace(good, []byte(`"id": "`), []byte(`"id": "0`), 1),
		"count 0":         bytes.Replace(good, []byte(`"count": 1`), []byte(`"count": 0`), 1),
	} {
		if err := os.WriteFile(k.path(tokensName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := k.NewToken(Terms{}, today)
		if now, _ := os.ReadFile(k.path(tokensName)); err == nil || !bytes.Equal(now, text) || strings.Contains(err.Error(), "kogge-"+"a") {
			t.Errorf("%s: %v", title, err)
		}
	}
}
