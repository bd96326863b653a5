package trial

import (
	"errors"
	"os"
	"strings"
	"time"

	"kogge.example/init/guard"
	"kogge.example/update/memory"
)

// NoteUp notes in the history of boots that this one begins. The history has a line when
// the node comes up, one when the boot is assessed, and one when it goes down in order. A
// boot without that lost its power, or was reset.
func (b *Boot) NoteUp() error {
	return b.note(memory.Event{
		Kind: memory.KindUp, Slot: b.slot(), Release: b.Facts.Version, Board: b.Facts.Board,
		Kernel: strings.TrimSpace(string(readOptional("/proc/sys/kernel/osrelease"))),
		Trial:  b.Facts.Trial, Left: b.Facts.TriesLeft,
	})
}

// NoteDown notes how the node goes down, "reboot" or "poweroff", and why. Nobody is left to
// hear that this did not work.
func (b *Boot) NoteDown(how string, err error) {
	e := memory.Event{Kind: memory.KindDown, End: how, Seconds: int(sinceStart() / time.Second)}
	if err != nil {
		e.Why = err.Error()
	}
	if errors.Is(err, guard.ErrPanic) {
		e.End = memory.EndCrashed
	}
	_ = b.note(e)
}

// note adds a line about this boot to the history. After a power cut it has the line
// or not.
func (b *Boot) note(e memory.Event) error {
	if b.Memory == "" {
		return nil
	}
	if e.Boot == "" {
		e.Boot = b.ID
	}
	e.Time = time.Now().UTC().Truncate(time.Second)
	if err := os.MkdirAll(b.Memory, 0o700); err != nil {
		return err
	}
	b.noting.Lock()
	defer b.noting.Unlock()
	return memory.Append(b.file(memory.HistoryFile), e)
}

// sinceStart is the time since the kernel started.
func sinceStart() time.Duration {
	first, _, _ := strings.Cut(string(readOptional("/proc/uptime")), " ")
	d, _ := time.ParseDuration(first + "s")
	return d
}

// readOptional reads a file; nil if it is not there or not readable.
func readOptional(name string) []byte {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	return data
}
