package memory

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"kogge.example/update/golden"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sample is a node that tries a release which panics, comes back, and is switched off.
var sample = []Event{
	{Kind: KindUp, Boot: "b1", Time: noon, Slot: "A", Release: "1.0", Board: "qemu-x86_64", Kernel: "6.12"},
	{Kind: KindAssessed, Boot: "b1", Time: noon.Add(time.Minute), Assessment: Good, Seconds: 31},
	{Kind: KindDown, Boot: "b1", Time: noon.Add(2 * time.Minute), End: "reboot", Why: "request"},
	{Kind: KindUp, Boot: "b2", Time: noon.Add(3 * time.Minute), Slot: "B", Release: "1.1", Trial: true, Left: 2},
	{Kind: KindAssessed, Boot: "b2", Time: noon.Add(4 * time.Minute), Assessment: Bad, Why: "agent not ready", Seconds: 60},
	{Kind: KindUp, Boot: "b3", Time: noon.Add(5 * time.Minute), Slot: "B", Release: "1.1", Trial: true, Left: 1},
	{Kind: KindLost, Boot: "b3", Time: noon.Add(6 * time.Minute), End: EndCrashed, Why: "Kernel panic - not syncing: x"},
	{Kind: KindUp, Boot: "b4", Time: noon.Add(6 * time.Minute), Slot: "A", Release: "1.0"},
	{Kind: KindVerdict, Boot: "b4", Time: noon.Add(6 * time.Minute), Release: "1.1", Verdict: Failed, Why: "agent not ready (3 boots)"},
	{Kind: KindArmed, Boot: "b4", Time: noon.Add(7 * time.Minute), Slot: "B", Release: "1.1", Why: "once more"},
}

func writeHistory(t *testing.T, path string, events []Event) {
	t.Helper()
	for _, e := range events {
		if err := Append(path, e); err != nil {
			t.Fatal(err)
		}
	}
}

func show(boots []Boot) string {
	var b strings.Builder
	for _, one := range boots {
		fmt.Fprintf(&b, "%s %s slot %s release %s board %s kernel %s trial %v left %d: %s %q after %d s; end %q %q\n", one.ID, one.Time.Format(time.TimeOnly),
			one.Slot, one.Release, one.Board, one.Kernel, one.Trial, one.Left, one.Assessment, one.Why, one.Seconds, one.End, one.EndWhy)
		for _, n := range one.Notes {
			fmt.Fprintf(&b, "   %s\n", n)
		}
	}
	return b.String()
}

// TestHistory is the file as this version writes it, and what it is read as. The first
// is never changed: later releases have to read it.
func TestHistory(t *testing.T) {
	path := filepath.Join(t.TempDir(), HistoryFile)
	if boots, err := LoadHistory(path); boots != nil || err != nil {
		t.Errorf("no file: %v, %v", boots, err)
	}
	writeHistory(t, path, sample)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "history-1.jsonl", string(text))
	boots, err := LoadHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "history.txt", show(boots))
}

// TestHistoryPowerCut tears the file at each byte of its last line, which a cut may
// do, with and without zeros to its full length. What was there stays, and the next
// line is whole.
func TestHistoryPowerCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), HistoryFile)
	writeHistory(t, path, sample)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	next := Event{Kind: KindUp, Boot: "b5", Time: noon, Slot: "A", Release: "1.0"}
	for cut := last; cut <= len(whole); cut++ {
		for _, zeros := range []int{0, len(whole) - cut} {
			if zeros > 0 && cut%7 != 0 {
				continue // a sync each
			}
			torn := append(bytes.Clone(whole[:cut]), make([]byte, zeros)...)
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			writeHistory(t, path, []Event{next})
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			events, err := parseHistory(text)
			if err != nil || len(events) < len(sample) || !same(events[:len(sample)-1], sample[:len(sample)-1]) || !same(events[len(events)-1:], []Event{next}) {
				t.Fatalf("cut at %d, %d zeros: %d lines: %+v, %v", cut, zeros, len(events), events, err)
			}
		}
	}
}

func same(got, want []Event) bool {
	for i := range want {
		want := want[i]
		want.Version = format
		if i >= len(got) || !reflect.DeepEqual(got[i], want) {
			return false
		}
	}
	return len(got) == len(want)
}

// TestHistoryIsBounded adds to the lines of many years.
func TestHistoryIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), HistoryFile)
	line := func(i int) string {
		return fmt.Sprintf(`{"version":1,"kind":"up","boot":"%d","time":"2026-03-01T12:00:00Z","why":"%s"}`+"\n", i, strings.Repeat("long ", 40))
	}
	var text strings.Builder
	for i := 0; text.Len() < trimAt; i++ {
		text.WriteString(line(i))
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		writeHistory(t, path, []Event{{Kind: KindUp, Boot: fmt.Sprint("new ", i), Time: noon}})
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > keep+3*maxLine {
		t.Fatalf("size %d, %v", info.Size(), err)
	}
	boots, err := LoadHistory(path)
	if err != nil || len(boots) < 400 || boots[len(boots)-1].ID != "new 2" {
		t.Errorf("%d boots, %v", len(boots), err)
	}
}

func TestHistoryOfLater(t *testing.T) {
	text := `{"version":2,"kind":"up","boot":"x","time":"2026-03-01T12:00:00Z"}
{"version":1,"kind":"up","boot":"y","time":"2026-03-01T12:00:00Z","slot":"A"}
nonsense
`
	events, err := parseHistory([]byte(text))
	if len(events) != 1 || err == nil || !strings.Contains(err.Error(), "1 lines are left out: line 1: version 2: this release reads version 1") {
		t.Errorf("%d lines, %v", len(events), err)
	}
}

func TestAppendRefuses(t *testing.T) {
	if err := Append(filepath.Join(t.TempDir(), "no", "folder"), sample[0]); err == nil {
		t.Error("a folder that is not there: no error")
	}
	path := filepath.Join(t.TempDir(), HistoryFile)
	if err := Append(path, Event{Boot: strings.Repeat("x", maxLine)}); err == nil {
		t.Error("a line that no reader takes was written")
	}
	if text, _ := os.ReadFile(path); len(text) > 0 {
		t.Errorf("a refused line left %q", text)
	}
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"up","boot":"y","time":"2026-03-01T12:00:00Z","slot":"A"}` + "\n"))
	f.Add([]byte("\n\x00\n{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		events, _ := parseHistory(text)
		if len(fold(events)) > len(events) {
			t.Error("more boots than lines")
		}
	})
}
