package journal

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/roster"
)

// TestPowerCut cuts the power at each write of a voter, while its journal is begun, appended to and
// written anew: whatever the disk has kept, the seat never signs twice, and goes on.
func TestPowerCut(t *testing.T) {
	const records = 5
	for writes := 0; ; writes++ {
		d, h := onDisk(nil, writes), begun()
		_, err := votes(t, d, h, "before", records)
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			after, h := onDisk(d.AfterCut(seed), 1000), h.clone()
			if _, err := votes(t, after, h, "after", len(h.ledger)+1); err != nil {
				t.Fatalf("writes=%d seed=%d: %v", writes, seed, err)
			}
		}
		if err == nil {
			if writes < 40 {
				t.Errorf("%d records are decided with %d writes", records, writes)
			}
			return
		}
	}
}

// TestFault has one call of the disk fail, each once: nothing is appended after it, and nothing is signed
// twice once the journal was read again, though the power goes then.
func TestFault(t *testing.T) {
	const records = 4
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC, syscall.EROFS} {
		for calls := 0; ; calls++ {
			d, h := onDisk(nil, 1000), begun()
			d.left, d.fault = calls, fault
			j, err := votes(t, d, h, "before", records)
			if err == nil {
				break // each call has failed once
			}
			if !errors.Is(err, fault) {
				t.Fatalf("call %d: %v", calls, err)
			}
			if j != nil {
				there := d.AfterCut(1)
				if again := j.Append(journal.Record{Abstain: 1}); !errors.Is(again, fault) || !errors.Is(j.Problem(), fault) || !reflect.DeepEqual(d.AfterCut(1), there) {
					t.Fatalf("call %d: after %v, another record is appended: %v, %v", calls, err, again, j.Problem())
				}
			}
			if _, err := votes(t, d, h, "again", len(h.ledger)+1); err != nil {
				t.Fatalf("call %d: %v", calls, err)
			}
			for seed := range uint64(4) {
				h := h.clone()
				if _, err := votes(t, onDisk(d.AfterCut(seed), 1000), h, "after", len(h.ledger)+1); err != nil {
					t.Fatalf("call %d seed=%d: %v", calls, seed, err)
				}
			}
		}
	}
}

// TestFaultThenCut has one call fail, and the power go before more is written than it takes to read the
// journal again: what can be read then is on the disk.
func TestFaultThenCut(t *testing.T) {
	for calls := 0; ; calls++ {
		d, h := onDisk(nil, 1000), begun()
		d.left, d.fault = calls, syscall.EIO
		if _, err := votes(t, d, h, "before", 4); err == nil {
			return
		}
		_, m, err := open(d, titled(t))
		if err != nil {
			t.Fatal(err)
		}
		_, after, err := open(onDisk(d.AfterCut(0), 1000), titled(t))
		if err != nil || !bytes.Equal(after.Compact(), m.Compact()) {
			t.Fatalf("call %d: it was\n%+v, and is after a cut\n%+v: %v", calls, m, after, err)
		}
	}
}

// voted is STATE of a seat that has voted, and the name of its journal there.
func voted(t testing.TB) (files map[string][]byte, name string) {
	d := onDisk(nil, 1000)
	if _, err := votes(t, d, begun(), "item", 4); err != nil {
		t.Fatal(err)
	}
	return d.AfterCut(0), folderName + "/" + titled(t).ID.String()
}

// with is STATE with a file changed; without bytes it is gone.
func with(files map[string][]byte, name string, raw []byte) map[string][]byte {
	files = maps.Clone(files)
	if files[name] = raw; raw == nil {
		delete(files, name)
	}
	return files
}

// TestUntrusted: of a journal that is not surely this seat's, or not surely understood, nothing is believed and
// nothing is changed.
func TestUntrusted(t *testing.T) {
	files, name := voted(t)
	raw, title := files[name], titled(t)
	m, err := journal.Replay(raw)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = journal.Replay(m.Compact()); err != nil {
		t.Fatal(err)
	}
	foreign := func(change func(*journal.Title)) []byte {
		other := m
		change(&other.Title)
		return other.Compact()
	}
	for what, r := range map[string]struct {
		raw  []byte
		want error
	}{
		"gone":               {nil, ErrLost},
		"empty":              {[]byte{}, ErrLost},
		"zeros":              {make([]byte, len(raw)), ErrLost},
		"no title":           {[]byte(strings.Replace(string(raw), `"fleet"`, `"float"`, 1)), ErrLost},
		"another id":         {foreign(func(t *journal.Title) { t.ID = roster.ID{2} }), ErrLost},
		"another fleet":      {foreign(func(t *journal.Title) { t.Fleet = document.HashOf([]byte("another")) }), ErrLost},
		"another key":        {foreign(func(o *journal.Title) { o.Key = title.Key[:len(title.Key)-1] + "x" }), ErrLost},
		"a later format":     {[]byte(strings.Replace(string(raw), "kogge-journal 1", "kogge-journal 2", 1)), document.ErrNewer},
		"a later release's":  {append(m.Compact(), frozen(m.Next, "{\n  \"version\": 1,\n  \"abstains\": 7\n}\n")...), document.ErrNewer},
		"of a huge file":     {bytes.Repeat([]byte("x"), 100), ErrLost},
		"another file there": {[]byte("#!/bin/sh\n"), ErrLost},
	} {
		d := onDisk(with(files, name, r.raw), 1000)
		before := d.AfterCut(1)
		if j, m, err := open(d, title); !errors.Is(err, r.want) || j != nil || !reflect.DeepEqual(m, journal.Memory{}) {
			t.Errorf("%s: %v, %+v", what, err, m)
		}
		if after := d.AfterCut(1); !reflect.DeepEqual(after, before) {
			t.Errorf("%s: the files were changed: %q", what, slices.Sorted(maps.Keys(after)))
		}
	}
	d := onDisk(nil, 1000) // a key that has never voted
	if _, m, err := open(d, title); err != nil || m.Title != title || m.Next != 2 || m.Behind {
		t.Errorf("never begun: %+v, %v", m, err)
	}
}

// TestDamaged: a journal that is damaged in the middle stays beside the one that goes on, at a cut at each
// write: the seat is behind until it knows how far.
func TestDamaged(t *testing.T) {
	files, name := voted(t)
	raw := bytes.Clone(files[name])
	raw[bytes.Index(raw, []byte(`"ballot"`))] ^= 1
	files = with(files, name, raw)
	for writes := 0; ; writes++ {
		d := onDisk(files, writes)
		j, m, err := open(d, titled(t))
		if err == nil && (m.Damage == "" || !m.Behind) {
			t.Fatalf("%+v", m)
		}
		if err == nil {
			err = j.Append(journal.Record{Abstain: 9})
		}
		for seed := range uint64(16) {
			after := onDisk(d.AfterCut(seed), 1000)
			_, m, openErr := open(after, titled(t))
			if openErr != nil || err == nil && (m.Behind || m.Abstain != 9) || m.Abstain == 0 && !m.Behind {
				t.Fatalf("writes=%d seed=%d: %+v, %v", writes, seed, m, openErr)
			}
			if kept := after.AfterCut(0)[durable.AsideName(name, 1)]; !bytes.Equal(kept, raw) {
				t.Fatalf("writes=%d seed=%d: aside lie %d bytes", writes, seed, len(kept))
			}
		}
		if err == nil {
			return
		}
	}
}

// kept are files on a disk that keeps all.
type kept map[string][]byte

func (k kept) Read(name string) ([]byte, error) {
	raw, ok := k[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return raw, nil
}
func (k kept) Replace(name string, data []byte) error { k[name] = data; return nil }
func (k kept) Append(name string, _ int64, data []byte) error {
	k[name] = append(k[name], data...)
	return nil
}
func (k kept) Keep(name string) error { return errors.New(name) }

// TestSize decides many records, and casts ballots at one height for days: the file stays short.
func TestSize(t *testing.T) {
	d, h := onDisk(nil, 1<<20), begun()
	if _, err := votes(t, d, h, "item", 300); err != nil {
		t.Fatal(err)
	}
	name := folderName + "/" + titled(t).ID.String()
	if raw, _ := d.ReadFile(name); len(raw) > 7*block {
		t.Errorf("after 300 records it has %d bytes", len(raw))
	}
	k := kept(d.AfterCut(0))
	j, _, err := open(k, titled(t))
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	at := h.height(t)
	for round := range int32(1100) {
		for _, k := range []ballot.Kind{ballot.Prevote, ballot.Precommit} {
			w := at.Words(k, round, ballot.Nil, ballot.Fresh)
			if err := j.Append(journal.Record{Ballot: &w}); err != nil {
				t.Fatal(err)
			}
		}
		most = max(most, len(k[name]))
	}
	if most > maxFile/4 {
		t.Errorf("it has %d bytes", most)
	}
	if _, m, err := open(k, titled(t)); err != nil || len(m.Own) < 1024 || m.Own[len(m.Own)-1].Round != 1099 {
		t.Errorf("%d ballots: %v", len(m.Own), err)
	}
	if err := j.Append(journal.Record{Title: &journal.Title{}}); !errors.Is(err, journal.ErrRecord) || j.Problem() != nil {
		t.Errorf("a second title: %v, %v", err, j.Problem())
	}
}

// FuzzOpen has any bytes lie where the journal is: it is refused and stays as it is, or it goes on and says
// the same after a cut.
func FuzzOpen(f *testing.F) {
	files, name := voted(f)
	raw := files[name]
	f.Add(raw)
	f.Add(raw[:len(raw)-block-7])
	f.Add(bytes.Replace(raw, []byte(`"head"`), []byte(`"hear"`), 1))
	f.Add([]byte("kogge-journal 1\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d := onDisk(with(files, name, append([]byte{}, raw...)), 1000)
		j, m, err := open(d, titled(t))
		if err != nil {
			if there, readErr := d.ReadFile(name); readErr != nil || !bytes.Equal(there, raw) {
				t.Errorf("refused and changed: %v", err)
			}
			return
		}
		if kept, err := d.ReadFile(durable.AsideName(name, 1)); m.Damage != "" && (err != nil || !bytes.Equal(kept, raw) || !m.Behind) {
			t.Errorf("damaged, and not kept: %v", err)
		}
		if err := j.Append(journal.Record{Abstain: 1 << 40}); err != nil {
			t.Fatal(err)
		}
		_, after, err := open(onDisk(d.AfterCut(0), 1000), titled(t))
		if err != nil || after.Damage != "" || after.Abstain < 1<<40 || !slices.Equal(after.Own, m.Own) || after.Head != m.Head {
			t.Errorf("it was\n%+v, and is\n%+v: %v", m, after, err)
		}
	})
}
