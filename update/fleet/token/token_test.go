package token_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
	"kogge.example/update/golden"
)

// world is a founded fleet, an admin of it, and a token that he has given out.
type world struct {
	*ledgertest.Fleet
	state ledger.State
	admin *ecdsa.PrivateKey
	seed  fleet.Token
}

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func begin(t testing.TB) *world {
	t.Helper()
	w := &world{Fleet: ledgertest.Founded(t, 4, 1), seed: fleet.NewToken()}
	w.admin = w.operator(t, "cleo", fleet.RoleAdmin)
	return w
}

// operator has the fleet list somebody.
func (w *world) operator(t testing.TB, name string, role fleet.Role) *ecdsa.PrivateKey {
	t.Helper()
	key := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	spki := ledgertest.Must[[]byte](t)(x509.MarshalPKIXPublicKey(&key.PublicKey))
	w.decide(t, ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{{Name: name, Role: role, Key: document.HashOf(spki)}}}})
	return key
}

func (w *world) decide(t testing.TB, v ledger.Value) {
	t.Helper()
	w.Take(t, w.Decided(t, v, w.Log.State().Roster.Quorum()))
	w.state = w.Log.State()
}

func (w *world) record(t testing.TB, seed fleet.Token) token.Record {
	t.Helper()
	return token.Record{
		Version: 1, Key: ledgertest.Must[signed.Key](t)(token.KeyOf(seed)), Count: 1, Height: w.state.Height, Root: w.state.Tree, Expires: now.Add(time.Hour),
	}
}

func (w *world) issue(t testing.TB, seed fleet.Token, edit func(*token.Record)) token.Paper {
	t.Helper()
	r := w.record(t, seed)
	edit(&r)
	return ledgertest.Must[token.Paper](t)(token.Issue(w.state.Fleet(), r, w.admin))
}

func sealer(name string) token.Seal {
	return func(kind string, id document.Hash, sequence uint64, body []byte) (signed.Envelope, error) {
		return signed.Seal(kind, id, ledgertest.Private(name), sequence, body)
	}
}

func (w *world) use(t testing.TB, seed fleet.Token, record token.Paper, node, name string) token.Use {
	t.Helper()
	return ledgertest.Must[token.Use](t)(token.NewUse(seed, record, ledgertest.Key(t, node), document.HashOf([]byte("TLS key of "+node)), name, sealer(node)))
}

func (w *world) put(t testing.TB, s *token.Set, raw []byte) token.Change {
	t.Helper()
	return ledgertest.Must[token.Change](t)(s.Put(raw, w.state))
}

// TestAdmits is the table of who comes in by a token, and why not.
func TestAdmits(t *testing.T) {
	w := begin(t)
	reader := w.operator(t, "rita", fleet.RoleReader)
	former := w.operator(t, "otto", fleet.RoleAdmin)
	w.decide(t, ledger.Value{Version: 1, Operators: &ledger.Operators{Remove: []string{"otto"}}})
	lost := w.operator(t, "lena", fleet.RoleAdmin)
	listed, _ := ledgertest.Must[signed.Key](t)(signed.OperatorKey(&lost.PublicKey)).Operator()
	w.state = w.state.Without(func(key string) bool { return key == listed.String() })
	other := begin(t)
	two := fleet.NewToken()
	mine := w.issue(t, w.seed, func(*token.Record) {})
	pair := w.issue(t, two, func(r *token.Record) { r.Count = 2 })
	by := func(key *ecdsa.PrivateKey, id document.Hash, edit func(*token.Record)) token.Paper {
		r := w.record(t, w.seed)
		edit(&r)
		return ledgertest.Must[token.Paper](t)(token.Issue(id, r, key))
	}
	as := func(edit func(*token.Record)) token.Paper { return by(w.admin, w.state.Fleet(), edit) }
	same := func(*token.Record) {}
	end := ledgertest.Must[token.Paper](t)(token.Revoke(w.state.Fleet(), ledgertest.Must[signed.Key](t)(token.KeyOf(w.seed)), time.Time{}, w.admin))
	accept := func(node, name string) []byte {
		a := token.Accept{Version: 1, Node: ledgertest.Key(t, node), Name: name, Number: 1}
		return ledgertest.Must[token.Paper](t)(token.SignAccept(w.state.Fleet(), a, w.admin)).Bytes()
	}
	var out strings.Builder
	for _, c := range []struct {
		what   string
		before [][]byte
		seed   fleet.Token
		record token.Paper
		node   string
		name   string
		after  time.Duration
		is     error
	}{
		{"a node", nil, w.seed, mine, "a", "n9", 0, nil},
		{"the same again, and the token is over by now", [][]byte{w.use(t, w.seed, mine, "a", "n9").Bytes()}, w.seed, mine, "a", "n9", 2 * time.Hour, nil},
		{"the same, as another name", [][]byte{w.use(t, w.seed, mine, "a", "n9").Bytes()}, w.seed, mine, "a", "n8", 0, token.ErrUsed},
		{"a second node", [][]byte{w.use(t, w.seed, mine, "a", "n9").Bytes()}, w.seed, mine, "b", "n8", 0, token.ErrUsed},
		{"a second node of a token for two", [][]byte{w.use(t, two, pair, "a", "n9").Bytes()}, two, pair, "b", "n8", 0, nil},
		{"a third one", [][]byte{w.use(t, two, pair, "a", "n9").Bytes(), w.use(t, two, pair, "b", "n8").Bytes()}, two, pair, "c", "n7", 0, token.ErrUsed},
		{"too late", nil, w.seed, mine, "a", "n9", 2 * time.Hour, token.ErrExpired},
		{"revoked", [][]byte{end.Bytes()}, w.seed, mine, "a", "n9", 0, token.ErrRevoked},
		{"revoked after it came", [][]byte{w.use(t, w.seed, mine, "a", "n9").Bytes(), end.Bytes()}, w.seed, mine, "a", "n9", 0, token.ErrRevoked},
		{"for its name", nil, w.seed, as(func(r *token.Record) { r.Node = "n9" }), "a", "n9", 0, nil},
		{"for another name", nil, w.seed, as(func(r *token.Record) { r.Node = "n9" }), "a", "n8", 0, token.ErrOther},
		{"the name of a seat", nil, w.seed, mine, "a", "n1", 0, token.ErrName},
		{"the name of a seat, with the seat's key", nil, w.seed, mine, "n1", "n1", 0, nil},
		{"the name of a node that came by another token", [][]byte{w.use(t, two, pair, "b", "n9").Bytes()}, w.seed, mine, "a", "n9", 0, token.ErrName},
		{"the name of a node that was accepted", [][]byte{accept("b", "n9")}, w.seed, mine, "a", "n9", 0, token.ErrName},
		{"accepted under another name", [][]byte{accept("a", "n8")}, w.seed, mine, "a", "n9", 0, token.ErrName},
		{"a token by a reader", nil, w.seed, by(reader, w.state.Fleet(), same), "a", "n9", 0, token.ErrPaper},
		{"a token by a former admin", nil, w.seed, by(former, w.state.Fleet(), same), "a", "n9", 0, token.ErrPaper},
		{"a token by an admin whose key was revoked", nil, w.seed, by(lost, w.state.Fleet(), same), "a", "n9", 0, ledger.ErrWithdrawn},
		{"a token by a stranger", nil, w.seed, by(other.admin, w.state.Fleet(), same), "a", "n9", 0, token.ErrPaper},
		{"a token of another fleet", nil, w.seed, by(w.admin, other.state.Fleet(), same), "a", "n9", 0, token.ErrPaper},
	} {
		s := token.NewSet()
		for _, raw := range c.before {
			w.put(t, s, raw)
		}
		u := w.use(t, c.seed, c.record, c.node, c.name)
		err := s.Admits(u, w.state, now.Add(c.after))
		if !errors.Is(err, c.is) || c.is == nil && err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		fmt.Fprintf(&out, "%s\n    %v\n", c.what, anonymous(err))
		// What can be said before the use is shown is said then, and never more than that.
		early := s.Opens(u.Record, u.TLSKey, now.Add(c.after))
		late := errors.Is(c.is, token.ErrUsed) || errors.Is(c.is, token.ErrRevoked) || errors.Is(c.is, token.ErrExpired)
		if renamed := c.what == "the same, as another name"; early != nil && !errors.Is(early, c.is) || late && early == nil && !renamed {
			t.Errorf("%s: before the use is shown: %v", c.what, early)
		}
	}
	golden.Compare(t, "admits.txt", out.String())

	// What was taken before the key was revoked stays, and what it has signed besides is not taken.
	s := token.NewSet()
	before := w.Log.State()
	accept = func(node, name string) []byte {
		a := token.Accept{Version: 1, Node: ledgertest.Key(t, node), Name: name, Number: 1}
		return ledgertest.Must[token.Paper](t)(token.SignAccept(w.state.Fleet(), a, lost)).Bytes()
	}
	if _, err := s.Put(accept("a", "n9"), before); err != nil {
		t.Error(err)
	}
	if _, err := s.Put(accept("b", "n8"), w.state); !errors.Is(err, ledger.ErrWithdrawn) || !errors.Is(err, token.ErrPaper) {
		t.Errorf("%v", err)
	}
	if _, ok := s.Accepted(ledgertest.Key(t, "a")); !ok || s.Len() != 1 {
		t.Error("what was accepted before is gone")
	}
}

// anonymous is an error without the digits of keys, which are others each time.
func anonymous(err error) string {
	if err == nil {
		return "comes in"
	}
	words := strings.Fields(err.Error())
	for i, word := range words {
		end := strings.TrimRight(word, ":,")
		if _, err := hex.DecodeString(end); err == nil && len(end) == 12 {
			words[i] = "…" + word[len(end):]
		}
	}
	return strings.Join(words, " ")
}

// TestUseIsForOne changes each byte of a use, of a paper, and cuts them: nothing of that counts.
func TestUseIsForOne(t *testing.T) {
	w := begin(t)
	mine := w.issue(t, w.seed, func(*token.Record) {})
	u := w.use(t, w.seed, mine, "a", "n9")
	if again, err := token.OpenUse(u.Bytes()); err != nil || again.Name != "n9" || again.ID() != u.ID() || again.Record.Key != u.Record.Key {
		t.Fatalf("%+v, %v", again, err)
	}
	for i := range u.Bytes() {
		bad := bytes.Clone(u.Bytes())
		bad[i] ^= 1
		if _, err := token.OpenUse(bad); !errors.Is(err, token.ErrUse) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := token.OpenUse(bad[:i]); !errors.Is(err, token.ErrUse) {
			t.Errorf("cut at byte %d: %v", i, err)
		}
	}
	for i := range mine.Bytes() {
		bad := bytes.Clone(mine.Bytes())
		bad[i] ^= 1
		p, err := token.ParsePaper(bad)
		if err == nil {
			_, err = p.Verify(w.state)
		}
		if !errors.Is(err, token.ErrPaper) {
			t.Errorf("byte %d of the record changed: %v", i, err)
		}
	}
	// Whoever has the record, and not the seed, proves nothing.
	if _, err := token.NewUse(fleet.NewToken(), mine, ledgertest.Key(t, "a"), document.HashOf(nil), "n9", sealer("a")); err == nil {
		t.Error("another token proves it")
	}
	if _, err := token.NewUse(fleet.Token{}, mine, ledgertest.Key(t, "a"), document.HashOf(nil), "n9", sealer("a")); err == nil {
		t.Error("no token proves it")
	}
}

// TestLeads holds a ledger against a token's checkpoint.
func TestLeads(t *testing.T) {
	w := begin(t)
	r := w.record(t, w.seed)
	w.operator(t, "rita", fleet.RoleReader)
	if err := r.Leads(w.Log); err != nil {
		t.Errorf("a longer ledger: %v", err)
	}
	for what, edit := range map[string]func(*token.Record){
		"a shorter ledger": func(r *token.Record) { r.Height = w.state.Height + 1 }, "another ledger": func(r *token.Record) { r.Root[3] ^= 1 },
		"another height": func(r *token.Record) { r.Height-- },
	} {
		bad := r
		edit(&bad)
		if err := bad.Leads(w.Log); !errors.Is(err, token.ErrCheckpoint) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestRefused says of each wrong record and acceptance which field it is.
func TestRefused(t *testing.T) {
	w := begin(t)
	var out strings.Builder
	for _, c := range []struct {
		what string
		edit func(*token.Record)
	}{
		{"good", func(*token.Record) {}},
		{"no key", func(r *token.Record) { r.Key = "" }},
		{"a name with a terminal's command", func(r *token.Record) { r.Node = "n\x1b[2J" }},
		{"two nodes of one name", func(r *token.Record) { r.Node, r.Count = "n9", 2 }},
		{"nobody", func(r *token.Record) { r.Count = 0 }},
		{"too many", func(r *token.Record) { r.Count = token.MaxCount + 1 }},
		{"a label that cannot be shown", func(r *token.Record) { r.Labels = notice.Labels{"owner": "a\x00"} }},
		{"before the founding", func(r *token.Record) { r.Height = 0 }},
		{"no root", func(r *token.Record) { r.Root = document.Hash{} }},
		{"half a second", func(r *token.Record) { r.Expires = r.Expires.Add(time.Second / 2) }},
		{"a zone", func(r *token.Record) { r.Expires = r.Expires.In(time.FixedZone("", 3600)) }},
		{"too large", func(r *token.Record) {
			r.Labels = notice.Labels{}
			for i := range 30 {
				r.Labels[fmt.Sprintf("label%d", i)] = strings.Repeat("x", 100)
			}
		}},
	} {
		r := w.record(t, w.seed)
		c.edit(&r)
		_, err := token.Issue(w.state.Fleet(), r, w.admin)
		text := fmt.Sprint(err)
		if c.what == "too large" {
			text = strings.Fields(text)[0] + " …" // its signature is of another length each time
		}
		fmt.Fprintf(&out, "%-34s %s\n", c.what, text)
	}
	for what, a := range map[string]token.Accept{
		"no node": {Version: 1, Name: "n9", Number: 1}, "no name": {Version: 1, Node: ledgertest.Key(t, "a"), Number: 1}, "no number": {Version: 1, Node: ledgertest.Key(t, "a"), Name: "n9"},
	} {
		if _, err := token.SignAccept(w.state.Fleet(), a, w.admin); err == nil {
			t.Errorf("%s: signed", what)
		}
	}
	golden.Compare(t, "refused.txt", out.String())
}

// TestSet has papers come in many orders: what counts at the end is the same.
func TestSet(t *testing.T) {
	w := begin(t)
	second := w.operator(t, "bea", fleet.RoleAdmin)
	mine := w.issue(t, w.seed, func(r *token.Record) { r.Count = 3 })
	accept := func(key *ecdsa.PrivateKey, node string, number int64) []byte {
		a := token.Accept{Version: 1, Node: ledgertest.Key(t, node), Name: "n-" + node, Number: number}
		return ledgertest.Must[token.Paper](t)(token.SignAccept(w.state.Fleet(), a, key)).Bytes()
	}
	key := ledgertest.Must[signed.Key](t)(token.KeyOf(w.seed))
	all := [][]byte{
		w.use(t, w.seed, mine, "a", "n-a").Bytes(), w.use(t, w.seed, mine, "b", "n-b").Bytes(),
		accept(w.admin, "a", 1), accept(second, "a", 1), accept(w.admin, "a", 2), accept(w.admin, "b", 1),
		ledgertest.Must[token.Paper](t)(token.Revoke(w.state.Fleet(), key, time.Time{}, w.admin)).Bytes(),
		ledgertest.Must[token.Paper](t)(token.Revoke(w.state.Fleet(), key, time.Time{}, second)).Bytes(),
	}
	var want document.Hash
	for turn := range len(all) {
		s := token.NewSet()
		for i := range all {
			raw := all[(i*3+turn)%len(all)] // 3 and 8 have no divisor in common
			w.put(t, s, raw)
			if c := w.put(t, s, raw); c.News {
				t.Error("the same is news twice")
			}
		}
		if turn == 0 {
			want = s.Sum()
		}
		if a, ok := s.Accepted(ledgertest.Key(t, "a")); !ok || a.Number != 2 || s.Sum() != want || s.Len() != 5 || !s.Ended(key) {
			t.Errorf("turn %d: %+v, %d papers", turn, a, s.Len())
		}
		if u, ok := s.CameBy(ledgertest.Key(t, "b")); !ok || u.Name != "n-b" || len(s.Uses(key)) != 2 || len(s.Nodes()) != 2 {
			t.Errorf("turn %d: %+v", turn, u)
		}
		// Another set gets what it lacks, and no more.
		other := token.NewSet()
		w.put(t, other, all[0])
		for _, raw := range s.Lacking(other.IDs(), 1<<20, token.Short{}) {
			if c := w.put(t, other, raw); !c.News {
				t.Error("it had that")
			}
		}
		if other.Sum() != want || len(s.Lacking(other.IDs(), 1<<20, token.Short{})) != 0 || len(s.Lacking(nil, 10, token.Short{})) != 0 {
			t.Error("they differ")
		}
	}
}

// TestSetBounds has somebody who knows a token sign for one node after the other.
func TestSetBounds(t *testing.T) {
	w := begin(t)
	mine := w.issue(t, w.seed, func(*token.Record) {})
	s, refused := token.NewSet(), 0
	for i := range 50 {
		if _, err := s.Put(w.use(t, w.seed, mine, fmt.Sprint("node", i), fmt.Sprint("n", 100+i)).Bytes(), w.state); errors.Is(err, token.ErrUsed) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if s.Len() > 10 || s.Len()+refused != 50 {
		t.Errorf("%d are kept, %d refused", s.Len(), refused)
	}
	for _, raw := range [][]byte{nil, {0}, make([]byte, token.MaxPaper+1), document.Message("kogge/other/v1", nil, nil, nil)} {
		if _, err := s.Put(raw, w.state); !errors.Is(err, token.ErrPaper) {
			t.Errorf("%d bytes: %v", len(raw), err)
		}
	}
}

// TestGolden reads what was written once, and holds what is signed.
func TestGolden(t *testing.T) {
	const dir = "testdata/v1"
	names := []string{"record", "use", "end", "accept"}
	if golden.Updating() {
		if _, err := os.Stat(filepath.Join(dir, "use.hex")); errors.Is(err, os.ErrNotExist) {
			w := begin(t)
			mine := w.issue(t, w.seed, func(r *token.Record) { r.Node, r.Labels = "n9", notice.Labels{"region": "eu"} })
			id, node := w.state.Fleet(), ledgertest.Key(t, "a")
			attested := ledgertest.Must[*notice.Attestation](t)(notice.Attest(id, node, notice.Labels{"region": "eu"}, w.admin))
			for i, raw := range [][]byte{
				mine.Bytes(), w.use(t, w.seed, mine, "a", "n9").Bytes(),
				ledgertest.Must[token.Paper](t)(token.Revoke(id, ledgertest.Must[signed.Key](t)(token.KeyOf(w.seed)), time.Time{}, w.admin)).Bytes(),
				ledgertest.Must[token.Paper](t)(token.SignAccept(id, token.Accept{Version: 1, Node: node, Name: "n9", Number: now.Unix(), Attested: attested}, w.admin)).Bytes(),
			} {
				golden.Compare(t, "v1/"+names[i]+".hex", hex.EncodeToString(raw)+"\n")
			}
		}
	}
	read := func(name string) []byte {
		text := ledgertest.Must[[]byte](t)(os.ReadFile(filepath.Join(dir, name+".hex")))
		return ledgertest.Must[[]byte](t)(hex.DecodeString(strings.TrimSpace(string(text))))
	}
	u, err := token.OpenUse(read("use"))
	if err != nil || u.Name != "n9" || u.Record.Node != "n9" || u.Record.Labels["region"] != "eu" || !bytes.Equal(u.Token.Bytes(), read("record")) {
		t.Errorf("%+v, %v", u, err)
	}
	e, err := token.OpenEnd(ledgertest.Must[token.Paper](t)(token.ParsePaper(read("end"))))
	if err != nil || e.Key != u.Record.Key {
		t.Errorf("%+v, %v", e, err)
	}
	a, err := token.OpenAccept(ledgertest.Must[token.Paper](t)(token.ParsePaper(read("accept"))))
	if err != nil || a.Node != u.Node || a.Name != "n9" || a.Attested.Labels["region"] != "eu" {
		t.Errorf("%+v, %v", a, err)
	}
	s := token.NewSet()
	for _, name := range names[1:] {
		if c, err := s.Recall(read(name)); err != nil || !c.News {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	// The key of the token whose bytes are 0, 1, 2 ….
	seed := ledgertest.Must[fleet.Token](t)(fleet.ParseToken("kogge-aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyp5clio"))
	private := ledgertest.Must[ed25519.PrivateKey](t)(token.Private(seed))
	golden.Compare(t, "key.txt", hex.EncodeToString(private.Public().(ed25519.PublicKey))+"\n")
}

// FuzzPut has bytes of strangers come into a set: what is taken is read again as the same.
func FuzzPut(f *testing.F) {
	for _, name := range []string{"record", "use", "end", "accept"} {
		if text, err := os.ReadFile("testdata/v1/" + name + ".hex"); err == nil {
			raw, _ := hex.DecodeString(strings.TrimSpace(string(text)))
			f.Add(raw)
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := token.NewSet()
		c, err := s.Recall(raw)
		if err != nil {
			return
		}
		if all := s.All(); !c.News || len(all) != 1 || !bytes.Equal(all[0], raw) || !slices.Equal(s.IDs(), []token.Short{token.Short(c.ID[:])}) {
			t.Errorf("%x is kept as %x", raw, all)
		}
	})
}
