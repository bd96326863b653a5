package orders

import (
	"cmp"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

// disk is the folder on a disk that loses power.
type disk struct{ *crashdisk.Files }

func (d disk) Read(name string) ([]byte, error) { return d.ReadFile("orders/" + name) }

func (d disk) Replace(name string, data []byte) error {
	return durable.ReplaceIn(d.Files, "orders/"+name, data, 0o600)
}

func (d disk) Aside(name string) error {
	if err := d.Rename("orders/"+name, durable.AsideName("orders/"+name, 1)); err != nil {
		return err
	}
	return d.Sync("orders")
}

func (d disk) List() (names []string, err error) {
	for name := range d.AfterCut(1) {
		if name = path.Base(name); len(name) == 24 {
			names = append(names, name)
		}
	}
	return names, nil
}

func onDisk(files map[string][]byte, writes int) disk {
	return disk{crashdisk.NewFiles(files, crashdisk.NewPower(writes))}
}

var now = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// founded is the state of a fleet of ten, whose operators ada and eve are admins.
func founded(t *testing.T) (ledger.State, map[string]*ecdsa.PrivateKey) {
	s, keys := ledgertest.Founded(t, 10, 1).Log.State(), make(map[string]*ecdsa.PrivateKey)
	s.Operators = nil
	for _, name := range []string{"ada", "eve"} {
		keys[name] = ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
		id, _ := ledgertest.Must[signed.Key](t)(signed.OperatorKey(&keys[name].PublicKey)).Operator()
		s.Operators = append(s.Operators, ledger.Operator{Name: name, Role: fleet.RoleAdmin, Key: id})
	}
	return s, keys
}

func seal(t *testing.T, s ledger.State, key *ecdsa.PrivateKey, number uint64, o order.Order) signed.Envelope {
	t.Helper()
	return ledgertest.Must[signed.Envelope](t)(order.Seal(s.Fleet(), key, number, o))
}

func isolate(s ledger.State, seat int, on bool) order.Order {
	one, _ := s.Roster.Seat(seat)
	return order.Isolation{Seat: seat, Key: one.Key, Isolated: on}
}

// TestPowerCut cuts the power at every write while orders come: each that Keep has returned nil
// for holds after the boot, or one that came after it.
func TestPowerCut(t *testing.T) {
	s, keys := founded(t)
	away, _ := s.Roster.Seat(9)
	all := []signed.Envelope{
		seal(t, s, keys["ada"], 1, isolate(s, 9, true)), seal(t, s, keys["ada"], 1, order.Absence{Seat: 9, Key: away.Key, State: order.Away}),
		seal(t, s, keys["eve"], 2, isolate(s, 9, false)), seal(t, s, keys["eve"], 3, isolate(s, 10, true)), seal(t, s, keys["ada"], 4, isolate(s, 9, true)),
	}
	for writes := 0; ; writes++ {
		d := onDisk(nil, writes)
		b, kept := open(d), make(map[string]uint64)
		var err error
		for _, e := range all {
			if _, err = b.Keep(s, e); err != nil {
				break
			}
			kept[nameOf(e)] = e.Sequence
		}
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			after := open(onDisk(d.AfterCut(seed), 1000))
			if err := after.Problem(); err != nil {
				t.Fatalf("writes=%d seed=%d: %v", writes, seed, err)
			}
			got := make(map[string]uint64)
			for _, e := range after.All() {
				got[nameOf(e)] = e.Sequence
			}
			for name, number := range kept {
				if got[name] < number {
					t.Fatalf("writes=%d seed=%d: order %d is here, and %d was kept", writes, seed, got[name], number)
				}
			}
		}
		if err == nil {
			if st := open(onDisk(d.AfterCut(0), 1000)).Look(s, now); fmt.Sprint(st) != fmt.Sprint(order.Decide(s, all, now)) || len(st.Isolated) != 2 || len(st.Absent) != 1 {
				t.Errorf("%+v", st)
			}
			return
		}
	}
}

// TestKeep keeps the newest, says what is news, and leaves no operator the last word who is not
// listed any more.
func TestKeep(t *testing.T) {
	s, keys := founded(t)
	b := Open(filepath.Join(t.TempDir(), "orders"))
	last := seal(t, s, keys["eve"], 1<<60, isolate(s, 9, false))
	for _, c := range []struct {
		what string
		e    signed.Envelope
		news bool
	}{
		{"the first", seal(t, s, keys["ada"], 5, isolate(s, 9, true)), true}, {"an older one", seal(t, s, keys["ada"], 4, isolate(s, 9, false)), false},
		{"about another seat", seal(t, s, keys["ada"], 1, isolate(s, 10, true)), true}, {"the last word", last, true}, {"again", last, false},
		{"a word after it", seal(t, s, keys["ada"], 6, isolate(s, 9, true)), false},
	} {
		if news, err := b.Keep(s, c.e); err != nil || news != c.news {
			t.Errorf("%s: %v, %v", c.what, news, err)
		}
	}
	later := s
	later.Operators = later.Operators[:1]
	if st := b.Look(later, now); len(st.Isolated) != 1 || st.Isolated[0].Seat.Number != 10 {
		t.Errorf("%+v", st)
	}
	if news, err := b.Keep(later, seal(t, s, keys["ada"], 6, isolate(s, 9, true))); !news || err != nil {
		t.Errorf("%v, %v", news, err)
	}
	if st := b.Look(later, now); len(st.Isolated) != 2 || len(st.Beyond) != 0 {
		t.Errorf("%+v", st)
	}
	if _, err := b.Keep(s, signed.Envelope{Kind: "kogge/status/v1"}); !errors.Is(err, order.ErrOrder) {
		t.Errorf("%v", err)
	}
}

// TestDecay: an order that cannot be read is left out and named, and taken again.
func TestDecay(t *testing.T) {
	s, keys := founded(t)
	dir := filepath.Join(t.TempDir(), "orders")
	one, two := seal(t, s, keys["ada"], 1, isolate(s, 9, true)), seal(t, s, keys["ada"], 2, isolate(s, 10, true))
	for _, e := range []signed.Envelope{one, two} {
		if _, err := Open(dir).Keep(s, e); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, nameOf(one))
	raw := ledgertest.Must[[]byte](t)(os.ReadFile(file))
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	b := Open(dir)
	if b.Problem() == nil || len(b.All()) != 1 {
		t.Errorf("%d orders, %v", len(b.All()), b.Problem())
	}
	if again := Open(dir); again.Problem() != nil || len(again.All()) != 1 {
		t.Errorf("at the next start: %v", again.Problem())
	}
	if kept, err := os.ReadFile(durable.AsideName(file, 1)); err != nil || string(kept) != string(raw) {
		t.Errorf("it lies aside as %q, %v", kept, err)
	}
	if news, err := b.Keep(s, one); !news || err != nil || b.Problem() != nil {
		t.Errorf("%v, %v, %v", news, err, b.Problem())
	}
	if b = Open(dir); b.Problem() != nil || len(b.Look(s, now).Isolated) != 2 {
		t.Errorf("%+v, %v", b.Standing(), b.Problem())
	}
}

// TestForeign: a whole file that this release does not understand stays where it is, and the book says so;
// an order that takes its place lays it aside.
func TestForeign(t *testing.T) {
	s, keys := founded(t)
	dir := filepath.Join(t.TempDir(), "orders")
	one := seal(t, s, keys["ada"], 2, isolate(s, 9, true))
	if _, err := Open(dir).Keep(s, one); err != nil {
		t.Fatal(err)
	}
	later := ledgertest.Must[signed.Envelope](t)(signed.SealByOperator(order.IsolationKind, s.Fleet(), keys["ada"], 3, []byte(`{"version": 2}`))).Bytes()
	file := filepath.Join(dir, nameOf(one))
	content := append([]byte(document.HashOf(later).String()+"\n"), later...)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b := Open(dir)
		if got, err := os.ReadFile(file); err != nil || string(got) != string(content) || !errors.Is(b.Problem(), ErrForeign) || len(b.All()) != 0 {
			t.Errorf("it is gone, or nobody says so: %v, %v", err, b.Problem())
		}
	}
	b := Open(dir)
	if news, err := b.Keep(s, one); !news || err != nil || b.Problem() != nil {
		t.Errorf("%v, %v, %v", news, err, b.Problem())
	}
	if got, err := os.ReadFile(durable.AsideName(file, 1)); err != nil || string(got) != string(content) {
		t.Errorf("it does not lie aside: %v", err)
	}
}

// full is a folder on a disk that has no room for what err says.
type full struct {
	folder
	err map[string]error // by name; "": for all
}

func (f *full) Replace(name string, data []byte) error {
	if err := cmp.Or(f.err[""], f.err[name]); err != nil {
		return err
	}
	return f.folder.Replace(name, data)
}

// TestFullDisk: an order that the disk does not take holds for as long as the agent runs, the book
// says that it is not kept for as long as it is not, and it is written once the disk has room.
func TestFullDisk(t *testing.T) {
	s, keys := founded(t)
	dir := filepath.Join(t.TempDir(), "orders")
	disk := &full{folder(dir), map[string]error{"": syscall.ENOSPC}}
	b, lost := open(disk), func() int { return 2 - len(Open(dir).All()) }
	one, two := seal(t, s, keys["ada"], 1, isolate(s, 9, true)), seal(t, s, keys["ada"], 2, isolate(s, 10, true))
	if news, err := b.Keep(s, one); !news || !errors.Is(err, ErrUnkept) || !errors.Is(err, syscall.ENOSPC) || len(b.Look(s, now).Isolated) != 1 {
		t.Errorf("%v, %v, %v", news, err, b.Standing())
	}
	if news, err := b.Keep(s, one); news || !errors.Is(err, ErrUnkept) {
		t.Errorf("the same order again: %v, %v", news, err)
	}
	disk.err = map[string]error{nameOf(one): syscall.ENOSPC}
	if news, err := b.Keep(s, two); !news || err != nil || !errors.Is(b.Problem(), ErrUnkept) || lost() != 1 {
		t.Errorf("%v, %v; the first one: %v", news, err, b.Problem())
	}
	if mended, err := b.Mend(now); mended || !errors.Is(err, syscall.ENOSPC) || lost() != 1 {
		t.Errorf("no room yet: %v, %v", mended, err)
	}
	disk.err = nil
	if mended, err := b.Mend(now.Add(mendEvery - 1)); mended || err != nil || lost() != 1 {
		t.Errorf("it is tried again at once: %v, %v", mended, err)
	}
	if mended, err := b.Mend(now.Add(mendEvery)); !mended || err != nil || b.Problem() != nil || lost() != 0 {
		t.Errorf("%v, %v, %v", mended, err, b.Problem())
	}
	if mended, err := b.Mend(now.Add(time.Hour)); mended || err != nil {
		t.Errorf("there is nothing to mend: %v, %v", mended, err)
	}
}

// TestUnkeptNewer: of an order that is not kept, a later one about the seat is kept in its place.
func TestUnkeptNewer(t *testing.T) {
	s, keys := founded(t)
	disk := &full{folder(filepath.Join(t.TempDir(), "orders")), map[string]error{"": syscall.ENOSPC}}
	b := open(disk)
	_, _ = b.Keep(s, seal(t, s, keys["ada"], 1, isolate(s, 9, true)))
	disk.err = nil
	if news, err := b.Keep(s, seal(t, s, keys["ada"], 2, isolate(s, 9, false))); !news || err != nil || b.Problem() != nil {
		t.Errorf("%v, %v, %v", news, err, b.Problem())
	}
	if mended, err := b.Mend(now); mended || err != nil || open(disk.folder).All()[0].Sequence != 2 {
		t.Errorf("%v, %v", mended, err)
	}
}

// TestClockBack: an absence that is over by a clock that was wrong is not, once the clock is right.
func TestClockBack(t *testing.T) {
	s, keys := founded(t)
	away, _ := s.Roster.Seat(9)
	b := Open(filepath.Join(t.TempDir(), "orders"))
	if _, err := b.Keep(s, seal(t, s, keys["ada"], 1, order.Absence{Seat: 9, Key: away.Key, State: order.Away, Until: now.Add(48 * time.Hour)})); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   time.Time
		want int
	}{
		{now, 1}, {now.AddDate(64, 0, 0), 0}, {now.Add(time.Hour), 1}, {now.Add(47 * time.Hour), 1}, {now.Add(48 * time.Hour), 0}, {now.Add(49 * time.Hour), 0}, {time.Time{}, 1},
	} {
		if got := len(b.Look(s, c.at).Absent); got != c.want {
			t.Errorf("at %s: %d absent, not %d", c.at, got, c.want)
		}
	}
}
