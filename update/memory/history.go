package memory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/durable"
)

// Assessment is what was said of a boot: that it is good, or why not.
type Assessment string

const (
	Good Assessment = "good"
	Bad  Assessment = "bad"
	// None: nobody came to say so.
	None Assessment = "none"
)

// Kind says what a line of the history tells.
type Kind string

const (
	KindUp       Kind = "up"       // a boot begins: Slot, Release, Board, Kernel, Trial, Left
	KindAssessed Kind = "assessed" // it was assessed: Assessment, Why, Seconds
	KindDown     Kind = "down"     // it went down in order: End, Why
	KindLost     Kind = "lost"     // the next boot found out how it ended: End, Why
	KindVerdict  Kind = "verdict"  // on a release: Release, Verdict, Why
	KindArmed    Kind = "armed"    // PID 1 armed a slot by itself: Slot, Release, Why
)

// How a boot may end, beside "reboot" and "poweroff".
const EndCrashed = "crashed"

// Event is one line of the history. Later lines say more of a boot that has begun:
// nothing that was written is changed. Times are the node's, which may have been wrong.
type Event struct {
	Version int       `json:"version"`
	Kind    Kind      `json:"kind"`
	Boot    string    `json:"boot"` // the kernel's id of the boot
	Time    time.Time `json:"time"`

	Slot       bootloader.Slot `json:"slot,omitempty"`
	Release    string          `json:"release,omitempty"`
	Board      string          `json:"board,omitempty"`
	Kernel     string          `json:"kernel,omitempty"`
	Trial      bool            `json:"trial,omitempty"`
	Left       int             `json:"left,omitempty"` // tries, after this one
	Assessment Assessment      `json:"assessment,omitempty"`
	Verdict    Verdict         `json:"verdict,omitempty"`
	End        string          `json:"end,omitempty"`
	Why        string          `json:"why,omitempty"`
	Seconds    int             `json:"seconds,omitempty"` // since the kernel started
}

// Boot is what the history says of one boot.
type Boot struct {
	ID      string
	Time    time.Time
	Slot    bootloader.Slot
	Release string
	Board   string
	Kernel  string
	Trial   bool
	Left    int

	Assessment Assessment
	Why        string // of a bad assessment
	Seconds    int    // until it was assessed
	// End is how it ended: "reboot", "poweroff", "crashed", or "" if nobody noted it:
	// it still runs, or lost its power.
	End    string
	EndWhy string
	// Notes are verdicts and armings of this boot, each a line.
	Notes []string
}

const (
	// maxLine is the longest line of the history, in bytes.
	maxLine = 2048
	// trimAt and keep are the size in bytes at which the history loses its oldest
	// lines, and what stays: some 400 boots and more.
	trimAt = 256 << 10
	keep   = 160 << 10
)

// parseHistory reads the lines of a history. A line that was torn by a power cut is left
// out. So is one that this release does not understand, and that is said in the error
// beside the rest: a later release may have written it.
func parseHistory(text []byte) ([]Event, error) {
	var events []Event
	var first error
	bad, number := 0, 0
	for line := range bytes.Lines(text) {
		number++
		e, err := readEvent(line)
		switch {
		case err == nil:
			events = append(events, e)
		case !json.Valid(line): // torn, or what is left of that
		default:
			bad++
			if first == nil {
				first = fmt.Errorf("line %d: %w", number, err)
			}
		}
	}
	if bad > 0 {
		return events, fmt.Errorf("history of boots: %d lines are left out: %w", bad, first)
	}
	return events, nil
}

func readEvent(line []byte) (Event, error) {
	if len(line) > maxLine {
		return Event{}, fmt.Errorf("longer than %d bytes", maxLine)
	}
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, err
	}
	if e.Version != format {
		return Event{}, fmt.Errorf("version %d: this release reads version %d", e.Version, format)
	}
	return e, nil
}

// fold makes boots of lines, oldest first. Lines about a boot that is not there any
// more, or was never noted, make one of their own.
func fold(events []Event) []Boot {
	var boots []Boot
	at := map[string]int{}
	for _, e := range events {
		i, known := at[e.Boot]
		if !known || e.Kind == KindUp {
			i = len(boots)
			at[e.Boot] = i
			boots = append(boots, Boot{ID: e.Boot, Time: e.Time, Slot: e.Slot, Release: e.Release, Assessment: None})
		}
		boots[i].add(e)
	}
	return boots
}

// add takes in what a line says.
func (b *Boot) add(e Event) {
	switch e.Kind {
	case KindUp:
		b.Board, b.Kernel, b.Trial, b.Left = e.Board, e.Kernel, e.Trial, e.Left
	case KindAssessed:
		b.Assessment, b.Why, b.Seconds = e.Assessment, e.Why, e.Seconds
	case KindDown, KindLost:
		b.End, b.EndWhy = e.End, e.Why
	case KindVerdict:
		b.Notes = append(b.Notes, fmt.Sprintf("release %s %s: %s", e.Release, e.Verdict, e.Why))
	case KindArmed:
		b.Notes = append(b.Notes, fmt.Sprintf("slot %s, release %s, armed: %s", e.Slot, e.Release, e.Why))
	}
}

// Append adds a line to the history at path, whose folder is there. After a power cut
// the line is there, or not, or the beginning of it is, which no reader takes for one;
// the lines before it stay. Once it returns nil the line is there for good:
//
//  1. of a history that has grown large, the newer lines replace it whole
//  2. the line, after a newline where the last one was torn, sync
//  3. of a new file, the sync of its folder
func Append(path string, e Event) error {
	e.Version = format
	e.Why, e.End, e.Release = oneLine(e.Why), oneLine(e.End), oneLine(e.Release)
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("history of boots: %w", err)
	}
	if len(line) >= maxLine {
		return fmt.Errorf("history of boots: a line of %d bytes: at most %d", len(line), maxLine)
	}
	if err := appendLine(path, append(line, '\n')); err != nil {
		return fmt.Errorf("history of boots: %w", err)
	}
	return nil
}

func appendLine(path string, line []byte) (err error) {
	if err := trim(path); err != nil {
		return err
	}
	_, missing := os.Stat(path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if last := make([]byte, 1); end > 0 {
		if _, err := f.ReadAt(last, end-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	if _, err := f.Write(line); err != nil {
		return err
	}
	if err := f.Sync(); err != nil || missing == nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// trim takes the oldest lines away from a file that has grown large.
func trim(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() < trimAt {
		return nil // one that cannot be looked at fails when it is opened
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text := make([]byte, keep)
	if _, err := f.ReadAt(text, info.Size()-keep); err != nil {
		return err
	}
	return durable.Replace(path, text[bytes.IndexByte(text, '\n')+1:], 0o600)
}

// maxHistory is above any size that Append leaves.
const maxHistory = trimAt + 2*maxLine

// LoadHistory reads the history at path as boots, oldest first; none if there is no
// file. An error may come beside boots: lines that this release does not understand.
func LoadHistory(path string) ([]Boot, error) {
	text, err := readFile(path, maxHistory)
	if err != nil || text == nil {
		return nil, err
	}
	events, err := parseHistory(text)
	return fold(events), err
}

// readFile reads a file of at most so many bytes; nil if there is none.
func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	if text == nil {
		text = []byte{}
	}
	return text, err
}
