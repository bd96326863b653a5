// Package journal is the format in which a seat of a fleet notes what it has signed, before anybody
// hears of it: on its disk, outside of the slots. It keeps the seat from ever voting twice, whatever
// boots.
//
// In come records, or the bytes of a journal; out go bytes, or what they say. The package opens
// nothing: the file is agent/journal's. What is signed, and when, is update/fleet/vote's.
package journal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// A journal is a file of text to which records are appended. Its first line is this; before each
// record stands a line with its number, its bytes, and the beginning of the SHA-256 of both:
//
//	kogge-journal 1
//	record 1 310 0c4b2a17e0f3d5a8
//	{ …
//	record 2 512 7f1de09ba4c38e66
//	{ …
//
// A record is on the disk before the next one is written. So a power cut can harm the last one
// alone, and that was not acted on: what lies behind the last whole record is cut off, and is no
// damage. It is damage if a whole record lies behind. Between two records there may be empty
// lines: who writes keeps records apart with them, each in blocks of its own on the disk.
//
// The releases before and after this one write to the same file. What they may leave alone is a
// note of a name that they do not know: it stays. A record that is whole and that a release does
// not understand is of a later one, which has a reason not to write a note: then it does not vote.
const firstLine = "kogge-journal 1\n"

// The bounds of a journal. They are of what is written: what is read may be a later release's.
const (
	maxRecord = 256 << 10 // bytes of a record: a lock with a thousand prevotes
	maxNotes  = 64
	maxNote   = 4 << 10 // bytes, with its name
	// maxOwn is how many own ballots are remembered, at most, where a height takes very long.
	// Half of them are kept then: the newest.
	maxOwn = 2048
)

// Record is one record: a ballot of this seat and with it the lock, if it makes one, or one of
// the other fields.
type Record struct {
	Version int           `json:"version"` // of this document: 1
	Title   *Title        `json:"title,omitempty"`
	Ballot  *ballot.Words `json:"ballot,omitempty"` // the key makes its signature again
	Lock    *Lock         `json:"lock,omitempty"`
	Head    *Head         `json:"head,omitempty"`
	Abstain int64         `json:"abstain,omitempty"` // no step up to this height
	Behind  bool          `json:"behind,omitempty"`  // ballots are lacking, and how far is not known yet
	Note    *Note         `json:"note,omitempty"`
}

// Title is the first record: whose ballots these are.
type Title struct {
	ID    roster.ID     `json:"id"`
	Fleet document.Hash `json:"fleet"`
	Key   signed.Key    `json:"key"`
}

// Lock is why a seat is locked: a proposal, and the q prevotes for its value in its round.
// Without them, after a cut of power, it could follow nobody and nobody it.
type Lock struct {
	Proposal ballot.Ballot      `json:"proposal"`
	Prevotes []signed.Signature `json:"prevotes"` // by seat
}

// Head is the newest record of the ledger that a seat has seen decided.
type Head struct {
	Height int64         `json:"height"`
	Record document.Hash `json:"record,omitzero"`
}

// Note is something else that a slot which goes back must not take back: the floor, brakes,
// releases that failed. Of a name the newest counts. What it says is for others to know.
type Note struct {
	Name string `json:"name"`
	Body []byte `json:"body"`
}

// LockOn is the lock on a proposal for whose value q seats have cast prevotes.
func LockOn(p *ballot.Ballot, prevotes []*ballot.Ballot) *Lock {
	l := &Lock{Proposal: *p}
	for _, b := range prevotes {
		l.Prevotes = append(l.Prevotes, signed.Signature{By: b.Seat, Signature: b.Signature})
	}
	return l
}

// Ballots are the prevotes of a lock.
func (l *Lock) Ballots() (all []*ballot.Ballot) {
	w := l.Proposal.Words
	w.Kind, w.ValidRound = ballot.Prevote, ballot.Fresh
	for _, s := range l.Prevotes {
		all = append(all, &ballot.Ballot{Words: w, Seat: s.By, Signature: s.Signature})
	}
	return all
}

// Memory is what a journal says.
type Memory struct {
	Title   Title
	Own     []ballot.Words // signed by this seat above Head, in their order, by [Signed]
	Lock    *Lock
	Head    Head
	Abstain int64
	Behind  bool
	Notes   map[string][]byte

	Next   int64  // the number of the next record
	Size   int64  // bytes to the end of the last whole record; what lies behind is cut off
	Damage string // what is wrong with a record that is not the last one; "": nothing
}

// ErrJournal is of bytes that are no journal, or of one without its first record.
var ErrJournal = errors.New("not a vote journal")

// Begun is the bytes of a journal in which nothing is signed.
func Begun(t Title) []byte { return Memory{Title: t}.Compact() }

// Append is a record as it is appended to a journal, under the number that [Memory.Next] says.
func Append(number int64, r Record) []byte {
	r.Version = 1
	body, err := document.Encode(r)
	if err != nil {
		panic(err) // there is no value of these types that JSON cannot write
	}
	return append(heading(number, body), body...)
}

func heading(number int64, body []byte) []byte {
	return fmt.Appendf(nil, "record %d %d %x\n", number, len(body), checksum(number, body))
}

func checksum(number int64, body []byte) []byte {
	sum := sha256.Sum256(document.Message("kogge/journal/v1", strconv.AppendInt(nil, number, 10), body))
	return sum[:8]
}

// whole is the record at the beginning of raw; false: there is no whole one.
func whole(raw []byte) (number int64, body []byte, ok bool) {
	line, rest, _ := bytes.Cut(raw, []byte("\n"))
	var size int
	if n, err := fmt.Sscanf(string(line[:min(len(line), 80)]), "record %d %d", &number, &size); n != 2 || err != nil || size < 0 || size > min(len(rest), maxRecord) {
		return 0, nil, false
	}
	body = rest[:size]
	return number, body, bytes.HasPrefix(raw, heading(number, body))
}

// Replay reads a journal. The error wraps [ErrJournal], or [document.ErrNewer] where a later
// release has written what this one cannot read: then nothing is known of what was signed.
func Replay(raw []byte) (Memory, error) {
	m := Memory{Next: 1, Size: int64(len(firstLine))}
	rest, ok := bytes.CutPrefix(raw, []byte(firstLine))
	if !ok {
		line, _, _ := strings.Cut(string(raw[:min(len(raw), 40)]), "\n")
		var version int
		if _, err := fmt.Sscanf(line, "kogge-journal %d", &version); err == nil && version > 1 {
			return m, fmt.Errorf("%w: its format is version %d, and this kogge reads version 1", document.ErrNewer, version)
		}
		return m, fmt.Errorf("%w: it begins with %q", ErrJournal, line)
	}
	for len(rest) > 0 {
		number, body, ok := whole(rest)
		if !ok || number != m.Next {
			if ok || wholeBehind(rest) {
				m.Damage = fmt.Sprintf("record %d, at byte %d, is damaged or lost, and others lie behind it", m.Next, m.Size)
				m.Behind = true
			}
			break
		}
		r, err := parse(body)
		if err != nil {
			return m, fmt.Errorf("record %d: %w", number, err)
		}
		if (r.Title != nil) != (number == 1) {
			return m, fmt.Errorf("%w: record %d: whose journal it is stands in the first record alone", ErrJournal, number)
		}
		m = m.With(r)
		n := len(heading(number, body)) + len(body)
		rest, m.Next, m.Size = rest[n:], m.Next+1, m.Size+int64(n)
		if apart := len(rest) - len(bytes.TrimLeft(rest, "\n")); apart < len(rest) {
			rest, m.Size = rest[apart:], m.Size+int64(apart)
		} else {
			break
		}
	}
	if m.Title.Key == "" {
		return m, fmt.Errorf("%w: its first record is damaged", ErrJournal)
	}
	return m, nil
}

// wholeBehind says whether a whole record lies behind bytes that are none.
func wholeBehind(raw []byte) bool {
	for mark := []byte("\nrecord "); ; {
		i := bytes.Index(raw, mark)
		if i < 0 {
			return false
		}
		raw = raw[i+1:]
		if _, _, ok := whole(raw); ok {
			return true
		}
	}
}

// parse reads a record that is whole. One that this release would not write so is of a later one.
func parse(body []byte) (Record, error) {
	r, err := document.DecodeExact[Record](body, 1)
	if err == nil && r.Lock != nil {
		err = signed.CheckSignatures("lock.prevotes", r.Lock.Prevotes)
	}
	if err != nil && !errors.Is(err, document.ErrNewer) {
		err = fmt.Errorf("%w: %w", document.ErrNewer, err)
	}
	return r, err
}

// ErrRecord is of a record that is not written, because this release or its neighbours would not
// read it again.
var ErrRecord = errors.New("the record does not fit into the journal")

// Appended is the memory with a record more, and its bytes at the end of the journal. The error
// wraps [ErrRecord].
func (m Memory) Appended(r Record) (Memory, []byte, error) {
	raw := Append(m.Next, r)
	number, body, ok := whole(raw)
	if !ok {
		return m, nil, fmt.Errorf("%w: its %d bytes are more than %d", ErrRecord, len(raw), maxRecord)
	}
	if _, err := parse(body); err != nil {
		return m, nil, fmt.Errorf("%w: record %d: %w", ErrRecord, number, err)
	}
	next := m.With(r)
	switch {
	case r.Title != nil:
		return m, nil, fmt.Errorf("%w: whose journal it is stands in the first record alone", ErrRecord)
	case r.Note != nil && len(r.Note.Name)+len(r.Note.Body) > maxNote:
		return m, nil, fmt.Errorf("%w: note %q has %d bytes: at most %d are for a note", ErrRecord, r.Note.Name[:min(len(r.Note.Name), 40)], len(r.Note.Body), maxNote)
	case len(next.Notes) > max(maxNotes, len(m.Notes)):
		return m, nil, fmt.Errorf("%w: it has %d notes", ErrRecord, len(m.Notes))
	}
	next.Next, next.Size = m.Next+1, m.Size+int64(len(raw))
	return next, raw, nil
}

// Signed is own ballots and one more. Of very many the oldest are forgotten: about a round that is
// long past nothing is signed any more.
func Signed(own []ballot.Words, w ballot.Words) []ballot.Words {
	if own = append(slices.Clip(own), w); len(own) > maxOwn {
		own = slices.Clone(own[len(own)-maxOwn/2:])
	}
	return own
}

// Forgotten says whether own ballots are so many that one which is not among them may have been.
func Forgotten(own []ballot.Words, w ballot.Words) bool {
	return len(own) >= maxOwn/2 && w.Before(own[0])
}

// With is the memory with a record more.
func (m Memory) With(r Record) Memory {
	if r.Title != nil {
		m.Title = *r.Title
	}
	if r.Ballot != nil {
		m.Own = Signed(m.Own, *r.Ballot)
	}
	if r.Lock != nil {
		m.Lock = r.Lock
	}
	if r.Head != nil && r.Head.Height > m.Head.Height {
		m.Head = *r.Head
		m.Own = slices.DeleteFunc(slices.Clone(m.Own), func(w ballot.Words) bool { return w.Height <= m.Head.Height })
		if m.Lock != nil && m.Lock.Proposal.Height <= m.Head.Height {
			m.Lock = nil
		}
	}
	m.Abstain = max(m.Abstain, r.Abstain)
	m.Behind = r.Behind || m.Behind && r.Abstain == 0
	if r.Note != nil {
		notes := make(map[string][]byte)
		maps.Copy(notes, m.Notes)
		notes[r.Note.Name] = r.Note.Body
		m.Notes = notes
	}
	return m
}

// Compact is a journal that says the same in fewer bytes, in the place of the one that was
// replayed. [Replay] of it gives its Next and Size.
func (m Memory) Compact() []byte {
	records := []Record{{Title: &m.Title}}
	if m.Head != (Head{}) {
		records = append(records, Record{Head: &m.Head})
	}
	if m.Abstain > 0 {
		records = append(records, Record{Abstain: m.Abstain})
	}
	if m.Behind {
		records = append(records, Record{Behind: true})
	}
	if m.Lock != nil {
		records = append(records, Record{Lock: m.Lock})
	}
	for _, w := range m.Own {
		records = append(records, Record{Ballot: &w})
	}
	for _, name := range slices.Sorted(maps.Keys(m.Notes)) {
		records = append(records, Record{Note: &Note{name, m.Notes[name]}})
	}
	raw := []byte(firstLine)
	for i, r := range records {
		raw = append(raw, Append(int64(i+1), r)...)
	}
	return raw
}

// ErrAhead is of a journal that knows more than the ledger beside it.
var ErrAhead = errors.New("the vote journal is ahead of the ledger")

// Ahead says why a seat does not vote about what follows on a ledger of some height: its journal
// says that more is decided, or it has signed what is about later heights. The ledger has lost
// records then, and gets them from others. nil: it is not so.
func (m Memory) Ahead(height int64) error {
	known := m.Head.Height
	if n := len(m.Own); n > 0 {
		known = max(known, m.Own[n-1].Height-1)
	}
	if known <= height {
		return nil
	}
	return fmt.Errorf("%w: it knows that height %d is decided, and the ledger ends with %d", ErrAhead, known, height)
}
