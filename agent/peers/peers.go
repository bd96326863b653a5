// Package peers is what a node remembers of its fleet's other nodes from one boot to the next:
// where they are, and which TLS keys are theirs. Without it a node that boots knows of nobody but
// where the first members once were, and takes any old word of a seat for the newest.
//
// In come objects that seats have signed, as the node's shelf has them; out go a file on STATE
// and, after a boot, the same objects. Nothing here is believed: each object proves itself to
// whoever takes it. What seats say of how they are is not kept, nor what followers say.
package peers

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"kogge.example/update/durable"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Memory is a file with the newest words of some seats: of all that run etcd or may, and of
// voters. It is for one goroutine.
type Memory struct {
	file  file
	words map[place]signed.Envelope
	news  bool      // the file has others
	wrote time.Time // the file, or tried to
}

// place is what there is one word for.
type place struct {
	kind string
	by   signed.Key
}

// kinds are what is kept of a seat.
var kinds = []string{notice.TLSKeyKind, notice.NodeKind}

const (
	// Every is how much time lies between two writes, at least: who changes his address each
	// second wears no disk out.
	Every = 10 * time.Minute
	// maxSeats is of how many seats words are kept. A node needs three of them to hear of all.
	maxSeats = 256
	// maxFile is above what their words can take, in bytes.
	maxFile = maxSeats * (16 << 10)

	header = "kogge/peers/v1"
)

// file is where the words lie. The tests have one that loses power.
type file interface {
	Read() ([]byte, error)     // fs.ErrNotExist: there is none
	Replace(data []byte) error // old or new after a power cut, new once it returns
}

// Open reads what is remembered. With an error there may be less of it, or nothing, and a node
// goes on: others tell it anew.
func Open(name string) (*Memory, error) { return open(disk(name)) }

func open(f file) (*Memory, error) {
	m := &Memory{file: f, words: make(map[place]signed.Envelope)}
	raw, err := f.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	var words []signed.Envelope
	if err == nil {
		words, err = parse(raw)
	}
	for _, w := range words {
		m.words[place{w.Kind, w.By}] = w
	}
	if err != nil {
		err = fmt.Errorf("what the node remembers of others: %w", err)
	}
	return m, err
}

// parse reads what format writes. A line that has decayed costs what it held.
func parse(raw []byte) (words []signed.Envelope, err error) {
	first, rest, _ := bytes.Cut(raw, []byte("\n"))
	if len(raw) > maxFile || string(first) != header {
		return nil, fmt.Errorf("%d bytes that begin with %.40q: %q is wanted", len(raw), first, header)
	}
	bad := 0
	for line := range bytes.Lines(rest) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		envelope, err := base64.StdEncoding.Strict().AppendDecode(nil, line)
		var word signed.Envelope
		if err == nil {
			word, err = signed.Parse(envelope)
		}
		if err != nil || !slices.Contains(kinds, word.Kind) {
			bad++
			continue
		}
		words = append(words, word)
	}
	if bad > 0 {
		return words, fmt.Errorf("%d of %d lines cannot be read", bad, bad+len(words))
	}
	return words, nil
}

// Words are what is remembered, in no order.
func (m *Memory) Words() (words []signed.Envelope) {
	for _, w := range m.words {
		words = append(words, w)
	}
	return words
}

// Note takes the newest words of the roster's seats, but not those of self. object gives what a
// seat has said under a kind, if it has. Words of who has no seat any more are forgotten. One
// that says the same under a higher number is no news.
func (m *Memory) Note(object func(kind string, by signed.Key) (signed.Envelope, bool), r roster.Roster, self signed.Key) {
	words := make(map[place]signed.Envelope)
	spoke := func(seat signed.Key) bool { _, ok := object(notice.TLSKeyKind, seat); return ok }
	for _, seat := range m.chosen(r, self, spoke) {
		for _, kind := range kinds {
			at := place{kind, seat}
			before, known := m.words[at]
			now, said := object(kind, seat)
			switch {
			case said && (!known || now.Sequence > before.Sequence && !bytes.Equal(now.Body, before.Body)):
				words[at], m.news = now, true
			case known:
				words[at] = before
			}
		}
	}
	m.news = m.news || len(words) != len(m.words)
	m.words = words
}

// chosen are the seats whose words are kept: those of etcd first, then voters that are known
// already, then others that have said something.
func (m *Memory) chosen(r roster.Roster, self signed.Key, spoke func(signed.Key) bool) (seats []signed.Key) {
	var known, strange []signed.Key
	for _, s := range r.Seats {
		_, before := m.words[place{notice.TLSKeyKind, s.Key}]
		switch {
		case s.Key == self:
		case s.Member || s.Spare:
			seats = append(seats, s.Key)
		case s.Vote && before:
			known = append(known, s.Key)
		case s.Vote && spoke(s.Key):
			strange = append(strange, s.Key)
		}
	}
	seats = slices.Concat(seats, known, strange)
	return seats[:min(len(seats), maxSeats)]
}

// Keep writes the file if there is news, and it is time.
func (m *Memory) Keep(now time.Time) error {
	if since := now.Sub(m.wrote); !m.wrote.IsZero() && since >= 0 && since < Every {
		return nil
	}
	return m.Flush(now)
}

// Flush writes the file if there is news. After a cut it is the one from before, or the new one.
func (m *Memory) Flush(now time.Time) error {
	if !m.news {
		return nil
	}
	m.wrote = now
	if err := m.file.Replace(m.format()); err != nil {
		return fmt.Errorf("what the node remembers of others: %w", err)
	}
	m.news = false
	return nil
}

// format writes the words, a line each.
func (m *Memory) format() []byte {
	text := []byte(header + "\n")
	for _, w := range m.Words() {
		text = append(base64.StdEncoding.AppendEncode(text, w.Bytes()), '\n')
	}
	return text
}

// disk is a file of the machine's file system.
type disk string

func (d disk) Read() ([]byte, error) {
	info, err := os.Stat(string(d))
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("%s has %d bytes: %d at most", string(d), info.Size(), maxFile)
	}
	if err != nil {
		return nil, err
	}
	return durable.Read(string(d), maxFile)
}

func (d disk) Replace(data []byte) error {
	if err := os.MkdirAll(filepath.Dir(string(d)), 0o700); err != nil {
		return err
	}
	return durable.Replace(string(d), data, 0o600)
}
