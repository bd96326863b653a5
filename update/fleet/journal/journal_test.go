package journal

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// private are the keys of the seats, by number.
func private(seat int) ed25519.PrivateKey { return ledgertest.Private(fmt.Sprintf("n%d", seat)) }

// record is the hash of some record of a height.
func record(height int64, what string) document.Hash {
	return document.HashOf(fmt.Appendf(nil, "%s %d", what, height))
}

// second is the second height of a fleet of four.
func second(t testing.TB) ballot.Height {
	h := ballot.Height{Fleet: document.HashOf([]byte("fleet")), Number: 2, Record: record(1, "decided"), Tree: record(1, "tree"), Roster: record(4, "roster"), Quorum: 3, Liars: 1}
	for i := 1; i <= 4; i++ {
		h.Voters = append(h.Voters, roster.Seat{Number: i, Key: ledgertest.Must[signed.Key](t)(signed.KeyOf(private(i).Public().(ed25519.PublicKey)))})
	}
	return h
}

// written is a journal with a record of each kind, and where each record ends.
func written(t testing.TB) (raw []byte, ends []int) {
	h := second(t)
	value := record(2, "item")
	proposal := ballot.Ballot{Words: h.Words(ballot.Proposal, 0, value, ballot.Fresh), Seat: 3}.Sign(private(3))
	var prevotes []*ballot.Ballot
	for seat := 1; seat <= 3; seat++ {
		prevotes = append(prevotes, ballot.Ballot{Words: h.Words(ballot.Prevote, 0, value, ballot.Fresh), Seat: seat}.Sign(private(seat)))
	}
	prevote, precommit := h.Words(ballot.Prevote, 0, value, ballot.Fresh), h.Words(ballot.Precommit, 0, value, ballot.Fresh)
	raw = Begun(Title{Fleet: h.Fleet, Key: h.Voters[0].Key})
	ends = []int{len(raw)}
	for i, r := range []Record{
		{Head: &Head{1, h.Record}}, {Ballot: &prevote}, {Ballot: &precommit, Lock: LockOn(proposal, prevotes)},
		{Note: &Note{"floor", []byte("7")}}, {Abstain: 4}, {Behind: true}, {Abstain: 6},
	} {
		raw = append(raw, Append(int64(i+2), r)...)
		ends = append(ends, len(raw))
	}
	return raw, ends
}

// TestJournal is the format: the neighbour releases read and append it.
func TestJournal(t *testing.T) {
	raw, _ := written(t)
	golden.Compare(t, "journal-v1.txt", string(raw))
	m, err := Replay(raw)
	if err != nil || m.Damage != "" || m.Behind || m.Abstain != 6 || len(m.Own) != 2 || m.Lock == nil || len(m.Lock.Ballots()) != 3 || string(m.Notes["floor"]) != "7" || m.Next != 9 {
		t.Fatalf("%+v: %v", m, err)
	}
	for _, b := range m.Lock.Ballots() {
		if err := b.Verify(second(t).Voters[b.Seat-1].Key); err != nil {
			t.Error(err)
		}
	}
	short := m.Compact()
	again, err := Replay(short)
	if again.Next, again.Size = m.Next, m.Size; err != nil || len(short) >= len(raw) || !reflect.DeepEqual(again, m) {
		t.Errorf("compacted it says\n%+v, not\n%+v: %v", again, m, err)
	}
}

// TestJournalCut cuts the power at each byte: what was whole before is whole, a torn last record is no
// damage, and what is appended where it began is read.
func TestJournalCut(t *testing.T) {
	raw, ends := written(t)
	record := 0
	for size := ends[0]; size < len(raw); size++ {
		for record+1 < len(ends) && ends[record+1] <= size {
			record++
		}
		m, err := Replay(raw[:size])
		if err != nil || m.Damage != "" || m.Size != int64(ends[record]) || m.Next != int64(record+2) {
			t.Fatalf("cut at byte %d, in record %d: %+v, %v", size, record+2, m, err)
		}
		m, err = Replay(append(bytes.Clone(raw[:m.Size]), Append(m.Next, Record{Abstain: 99})...))
		if err != nil || m.Abstain != 99 || m.Damage != "" {
			t.Fatalf("appended at byte %d: %+v, %v", ends[record], m, err)
		}
	}
}

// TestJournalDamage changes each byte: what was signed is read, or the journal says that something is
// lacking. Of the last record alone nobody can tell that from one that was torn.
func TestJournalDamage(t *testing.T) {
	raw, ends := written(t)
	whole, _ := Replay(raw)
	for at := range ends[len(ends)-2] {
		changed := bytes.Clone(raw)
		changed[at] ^= 1 << (at % 8)
		m, err := Replay(changed)
		if err == nil && m.Damage == "" && !reflect.DeepEqual(m.Own, whole.Own) {
			t.Errorf("byte %d: it reads %+v, and says nothing", at, m)
		}
		if err == nil && m.Damage != "" && !m.Behind {
			t.Errorf("byte %d: damaged, and the seat is not behind", at)
		}
		if err != nil && !errors.Is(err, ErrJournal) && !errors.Is(err, document.ErrNewer) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	// A record that was lost in the middle, and one that is there twice.
	if m, err := Replay(append(bytes.Clone(raw[:ends[1]]), raw[ends[2]:]...)); err != nil || m.Damage == "" || !m.Behind {
		t.Errorf("a record is lost: %+v, %v", m, err)
	}
	if m, err := Replay(append(bytes.Clone(raw), raw[ends[1]:ends[2]]...)); err != nil || m.Damage == "" {
		t.Errorf("a record comes twice: %+v, %v", m, err)
	}
	if _, err := Replay([]byte(strings.Replace(string(raw), "kogge-journal 1", "kogge-journal 2", 1))); !errors.Is(err, document.ErrNewer) {
		t.Errorf("a later format: %v", err)
	}
	if _, err := Replay(nil); !errors.Is(err, ErrJournal) {
		t.Errorf("nothing: %v", err)
	}
}

// TestApart has empty lines between records, as a file keeps them in blocks of their own: they say
// nothing, and a cut in them harms nothing.
func TestApart(t *testing.T) {
	raw, ends := written(t)
	want, err := Replay(raw)
	if err != nil {
		t.Fatal(err)
	}
	var apart []byte
	for i, end := range ends {
		begin := 0
		if i > 0 {
			begin = ends[i-1]
		}
		apart = append(append(apart, raw[begin:end]...), bytes.Repeat([]byte("\n"), 100*i)...)
	}
	for size := len(apart); size > len(apart)-700; size-- {
		m, err := Replay(apart[:size])
		if m.Size = want.Size; err != nil || !reflect.DeepEqual(m, want) {
			t.Fatalf("%d bytes less:\n%+v, not\n%+v: %v", len(apart)-size, m, want, err)
		}
	}
}

// again is a record of a body that a release other than this one writes.
func again(number int64, body string) []byte {
	return append(heading(number, []byte(body)), body...)
}

// TestLater has a later release write into the journal: a note that this one does not know stays, and
// of anything else this one cannot tell what it means for its vote.
func TestLater(t *testing.T) {
	raw, _ := written(t)
	m, err := Replay(append(raw, again(9, "{\n  \"version\": 1,\n  \"note\": {\n    \"name\": \"moon\",\n    \"body\": \"ZnVsbA==\"\n  }\n}\n")...))
	if err != nil || string(m.Notes["moon"]) != "full" {
		t.Errorf("a note: %+v, %v", m, err)
	}
	if m, err = Replay(m.Compact()); err != nil || string(m.Notes["moon"]) != "full" {
		t.Errorf("a note in a journal that was compacted: %+v, %v", m, err)
	}
	for what, body := range map[string]string{
		"a field": "{\n  \"version\": 1,\n  \"eclipse\": 4\n}\n", "a version": "{\n  \"version\": 2,\n  \"abstain\": 4\n}\n", "another spelling": "{\"version\":1}\n", "no JSON": "\x00",
	} {
		if m, err := Replay(append(bytes.Clone(raw), again(9, body)...)); !errors.Is(err, document.ErrNewer) {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
	if _, err := Replay(append(bytes.Clone(raw), Append(9, Record{Title: &Title{Key: second(t).Voters[1].Key}})...)); !errors.Is(err, ErrJournal) {
		t.Errorf("a second title: %v", err)
	}
}

// TestAppended refuses what could not be read again, and gives what Replay does.
func TestAppended(t *testing.T) {
	raw, ends := written(t)
	m, err := Replay(raw[:ends[3]])
	if err != nil {
		t.Fatal(err)
	}
	full := Record{Lock: &Lock{Proposal: m.Lock.Proposal}}
	for i := range 10_000 {
		full.Lock.Prevotes = append(full.Lock.Prevotes, signed.Signature{By: i + 1, Signature: make([]byte, ed25519.SignatureSize)})
	}
	unordered := Record{Lock: &Lock{Proposal: m.Lock.Proposal, Prevotes: []signed.Signature{full.Lock.Prevotes[1], full.Lock.Prevotes[0]}}}
	for what, r := range map[string]Record{
		"a title": {Title: &m.Title}, "a lock with all the world": full, "prevotes in no order": unordered, "a long note": {Note: &Note{"x", make([]byte, maxNote)}},
	} {
		if _, raw, err := m.Appended(r); !errors.Is(err, ErrRecord) || raw != nil {
			t.Errorf("%s: %d bytes, %v", what, len(raw), err)
		}
	}
	full.Lock.Prevotes = full.Lock.Prevotes[:1000]
	whole := bytes.Clone(raw[:ends[3]])
	for _, r := range []Record{full, {Abstain: 4}, {Note: &Note{"x", make([]byte, maxNote-1)}}} {
		next, raw, err := m.Appended(r)
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, raw...)
		if m, err = Replay(whole); err != nil || !reflect.DeepEqual(m, next) {
			t.Errorf("it gives\n%+v, not\n%+v: %v", next, m, err)
		}
	}
	for i := range maxNotes {
		if m, _, err = m.Appended(Record{Note: &Note{fmt.Sprint(i), nil}}); (err != nil) != (i == maxNotes-1) {
			t.Errorf("note %d: %v", i, err)
		}
	}
	if _, _, err := m.Appended(Record{Note: &Note{"0", []byte("again")}}); err != nil {
		t.Error(err)
	}
}

// TestLongHeight casts ballots at one height for a week: of the oldest nobody asks, the newest are all
// there, the lock stays, and the journal has an end.
func TestLongHeight(t *testing.T) {
	raw, ends := written(t)
	m, err := Replay(raw[:ends[3]])
	if err != nil {
		t.Fatal(err)
	}
	h, cast, longest := second(t), m.Own, 0
	for round := int32(1); round < 3000; round++ {
		for _, k := range []ballot.Kind{ballot.Prevote, ballot.Precommit} {
			w := h.Words(k, round, ballot.Nil, ballot.Fresh)
			m = m.With(Record{Ballot: &w})
			cast = append(cast, w)
			longest = max(longest, len(m.Own))
		}
	}
	if longest > maxOwn || len(m.Own) < maxOwn/2 || !slices.Equal(m.Own, cast[len(cast)-len(m.Own):]) {
		t.Fatalf("%d ballots, %d at most", len(m.Own), longest)
	}
	for i, w := range cast {
		if known := slices.Contains(m.Own, w); known == Forgotten(m.Own, w) || known != (i >= len(cast)-len(m.Own)) {
			t.Fatalf("ballot %d: known %v", i, known)
		}
	}
	again, err := Replay(m.Compact())
	if err != nil || !reflect.DeepEqual(again.Own, m.Own) || again.Lock == nil || !reflect.DeepEqual(again.Lock, m.Lock) {
		t.Errorf("compacted: %d ballots, lock %v: %v", len(again.Own), again.Lock, err)
	}
	if Forgotten(cast[:9], h.Words(ballot.Proposal, 0, ballot.Nil, ballot.Fresh)) {
		t.Error("of a few none is forgotten")
	}
	if m = m.With(Record{Head: &Head{2, record(2, "decided")}}); len(m.Own) != 0 || m.Lock != nil {
		t.Errorf("the height is decided, and there are %d ballots, lock %v", len(m.Own), m.Lock)
	}
}

// TestAhead: a journal that knows more than the ledger says so.
func TestAhead(t *testing.T) {
	w := second(t).Words(ballot.Prevote, 0, ballot.Nil, ballot.Fresh)
	for _, r := range []struct {
		what   string
		m      Memory
		ledger int64
		ahead  bool
	}{
		{"nothing signed", Memory{}, 0, false},
		{"voted about the next height", Memory{Own: []ballot.Words{w}, Head: Head{Height: 1}}, 1, false},
		{"voted about a later one", Memory{Own: []ballot.Words{w}}, 0, true},
		{"the ledger has gone on", Memory{Own: []ballot.Words{w}, Head: Head{Height: 1}}, 7, false},
		{"the ledger has gone back", Memory{Head: Head{Height: 9}}, 7, true},
	} {
		if err := r.m.Ahead(r.ledger); errors.Is(err, ErrAhead) != r.ahead {
			t.Errorf("%s: %v", r.what, err)
		}
	}
}

// FuzzReplay has journals of any bytes be read: what was understood is said again by the compacted one.
func FuzzReplay(f *testing.F) {
	raw, ends := written(f)
	f.Add(raw)
	f.Add(raw[:ends[2]-3])
	f.Add([]byte(firstLine))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Replay(raw)
		if err != nil {
			return
		}
		again, err := Replay(m.Compact())
		if err != nil || again.Head != m.Head || again.Abstain != m.Abstain || again.Behind != m.Behind || len(again.Own) != len(m.Own) || (again.Lock == nil) != (m.Lock == nil) || len(again.Notes) != len(m.Notes) {
			t.Errorf("%+v\nis compacted to\n%+v: %v", m, again, err)
		}
	})
}
