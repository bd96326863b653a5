package enrol

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// TestSlow: a node that is slow has the time that the ledger of an old fleet takes, as long as it goes
// on; one that takes nothing is gone soon.
func TestSlow(t *testing.T) {
	m, b, state := member0(t)
	admin := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	spki := ledgertest.Must[[]byte](t)(x509.MarshalPKIXPublicKey(&admin.PublicKey))
	b.Fleet.Take(t, b.Decided(t, ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{{Name: "cleo", Role: fleet.RoleAdmin, Key: document.HashOf(spki)}}}}, 3))
	for range 20 {
		b.Fleet.Take(t, b.Decided(t, b.Operators(t, "dora"), 3))
	}
	record := ledgertest.Must[token.Paper](t)(token.Issue(b.State().Fleet(), token.Record{
		Version: 1, Key: ledgertest.Must[signed.Key](t)(token.KeyOf(fleet.NewToken())), Count: 1, Height: 1, Root: b.State().Tree,
		Expires: time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC),
	}, admin))
	for _, c := range []struct {
		pause time.Duration // before each answer is taken
		whole bool
		least time.Duration // that it lasts
		most  time.Duration
	}{{15 * time.Second, true, 5 * time.Minute, wholeLimit}, {25 * time.Second, false, 20 * time.Second, time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			began, over := time.Now(), make(chan error, 1)
			go func() {
				err := m.attend(&wire{here, state, bufio.NewReader(here)}, func() { here.Close() }, func() {})
				here.Close()
				over <- err
			}()
			w := &wire{there, state, bufio.NewReader(there)}
			if err := w.send(sayRecord, record.Bytes()); err != nil {
				t.Fatal(err)
			}
			_, _, err := w.answer(isWord)
			if err == nil {
				err = w.send(askLedger, []byte{1})
			}
			got := 0
			for err == nil {
				time.Sleep(c.pause)
				var kind byte
				if kind, _, err = w.answer(isEntry, isEnd); err == nil && kind == isEnd {
					break
				}
				got++
			}
			there.Close()
			left := <-over
			if lasted := time.Since(began); c.whole != (err == nil && got == len(b.Entries)) || lasted < c.least || lasted > c.most || !errors.Is(left, errEnded) {
				t.Errorf("pauses of %s: %d of %d records in %s, %v; the member: %v", c.pause, got, len(b.Entries), lasted, err, left)
			}
		})
	}
}
