package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/gossip"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	"kogge.example/agent/serve/records"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// sits gives a node the key of a seat of a test's fleet.
func sits(t *testing.T, p *part, number int) {
	t.Helper()
	raw, err := document.Encode(struct {
		Version int       `json:"version"`
		Key     []byte    `json:"key"`
		Journal roster.ID `json:"journal"`
	}{1, ledgertest.Private(fmt.Sprintf("n%d", number)).Seed(), roster.ID{byte(number)}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(p.state, "identity", "seat.json"), raw, 0o600))
}

// TestTalk has three nodes, each behind the port of its API, be founded while they run: each
// hears from the others what they are and how, and a record that one takes comes to all.
func TestTalk(t *testing.T) {
	f := ledgertest.Founded(t, 3, 2)
	where := make(map[int]netip.AddrPort)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var all []*talk
	for number := 1; number <= 3; number++ {
		p, run := adopted(t, f), t.TempDir()
		sits(t, p, number)
		must(t, control.Boot{Slot: "A", Version: "1.0", Board: "qemu-x86_64", RootHash: document.HashOf(nil).String()}.Write(run))
		m := machine.Machine{Run: run, State: p.state, Control: filepath.Join(run, "none.sock")}
		one := newTalk(p, m)
		one.reach = func(_ *gossip.Engine, _ *pinned.Ledger, seat roster.Seat) []netip.AddrPort {
			return []netip.AddrPort{where[seat.Number]}
		}
		server, err := serve.Listen("127.0.0.1:0", serve.Config{
			Node: p.node, ClockSure: m.ClockSure, Machine: m, Records: records.Records{Open: p.whole, Changed: one.look},
			Protocols: map[string]func(*tls.Conn){gossip.Protocol: one.serve},
		})
		must(t, err)
		where[number] = netip.MustParseAddrPort(server.Address().String())
		running.Go(func() { _ = server.Serve(ctx) })
		all = append(all, one)
	}
	for i, one := range all {
		running.Go(func() { one.run(ctx, int(where[i+1].Port())) })
	}
	wait := func(what string, holds func(*gossip.Engine) bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			all := slices.DeleteFunc(slices.Clone(all), func(one *talk) bool {
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
		taken, err := one.part.ledger()
		must(t, err)
		must(t, taken.Take(1, f.Entries[0]))
		one.look()
	}
	wait("all know all", func(e *gossip.Engine) bool {
		return len(e.Objects(notice.NodeKind)) == 3 && len(e.Objects(notice.StatusKind)) == 3 && len(e.Objects(notice.TLSKeyKind)) == 3
	})
	for deadline, i := time.Now().Add(time.Minute), 0; i < len(all); time.Sleep(10 * time.Millisecond) {
		seats, err := control.ReadSeats(all[i].part.run)
		whole := err == nil && len(seats.Seats) == 3
		for n, s := range seats.Seats {
			whole = whole && s.Number == n+1 && s.TLSKey == all[n].part.node.Key()
		}
		if whole {
			i++
		} else if time.Now().After(deadline) {
			t.Fatalf("the service etcd of n%d is told of %+v, %v", i+1, seats, err)
		}
	}
	taken, err := all[1].part.ledger()
	must(t, err)
	must(t, taken.Take(2, f.Entries[1]))
	all[1].look()
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
}

func keyOf(t *testing.T, number int) signed.Key {
	key, err := signed.KeyOf(ledgertest.Private(fmt.Sprintf("n%d", number)).Public().(ed25519.PublicKey))
	must(t, err)
	return key
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
