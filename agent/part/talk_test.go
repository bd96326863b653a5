package part

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// TestTalk has three nodes, each behind the port of its API, be founded while they run: each
// hears from the others what they are and how, and a record that one takes comes to all.
func TestTalk(t *testing.T) {
	f := ledgertest.Founded(t, 3, 2)
	where := make(map[int]netip.AddrPort)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	end := func() { stop(); running.Wait() }
	defer end()
	var all []*Talk
	for number := 1; number <= 3; number++ {
		p, run := adopted(t, f), t.TempDir()
		identitytest.Sit(t, p.state, number)
		must(t, control.Boot{Slot: "A", Version: "1.0", Board: "qemu-x86_64", RootHash: document.HashOf(nil).String()}.Write(run))
		m := machine.Machine{Run: run, State: p.state, Control: filepath.Join(run, "none.sock")}
		one := NewTalk(p, m, nobody)
		one.find = nil
		one.reach = func(_ *gossip.Engine, _ *pinned.Ledger, seat roster.Seat) []netip.AddrPort {
			return []netip.AddrPort{where[seat.Number]}
		}
		server, err := serve.Listen("127.0.0.1:0", serve.Config{
			Node: p.node, ClockSure: m.ClockSure, Machine: m, Records: one.Records(), Protocols: one.Protocols(),
		})
		must(t, err)
		where[number] = netip.MustParseAddrPort(server.Address().String())
		running.Go(func() { _ = server.Serve(ctx) })
		all = append(all, one)
	}
	for i, one := range all {
		running.Go(func() { one.Run(ctx, int(where[i+1].Port())) })
	}
	wait := func(what string, holds func(*gossip.Engine) bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			all := slices.DeleteFunc(slices.Clone(all), func(one *Talk) bool {
				now := one.session.Load()
				return now != nil && holds(now.engine)
			})
			if len(all) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within a minute", what)
			}
		}
	}
	for _, one := range all { // the operator brings record 1 to each
		if one.session.Load() != nil {
			t.Error("it talks before it has a seat")
		}
		taken, err := one.part.Ledger()
		must(t, err)
		must(t, taken.Take(1, f.Entries[0]))
		one.Look()
	}
	wait("all know all", func(e *gossip.Engine) bool {
		return len(e.Objects(notice.NodeKind)) == 3 && len(e.Objects(notice.StatusKind)) == 3 && len(e.Objects(notice.TLSKeyKind)) == 3
	})
	told := func(of int) (control.Seats, bool) { // what the service etcd of a node knows, and whether all others are in it
		seats, err := control.ReadSeats(all[of].part.run)
		whole := err == nil && len(seats.Seats) == 3
		for n, s := range seats.Seats {
			whole = whole && s.Number == n+1 && (s.TLSKey == all[n].part.node.Key() || n == of)
		}
		return seats, whole
	}
	for deadline, i := time.Now().Add(time.Minute), 0; i < len(all); time.Sleep(10 * time.Millisecond) {
		if seats, whole := told(i); whole {
			i++
		} else if time.Now().After(deadline) {
			t.Fatalf("the service etcd of n%d is told of %+v", i+1, seats)
		}
	}
	taken, err := all[1].part.Ledger()
	must(t, err)
	must(t, taken.Take(2, f.Entries[1]))
	all[1].Look()
	wait("the second record", func(e *gossip.Engine) bool { return e.Stats().Height == 2 })
	for number := 1; number <= 3; number++ {
		wait("the status at its height", func(e *gossip.Engine) bool {
			object, _ := e.Object(notice.StatusKind, keyOf(t, number))
			status, err := notice.OpenStatus(object)
			return err == nil && status.Height == 2 && len(status.Wrong) > 0 // there is no PID 1
		})
	}
	object, _ := all[0].session.Load().engine.Object(notice.NodeKind, keyOf(t, 2))
	record, err := notice.OpenNode(object)
	if err != nil || record.Name != "n2" || record.Board != "qemu-x86_64" || len(record.Slots) != 1 || record.Slots[0].Release != "1.0" {
		t.Errorf("the record of n2: %+v, %v", record, err)
	}
	end()
	// The agent of n1 starts anew, and reaches nobody yet. etcd knows all the while who is who.
	memory := filepath.Join(all[0].part.state, "kogge", "peers")
	remembered, err := os.ReadFile(memory)
	must(t, err)
	must(t, os.Remove(memory))
	alone(all[0])
	if seats, whole := told(0); !whole {
		t.Errorf("after the agent has started anew, the service etcd is told of %+v", seats)
	}
	// The node boots, where nobody is any more.
	must(t, os.Remove(filepath.Join(all[0].part.run, control.SeatsFile)))
	must(t, os.WriteFile(memory, remembered, 0o600))
	alone(all[0])
	if seats, whole := told(0); !whole {
		t.Errorf("after a boot, the service etcd is told of %+v", seats)
	}
}

// alone has the agent of a node start anew, and end after its first look.
func alone(before *Talk) {
	one := NewTalk(before.part, before.machine, nobody)
	one.find, one.reach = nil, func(*gossip.Engine, *pinned.Ledger, roster.Seat) []netip.AddrPort { return nil }
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { one.Run(ctx, 7443) })
	for one.session.Load() == nil {
		time.Sleep(time.Millisecond)
	}
	stop()
	running.Wait()
}

// TestSeats is the table of what the service etcd is told of a seat: by its own newest word, or as
// it was known before.
func TestSeats(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	r := f.Log.State().Roster // 1, 2 and 3 run etcd
	known := func(seat int, key string, number uint64) control.Seat {
		return control.Seat{Number: seat, Key: keyOf(t, seat).ID().String(), TLSKey: document.HashOf([]byte(key)).String(), TLSNumber: number}
	}
	foreign := known(1, "a", 5)
	foreign.Key = keyOf(t, 9).ID().String()
	word := func(seat int, key string, number uint64) signed.Envelope {
		e, err := signed.Seal(notice.TLSKeyKind, f.Log.State().Fleet(), ledgertest.Private(fmt.Sprintf("n%d", seat)), number, notice.TLSKey{Version: 1, Seat: seat, Key: document.HashOf([]byte(key))}.Encode())
		must(t, err)
		return e
	}
	for name, c := range map[string]struct {
		before control.Seat
		said   signed.Envelope
		listed []int
		want   control.Seat
	}{
		"nothing":                      {control.Seat{}, signed.Envelope{}, nil, control.Seat{}},
		"its word":                     {control.Seat{}, word(1, "a", 5), nil, known(1, "a", 5)},
		"nothing yet":                  {known(1, "a", 5), signed.Envelope{}, nil, known(1, "a", 5)},
		"a newer word":                 {known(1, "a", 5), word(1, "b", 6), nil, known(1, "b", 6)},
		"an older word":                {known(1, "a", 5), word(1, "b", 4), nil, known(1, "a", 5)},
		"another seat key":             {foreign, signed.Envelope{}, nil, control.Seat{}},
		"another seat key, a word":     {foreign, word(1, "b", 2), nil, known(1, "b", 2)},
		"it never ran etcd":            {control.Seat{}, word(4, "a", 5), nil, control.Seat{}},
		"it did, and may be needed":    {known(4, "a", 5), word(4, "a", 7), nil, known(4, "a", 7)},
		"etcd lists it":                {control.Seat{}, word(4, "a", 5), []int{4}, known(4, "a", 5)},
		"etcd lists it, and it is off": {known(4, "a", 5), signed.Envelope{}, []int{4}, known(4, "a", 5)},
		"it has no seat any more":      {known(9, "a", 5), word(9, "a", 6), []int{9}, control.Seat{}},
	} {
		object := func(kind string, by signed.Key) (signed.Envelope, bool) {
			return c.said, kind == c.said.Kind && by == c.said.By
		}
		var got control.Seat
		all := seatsOf(object, r, order.Standing{}, control.Seats{Seats: []control.Seat{c.before}}, c.listed)
		for _, s := range all.Seats {
			if s.TLSKey != "" {
				got = s
			}
		}
		if !reflect.DeepEqual(got, c.want) || len(all.Seats) < 3 {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestTalkWaits: what keeps a node from knowing its seat may be over later. It looks again, though
// nobody tells it to.
func TestTalkWaits(t *testing.T) {
	f := ledgertest.Founded(t, 1, 1)
	p := adopted(t, f)
	taken, err := p.Ledger()
	must(t, err)
	must(t, taken.Take(1, f.Entries[0]))
	file := filepath.Join(p.state, "identity", "seat.json")
	must(t, os.Mkdir(file, 0o700)) // which cannot be read
	synctest.Test(t, func(t *testing.T) {
		one := NewTalk(p, machine.Machine{Run: p.run, State: p.state, Control: filepath.Join(p.run, "none.sock")}, nobody)
		one.find = nil
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { one.Run(ctx, 7443) })
		time.Sleep(time.Hour)
		if one.session.Load() != nil {
			t.Error("it talks without a seat")
		}
		must(t, os.Remove(file))
		identitytest.Sit(t, p.state, 1)
		time.Sleep(15*time.Minute + time.Second)
		if one.session.Load() == nil {
			t.Error("it does not look again")
		}
		stop()
		running.Wait()
	})
}

func keyOf(t *testing.T, number int) signed.Key {
	t.Helper()
	return ledgertest.Key(t, fmt.Sprintf("n%d", number))
}

// TestSpoken calls faults by the same words for a while, though numbers in them change.
func TestSpoken(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	fault := func(why string) []notice.Fault { return []notice.Fault{{What: "STATE", Why: why}} }
	var s spoken
	for _, c := range []struct {
		after time.Duration
		now   []notice.Fault
		want  string
	}{{0, fault("9 MiB"), "9 MiB"}, {time.Minute, fault("8 MiB"), "9 MiB"}, {wordsLast, fault("7 MiB"), "7 MiB"}, {wordsLast + time.Minute, fault("6 MiB"), "7 MiB"}} {
		if got := s.same(c.now, now.Add(c.after)); got[0].Why != c.want {
			t.Errorf("after %s: %v", c.after, got)
		}
	}
	if got := s.same(nil, now.Add(wordsLast+2*time.Minute)); len(got) != 0 {
		t.Errorf("nothing is wrong any more: %v", got)
	}
	if got := faults(&apiv1.StatusResponse{
		Degraded: []*apiv1.Degraded{{What: "clock", Why: "w"}}, Services: []*apiv1.Service{{Name: "clock", Failing: true, LastExit: "exit status 1"}, {Name: "network"}},
	}); len(got) != 2 || got[1] != (notice.Fault{What: "service clock", Why: "exit status 1"}) {
		t.Errorf("%v", got)
	}
}
