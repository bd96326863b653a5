package pinned

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"

	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// disk is the folder on a disk that loses power.
type disk struct{ *crashdisk.Files }

func (d disk) Read(name string) ([]byte, error) { return d.ReadFile("ledger/" + name) }

func (d disk) Replace(name string, data []byte) error {
	return durable.ReplaceIn(d.Files, "ledger/"+name, data, 0o600)
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

// with is the folder with a file changed.
func with(files map[string][]byte, name string, change func([]byte) []byte) map[string][]byte {
	files = maps.Clone(files)
	raw := append([]byte{}, files["ledger/"+name]...)
	if raw = change(raw); raw == nil {
		delete(files, "ledger/"+name)
	} else {
		files["ledger/"+name] = raw
	}
	return files
}

func decayed(raw []byte) []byte {
	raw[len(raw)/2] ^= 1
	return raw
}

func gone([]byte) []byte { return nil }

// taken is a ledger's folder with all records of a fleet.
func taken(t *testing.T, f *ledgertest.Fleet) map[string][]byte {
	t.Helper()
	d := onDisk(nil, 1000)
	l := open(d, f.Genesis)
	for i, e := range f.Entries {
		if err := l.Take(int64(i+1), e); err != nil {
			t.Fatal(err)
		}
	}
	return d.AfterCut(0)
}

// TestPowerCut cuts the power at every write while records come: what Take returned nil for is
// there, and the rest is taken again.
func TestPowerCut(t *testing.T) {
	f := ledgertest.Founded(t, 4, 3)
	for writes := 0; ; writes++ {
		d := onDisk(nil, writes)
		l := open(d, f.Genesis)
		taken := int64(0)
		var err error
		for i, e := range f.Entries {
			if err = l.Take(int64(i+1), e); err != nil {
				break
			}
			taken++
		}
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			after := open(onDisk(d.AfterCut(seed), 1000), f.Genesis)
			if got := after.State().Height; after.Problem() != nil || got < taken || got > taken+1 {
				t.Fatalf("writes=%d seed=%d: height %d after %d were taken: %v", writes, seed, got, taken, after.Problem())
			}
			for i, e := range f.Entries {
				if err := after.Take(int64(i+1), e); err != nil {
					t.Fatalf("writes=%d seed=%d: record %d again: %v", writes, seed, i+1, err)
				}
			}
			if after.State().Tree != f.Log.State().Tree {
				t.Fatalf("writes=%d seed=%d: another ledger", writes, seed)
			}
		}
		if err == nil {
			return
		}
	}
}

// TestBefore cuts the power at each write while records come, some of which want something to be
// known first: where one is there, what it wants is known.
func TestBefore(t *testing.T) {
	f := ledgertest.Founded(t, 4, 3)
	for writes := 0; ; writes++ {
		d := onDisk(nil, writes)
		l := open(d, f.Genesis)
		l.Before(func(s ledger.State) error { return d.Replace("known", fmt.Append(nil, s.Height)) })
		var err error
		for i, e := range f.Entries {
			if err == nil {
				err = l.Take(int64(i+1), e)
			}
		}
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			after := onDisk(d.AfterCut(seed), 1000)
			height := open(after, f.Genesis).State().Height
			known, _ := after.Read("known")
			if n, _ := strconv.ParseInt(string(known), 10, 64); n < height {
				t.Fatalf("writes=%d seed=%d: height %d, known %q", writes, seed, height, known)
			}
		}
		if err == nil {
			break
		}
	}
	d := onDisk(nil, 1000)
	l, want := open(d, f.Genesis), errors.New("no")
	l.Before(func(ledger.State) error { return want })
	if err := l.Take(1, f.Entries[0]); !errors.Is(err, want) || l.State().Height != 0 || l.Problem() != nil || len(d.AfterCut(0)) != 0 {
		t.Errorf("%v, height %d, %v", err, l.State().Height, l.Problem())
	}
	l.Before(func(ledger.State) error { return nil })
	if err := l.Take(1, f.Entries[0]); err != nil {
		t.Error(err)
	}
}

// TestFork keeps the first record 1 that it took, and at a second one stops for good, with
// both in hand. A stranger's word is no second history.
func TestFork(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	d := onDisk(nil, 1000)
	l := open(d, f.Genesis)
	if err := l.Take(1, f.Entries[0]); err != nil {
		t.Fatal(err)
	}
	other := f.Again(t) // the same owners found it with another operator
	forged := other
	forged.Certificate = f.Entries[0].Certificate
	for name, e := range map[string]ledger.Entry{"forged": forged, "junk": {Record: []byte("x")}, "nothing": {}, "that of another height": f.Entries[1]} {
		if err := l.Take(1, e); err == nil || errors.Is(err, ErrFork) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, height := range []int64{-5, 0, 3} {
		if err := l.Take(height, f.Entries[1]); !errors.Is(err, ledger.ErrHeight) {
			t.Errorf("height %d: %v", height, err)
		}
		if _, err := l.Entry(height); !errors.Is(err, ledger.ErrHeight) {
			t.Errorf("height %d: %v", height, err)
		}
	}
	if err := l.Problem(); err != nil {
		t.Fatal(err)
	}
	if err := l.Take(1, other); !errors.Is(err, ErrFork) {
		t.Errorf("a second founding: %v", err)
	}
	for name, l := range map[string]*Ledger{"now": l, "after a reboot": open(onDisk(d.AfterCut(0), 1000), f.Genesis)} {
		if err := l.Problem(); !errors.Is(err, ErrFork) {
			t.Errorf("%s: %v", name, err)
		}
		if height, e := l.Second(); height != 1 || !reflect.DeepEqual(e, other) {
			t.Errorf("%s: the second history at height %d is not the one that came", name, height)
		}
		for height, e := range map[int64]ledger.Entry{1: f.Entries[0], 2: f.Entries[1]} {
			if err := l.Take(height, e); !errors.Is(err, ErrFork) {
				t.Errorf("%s: record %d: %v", name, height, err)
			}
		}
	}
	raw, err := d.Read("1" + forkSuffix)
	if err != nil {
		t.Fatal(err)
	}
	if entry, err := unsummed(raw); err != nil || string(entry) != string(ledger.FormatEntry(1, other)) {
		t.Errorf("the second one is not kept: %v", err)
	}
}

// TestForkPowerCut cuts the power at each write while a node stops: it has stopped, or does
// when the second history comes again.
func TestForkPowerCut(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	start, other := taken(t, f), f.Again(t)
	for writes := 0; ; writes++ {
		d := onDisk(start, writes)
		err := open(d, f.Genesis).Take(1, other)
		if !errors.Is(err, ErrFork) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			after := open(onDisk(d.AfterCut(seed), 1000), f.Genesis)
			stopped := errors.Is(after.Problem(), ErrFork)
			if !stopped && !errors.Is(err, crashdisk.ErrPowerCut) {
				t.Fatalf("writes=%d seed=%d: it goes on: %v", writes, seed, after.Problem())
			}
			if e, err := after.Entry(1); !stopped && (err != nil || string(e.Record) != string(f.Entries[0].Record)) {
				t.Fatalf("writes=%d seed=%d: %v", writes, seed, err)
			}
			if err := after.Take(1, other); !errors.Is(err, ErrFork) {
				t.Fatalf("writes=%d seed=%d: again: %v", writes, seed, err)
			}
		}
		if !errors.Is(err, crashdisk.ErrPowerCut) {
			return
		}
	}
}

// TestDamaged loses records to decay, and takes them again from others: the same ones.
func TestDamaged(t *testing.T) {
	f := ledgertest.Founded(t, 4, 4)
	files := taken(t, f)
	for name, change := range map[string]func([]byte) []byte{"decayed": decayed, "gone": gone} {
		for first := int64(1); first <= 4; first++ {
			for last := first; last <= 4; last++ {
				bad := files
				for height := first; height <= last; height++ {
					bad = with(bad, fileName(height), change)
				}
				l := open(onDisk(bad, 1000), f.Genesis)
				if err := l.Problem(); !errors.Is(err, ErrDamaged) || l.State().Height != first-1 {
					t.Fatalf("records %d to %d are %s: height %d, %v", first, last, name, l.State().Height, err)
				}
				for height := first; height <= last; height++ {
					if err := l.Take(height, f.Entries[height-1]); err != nil {
						t.Errorf("records %d to %d are %s: %d again: %v", first, last, name, height, err)
					}
				}
				if l.State().Tree != f.Log.State().Tree || l.Problem() != nil {
					t.Errorf("records %d to %d are %s, and come again: height %d, %v", first, last, name, l.State().Height, l.Problem())
				}
			}
		}
		// Another founding does not take the place of the first one, not even of one alone.
		alone := &ledgertest.Fleet{Genesis: f.Genesis, Log: f.Log, Entries: f.Entries[:1]}
		for what, files := range map[string]map[string][]byte{"one record": taken(t, alone), "four": files} {
			d := onDisk(with(files, "1", change), 1000)
			l := open(d, f.Genesis)
			if err := l.Take(1, f.Again(t)); !errors.Is(err, ErrFork) {
				t.Errorf("%s, the first is %s: another in its place: %v", what, name, err)
			}
			if err := open(onDisk(d.AfterCut(0), 1000), f.Genesis).Problem(); !errors.Is(err, ErrFork) {
				t.Errorf("%s, the first is %s: after a reboot: %v", what, name, err)
			}
		}
	}
}

// TestHead loses the head: the files say all that it said, if the first one is there.
func TestHead(t *testing.T) {
	f := ledgertest.Founded(t, 4, 3)
	files := taken(t, f)
	more := f.Decided(t, f.Operators(t, "carl"), f.Log.State().Roster.Quorum())
	for name, change := range map[string]func([]byte) []byte{"decayed": decayed, "gone": gone} {
		headless := with(files, headName, change)
		d := onDisk(headless, 1000)
		l := open(d, f.Genesis)
		if l.Problem() != nil || l.State().Height != 3 {
			t.Errorf("%s: height %d, %v", name, l.State().Height, l.Problem())
		}
		if err := l.Take(4, more); err != nil {
			t.Fatal(err)
		}
		if l := open(onDisk(with(d.AfterCut(0), "4", gone), 1000), f.Genesis); !errors.Is(l.Problem(), ErrDamaged) {
			t.Errorf("%s: there is no new head", name)
		}
		for what, bad := range map[string]map[string][]byte{"record 1": with(headless, "1", change), "record 2": with(headless, "2", change)} {
			if l := open(onDisk(bad, 1000), f.Genesis); !errors.Is(l.Problem(), ErrDamaged) || l.Take(1, f.Again(t)) == nil {
				t.Errorf("%s, and %s: %v", name, what, l.Problem())
			}
		}
	}
	// Once the agent has come up there is a head again, and what decays then is noticed.
	for name, change := range map[string]func([]byte) []byte{"decayed": decayed, "gone": gone} {
		for writes := 0; ; writes++ {
			d := onDisk(with(files, headName, change), writes)
			err := open(d, f.Genesis).Mend()
			for seed := range uint64(8) {
				after := open(onDisk(d.AfterCut(seed), 1000), f.Genesis)
				if after.Problem() != nil || after.State().Height != 3 {
					t.Fatalf("%s, writes=%d seed=%d: height %d, %v", name, writes, seed, after.State().Height, after.Problem())
				}
			}
			if err != nil {
				if !errors.Is(err, crashdisk.ErrPowerCut) {
					t.Fatal(err)
				}
				continue
			}
			mended := d.AfterCut(0)
			for _, height := range []int64{1, 3} {
				if l := open(onDisk(with(mended, fileName(height), change), 1000), f.Genesis); !errors.Is(l.Problem(), ErrDamaged) || l.Take(height, f.Entries[height-1]) != nil {
					t.Errorf("%s, then record %d too: %v", name, height, l.Problem())
				}
			}
			break
		}
	}
	wrong := with(files, "1", func([]byte) []byte { return format(1, f.Again(t)) })
	if l := open(onDisk(with(with(wrong, "2", gone), "3", gone), 1000), f.Genesis); !errors.Is(l.Problem(), ErrFork) {
		t.Errorf("another record 1: %v", l.Problem())
	}
	if l := open(onDisk(map[string][]byte{"ledger/head": []byte("x")}, 1000), f.Genesis); !errors.Is(l.Problem(), ErrDamaged) {
		t.Errorf("nothing but what was a head: %v", l.Problem())
	}
}

// TestNewer goes back to a release that does not know what was decided: nothing is damaged,
// nothing is replaced, and nothing is done on what is half known.
func TestNewer(t *testing.T) {
	f := ledgertest.Founded(t, 4, 3)
	files := taken(t, f)
	value := []byte("{\n  \"version\": 1,\n  \"rollout\": {}\n}\n")
	r, err := f.Log.State().Next(f.Operators(t, "carl"))
	if err != nil {
		t.Fatal(err)
	}
	r.Value = document.HashOf(value)
	later := f.Proved(r, ledger.Value{}, 3)
	later.Value = value
	d := onDisk(files, 1000)
	if err := open(d, f.Genesis).Take(4, later); !errors.Is(err, document.ErrNewer) {
		t.Errorf("it is taken: %v", err)
	}
	d = onDisk(with(files, "4", func([]byte) []byte { return format(4, later) }), 1000)
	before := d.AfterCut(0)
	l := open(d, f.Genesis)
	for _, e := range []ledger.Entry{later, f.Entries[2]} {
		if err := l.Take(4, e); !errors.Is(err, document.ErrNewer) {
			t.Errorf("%v", err)
		}
	}
	if err := l.Problem(); !errors.Is(err, document.ErrNewer) || errors.Is(err, ErrDamaged) || l.State().Height != 3 {
		t.Errorf("height %d, %v", l.State().Height, err)
	}
	if after := d.AfterCut(0); len(after) != len(before) || string(after["ledger/4"]) != string(before["ledger/4"]) {
		t.Error("the folder is another one")
	}
}

// TestFolder keeps a ledger in a folder of this machine.
func TestFolder(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	dir := filepath.Join(t.TempDir(), "ledger")
	l := Open(dir, f.Genesis)
	for i, e := range f.Entries {
		if err := l.Take(int64(i+1), e); err != nil {
			t.Fatal(err)
		}
	}
	if again := Open(dir, f.Genesis); again.Problem() != nil || again.State().Tree != f.Log.State().Tree {
		t.Errorf("height %d, %v", again.State().Height, again.Problem())
	}
	if err := l.Take(2, ledger.Entry{}); err == nil || l.Problem() != nil {
		t.Errorf("%v, %v", err, l.Problem())
	}
	if err := l.Take(1, f.Again(t)); !errors.Is(err, ErrFork) {
		t.Error(err)
	}
	if again := Open(dir, f.Genesis); !errors.Is(again.Problem(), ErrFork) {
		t.Error(again.Problem())
	}
}

// TestKnown: while nothing of a ledger can be read that has begun, of all operators only the
// first one is known, and he as the certificate says.
func TestKnown(t *testing.T) {
	f := ledgertest.Founded(t, 4, 1)
	eve := fleet.Peer{Kind: fleet.KindOperator, Name: "eve", Role: fleet.RoleAdmin, Key: ledgertest.Operator(t, "eve", fleet.RoleAdmin).Key.String()}
	first := fleet.Peer{Kind: fleet.KindOperator, Name: "ada", Role: fleet.RoleAdmin, Key: f.Genesis.FirstOperatorID()}
	l := open(onDisk(nil, 1000), f.Genesis)
	if who, err := l.Known(eve); err != nil || who != eve {
		t.Errorf("before the founding: %v, %v", who, err)
	}
	for name, change := range map[string]func([]byte) []byte{"decayed": decayed, "gone": gone} {
		l := open(onDisk(with(taken(t, f), "1", change), 1000), f.Genesis)
		if _, err := l.Known(eve); !errors.Is(err, ledger.ErrUnlisted) {
			t.Errorf("record 1 is %s: %v", name, err)
		}
		if who, err := l.Known(first); err != nil || who != first {
			t.Errorf("record 1 is %s: the first operator: %v, %v", name, who, err)
		}
		if err := l.Take(1, f.Entries[0]); err != nil {
			t.Fatal(err)
		}
		reader := first
		reader.Role = fleet.RoleReader // by his certificate: the lower one counts
		for _, p := range []fleet.Peer{first, reader} {
			if who, err := l.Known(p); err != nil || who != p {
				t.Errorf("record 1 is back: %v, %v", who, err)
			}
		}
		if _, err := l.Known(eve); !errors.Is(err, ledger.ErrUnlisted) {
			t.Errorf("record 1 is back: %v", err)
		}
	}
}

// TestReread: a ledger that another program of the node takes records for takes note of them, and
// reads no more than what is new. Damage that is mended, and a second history, are seen, too.
func TestReread(t *testing.T) {
	f := ledgertest.Founded(t, 4, 4)
	d := onDisk(nil, 1000)
	writer, reader := open(d, f.Genesis), open(d, f.Genesis)
	reads := 0
	reader.files = counted{d, &reads}
	for i, e := range f.Entries {
		if err := writer.Take(int64(i+1), e); err != nil {
			t.Fatal(err)
		}
		reads = 0
		reader.Reread()
		if got := reader.State(); got.Height != int64(i+1) || got.Tree != writer.State().Tree || reader.Problem() != nil || reads > 3 {
			t.Fatalf("record %d: height %d after %d reads, %v", i+1, got.Height, reads, reader.Problem())
		}
	}
	damaged := onDisk(with(d.AfterCut(0), "3", decayed), 1000)
	reader = open(damaged, f.Genesis)
	if got := reader.State().Height; got != 2 || !errors.Is(reader.Problem(), ErrDamaged) {
		t.Fatalf("damaged: height %d, %v", got, reader.Problem())
	}
	writer = open(damaged, f.Genesis)
	if err := writer.Take(3, f.Entries[2]); err != nil {
		t.Fatal(err)
	}
	reader.Reread()
	if got := reader.State().Height; got != 4 || reader.Problem() != nil {
		t.Errorf("mended: height %d, %v", got, reader.Problem())
	}
	if err := writer.Take(1, f.Again(t)); !errors.Is(err, ErrFork) {
		t.Fatal(err)
	}
	if reader.Reread(); !errors.Is(reader.Problem(), ErrFork) {
		t.Errorf("a second founding: %v", reader.Problem())
	}
}

// counted counts what is read.
type counted struct {
	disk
	reads *int
}

func (c counted) Read(name string) ([]byte, error) {
	*c.reads++
	return c.disk.Read(name)
}

// TestRecord gives the hash of each record that is taken.
func TestRecord(t *testing.T) {
	f := ledgertest.Founded(t, 4, 5)
	l := open(onDisk(taken(t, f), 1000), f.Genesis)
	for height := int64(0); height <= 5; height++ {
		want, err := f.Log.Record(height)
		if got, bad := l.Record(height); err != nil || bad != nil || got != want {
			t.Errorf("record %d: %s, %v", height, got.Short(), bad)
		}
	}
	if _, err := l.Record(6); !errors.Is(err, ledger.ErrHeight) {
		t.Errorf("a record that is not here: %v", err)
	}
}

// TestProved wants of an entry that it is of the record that is here, and proves it: also by another
// certificate.
func TestProved(t *testing.T) {
	f := ledgertest.Founded(t, 4, 5)
	l := open(onDisk(taken(t, f), 1000), f.Genesis)
	own := f.Entries[2]
	r, err := ledger.ParseRecord(own.Record)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ledger.ParseValue(own.Value)
	if err != nil {
		t.Fatal(err)
	}
	before := &ledgertest.Fleet{Genesis: f.Genesis, Log: ledger.New(f.Genesis)}
	for _, e := range f.Entries[:2] {
		before.Take(t, e)
	}
	c, err := ledger.ParseCertificate(own.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	more := before.Proved(r, v, 4, c.Evidence...)
	if bytes.Equal(more.Certificate, own.Certificate) {
		t.Fatal("it is the same certificate")
	}
	unproved := own
	unproved.Certificate = f.Entries[1].Certificate
	for what, c := range map[string]struct {
		e  ledger.Entry
		is error
	}{
		"the same": {own, nil}, "by all": {more, nil}, "another": {f.Entries[3], ledger.ErrRecord}, "by nobody": {unproved, ledger.ErrCertificate},
	} {
		if err := l.Proved(3, c.e); !errors.Is(err, c.is) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if s := l.State(); s.Height != 5 || l.Problem() != nil {
		t.Errorf("height %d, %v", s.Height, l.Problem())
	}
}
