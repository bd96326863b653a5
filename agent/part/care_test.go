package part

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"kogge.example/agent/etcd"
	"kogge.example/agent/events"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/machine"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
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
	r := restorer{part: p, dir: dir, happened: ring.Add, restart: func(context.Context) error { restarts++; return nil }}
	snapshot := []byte("etcd's pages")
	leave := func(change func(*ledger.Restore), owners int) []byte {
		l := ledger.Restore{Version: 1, Node: keyOf(t, 2), Snapshot: document.HashOf(snapshot), Generation: 1, Height: 2}
		if change != nil {
			change(&l)
		}
		for i := 1; i <= owners; i++ {
			l.Owners = append(l.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), l.Bytes(s.Fleet())))
		}
		return l.Encode()
	}
	order := filepath.Join(dir, "restore.db")
	if err := r.restore(t.Context(), "ada", leave(nil, 2), bytes.NewReader(snapshot)); err == nil {
		t.Error("the service etcd never ran")
	}
	must(t, control.Etcd{Seat: 2, Generation: 1, Running: true}.Write(p.run))
	own := func(l *ledger.Restore) { l.Snapshot = document.Hash{} }
	for _, c := range []struct {
		what     string
		permit   []byte
		snapshot []byte
	}{
		{"nobody has signed", leave(nil, 0), snapshot}, {"one of two owner keys", leave(nil, 1), snapshot}, {"another snapshot", leave(nil, 2), []byte("other pages")},
		{"an older height", leave(func(l *ledger.Restore) { l.Height = 1 }, 2), snapshot}, {"another node", leave(func(l *ledger.Restore) { l.Node = keyOf(t, 3) }, 2), snapshot},
		{"used before", leave(func(l *ledger.Restore) { l.Generation = 0 }, 2), snapshot}, {"junk", []byte("junk"), snapshot},
		{"a leave for the node's own data", leave(own, 2), snapshot}, {"a leave for a snapshot", leave(nil, 2), nil},
	} {
		err := error(nil)
		if c.snapshot == nil {
			err = r.restore(t.Context(), "ada", c.permit, nil)
		} else {
			err = r.restore(t.Context(), "ada", c.permit, bytes.NewReader(c.snapshot))
		}
		if !errors.Is(err, ledger.ErrPermit) {
			t.Errorf("%s: %v", c.what, err)
		}
		if _, err := os.Stat(order); err == nil || restarts > 0 {
			t.Fatalf("%s: etcd is to begin anew", c.what)
		}
	}
	must(t, r.restore(t.Context(), "ada", leave(nil, 2), bytes.NewReader(snapshot)))
	if got, err := os.ReadFile(order); err != nil || !bytes.Equal(got, snapshot) || restarts != 1 {
		t.Errorf("%q, %v, %d restarts", got, err, restarts)
	}
	must(t, r.restore(t.Context(), "ada", leave(own, 2), nil))
	if got, err := os.ReadFile(order); err != nil || len(got) != 0 || restarts != 2 {
		t.Errorf("%q, %v, %d restarts", got, err, restarts)
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
	if d := NewTalk(p, machine.Machine{}, ring.Add).Care(nil).Probe(); d.Writes == 0 || d.Most != etcd.Slowest {
		t.Errorf("%+v", d)
	}
}
