package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/init/control"
	"kogge.example/update/fat"
	"kogge.example/update/golden"
	"kogge.example/update/memory"
	"kogge.example/update/partition"
	"kogge.example/update/release"
	"kogge.example/update/slot"
)

const allSteps = "verified retired staging staged armed draining rebooting"

// TestUpdates takes one node from release to release: good ones, sick ones, back and
// forward again. Every boot holds kernel and root against each other.
func TestUpdates(t *testing.T) {
	one, two, three := makeRelease(t, "1.0", 1, wish{}), makeRelease(t, "1.1", 2, wish{}), makeRelease(t, "1.2", 3, wish{blocks: 700})
	m := newMachine(t, one, 8*mib)
	m.have(two, three)
	var b strings.Builder
	tell := func(what string) { fmt.Fprintf(&b, "%s\n%s", what, m.table()) }
	tell("flashed")
	install := func(r made, steps string) {
		t.Helper()
		if said, err := m.update(Order{Source: r.open(t), By: "ada"}); err != nil || said != steps {
			t.Fatalf("%s, %v", said, err)
		}
	}
	refused := func(what string, err error, want error) {
		t.Helper()
		if !errors.Is(err, ErrRefused) || !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
		fmt.Fprintf(&b, "%s: %v\n", what, err)
	}
	back := func() error {
		return m.Rollback(t.Context(), Order{When: Now, By: "ada"}, func(Step) {})
	}
	refused("rollback to nothing", back(), ErrRefused)

	install(two, allSteps)
	tell("1.1 armed")
	if m.stopped != 1 || m.rebooted != 1 {
		t.Errorf("containers stopped %d times, %d reboots", m.stopped, m.rebooted)
	}
	if err := back(); !errors.Is(err, ErrBusy) {
		t.Errorf("rollback while PID 1 ends the boot: %v", err)
	}
	m.leaving = false // it does not come
	refused("rollback to what was not tried", back(), ErrRefused)
	if v := m.boot(); v != "1.1" {
		t.Fatalf("booted %s", v)
	}
	tell("1.1 on trial")
	_, err := m.update(Order{Source: three.open(t)})
	refused("update on trial", err, slot.ErrOnTrial)
	refused("rollback on trial", back(), slot.ErrOnTrial)
	// PID 1 says that it is good a moment before it has blessed it.
	must(t, control.Assessment{State: "good"}.Write(m.Run))
	tell("1.1 good, and not blessed yet")
	_, err = m.update(Order{Source: three.open(t)})
	refused("update before the blessing", err, slot.ErrOnTrial)
	m.good()
	tell("1.1 proven")
	_, err = m.update(Order{Source: two.open(t)})
	refused("the same once more", err, slot.ErrSameRoot)

	must(t, back())
	tell("1.0 armed")
	if v := m.boot(); v != "1.0" {
		t.Fatalf("booted %s", v)
	}
	m.good()
	tell("1.0 proven again")
	must(t, back())
	if v := m.boot(); v != "1.1" {
		t.Fatalf("booted %s", v)
	}
	m.good()
	tell("forward again")

	install(three, allSteps)
	m.boot()
	m.bad()
	must(t, memory.WriteFailures(m.memory(), memory.Failures{}.Add(
		memory.Trial{Slot: "A", Release: "1.2", Digest: three.Digest(board), Tries: 3},
		memory.Conclusion{Stage: memory.TrialOver, Verdict: memory.Failed, Why: "agent not ready within 60s", Boots: 3}, created)))
	if v := m.boot(); v != "1.1" {
		t.Fatalf("booted %s", v)
	}
	tell("1.2 failed")
	refused("rollback to what failed", back(), ErrRefused)
	_, err = m.update(Order{Source: three.open(t)})
	refused("what failed once more", err, slot.ErrFailedBefore)
	if _, err := m.ForgetFailure(t.Context(), "1.3"); !errors.Is(err, ErrNoFailure) {
		t.Errorf("forget what did not fail: %v", err)
	}
	if gone, err := m.ForgetFailure(t.Context(), "1.2"); err != nil || len(gone) != 1 || gone[0] != "1.2" {
		t.Errorf("forget: %v, %v", gone, err)
	}
	install(three, "verified staged armed draining rebooting") // it lies there still
	m.boot()
	m.good()
	tell("1.2 proven")
	_, err = m.update(Order{Source: one.open(t)})
	refused("two steps back", err, slot.ErrBelowFloor)
	golden.Compare(t, "updates.txt", b.String())
}

// TestRefused: what must not be installed is refused before a byte of the slot is
// written, and the slot that runs goes on.
func TestRefused(t *testing.T) {
	good := makeRelease(t, "1.1", 2, wish{})
	long := strings.Repeat("x", 200)
	for _, c := range []struct {
		name   string
		edit   func(m *machine)
		source release.Source
		order  Order
		want   string
	}{
		{name: "other keys", source: makeRelease(t, "1.1", 2, wish{maker: "pirates"}).open(t), want: "signed"},
		{name: "other board", source: makeRelease(t, "1.1", 2, wish{board: "pc-x86_64"}).open(t), want: "board"},
		{name: "expired", source: makeRelease(t, "1.1", 2, wish{expires: created.AddDate(0, 0, -1)}).open(t), want: "expired"},
		{name: "too large", source: makeRelease(t, "1.1", 2, wish{blocks: 2100}).open(t), want: "slot is 8 MiB"},
		{name: "schema", source: makeRelease(t, "1.1", 2, wish{schema: memory.Schema{Reads: [2]int{2, 3}, Writes: 3}}).open(t), want: "reads 2 to 3"},
		{
			name: "before STATE was sealed", edit: func(m *machine) { m.Format = func() int { return partition.SealedState } },
			source: makeRelease(t, "1.1", 2, wish{schema: memory.Schema{Reads: [2]int{1, 1}, Writes: 1}}).open(t), want: "the running one writes format 2, the new one reads 1 to 1",
		},
		{
			name: "before fleets had a ledger", edit: func(m *machine) { m.Format = func() int { return partition.FleetState } },
			source: makeRelease(t, "1.1", 2, wish{schema: memory.Schema{Reads: [2]int{1, 2}, Writes: 1}}).open(t), want: "the running one writes format 3, the new one reads 1 to 2",
		},
		{name: "nobody is trusted", edit: func(m *machine) { m.Image = m.part("nothing") }, source: good.open(t), want: "trusts no keys for releases"},
		{name: "several voters", edit: func(m *machine) { m.write("state/kogge/ledger", "") }, source: good.open(t), want: "ledger cannot be read"},
		{name: "voters that nobody can count", edit: func(m *machine) {
			m.write("state/kogge/other", "")
			must(m.t, os.Symlink("ledger", m.part("state/kogge/ledger"))) // a loop
		}, source: good.open(t), want: "ledger cannot be read"},
		{name: "two disks", edit: func(m *machine) { must(t, control.Boot{Slot: "A", Alone: "disks vda and vdb are alike"}.Write(m.Run)) }, source: good.open(t), want: "vda and vdb"},
		{name: "no loader", edit: func(m *machine) { must(t, control.Boot{Slot: "A"}.Write(m.Run)) }, source: good.open(t), want: "boot loader"},
		{name: "no window", source: good.open(t), order: Order{When: InWindow}, want: "no update.window"},
		{name: "sticks are off", order: Order{From: "usb:"}, want: "update.usb in its node.yaml is off"},
		{name: "a path on a stick", order: Order{From: "usb:1.1"}, want: "kogge-release"},
		{name: "no source", order: Order{From: "source:"}, want: "no update.source"},
		{name: "long name", order: Order{From: long}, want: "from there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
			if c.edit != nil {
				c.edit(m)
			}
			c.order.Source = c.source
			said, err := m.update(c.order)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%s: %v, want %q", said, err, c.want)
			}
			if !errors.Is(err, ErrRefused) && c.name != "long name" {
				t.Errorf("%v is no refusal", err)
			}
			if m.stopped+m.rebooted > 0 {
				t.Errorf("%d stops, %d reboots", m.stopped, m.rebooted)
			}
			if next, _ := m.loaderState().Next(); next != "A" {
				t.Errorf("the loader starts %q", next)
			}
		})
	}
}

// broken is a source that ends after so many bytes of parts in all, and counts them.
type broken struct {
	release.Source
	left, read int64
}

var errBroken = errors.New("the line is broken")

func (b *broken) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := b.Source.Blob(ctx, d, offset)
	if err != nil || d.Size < 100_000 { // documents come before
		return r, err
	}
	return &brokenReader{r, b}, nil
}

type brokenReader struct {
	io.ReadCloser
	of *broken
}

func (r *brokenReader) Read(p []byte) (int, error) {
	if r.of.left <= 0 {
		return 0, errBroken
	}
	n, err := r.ReadCloser.Read(p[:min(int64(len(p)), r.of.left)])
	r.of.left -= int64(n)
	r.of.read += int64(n)
	return n, err
}

// TestResume breaks the line at every hundred KiB: the next try goes on there, and in all
// hardly more is sent than the release has.
func TestResume(t *testing.T) {
	next := makeRelease(t, "1.1", 2, wish{})
	size := int64(len(next.uki) + len(next.root))
	m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
	m.have(next)
	var sent int64
	tries := 0
	for {
		src := &broken{Source: next.open(t), left: 500 << 10}
		said, err := m.update(Order{Source: src, When: Manual})
		sent += src.read
		tries++
		if err == nil {
			if said != "verified retired staging staged armed" {
				t.Errorf("the last try: %s", said)
			}
			break
		}
		if !errors.Is(err, errBroken) || tries > 100 {
			t.Fatalf("try %d: %v", tries, err)
		}
		if s := m.table(); !strings.Contains(s, Incomplete) {
			t.Fatalf("after try %d:\n%s", tries, s)
		}
	}
	if tries < 5 || sent > size+int64(tries)*16<<10 {
		t.Errorf("%d tries, %d bytes sent of %d", tries, sent, size)
	}
	if v := m.boot(); v != "1.1" {
		t.Errorf("booted %s", v)
	}
}

// TestOneAtATime: a second update is refused while the first goes on, and what is asked
// of the slots is answered.
func TestOneAtATime(t *testing.T) {
	next := makeRelease(t, "1.1", 2, wish{})
	m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
	m.have(next)
	src := next.open(t)
	asked := false
	err := m.Update(t.Context(), Order{Source: src, When: Manual}, func(s Step) {
		if s.Step != Staging || asked {
			return
		}
		asked = true
		if all, err := m.Slots(t.Context()); err != nil || all.Busy == "" {
			t.Errorf("slots meanwhile: busy %q, %v", all.Busy, err)
		}
		if err := m.Update(t.Context(), Order{Source: src}, func(Step) {}); !errors.Is(err, ErrBusy) {
			t.Errorf("second update: %v", err)
		}
		if err := m.Rollback(t.Context(), Order{When: Now, By: "ada"}, func(Step) {}); !errors.Is(err, ErrBusy) {
			t.Errorf("rollback: %v", err)
		}
		// Another process than this one, as after a crash of the agent that left one.
		if err := m.installer().Update(t.Context(), Order{Source: src}, func(Step) {}); !errors.Is(err, ErrBusy) {
			t.Errorf("update by another process: %v", err)
		}
	})
	if err != nil || !asked {
		t.Fatalf("asked %v, %v", asked, err)
	}
	if all, err := m.Slots(t.Context()); err != nil || all.Busy != "" {
		t.Errorf("busy %q, %v", all.Busy, err)
	}
	if m.rebooted != 0 {
		t.Error("a reboot that was left to people")
	}
	if v := m.boot(); v != "1.1" {
		t.Errorf("booted %s", v)
	}
}

// TestLeft: who gives the order and goes away before the slot is armed has it not armed;
// afterwards the order stands.
func TestLeft(t *testing.T) {
	next := makeRelease(t, "1.1", 2, wish{})
	m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
	m.have(next)
	ctx, leave := context.WithCancel(t.Context())
	err := m.Update(ctx, Order{Source: next.open(t)}, func(s Step) {
		if s.Step == Staged {
			leave()
		}
	})
	if !errors.Is(err, context.Canceled) || m.rebooted > 0 || !strings.Contains(m.table(), StagedHere) {
		t.Errorf("left before: %v, %d reboots\n%s", err, m.rebooted, m.table())
	}
	ctx, leave = context.WithCancel(t.Context())
	err = m.Update(ctx, Order{Source: next.open(t)}, func(s Step) {
		if s.Step == Armed {
			leave()
		}
	})
	if err != nil || m.rebooted != 1 {
		t.Errorf("left after: %v, %d reboots", err, m.rebooted)
	}
}

// TestWindow: the reboot waits for the window, also over a new start of the agent, and
// goes by the settings of then.
func TestWindow(t *testing.T) {
	next := makeRelease(t, "1.1", 2, wish{})
	m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
	m.have(next)
	m.write("run/node.yaml", "update:\n  window: 02:00-04:00\n")
	m.clock = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	said, err := m.update(Order{Source: next.open(t), When: InWindow})
	if err != nil || said != "verified retired staging staged armed waiting" || m.rebooted > 0 {
		t.Fatalf("%s, %v, %d reboots", said, err, m.rebooted)
	}
	again := m.installer()
	look := func(at time.Time, reboots int) {
		t.Helper()
		m.clock = at
		wait, err := again.rebootIfOpen(t.Context())
		if err != nil || m.rebooted != reboots || wait <= 0 {
			t.Fatalf("at %s: %d reboots, %v, next look in %s", at, m.rebooted, err, wait)
		}
	}
	look(m.clock, 0)
	if all, err := again.Slots(t.Context()); err != nil || !all.RebootAt.Equal(time.Date(2026, 12, 2, 2, 0, 0, 0, time.UTC)) {
		t.Errorf("reboot at %s, %v", all.RebootAt, err)
	}
	look(m.clock.Add(13*time.Hour), 0)
	m.write("run/node.yaml", "hostname: n1\n")
	if _, err := again.rebootIfOpen(t.Context()); !errors.Is(err, ErrRefused) || m.rebooted > 0 {
		t.Errorf("without a window: %v, %d reboots", err, m.rebooted)
	}
	m.write("run/node.yaml", "update:\n  window: 01:30-04:00\n")
	look(m.clock.Add(31*time.Minute), 1)
	m.boot()
	look(m.clock.Add(time.Minute), 1) // it is over with the boot
	// In the window it is as now.
	m.good()
	if err := m.Rollback(t.Context(), Order{When: InWindow, By: "ada"}, func(Step) {}); err != nil || m.rebooted != 2 {
		t.Errorf("rollback in the window: %v, %d reboots", err, m.rebooted)
	}
}

// TestStaleReboot: a reboot that waits is for what was armed then, and for nothing else.
func TestStaleReboot(t *testing.T) {
	next := makeRelease(t, "1.1", 2, wish{})
	m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
	m.have(next)
	m.write("run/node.yaml", "update:\n  window: 02:00-04:00\n")
	m.clock = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	if _, err := m.update(Order{Source: next.open(t), When: InWindow}); err != nil {
		t.Fatal(err)
	}
	d, err := m.openDisk()
	must(t, err)
	must(t, d.Boot.Edit(func(v *fat.Volume) error { return d.Loader.Retire(v, "B") }))
	must(t, d.Close())
	m.clock = time.Date(2026, 12, 2, 3, 0, 0, 0, time.UTC)
	if _, err := m.rebootIfOpen(t.Context()); err != nil || m.rebooted > 0 || m.stopped > 0 {
		t.Errorf("%v, %d reboots, %d drains", err, m.rebooted, m.stopped)
	}
	if p, err := m.pending(); p != nil || err != nil {
		t.Errorf("still pending: %+v, %v", p, err)
	}
}

// TestServe wakes up for a reboot that is asked for while it waits.
func TestServe(t *testing.T) {
	next := makeRelease(t, "1.1", 2, wish{})
	m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
	m.have(next)
	if _, err := m.update(Order{Source: next.open(t), When: Manual}); err != nil {
		t.Fatal(err)
	}
	m.write("run/node.yaml", "update:\n  window: 02:00-04:00\n")
	m.clock = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	rebooted := make(chan struct{})
	m.Reboot = func(context.Context) error { close(rebooted); return nil }
	now := make(chan time.Time, 1)
	m.Now = func() time.Time {
		select {
		case m.clock = <-now:
		default:
		}
		return m.clock
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	m.write("run/update-reboot.json", `{"slot":"B","version":"1.1"}`)
	now <- time.Date(2026, 12, 2, 3, 0, 0, 0, time.UTC)
	go func() { defer close(done); m.Serve(ctx) }()
	select {
	case <-rebooted:
	case <-time.After(time.Minute):
		t.Error("no reboot")
	}
	stop()
	<-done
}

// TestReadable: STATE may be in a later format where nobody can start a release that does not
// read it: also where a reset has left no record of the release in the other slot, whichever
// of the two runs.
func TestReadable(t *testing.T) {
	before := memory.Schema{Reads: [2]int{1, 1}, Writes: 1}
	for name, schema := range map[string]memory.Schema{"a release that reads it": release.StateSchema, "one that does not": before} {
		m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
		is := func(what string, want bool) {
			t.Helper()
			if got := m.Readable(partition.SealedState); got != want {
				t.Errorf("%s: %s: %v", name, what, got)
			}
		}
		is("from an image", true)
		two := makeRelease(t, "1.1", 2, wish{schema: schema})
		m.have(two)
		_, err := m.update(Order{Source: two.open(t)})
		must(t, err)
		is("beside", schema != before)
		forget := m.part("state/kogge/update/" + memory.StagedFile)
		must(t, os.Remove(forget))
		is("beside, and forgotten", false)
		m.boot()
		is("it runs, and what the image brought is forgotten", false)
	}
	m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
	must(t, os.Truncate(m.part("ESP"), 0))
	if m.Readable(partition.SealedState) {
		t.Error("a boot partition that cannot be read has nothing in slot B")
	}
	if (&Installer{Run: t.TempDir(), State: t.TempDir()}).Readable(partition.SealedState) {
		t.Error("what is no node has nothing in slot B")
	}
}

// TestReady: a node takes a fleet that only later releases know while nobody can start an older
// one, and no update comes between. A node that nobody can reach makes it so.
func TestReady(t *testing.T) {
	one, before := makeRelease(t, "1.0", 1, wish{}), makeRelease(t, "0.9", 2, wish{schema: memory.Schema{Reads: [2]int{1, 2}, Writes: 1}})
	m := newMachine(t, one, 8*mib)
	m.have(before)
	for name, ready := range map[string]func(int) (func(), error){"Ready": m.Ready, "MakeReady": m.MakeReady} {
		done, err := ready(partition.FleetState)
		if err != nil {
			t.Fatalf("%s: from an image: %v", name, err)
		}
		if _, err := m.update(Order{Source: before.open(t)}); !errors.Is(err, ErrBusy) {
			t.Errorf("%s: an update meanwhile: %v", name, err)
		}
		done()
	}
	nowhere := &Installer{Run: t.TempDir(), State: t.TempDir()}
	if _, err := nowhere.Ready(partition.FleetState); !errors.Is(err, ErrFallback) {
		t.Errorf("outside of a node: %v", err)
	}
	if _, err := nowhere.MakeReady(partition.FleetState); err != nil {
		t.Errorf("outside of a node: %v", err)
	}
	_, err := m.update(Order{Source: before.open(t), When: Manual})
	must(t, err)
	for range 2 { // and the turn is free again
		if _, err := m.Ready(partition.FleetState); !errors.Is(err, ErrFallback) || !errors.Is(err, ErrRefused) {
			t.Errorf("beside an older release: %v", err)
		}
	}
	err = m.Update(t.Context(), Order{Source: before.open(t), When: Manual}, func(Step) {
		if _, err := m.Ready(partition.FleetState); !errors.Is(err, ErrBusy) {
			t.Errorf("during an update: %v", err)
		}
		if _, err := m.MakeReady(partition.FleetState); !errors.Is(err, ErrBusy) {
			t.Errorf("during an update: %v", err)
		}
	})
	must(t, err)
	makeReady := func(what, running string) {
		t.Helper()
		done, err := m.MakeReady(partition.FleetState)
		if err != nil || !m.Readable(partition.FleetState) {
			t.Fatalf("%s: %v", what, err)
		}
		done()
		if v := m.boot(); v != running {
			t.Errorf("%s: booted %s", what, v)
		}
	}
	makeReady("beside an older release that is armed", "1.0")

	// After a reset it is not known what the other slot has.
	_, err = m.update(Order{Source: before.open(t), When: Manual})
	must(t, err)
	m.boot()
	must(t, os.RemoveAll(m.part("state/kogge")))
	if _, err := m.MakeReady(partition.FleetState); !errors.Is(err, slot.ErrOnTrial) || !errors.Is(err, ErrRefused) {
		t.Errorf("on trial: %v", err)
	}
	if v := m.boot(); v != "0.9" {
		t.Fatalf("booted %s", v)
	}
	m.good()
	makeReady("beside a proven one", "0.9")
	next := makeRelease(t, "1.1", 3, wish{})
	m.have(next)
	if _, err := m.update(Order{Source: next.open(t), When: Manual}); err != nil {
		t.Error(err)
	}
}

// TestLostFloor: a node whose floor is damaged takes updates all the same, and none that is older
// than what runs.
func TestLostFloor(t *testing.T) {
	old, one, two := makeRelease(t, "0.9", 1, wish{}), makeRelease(t, "1.0", 2, wish{}), makeRelease(t, "1.1", 3, wish{})
	m := newMachine(t, one, 8*mib)
	m.have(two)
	m.write("state/kogge/update/"+memory.FloorFile, "\x00\x00")
	if _, err := m.update(Order{Source: two.open(t), When: Manual}); err == nil || errors.Is(err, slot.ErrBelowFloor) {
		t.Errorf("a release that does not say its counter runs, and there is a floor: %v", err)
	}
	m.write("release.json", `{"version":"1.0","counter":2}`)
	m.Facts = m.part("release.json")
	if _, err := m.update(Order{Source: old.open(t), When: Manual}); !errors.Is(err, slot.ErrBelowFloor) {
		t.Errorf("an older one: %v", err)
	}
	m.write("state/kogge/update/"+memory.FloorFile, "")
	if _, err := m.update(Order{Source: two.open(t), When: Manual}); err != nil {
		t.Fatal(err)
	}
	m.boot()
	m.write("state/kogge/update/"+memory.FloorFile, "") // on trial it is for PID 1 to begin it anew
	m.good()
	if f, err := memory.ReadFloor(m.memory()); err != nil || f.Lowest != 3 {
		t.Errorf("the floor is %+v, %v", f, err)
	}
}
