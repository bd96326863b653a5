package part

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/agent/etcd"
	"kogge.example/agent/events"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/machine"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

// TestRestore has etcd begin anew only as the owner permits: this node, this snapshot, once, at the
// ledger's height. What the ledger has is not touched.
func TestRestore(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	p := adopted(t, f)
	identitytest.Sit(t, p.state, 2)
	taken, err := p.Ledger()
	must(t, err)
	for i, e := range f.Entries {
		must(t, taken.Take(int64(i+1), e))
	}
	s, dir := f.Log.State(), filepath.Join(p.state, "etcd")
	must(t, os.MkdirAll(dir, 0o700))
	restarts := 0
	var ring events.Ring
	untold := errors.New("nobody can be told")
	var told []uint64 // the numbers of the orders
	r := restorer{part: p, dir: dir, happened: ring.Add, restart: func(context.Context) error { restarts++; return nil }}
	r.give = func(e signed.Envelope) error {
		if r.part != p {
			t.Error("another node's order is passed on")
		}
		if told = append(told, e.Sequence); len(told) == 1 {
			return untold
		}
		_, err := p.book().Keep(s, e)
		p.book().Look(s, time.Now())
		return err
	}
	ada := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	snapshot := []byte("etcd's pages")
	leave := func(change func(*ledger.Restore), owners int) signed.Envelope {
		l := ledger.Restore{Version: 1, Node: keyOf(t, 2), Snapshot: document.HashOf(snapshot), Generation: 1, Height: 2}
		if change != nil {
			change(&l)
		}
		for i := 1; i <= owners; i++ {
			l.Owners = append(l.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), l.Bytes(s.Fleet())))
		}
		seat, _ := s.Roster.ByKey(l.Node)
		return ledgertest.Must[signed.Envelope](t)(order.Seal(s.Fleet(), ada, uint64(l.Generation)+1, order.Restoring{Seat: seat.Number, Key: l.Node, Leave: l.Encode()}))
	}
	placed := filepath.Join(dir, "restore.db")
	if err := r.restore(t.Context(), "ada", leave(nil, 2), bytes.NewReader(snapshot)); err == nil {
		t.Error("the service etcd never ran")
	}
	must(t, control.Etcd{Seat: 2, Generation: 1, Running: true}.Write(p.run))
	own := func(l *ledger.Restore) { l.Snapshot = document.Hash{} }
	for _, c := range []struct {
		what     string
		brought  signed.Envelope
		snapshot []byte
	}{
		{"nobody has signed", leave(nil, 0), snapshot}, {"one of two owner keys", leave(nil, 1), snapshot}, {"another snapshot", leave(nil, 2), []byte("other pages")},
		{"an older height", leave(func(l *ledger.Restore) { l.Height = 1 }, 2), snapshot}, {"another node", leave(func(l *ledger.Restore) { l.Node = keyOf(t, 3) }, 2), snapshot},
		{"used before", leave(func(l *ledger.Restore) { l.Generation = 0 }, 2), snapshot}, {"junk", ledgertest.Must[signed.Envelope](t)(signed.SealByOperator(order.RestoringKind, s.Fleet(), ada, 2, []byte("junk"))), snapshot},
		{"under another number", ledgertest.Must[signed.Envelope](t)(signed.SealByOperator(order.RestoringKind, s.Fleet(), ada, 9, leave(nil, 2).Body)), snapshot},
		{"a leave for the node's own data", leave(own, 2), snapshot}, {"a leave for a snapshot", leave(nil, 2), nil},
	} {
		err := error(nil)
		if c.snapshot == nil {
			err = r.restore(t.Context(), "ada", c.brought, nil)
		} else {
			err = r.restore(t.Context(), "ada", c.brought, bytes.NewReader(c.snapshot))
		}
		if !errors.Is(err, ledger.ErrPermit) && !errors.Is(err, order.ErrOrder) {
			t.Errorf("%s: %v", c.what, err)
		}
		if _, err := os.Stat(placed); err == nil || restarts > 0 {
			t.Fatalf("%s: etcd is to begin anew", c.what)
		}
	}
	if len(told) != 0 {
		t.Errorf("told of %d", told)
	}
	if err := r.restore(t.Context(), "ada", leave(nil, 2), bytes.NewReader(snapshot)); !errors.Is(err, untold) {
		t.Errorf("nobody can be told: %v", err)
	}
	if _, err := os.Stat(placed); err == nil || restarts > 0 {
		t.Fatal("nobody was told, and etcd is to begin anew")
	}
	gone, cancel := context.WithCancel(t.Context())
	r.restart = func(ctx context.Context) error {
		if cancel(); ctx.Err() != nil { // who brought the order has gone meanwhile
			t.Error("it ends with the call")
		}
		restarts++
		return nil
	}
	must(t, r.restore(gone, "ada", leave(nil, 2), bytes.NewReader(snapshot)))
	if got, err := os.ReadFile(placed); err != nil || !bytes.Equal(got, snapshot) || restarts != 1 {
		t.Errorf("%q, %v, %d restarts", got, err, restarts)
	}
	// What was ordered may run elsewhere already: the next one comes above it.
	if err := r.restore(t.Context(), "ada", leave(own, 2), nil); !errors.Is(err, ledger.ErrPermit) {
		t.Errorf("the generation that was ordered: %v", err)
	}
	elsewhere := leave(func(l *ledger.Restore) { l.Node, l.Generation = keyOf(t, 3), 6 }, 2)
	if _, err := p.book().Keep(s, elsewhere); err != nil || p.book().Look(s, time.Now()).Generation != 7 {
		t.Error(err)
	}
	above := func(generation int64) signed.Envelope {
		return leave(func(l *ledger.Restore) { own(l); l.Generation = generation }, 2)
	}
	if err := r.restore(t.Context(), "ada", above(6), nil); !errors.Is(err, ledger.ErrPermit) {
		t.Errorf("a generation that another node begins: %v", err)
	}
	must(t, r.restore(t.Context(), "ada", above(7), nil))
	if got, err := os.ReadFile(placed); err != nil || len(got) != 0 || restarts != 2 {
		t.Errorf("%q, %v, %d restarts", got, err, restarts)
	}
	if fmt.Sprint(told) != "[2 2 8]" {
		t.Errorf("told of %d", told)
	}
	if taken.State().Height != 2 || taken.Problem() != nil {
		t.Errorf("the ledger: height %d, %v", taken.State().Height, taken.Problem())
	}
	if all, _, _ := ring.After(0); len(all) != 2 || all[0].By != "ada" {
		t.Errorf("%v", all)
	}
	// A seat that the roster does not have run etcd.
	p = adopted(t, f)
	identitytest.Sit(t, p.state, 4)
	taken, err = p.Ledger()
	must(t, err)
	for i, e := range f.Entries {
		must(t, taken.Take(int64(i+1), e))
	}
	must(t, control.Etcd{Seat: 4, Generation: 1}.Write(p.run))
	r.part = p
	if err := r.restore(t.Context(), "ada", leave(func(l *ledger.Restore) { l.Node = keyOf(t, 4) }, 2), bytes.NewReader(snapshot)); err == nil || errors.Is(err, ledger.ErrPermit) {
		t.Errorf("no member: %v", err)
	}
	if d := NewTalk(p, machine.Machine{}, ring.Add).Care(nil).Probe(); d.Writes == 0 || d.Most != etcd.Slowest(false) {
		t.Errorf("%+v", d)
	}
}
