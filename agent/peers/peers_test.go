package peers

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// cut is the file on a disk that loses power.
type cut struct{ *crashdisk.Files }

func (c cut) Read() ([]byte, error) { return c.ReadFile("peers") }

func (c cut) Replace(data []byte) error { return durable.ReplaceIn(c.Files, "peers", data, 0o600) }

func on(files map[string][]byte, writes int) cut {
	return cut{crashdisk.NewFiles(files, crashdisk.NewPower(writes))}
}

// fleet is seats, and what they have said.
type fleet struct {
	t     testing.TB
	seats roster.Roster
	said  map[place]signed.Envelope
}

func newFleet(t testing.TB, seats int) *fleet {
	f := &fleet{t: t, said: make(map[place]signed.Envelope)}
	for n := 1; n <= seats; n++ {
		f.seats.Seats = append(f.seats.Seats, roster.Seat{Number: n, Name: fmt.Sprintf("n%d", n), Key: f.key(n), Vote: n%2 == 1, Member: n <= 3})
	}
	return f
}

func (f *fleet) key(seat int) signed.Key {
	return ledgertest.Must[signed.Key](f.t)(signed.KeyOf(ledgertest.Private(fmt.Sprintf("n%d", seat)).Public().(ed25519.PublicKey)))
}

func (f *fleet) say(seat int, kind string, number uint64, body []byte) {
	e := ledgertest.Must[signed.Envelope](f.t)(signed.Seal(kind, document.HashOf([]byte("fleet")), ledgertest.Private(fmt.Sprintf("n%d", seat)), number, body))
	f.said[place{kind, e.By}] = e
}

// hello is a seat's word for a TLS key, and where it is.
func (f *fleet) hello(seat int, number uint64, key, address string) {
	f.say(seat, notice.TLSKeyKind, number, notice.TLSKey{Version: 1, Seat: seat, Key: document.HashOf([]byte(key))}.Encode())
	f.say(seat, notice.NodeKind, number, notice.Node{
		Version: 1, Name: fmt.Sprintf("n%d", seat), Addresses: []netip.AddrPort{netip.MustParseAddrPort(address)}, Arch: "amd64", Board: "b", Kernel: "k",
		Capacity: notice.Capacity{CPUs: 1, Memory: 1},
	}.Encode())
}

func (f *fleet) object(kind string, by signed.Key) (signed.Envelope, bool) {
	e, ok := f.said[place{kind, by}]
	return e, ok
}

func (f *fleet) note(m *Memory) { m.Note(f.object, f.seats, f.key(1)) }

// told are the words of a memory, in short.
func (f *fleet) told(m *Memory) string {
	var all []string
	for _, w := range m.Words() {
		seat, _ := f.seats.ByKey(w.By)
		if w.Verify() != nil {
			f.t.Errorf("a word of %s is not as it was signed", seat.Name)
		}
		all = append(all, fmt.Sprintf("%s:%s:%d", seat.Name, strings.Split(w.Kind, "/")[1], w.Sequence))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// TestMemory: a node remembers the newest words of members and voters, and forgets who is gone.
// What is said again is no reason to write, nor is a flood of news.
func TestMemory(t *testing.T) {
	f := newFleet(t, 6)
	name := filepath.Join(t.TempDir(), "kogge", "peers")
	m := ledgertest.Must[*Memory](t)(Open(name))
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	keep := func(want string) {
		t.Helper()
		f.note(m)
		if err := m.Keep(now); err != nil {
			t.Fatal(err)
		}
		again, err := Open(name)
		if got := f.told(again); got != want || err != nil {
			t.Errorf("after a boot it knows %q, %v; want %q", got, err, want)
		}
	}
	keep("")
	if _, err := os.Stat(name); err == nil {
		t.Error("it wrote nothing down")
	}
	for seat := 1; seat <= 6; seat++ {
		f.hello(seat, 5, "a", "192.0.2.1:7443")
	}
	first := "n2:node:5 n2:tls-key:5 n3:node:5 n3:tls-key:5 n5:node:5 n5:tls-key:5"
	keep(first)
	written := ledgertest.Must[os.FileInfo](t)(os.Stat(name))
	f.hello(2, 6, "a", "192.0.2.1:7443")
	now = now.Add(Every)
	keep(first)
	if again := ledgertest.Must[os.FileInfo](t)(os.Stat(name)); !os.SameFile(written, again) {
		t.Error("it was written for a word that says the same")
	}
	f.hello(2, 7, "b", "192.0.2.1:7443")
	keep("n2:node:5 n2:tls-key:7 n3:node:5 n3:tls-key:5 n5:node:5 n5:tls-key:5")
	f.hello(3, 6, "a", "192.0.2.2:7443")
	now = now.Add(Every - time.Second)
	keep("n2:node:5 n2:tls-key:7 n3:node:5 n3:tls-key:5 n5:node:5 n5:tls-key:5")
	f.hello(3, 1, "old", "192.0.2.3:7443") // which a shelf would not give
	f.seats.Seats = f.seats.Seats[:3]
	now = now.Add(time.Second)
	keep("n2:node:5 n2:tls-key:7 n3:node:6 n3:tls-key:5")
	f.hello(2, 8, "c", "192.0.2.1:7443")
	f.note(m)
	clear(f.said) // the engine has ended
	f.note(m)
	if err := m.Flush(now); err != nil {
		t.Fatal(err)
	}
	if got := f.told(ledgertest.Must[*Memory](t)(Open(name))); got != "n2:node:5 n2:tls-key:8 n3:node:6 n3:tls-key:5" {
		t.Errorf("after the node has stopped in order: %q", got)
	}
}

// TestMany: of a large fleet it keeps some, members first, and does not take turns.
func TestMany(t *testing.T) {
	f := newFleet(t, 4*maxSeats)
	m := ledgertest.Must[*Memory](t)(open(on(nil, 100)))
	for seat := 2 * maxSeats; seat <= 4*maxSeats; seat++ {
		f.hello(seat, 1, "a", "192.0.2.1:7443")
	}
	f.note(m)
	for seat := 2; seat <= 4*maxSeats; seat++ {
		f.hello(seat, 2, "b", "192.0.2.1:7443")
	}
	f.note(m)
	before := f.told(m)
	f.note(m)
	if got := f.told(m); len(m.Words()) > 2*maxSeats || got != before || !strings.Contains(got, "n2:tls-key:2 n3:") {
		t.Errorf("%d words: %s", len(m.Words()), got)
	}
	if raw := m.format(); len(raw) > maxFile {
		t.Errorf("%d bytes", len(raw))
	}
}

// TestPowerCut cuts the power at each write: a node remembers what it did before, or what is new.
func TestPowerCut(t *testing.T) {
	f := newFleet(t, 3)
	for writes := 0; ; writes++ {
		d := on(nil, writes)
		m := ledgertest.Must[*Memory](t)(open(d))
		sure, err := "", error(nil)
		may := []string{""}
		for number := uint64(1); number <= 2 && err == nil; number++ {
			f.hello(2, number, fmt.Sprint(number), fmt.Sprintf("192.0.2.%d:7443", number))
			f.note(m)
			may = append(may, f.told(m))
			if err = m.Flush(time.Now()); err == nil {
				sure = f.told(m)
				may = []string{sure}
			}
		}
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			after, err := open(on(d.AfterCut(seed), 100))
			if got := f.told(after); err != nil || !slices.Contains(may, got) {
				t.Fatalf("writes=%d seed=%d: %q, %v; %q was kept", writes, seed, got, err, sure)
			}
		}
		if err == nil {
			return
		}
	}
}

// TestDecay: a line that has decayed costs what it held, and a file of something else all.
func TestDecay(t *testing.T) {
	f := newFleet(t, 3)
	f.hello(2, 1, "a", "192.0.2.1:7443")
	f.hello(3, 1, "a", "192.0.2.1:7443")
	m := ledgertest.Must[*Memory](t)(open(on(nil, 100)))
	f.note(m)
	raw := m.format()
	for name, c := range map[string]struct {
		raw   []byte
		words int
	}{
		"whole": {raw, 4}, "a torn line": {raw[:len(raw)-9], 3}, "a byte": {bytes.Replace(raw, []byte("\n"), []byte("\n*"), 2)[:len(raw)+1], 2},
		"nothing": {nil, 0}, "something else": {[]byte("{}"), 0}, "too much": {append(raw, make([]byte, maxFile)...), 0},
	} {
		words, err := parse(c.raw)
		if len(words) != c.words || (err == nil) != (name == "whole") {
			t.Errorf("%s: %d words, %v", name, len(words), err)
		}
	}
}

// FuzzParse reads any bytes, and writes what it has understood so that it reads the same.
func FuzzParse(f *testing.F) {
	all := newFleet(f, 2)
	all.hello(2, 1, "a", "192.0.2.1:7443")
	m := ledgertest.Must[*Memory](f)(open(on(nil, 100)))
	all.note(m)
	f.Add(m.format())
	f.Add([]byte(header + "\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		words, _ := parse(raw)
		m := &Memory{words: make(map[place]signed.Envelope)}
		for _, w := range words {
			m.words[place{w.Kind, w.By}] = w
		}
		again, err := parse(m.format())
		if err != nil || len(again) != len(m.words) {
			t.Fatalf("%d words, and again %d, %v", len(m.words), len(again), err)
		}
	})
}
