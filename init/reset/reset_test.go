package reset

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

const partition = 34 << 20 // the smallest that FAT32 can be, about

var when = time.Unix(1_700_000_000, 0)

// bootPartition is a new boot partition with the given files.
func bootPartition(t *testing.T, files map[string]string) []byte {
	t.Helper()
	content := make([]byte, partition)
	d := crashdisk.New(content, 1<<30)
	if err := fat.Format(d, fat.Spec{Size: partition, Label: "KOGGE", When: when}, nil); err != nil {
		t.Fatal(err)
	}
	v := open(t, d)
	for name, text := range files {
		if err := errors.Join(v.MkdirAll(Folder, when), v.WriteFile(name, []byte(text), when)); err != nil {
			t.Fatal(err)
		}
	}
	return d.AfterCut(1)
}

func open(t *testing.T, d *crashdisk.Disk) *fat.Volume {
	t.Helper()
	v, err := fat.Open(d, 0, partition)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// read is a file of the partition; nil: there is none.
func read(t *testing.T, v *fat.Volume, name string) []byte {
	t.Helper()
	text, err := v.ReadFile(name)
	if err != nil && !errors.Is(err, fat.ErrNotExist) {
		t.Fatal(err)
	}
	return text
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"please\n":               "",
		"keep-config\n":          "asks for keep-config without the settings",
		"{":                      "unexpected EOF",
		`{"version":2}`:          "it has version 2, this release reads 1",
		`{"version":1,"x":true}`: "unknown field",
	} {
		w, err := Parse([]byte(text))
		if want == "" && (err != nil || w.Keep) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %+v, %v, want %q", text, w, err, want)
		}
	}
	for _, w := range []Wish{{}, {Keep: true}, {Keep: true, Settings: []byte("hostname: n07\n"), Imported: "0123"}, {Beside: "1.1"}, {Beside: "1.1", Slots: beside}} {
		if got, err := Parse(w.Text()); err != nil || got.Keep != w.Keep || !bytes.Equal(got.Settings, w.Settings) || got.Imported != w.Imported || got.Beside != w.Beside || !reflect.DeepEqual(got.Slots, w.Slots) {
			t.Errorf("%+v became %+v, %v", w, got, err)
		}
	}
}

// beside is what is known of the release in the other slot.
var beside = map[bootloader.Slot]*memory.Staged{"B": {Release: "1.1", Digest: "sha256:11", Schema: memory.Schema{Reads: [2]int{1, 3}, Writes: 1}, Whole: true}}

func FuzzParse(f *testing.F) {
	f.Add([]byte("please"))
	f.Add(Wish{Keep: true, Settings: []byte("{}"), Imported: "00"}.Text())
	f.Fuzz(func(t *testing.T, text []byte) {
		w, err := Parse(text)
		if err != nil {
			if !reflect.DeepEqual(w, Wish{}) {
				t.Errorf("a wish beside an error: %+v", w)
			}
			return
		}
		if again, err := Parse(w.Text()); err != nil || again.Keep != w.Keep || !bytes.Equal(again.Settings, w.Settings) {
			t.Errorf("%+v became %+v, %v", w, again, err)
		}
	})
}

// TestAskPowerCut cuts the power at every write of a wish that takes the place of
// another one: afterwards there is the old one, the new one with its join.yaml, or none.
func TestAskPowerCut(t *testing.T) {
	before := bootPartition(t, map[string]string{File: "please\n", JoinFile: "old\n"})
	w := Wish{Keep: true, Settings: []byte("hostname: n07\n"), Imported: "0123"}
	for writes := 0; ; writes++ {
		d := crashdisk.New(before, writes)
		v, err := fat.Open(d, 0, partition)
		if err == nil {
			err = Ask(v, w, []byte("new\n"), when)
		}
		for seed := range uint64(6) {
			v := open(t, d.Again(seed, 1<<30))
			text, join := read(t, v, File), string(read(t, v, JoinFile))
			switch {
			case text == nil, string(text) == "please\n":
				if err == nil {
					t.Fatalf("writes=%d seed=%d: the wish is lost", writes, seed)
				}
			case !bytes.Equal(text, w.Text()) || join != "new\n":
				t.Fatalf("writes=%d seed=%d: wish %q, join %q", writes, seed, text, join)
			}
			if join != "old\n" && join != "new\n" {
				t.Fatalf("writes=%d seed=%d: join %q", writes, seed, join)
			}
		}
		if err == nil {
			t.Logf("%d writes", writes)
			return
		}
	}
}

// errCut is what happens at a step of STATE.
var errCut = errors.New("power cut")

// machine is a node whose STATE is a word and whose boot partition is a disk. The power
// fails at its step number cut, and leaves that one half done.
type machine struct {
	state string
	esp   *crashdisk.Disk
	cut   int
	t     *testing.T
}

func (m *machine) step(half, whole string) error {
	if m.cut--; m.cut < 0 {
		m.state = half
		return errCut
	}
	m.state = whole
	return nil
}

func (m *machine) Reformat(beside string) error {
	if beside != "1.1" {
		m.t.Errorf("the release beside it is %q", beside)
	}
	return m.step("nothing", "empty")
}

func (m *machine) Mount() error {
	if m.state != "empty" {
		return errors.New("mount " + m.state)
	}
	return m.step(m.state, m.state)
}

func (m *machine) Remember(slots map[bootloader.Slot]*memory.Staged) error {
	return m.step("known, half", "known "+slots["B"].Release+"\n")
}

func (m *machine) Restore(settings []byte, imported string) error {
	return m.step(m.state+"kept, half", m.state+"kept "+string(settings)+imported)
}

func (m *machine) Forget() error { return Forget(open(m.t, m.esp)) }

// fulfil is what PID 1 does.
func (m *machine) fulfil(w Wish) error {
	if err := Begin(open(m.t, m.esp), when); err != nil {
		return err
	}
	return w.Fulfil(m)
}

// TestBeginRefuses a boot partition that takes no writes, before anything is lost.
func TestBeginRefuses(t *testing.T) {
	m := &machine{state: "old", esp: crashdisk.New(bootPartition(t, map[string]string{File: "please\n"}), 0), cut: 1 << 30, t: t}
	if err := m.fulfil(Wish{}); err == nil || m.state != "old" {
		t.Errorf("STATE is %q, %v", m.state, err)
	}
}

// TestFulfilPowerCut cuts the power at every step and every write of a reset, and boots
// until it is done: the settings are there when the wish is gone.
func TestFulfilPowerCut(t *testing.T) {
	w := Wish{Keep: true, Settings: []byte("hostname: n07\n"), Imported: "0123", Beside: "1.1", Slots: beside}
	before := bootPartition(t, map[string]string{File: string(w.Text())})
	const steps = 4 // of STATE; behind them come the writes of the boot partition
	for cut := 0; ; cut++ {
		m := &machine{state: "old", esp: crashdisk.New(before, 1<<30), cut: cut, t: t}
		if cut >= steps {
			m.esp, m.cut = crashdisk.New(before, cut-steps), 1<<30
		}
		first := m.fulfil(w)
		for seed := range uint64(6) {
			again := &machine{state: m.state, esp: m.esp.Again(seed, 1<<30), cut: 1 << 30, t: t}
			if text := read(t, open(t, again.esp), File); text != nil {
				w, err := Parse(text)
				if err == nil {
					err = again.fulfil(w)
				}
				if err != nil {
					t.Fatalf("cut=%d seed=%d: %v", cut, seed, err)
				}
			}
			v := open(t, again.esp)
			if again.state != "known 1.1\nkept hostname: n07\n0123" || read(t, v, File) != nil || read(t, v, begun) != nil {
				t.Fatalf("cut=%d seed=%d: STATE is %q", cut, seed, again.state)
			}
		}
		if first == nil {
			t.Logf("%d steps and writes", cut)
			return
		}
	}
}

// TestForget takes away a wish that a cut has doubled.
func TestForget(t *testing.T) {
	before := bootPartition(t, map[string]string{File: "please\n"})
	for writes := range 64 {
		d := crashdisk.New(before, writes)
		err := open(t, d).WriteFile(File, []byte("once more\n"), when) // a laptop may replace it
		for seed := range uint64(3) {
			v := open(t, d.Again(seed, 1<<30))
			if err := Forget(v); err != nil {
				t.Fatal(err)
			}
			if text := read(t, v, File); text != nil {
				t.Fatalf("writes=%d seed=%d: still %q", writes, seed, text)
			}
		}
		if err == nil {
			return
		}
	}
}
