package papers

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// disk is the folder on a disk that loses power.
type disk struct{ *crashdisk.Files }

func (d disk) Read(name string) ([]byte, error) { return d.ReadFile("papers/" + name) }

func (d disk) Replace(name string, data []byte) error {
	return durable.ReplaceIn(d.Files, "papers/"+name, data, 0o600)
}

func (d disk) Remove(name string) error { return d.Files.Remove("papers/" + name) }

func (d disk) Aside(name string) error {
	if err := d.Rename("papers/"+name, durable.AsideName("papers/"+name, 1)); err != nil {
		return err
	}
	return d.Sync("papers")
}

func (d disk) List() (names []string, err error) {
	for name := range d.AfterCut(1) {
		names = append(names, path.Base(name))
	}
	return names, nil
}

func onDisk(files map[string][]byte, writes int) disk {
	return disk{crashdisk.NewFiles(files, crashdisk.NewPower(writes))}
}

// world is a founded fleet, an admin of it, and a token for one node.
type world struct {
	state  ledger.State
	admin  *ecdsa.PrivateKey
	seed   fleet.Token
	record token.Paper
}

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func begin(t *testing.T) world {
	t.Helper()
	f := ledgertest.Founded(t, 3, 1)
	w := world{admin: ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey()), seed: fleet.NewToken()}
	spki := ledgertest.Must[[]byte](t)(x509.MarshalPKIXPublicKey(&w.admin.PublicKey))
	v := ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{{Name: "cleo", Role: fleet.RoleAdmin, Key: document.HashOf(spki)}}}}
	f.Take(t, f.Decided(t, v, f.Log.State().Roster.Quorum()))
	w.state = f.Log.State()
	r := token.Record{Version: 1, Key: ledgertest.Must[signed.Key](t)(token.KeyOf(w.seed)), Count: 1, Height: w.state.Height, Root: w.state.Tree, Expires: now.Add(time.Hour)}
	w.record = ledgertest.Must[token.Paper](t)(token.Issue(w.state.Fleet(), r, w.admin))
	return w
}

func (w world) use(t *testing.T, node string) token.Use {
	t.Helper()
	return ledgertest.Must[token.Use](t)(token.NewUse(w.seed, w.record, ledgertest.Key(t, node), document.HashOf([]byte(node)), "name-"+node, func(kind string, id document.Hash, sequence uint64, body []byte) (signed.Envelope, error) {
		return signed.Seal(kind, id, ledgertest.Private(node), sequence, body)
	}))
}

func (w world) accept(t *testing.T, node string, number int64) []byte {
	t.Helper()
	a := token.Accept{Version: 1, Node: ledgertest.Key(t, node), Name: "name-" + node, Number: number}
	return ledgertest.Must[token.Paper](t)(token.SignAccept(w.state.Fleet(), a, w.admin)).Bytes()
}

func (w world) open(t *testing.T, d files) *Store {
	t.Helper()
	return ledgertest.Must[*Store](t)(open(d, func() ledger.State { return w.state }))
}

// TestPowerCut cuts the power at every write of a life with papers: what was taken is there
// afterwards, and a token that has let a node in lets in no other.
func TestPowerCut(t *testing.T) {
	w := begin(t)
	first, second := w.use(t, "a"), w.use(t, "b")
	steps := []func(*Store) error{
		func(s *Store) error { return s.Admit(first, now) },
		func(s *Store) error { _, err := s.Take(w.accept(t, "a", 1)); return err },
		func(s *Store) error { _, err := s.Take(w.accept(t, "a", 2)); return err },
	}
	for writes := 0; ; writes++ {
		d := onDisk(nil, writes)
		s, done := w.open(t, d), 0
		for _, step := range steps {
			if step(s) != nil {
				break
			}
			done++
		}
		for seed := range uint64(8) {
			after := w.open(t, onDisk(d.AfterCut(seed), 1000))
			err := after.Admit(second, now)
			if done > 0 && !errors.Is(err, token.ErrUsed) {
				t.Fatalf("writes=%d seed=%d: a second node comes in after the first: %v", writes, seed, err)
			}
			a, _, _ := after.Accepted(ledgertest.Key(t, "a"))
			if int(a.Number) < done-1 {
				t.Fatalf("writes=%d seed=%d: of %d steps the acceptance is number %d", writes, seed, done, a.Number)
			}
			if err != nil {
				for i, step := range steps {
					if err := step(after); err != nil {
						t.Fatalf("writes=%d seed=%d: step %d after the cut: %v", writes, seed, i, err)
					}
				}
				if n := len(after.All()); n != 2 {
					t.Errorf("writes=%d seed=%d: %d papers at the end", writes, seed, n)
				}
			}
		}
		if done == len(steps) {
			return
		}
	}
}

// TestStore refuses what does not count, and says how often; it tells of what is news, once.
func TestStore(t *testing.T) {
	w, other := begin(t), begin(t)
	d := onDisk(nil, 1000)
	s := w.open(t, d)
	told := 0
	s.Listen(func() { told++ })
	if err := s.Admit(w.use(t, "a"), now); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Admit(w.use(t, "b"), now); !errors.Is(err, token.ErrUsed) {
			t.Error(err)
		}
	}
	for _, raw := range [][]byte{nil, []byte("junk"), other.accept(t, "a", 1), other.use(t, "a").Bytes(), w.record.Bytes()} {
		if news, err := s.Take(raw); err == nil || news {
			t.Errorf("%.20x is taken", raw)
		}
	}
	for i, want := range []bool{true, false} {
		if news, err := s.Take(w.accept(t, "a", 1)); err != nil || news != want && i == 0 {
			t.Errorf("%v, %v", news, err)
		}
	}
	if got := fmt.Sprint(s.Refused()); got != "map[not signed by an operator:5 token used up:2]" {
		t.Error(got)
	}
	if told < 2 || told > 3 {
		t.Errorf("told %d times", told)
	}
	// A file that has decayed is passed over, and comes back from others.
	files := maps.Clone(d.AfterCut(1))
	for name := range files {
		raw := append([]byte{}, files[name]...)
		raw[len(raw)/2] ^= 1
		files[name] = raw
	}
	after := w.open(t, onDisk(files, 1000))
	if after.Damaged() != len(files) || len(after.All()) != 0 {
		t.Errorf("%d of %d files are damaged, %d papers", after.Damaged(), len(files), len(after.All()))
	}
	if again := w.open(t, after.files); again.Damaged() != 0 {
		t.Errorf("%d are damaged at the next start, too", again.Damaged())
	}
	for _, raw := range s.Lacking(after.IDs(), 1<<20) {
		if _, err := after.Take(raw); err != nil {
			t.Error(err)
		}
	}
	if after.Sum() != s.Sum() {
		t.Error("they differ")
	}
	// A disk that takes nothing: nothing is taken, and nobody comes in.
	full := w.open(t, onDisk(nil, 0))
	if err := full.Admit(w.use(t, "a"), now); err == nil || len(full.All()) != 0 {
		t.Errorf("%v, %d papers", err, len(full.All()))
	}
}

// TestNotUnderstood: a whole file of a later release stays where it is, and is no damage; so does what
// has no room.
func TestNotUnderstood(t *testing.T) {
	w := begin(t)
	d := onDisk(nil, 1000)
	s := w.open(t, d)
	for _, raw := range [][]byte{w.use(t, "a").Bytes(), w.accept(t, "a", 1)} {
		if _, err := s.Take(raw); err != nil {
			t.Fatal(err)
		}
	}
	files := d.AfterCut(1)
	body := []byte(`{"version":2}`)
	issued := ledgertest.Must[token.Paper](t)(token.Sign(token.AcceptKind, w.state.Fleet(), body, w.admin)).Bytes()
	used := ledgertest.Must[signed.Envelope](t)(signed.Seal(token.UseKind, w.state.Fleet(), ledgertest.Private("a"), 0, body)).Bytes()
	long := strings.Repeat("k", 100)
	for _, later := range []string{"of another kind", string(document.Message("kogge/later/v2", []byte("x"))), string(document.Message("kogge/later/v2", []byte("y"))), string(document.Message(long)), string(issued), string(used)} {
		files["papers/"+document.HashOf([]byte(later)).String()] = summed([]byte(later))
	}
	for i := range 6 { // more than the token and its slack have
		u := w.use(t, fmt.Sprint("b", i))
		files["papers/"+u.ID().String()] = summed(u.Bytes())
	}
	disk := onDisk(maps.Clone(files), 1000)
	for range 2 {
		after := w.open(t, disk)
		if left := disk.AfterCut(1); after.Damaged() != 0 || !maps.EqualFunc(files, left, bytes.Equal) {
			t.Errorf("%d are damaged; there lie %v", after.Damaged(), slices.Sorted(maps.Keys(left)))
		}
		want := map[string]int{"": 1, "kogge/later/v2": 2, long[:64]: 1, token.AcceptKind: 1, token.UseKind: 1}
		if got := after.Unknown(); !maps.Equal(got, want) {
			t.Errorf("not understood are %v", got)
		}
		if err := after.Problem(); err == nil || !strings.Contains(err.Error(), `6 papers of the fleet on STATE are not understood by this release, and do not count here (by kind: "": 1, "kkk`) ||
			!strings.Contains(err.Error(), `"kogge/later/v2": 2`) {
			t.Errorf("it says %v", err)
		}
		if _, _, ok := after.Accepted(ledgertest.Key(t, "a")); !ok {
			t.Error("what is understood is not there")
		}
		for _, later := range [][]byte{issued, used, document.Message("kogge/later/v2", w.state.Record[:], []byte("issuer"), []byte("body"), []byte("signature"))} {
			before := maps.Clone(after.Refused())
			if _, err := after.Take(later); err == nil || after.Refused()["of a later release"] != before["of a later release"]+1 {
				t.Errorf("from others: %v, refused were %v", err, after.Refused())
			}
		}
	}
}

// full is a disk that takes nothing more.
type full struct{ disk }

func (full) Replace(string, []byte) error { return errors.New("no space left on device") }

// TestRevokedBeside: after a cut, or where the disk does not remove it, a revoked key's acceptance lies
// beside the good one that took its place. The good one counts, at the next start and after a write that
// has failed.
func TestRevokedBeside(t *testing.T) {
	w := begin(t)
	by := w // dora
	by.admin = ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	spki := ledgertest.Must[[]byte](t)(x509.MarshalPKIXPublicKey(&by.admin.PublicKey))
	w.state.Operators = append(slices.Clone(w.state.Operators), ledger.Operator{Name: "dora", Role: fleet.RoleAdmin, Key: document.HashOf(spki)})
	revoked := cleo(t, w).String()
	for i := range 8 { // whatever the order of their names is
		node := fmt.Sprint("n", i)
		stolen := w.accept(t, node, 1<<40)
		good := by.accept(t, node, 1)
		files := make(map[string][]byte)
		for _, raw := range [][]byte{stolen, good} {
			files["papers/"+ledgertest.Must[token.Paper](t)(token.ParsePaper(raw)).ID().String()] = summed(raw)
		}
		s, err := open(full{onDisk(files, 1000)}, func() ledger.State { return w.state.Without(func(key string) bool { return key == revoked }) })
		if err != nil {
			t.Fatal(err)
		}
		counts := func(when string) {
			if a, _, ok := s.Accepted(ledgertest.Key(t, node)); !ok || a.Number != 1 {
				t.Errorf("%s, %s: number %d counts, %v", node, when, a.Number, ok)
			}
		}
		counts("at the next start")
		if _, err := s.Take(by.accept(t, "other", 1)); err == nil {
			t.Fatal("the disk takes it")
		}
		counts("after a write that failed")
	}
}

// TestAgePowerCut cuts the power at every write of forgetting what is over: what is left is forgotten
// at the next start.
func TestAgePowerCut(t *testing.T) {
	w := begin(t)
	late := now.Add(time.Hour + token.Kept + time.Second)
	d := onDisk(nil, 1000)
	s := w.open(t, d)
	end := ledgertest.Must[token.Paper](t)(token.Revoke(w.state.Fleet(), ledgertest.Must[signed.Key](t)(token.KeyOf(w.seed)), now.Add(time.Hour), w.admin))
	for _, raw := range [][]byte{w.use(t, "a").Bytes(), w.use(t, "b").Bytes(), end.Bytes(), w.accept(t, "c", 1)} {
		if _, err := s.Take(raw); err != nil {
			t.Fatal(err)
		}
	}
	before := d.AfterCut(1)
	for writes := 0; ; writes++ {
		cut := onDisk(maps.Clone(before), writes)
		err := w.open(t, cut).Age(late)
		for seed := range uint64(4) {
			after := onDisk(cut.AfterCut(seed), 1000)
			again := w.open(t, after)
			if n := len(again.All()); n < 1 || n > 4 {
				t.Errorf("writes=%d seed=%d: %d papers", writes, seed, n)
			}
			if err := again.Age(late); err != nil || len(again.All()) != 1 {
				t.Errorf("writes=%d seed=%d: %v, %d papers at the end", writes, seed, err, len(again.All()))
			}
		}
		if err == nil {
			return
		}
	}
}

// TestPast: what is over here, or was withdrawn, is not asked for again where others have it, and is
// once the clock is set back or the ledger lists its issuer.
func TestPast(t *testing.T) {
	w := begin(t)
	withdrawn := false
	state := func() ledger.State {
		return w.state.Without(func(key string) bool { return withdrawn && key == cleo(t, w).String() })
	}
	unsure := w.open(t, onDisk(nil, 1000))
	for _, raw := range [][]byte{w.use(t, "a").Bytes(), w.accept(t, "c", 1)} {
		if _, err := unsure.Take(raw); err != nil {
			t.Fatal(err)
		}
	}
	sure := ledgertest.Must[*Store](t)(open(onDisk(nil, 1000), state))
	offered := func() (n int) {
		for _, raw := range unsure.Lacking(sure.IDs(), 1<<20) {
			_, _ = sure.Take(raw)
			n++
		}
		return n
	}
	late := now.Add(time.Hour + token.Kept + time.Second)
	for i, step := range []struct {
		clock     time.Time
		withdrawn bool
		want      int
	}{{late, true, 2}, {late, true, 0}, {late.AddDate(50, 0, 0), true, 0}, {now, false, 2}, {now, false, 0}, {late, false, 1}, {late, false, 0}} {
		withdrawn = step.withdrawn
		if err := sure.Age(step.clock); err != nil {
			t.Fatal(err)
		}
		if n := offered(); n != step.want {
			t.Errorf("step %d: %d papers are sent, want %d", i, n, step.want)
		}
	}
}

// cleo is the key of the operator of a world.
func cleo(t *testing.T, w world) document.Hash {
	return document.HashOf(ledgertest.Must[[]byte](t)(x509.MarshalPKIXPublicKey(&w.admin.PublicKey)))
}

// TestFolder keeps papers in a real folder.
func TestFolder(t *testing.T) {
	w, dir := begin(t), t.TempDir()+"/kogge/papers"
	state := func() ledger.State { return w.state }
	s, err := Open(dir, state)
	if err == nil {
		err = s.Admit(w.use(t, "a"), now)
	}
	if err == nil {
		_, err = s.Take(w.accept(t, "a", 1))
	}
	if err == nil {
		_, err = s.Take(w.accept(t, "a", 2))
	}
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir, state)
	if err != nil || again.Sum() != s.Sum() || again.Damaged() != 0 {
		t.Errorf("%v, %d damaged", err, again.Damaged())
	}
	if u, ok := again.CameBy(ledgertest.Key(t, "a")); !ok || u.Name != "name-a" {
		t.Errorf("%+v", u)
	}
}
