package armings

import (
	"errors"
	"slices"
	"testing"

	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/document"
	"kogge.example/update/memory"
)

// remembered is a folder in memory.
type remembered struct{ files *crashdisk.Files }

func (r remembered) Read(name string) ([]byte, error) { return r.files.ReadFile(name) }
func (r remembered) Replace(name string, data []byte) error {
	return durable.ReplaceIn(r.files, name, data, 0o600)
}
func (r remembered) Remove(name string) error { return r.files.Remove(name) }

// TestCount counts armings while the loader forgets and repeats its numbers.
func TestCount(t *testing.T) {
	m := memory.In(t.TempDir())
	at := func(a, b int) bootloader.State {
		return bootloader.State{A: bootloader.Entry{Number: a}, B: bootloader.Entry{Number: b}}
	}
	is := func(got int64, err error) func(want int64) {
		return func(want int64) {
			t.Helper()
			if err != nil || got != want {
				t.Errorf("arming %d, %v: want %d", got, err, want)
			}
		}
	}
	is(Next(m, at(0, 0)))(1)
	is(Next(m, at(1, 4)))(5) // an older release has armed
	if err := Keep(m, at(1, 4)); err != nil {
		t.Fatal(err)
	}
	is(Next(m, at(1, 0)))(5) // what was retired took its number along
	is(Use(m, at(1, 0)))(5)
	is(Use(m, at(1, 2)))(6)
	if err := Keep(m, at(1, 2)); err != nil {
		t.Fatal(err)
	}
	is(Next(m, at(9, 2)))(10)
	is(Next(m, at(1, 2)))(7)
}

// TestPowerCut cuts the power at each write of the count: no number comes twice.
func TestPowerCut(t *testing.T) {
	for writes := 0; ; writes++ {
		files := crashdisk.NewFiles(nil, crashdisk.NewPower(writes))
		var used int64
		var err error
		for err == nil && used < 3 {
			var n int64
			if n, err = Use(remembered{files}, bootloader.State{}); err == nil {
				used = n
			}
		}
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			after := remembered{crashdisk.NewFiles(files.AfterCut(seed), crashdisk.NewPower(1000))}
			if n, err := Use(after, bootloader.State{}); err != nil || n <= used {
				t.Fatalf("writes=%d seed=%d: arming %d after %d, %v", writes, seed, n, used, err)
			}
		}
		if err == nil {
			return
		}
	}
}

// lost are texts that no release has written.
var lost = []string{
	"", "\x00\x00", "{}", `{"version":0}`, "{\n  \"version\": 1,\n  \"highest\": -1\n}\n", "{\n  \"version\": 1,\n  \"highest\": 9223372036854775807\n}\n",
	"{\n  \"version\": 1,\n  \"highest\": 7\n}", "{\n  \"version\": 1,\n  \"highest\": 7,\n  \"more\": 1\n}\n",
}

// TestRefuses loses count, or has what a later release has written: then there is no next
// arming, and what is there stays.
func TestRefuses(t *testing.T) {
	for _, text := range append(slices.Clone(lost), `{"version":2}`) {
		m := memory.In(t.TempDir())
		if err := m.Replace(File, []byte(text)); err != nil {
			t.Fatal(err)
		}
		newer := text == `{"version":2}`
		if n, err := Next(m, bootloader.State{A: bootloader.Entry{Number: 3}}); n != 0 || errors.Is(err, ErrLost) == newer || errors.Is(err, document.ErrNewer) != newer {
			t.Errorf("%q: arming %d is next, %v", text, n, err)
		}
		if _, err := Use(m, bootloader.State{}); err == nil || Keep(m, bootloader.State{}) == nil {
			t.Errorf("%q: it is counted on", text)
		}
		if got, err := m.Read(File); err != nil || string(got) != text {
			t.Errorf("%q became %q, %v", text, got, err)
		}
		if why, err := Anew(m); newer && (why != nil || !errors.Is(err, document.ErrNewer)) {
			t.Errorf("what a later release has written is begun anew: %v, %v", why, err)
		}
	}
}

// TestAnew begins a lost count anew, each time the same one: no number is one that the node may
// have had, and it counts on from there. A count that is not lost stays.
func TestAnew(t *testing.T) {
	m, had := memory.In(t.TempDir()), map[int64]bool{}
	for range 4 {
		for _, text := range lost {
			if err := m.Replace(File, []byte(text)); err != nil {
				t.Fatal(err)
			}
			if why, err := Anew(m); !errors.Is(why, ErrLost) || err != nil {
				t.Fatalf("%q: %v, %v", text, why, err)
			}
			if why, err := Anew(m); why != nil || err != nil {
				t.Fatalf("%q: once more: %v, %v", text, why, err)
			}
			n, err := Use(m, bootloader.State{})
			if err != nil || n <= anewFrom || n > anewTo || had[n] {
				t.Fatalf("%q: arming %d, %v", text, n, err)
			}
			had[n] = true
			if next, err := Next(m, bootloader.State{}); err != nil || next != n+1 {
				t.Fatalf("%q: arming %d after %d, %v", text, next, n, err)
			}
		}
	}
	if why, err := Anew(memory.In(t.TempDir())); why != nil || err != nil {
		t.Errorf("a node that was never armed: %v, %v", why, err)
	}
}

// TestAnewPowerCut cuts the power at each write while a lost count begins anew: afterwards it is
// lost, or there, and goes on.
func TestAnewPowerCut(t *testing.T) {
	for writes := 0; ; writes++ {
		files := crashdisk.NewFiles(map[string][]byte{File: []byte("\x00")}, crashdisk.NewPower(writes))
		_, err := Anew(remembered{files})
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		told, toldErr := Next(remembered{files}, bootloader.State{})
		for seed := range uint64(16) {
			after := remembered{crashdisk.NewFiles(files.AfterCut(seed), crashdisk.NewPower(1000))}
			if n, nextErr := Next(after, bootloader.State{}); err == nil && (toldErr != nil || nextErr != nil || n != told) {
				t.Fatalf("writes=%d seed=%d: arming %d, %v after %d, %v", writes, seed, n, nextErr, told, toldErr)
			}
			if _, err := Anew(after); err != nil {
				t.Fatalf("writes=%d seed=%d: %v", writes, seed, err)
			}
			if n, err := Use(after, bootloader.State{}); err != nil || n <= anewFrom {
				t.Fatalf("writes=%d seed=%d: arming %d, %v", writes, seed, n, err)
			}
		}
		if err == nil {
			return
		}
	}
}
