package main

import (
	"bufio"
	"encoding/json"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"kogge.example/agent/api"
	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
)

// TestWitness: the clock service hears what has passed by the certificates of the node and
// of its callers, each once, though time servers may have said as much.
func TestWitness(t *testing.T) {
	now := time.Now()
	ring, err := keyring.Create("hanse", "ada", now.AddDate(-1, 0, 0))
	if err == nil {
		err = ring.Save(filepath.Join(t.TempDir(), "hanse"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	node, err := identity.OpenNode(filepath.Join(dir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := ring.NewToken(keyring.Terms{}, now)
	if err == nil {
		err = node.Join(&fleet.JoinFile{Genesis: ring.Genesis, Token: token.Token})
	}
	nonce := make([]byte, api.NonceSize)
	csr, mac, err2 := node.Answer(nonce)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	der, err := ring.AdoptNode(csr, nonce, mac, "n1", "", now)
	if err == nil {
		err = node.Adopt(der)
	}
	if err == nil {
		err = control.Clock{Floor: now, Synced: true}.Write(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "clock.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	heard, broken, believed := make(chan time.Time), make(chan bool, 1), now.AddDate(0, 9, 0)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadSlice('\n')
			said, err := control.ParseSetClock(line)
			select {
			case <-broken: // the service ends before it answers
				conn.Close()
				heard <- said.Passed
				continue
			default:
			}
			answer := control.ClockSet{}
			switch {
			case err != nil:
			case said.Passed.After(believed):
				answer.Error = "it does not count"
			default:
				err = control.Clock{Floor: said.Passed}.Write(dir)
			}
			if err != nil {
				t.Error(err)
			}
			_ = json.NewEncoder(conn).Encode(answer)
			conn.Close()
			heard <- said.Passed
		}
	}()
	w := newWitness(node, machine.Machine{Run: dir})
	defer alongside(t.Context(), w.tell)()
	if at := <-heard; !at.Equal(node.Certificate().Leaf.NotBefore) {
		t.Errorf("heard %s, the node's certificate is of %s", at, node.Certificate().Leaf.NotBefore)
	}
	next := now.Add(time.Hour).Truncate(time.Second)
	for _, at := range []time.Time{now.AddDate(-2, 0, 0), next, now.AddDate(0, -1, 0)} {
		w.see(at)
	}
	if at := <-heard; !at.Equal(next) {
		t.Errorf("heard %s, want %s", at, next)
	}
	// One that had no answer is told again.
	next = next.Add(time.Minute)
	broken <- true
	w.see(next)
	for range 2 {
		if at := <-heard; !at.Equal(next) {
			t.Errorf("heard %s, want %s", at, next)
		}
		w.again() // as it does every minute
	}
	// One that is not believed does not hide those that begin before it.
	wrong, right := now.AddDate(2, 0, 0).Truncate(time.Second), next.Add(time.Hour)
	w.see(wrong)
	if at := <-heard; !at.Equal(wrong) {
		t.Errorf("heard %s, want %s", at, wrong)
	}
	hears := func(want time.Time, others ...time.Time) {
		t.Helper()
		for {
			w.see(right)
			w.see(wrong)
			select {
			case at := <-heard:
				if at.Equal(want) {
					return
				}
				if !slices.ContainsFunc(others, at.Equal) {
					t.Fatalf("heard %s, want %s", at, want)
				}
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	hears(right)
	// By what is known now it may be another matter.
	hears(wrong)
	right = right.Add(time.Hour)
	hears(right, wrong)
	hears(wrong)
	w.again()
	select {
	case at := <-heard:
		t.Errorf("hears of %s again", at)
	case <-time.After(50 * time.Millisecond):
	}
	if err := (control.Clock{Floor: now.AddDate(1, 6, 0), Synced: true}).Write(dir); err != nil {
		t.Fatal(err)
	}
	hears(wrong)
}
