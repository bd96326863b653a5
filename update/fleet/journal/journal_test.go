package journal

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
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
		if err != nil || again.Head != m.Head || again.Abstain != m.Abstain || again.Behind != m.Behind || len(again.Own) != len(m.Own) || len(again.Notes) != len(m.Notes) {
			t.Errorf("%+v\nis compacted to\n%+v: %v", m, again, err)
		}
	})
}
