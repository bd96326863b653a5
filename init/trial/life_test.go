package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/init/control"
	"kogge.example/init/supervise"
	"kogge.example/init/watchdog"
	"kogge.example/update/bootloader"
	"kogge.example/update/bootpart"
	"kogge.example/update/fat"
	"kogge.example/update/golden"
	"kogge.example/update/memory"
)

// machine is a node whose boot loader is played by the test.
type machine struct {
	*testing.T
	loader  bootloader.Loader
	name    boards.Bootloader
	part    bootpart.Partition
	run     string // folder of the facts
	memory  string // folder on STATE
	release map[bootloader.Slot]string
	boots   int
	said    chan string
	pstore  string        // folder of kernels' last words
	asked   chan struct{} // for them
	out     strings.Builder
}

// boot is what the boot loader and PID 1 do until the services start. It returns nil where
// the boot ends because the other slot is tried.
func (m *machine) boot() *Boot {
	m.Helper()
	state := stateOf(m.T, m.loader, m.part)
	slot, found := state.Next()
	if !found {
		m.Fatalf("nothing starts: %+v", state)
	}
	trial := state.Of(slot).Counted
	if trial {
		if err := m.part.Edit(func(v *fat.Volume) error { return m.loader.Count(v, slot, noon) }); err != nil {
			m.Fatal(err)
		}
	}
	m.boots++
	b := &Boot{Node: Node{
		Facts: &control.Boot{Slot: string(slot), Version: m.release[slot], Board: "b", Trial: trial, Loader: string(m.name)},
		Run:   m.run, ID: fmt.Sprintf("boot %d", m.boots), Part: m.part, Dog: watchdog.None(nil), Degraded: &supervise.Degraded{},
		Selected: func() (string, error) { return string(slot), nil }, Say: func(line string) { m.said <- line },
		Pstore: func() (string, error) { m.asked <- struct{}{}; return m.pstore, nil },
	}}
	moved, err := b.Count()
	if err != nil {
		m.Fatal(err)
	}
	fmt.Fprintf(&m.out, "%s: %s\n", b.ID, b.Facts)
	if moved != nil {
		m.hear("moved")
		return nil
	}
	b.Memory = m.memory
	if moved, err := b.CountAgain(noon); moved != nil || err != nil {
		m.Fatalf("counted once more: %v, %v", moved, err)
	}
	if err := errors.Join(b.NoteUp(), b.Conclude()); err != nil {
		m.Fatal(err)
	}
	for len(m.asked) > 0 {
		<-m.asked
	}
	facts, err := control.ReadBoot(m.run)
	if trial && (err != nil || !facts.Trial || facts.TriesLeft != stateOf(m.T, m.loader, m.part).Of(slot).Left) {
		m.Errorf("%s: published %+v, %v", b.ID, facts, err)
	}
	m.hear("heard")
	return b
}

// hear shows what has been said on the console.
func (m *machine) hear(how string) {
	for {
		select {
		case line := <-m.said:
			fmt.Fprintf(&m.out, "    %s: %s\n", how, line)
		default:
			return
		}
	}
}

// wait shows the next thing that is said on the console.
func (m *machine) wait() {
	m.Helper()
	select {
	case line := <-m.said:
		fmt.Fprintf(&m.out, "    %s\n", line)
	case <-time.After(time.Minute):
		m.Fatalf("nobody says anything\n%s", &m.out)
	}
}

// good has the agent say that this boot is.
func (m *machine) good() {
	m.Helper()
	b := m.boot()
	a := b.Assess(m.Context(), time.Hour, func(why error) { m.Errorf("%s ends: %v", b.ID, why) })
	if is := a.Answer(control.Request{Op: control.OpAssess, Verdict: "pending", Why: "web is unhealthy"}); is.State != "pending" || is.Why != "web is unhealthy" {
		m.Errorf("%+v", is)
	}
	if is := a.Answer(control.Request{Op: control.OpAssess, Verdict: "good"}); is.State != "good" {
		m.Errorf("%+v", is)
	}
	m.wait()
	if is, err := control.ReadAssessment(m.run); err != nil || is.State != "good" {
		m.Errorf("published %+v, %v", is, err)
	}
	<-m.asked // the last thing that follows from a good boot
	m.down(b, a, nil)
}

// bad lets the time of this boot run out. A proven slot goes on.
func (m *machine) bad() {
	m.Helper()
	b := m.boot()
	if b == nil {
		return
	}
	ctx, end := context.WithCancelCause(m.Context())
	defer end(nil)
	a := b.Assess(ctx, time.Millisecond, end)
	m.wait()
	if b.Facts.Trial {
		<-ctx.Done()
		m.down(b, a, context.Cause(ctx))
		return
	}
	m.down(b, a, nil)
}

// sick has the agent say that the node is well and its workloads are not, until the time of
// this boot runs out.
func (m *machine) sick() {
	m.Helper()
	b := m.boot()
	if b == nil {
		m.Fatalf("the slot moved because of workloads\n%s", &m.out)
	}
	ctx, end := context.WithCancelCause(m.Context())
	defer end(nil)
	a := b.Assess(ctx, time.Hour, end)
	for range 3 { // as often as the reason changes
		if is := a.Answer(control.Request{Op: control.OpAssess, Verdict: "sick", Why: "web is unhealthy"}); is.State != "pending" || is.Why != "web is unhealthy" {
			m.Errorf("%+v", is)
		}
	}
	if !b.Facts.Trial {
		m.spared(b)
	}
	a.take(Timeout, "")
	m.wait()
	if b.Facts.Trial {
		<-ctx.Done()
		m.down(b, a, context.Cause(ctx))
		return
	}
	if is := a.Answer(control.Request{Op: control.OpAssess, Verdict: "sick", Why: "db is gone"}); is.State != "bad" || is.Why != "db is gone" {
		m.Errorf("%+v", is)
	}
	if why := degradedOf(b); !strings.Contains(why, "boot assessment: db is gone") {
		m.Errorf("degraded %s", why)
	}
	m.down(b, a, nil)
}

// spared waits until the boot partition has no bad boots.
func (m *machine) spared(b *Boot) {
	m.Helper()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		var bad int
		err := m.part.Read(func(v *fat.Volume) error {
			_, count, err := readCount(m.loader, v)
			bad = count.Bad
			return err
		})
		switch {
		case err != nil:
			m.Fatal(err)
		case bad == 0:
			return
		case time.Now().After(limit):
			m.Fatalf("%s: still %d bad boots", b.ID, bad)
		}
	}
}

func degradedOf(b *Boot) string {
	var all []string
	for _, d := range b.Degraded.List() {
		all = append(all, d.What+": "+d.Why)
	}
	return strings.Join(all, "; ")
}

// crash has the kernel of this boot panic, and keep its last words.
func (m *machine) crash() {
	m.Helper()
	m.boot()
	if err := os.WriteFile(filepath.Join(m.pstore, "dmesg-efi_pstore-1"), []byte("Kernel panic - not syncing: sysrq triggered crash\n"), 0o600); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) down(b *Boot, a *Assessor, why error) {
	m.Helper()
	a.Over(why == nil)
	b.NoteDown("reboot", why)
	state := stateOf(m.T, m.loader, m.part)
	fmt.Fprintf(&m.out, "    the loader: A %s; B %s; next %s\n", state.A, state.B, state.Starts)
}

// arm is what the agent does to slot B, which holds a release.
func (m *machine) arm(digest string) {
	m.Helper()
	err := m.part.Edit(func(v *fat.Volume) error { return m.loader.Arm(v, "B", m.release["B"], bootloader.Tries, noon) })
	t := memory.Trial{Slot: "B", Release: m.release["B"], Digest: digest, Counter: 2, Tries: bootloader.Tries, Armed: noon, By: "the only voter"}
	t.Number = stateOf(m.T, m.loader, m.part).B.Number
	if err := errors.Join(err, memory.WriteTrial(memory.In(m.memory), t)); err != nil {
		m.Fatal(err)
	}
	fmt.Fprintf(&m.out, "slot B is armed: release %s\n", t.Release)
}

// TestSickWorkloads has nothing but workloads that are sick: a release on trial fails by
// it, and a proven one stays, however often that is so. Bad boots of the node itself count
// as before, and those that sick ones forgive do not.
func TestSickWorkloads(t *testing.T) {
	for _, name := range []boards.Bootloader{boards.SystemdBoot, boards.UBoot} {
		t.Run(string(name), func(t *testing.T) {
			l, err := bootloader.For(name)
			if err != nil {
				t.Fatal(err)
			}
			m := &machine{
				T: t, loader: l, name: name, part: freshPart(t, l), run: filepath.Join(t.TempDir(), "run"), memory: filepath.Join(t.TempDir(), "update"),
				release: map[bootloader.Slot]string{"A": "1.0", "B": "1.1"}, said: make(chan string, 100),
				pstore: t.TempDir(), asked: make(chan struct{}, 100),
			}
			m.good()
			installB(t, l, m.part)
			m.arm("sha256:11")
			for range bootloader.Tries {
				m.sick()
			}
			m.good() // in slot A again
			failures, err := memory.ReadFailures(memory.In(m.memory))
			if f, found := failures.Find("1.1", "sha256:11"); err != nil || !found || !f.Refused() {
				t.Errorf("remembered as %+v, %v", failures, err)
			}
			m.arm("sha256:22")
			m.good()
			for range 7 {
				m.sick()
			}
			m.bad()
			m.sick() // it forgives the one before
			m.bad()
			m.bad()
			if b := m.boot(); b != nil {
				t.Error("three bad boots of the node itself keep the slot")
			}
			golden.Compare(t, "sick.txt", m.out.String()) // the same for both
		})
	}
}

// TestLife follows the slots of a node from boot to boot: a release that is never good, one
// that is, and then goes bad. It calls what PID 1 calls, and in its order.
func TestLife(t *testing.T) {
	for _, name := range []boards.Bootloader{boards.SystemdBoot, boards.UBoot} {
		t.Run(string(name), func(t *testing.T) {
			l, err := bootloader.For(name)
			if err != nil {
				t.Fatal(err)
			}
			m := &machine{
				T: t, loader: l, name: name, part: freshPart(t, l), run: filepath.Join(t.TempDir(), "run"), memory: filepath.Join(t.TempDir(), "update"),
				release: map[bootloader.Slot]string{"A": "1.0", "B": "1.1"}, said: make(chan string, 100),
				pstore: t.TempDir(), asked: make(chan struct{}, 100),
			}
			m.good()
			installB(t, l, m.part)
			m.arm("sha256:11")
			m.bad()
			m.crash()
			m.bad()
			m.good()
			failures, err := memory.ReadFailures(memory.In(m.memory))
			if f, found := failures.Find("1.1", "sha256:11"); err != nil || !found || !f.Refused() || f.Boots != bootloader.Tries {
				t.Errorf("remembered as %+v, %v", failures, err)
			}
			m.arm("sha256:22") // the same version, made anew
			m.good()
			if _, there, err := memory.ReadTrial(memory.In(m.memory)); there || err != nil {
				t.Errorf("a trial is left: %v", err)
			}
			if floor, err := memory.ReadFloor(memory.In(m.memory)); err != nil || floor.Blessed != 2 || floor.Digest != "sha256:22" {
				t.Errorf("floor %+v, %v", floor, err)
			}
			for range 3 {
				m.bad()
			}
			m.good()
			boots, err := memory.LoadHistory(filepath.Join(m.memory, memory.HistoryFile))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&m.out, "history of boots")
			for _, b := range boots {
				fmt.Fprintf(&m.out, "    %s: slot %s, release %s, trial %v: %s %q, end %q %q %q\n", b.ID, b.Slot, b.Release, b.Trial, b.Assessment, b.Why, b.End, b.EndWhy, b.Notes)
			}
			golden.Compare(t, "life.txt", m.out.String()) // the same for both
		})
	}
}
