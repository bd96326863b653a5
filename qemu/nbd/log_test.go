package nbd

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"kogge.example/update/golden"
)

// logOf is the log of story.
func logOf(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	d := newDisk(t, 16)
	log, err := NewLog(&b, d.Size())
	if err != nil {
		t.Fatal(err)
	}
	d.Record(log)
	story(t, d)
	if err := log.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestLogVersion1 replays the log of a released version, prefix by prefix.
func TestLogVersion1(t *testing.T) {
	// What is written today is the log of version 1 still.
	golden.Compare(t, "story-1.log", string(logOf(t)))
	data, err := os.ReadFile(filepath.Join("testdata", "story-1.log"))
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{
		"................", "AAAAAAAA........", "BBBBBBBBBBBB....", "BBBBCCCCBBBB....",
		"BBBBCCCCBBBB..F.", "BBBBCCCC00BB..F.", "BBBBCCCC00BB..G.", "BBBBCCCC00BB..G.",
	} {
		log, err := ReadLog(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		st, err := Replay(blank(16), log, n, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := text(t, st, 16); got != want {
			t.Errorf("after %d writes: %s, want %s", n, got, want)
		}
	}
}

// TestReplayAgrees wants the same from the log as from the disk, for every seed.
func TestReplayAgrees(t *testing.T) {
	d := newDisk(t, 16)
	story(t, d)
	data := logOf(t)
	for seed := range uint64(50) {
		log, err := ReadLog(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		st, err := Replay(blank(16), log, d.Writes(), seed)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := text(t, st, 16), text(t, d.AfterCut(seed), 16); got != want {
			t.Errorf("seed %d: replay %s, disk %s", seed, got, want)
		}
	}
}

// TestDamagedLog flips each byte of a log and cuts it at each: it never reads on
// as if nothing were wrong.
func TestDamagedLog(t *testing.T) {
	data := logOf(t)
	count := func(data []byte) (n int, err error) {
		log, err := ReadLog(bytes.NewReader(data))
		if err != nil {
			return 0, err
		}
		for {
			if _, err := log.Next(); err != nil {
				return n, err
			}
			n++
		}
	}
	whole, err := count(data)
	if !errors.Is(err, io.EOF) || errors.Is(err, ErrLog) {
		t.Fatalf("a good log: %v", err)
	}
	for i := 0; i < len(data); i += 7 {
		bad := bytes.Clone(data)
		bad[i] ^= 0x40
		_, err := count(bad)
		size := i >= len(logMagic) && i < len(logMagic)+8 // has no checksum, only bounds
		if !size && !errors.Is(err, ErrLog) && !errors.Is(err, ErrLogVersion) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
		if n, err := count(data[:i]); n >= whole || err == nil {
			t.Fatalf("cut at %d: %d entries, %v", i, n, err)
		}
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add(logOf(f))
	f.Add([]byte(logMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		log, err := ReadLog(bytes.NewReader(data))
		if err != nil || log.Size() > 1<<20 {
			return
		}
		st, err := Replay(bytes.NewReader(nil), log, 1<<30, 5)
		if err == nil {
			st.ReadAt(make([]byte, 4096), 0)
		}
	})
}
