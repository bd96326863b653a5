package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/agent/identity"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// TestOpen votes on real files: one voter at a time, and what one has noted the next one reads.
func TestOpen(t *testing.T) {
	_, state := identitytest.Open(t)
	seat := ledgertest.Must[*identity.Seat](t)(identity.OpenSeat(filepath.Join(state, "identity")))
	fleet := document.HashOf([]byte("fleet"))
	j, m, err := Open(state, fleet, seat)
	if err != nil || m.Title != (journal.Title{ID: seat.Journal, Fleet: fleet, Key: seat.Key}) {
		t.Fatalf("%+v, %v", m, err)
	}
	if _, _, err := Open(state, fleet, seat); !errors.Is(err, ErrBusy) {
		t.Errorf("a second voter: %v", err)
	}
	for height := int64(1); height < 200; height++ { // it is written anew now and then
		if err := j.Append(journal.Record{Abstain: height}); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(state, folderName, seat.Journal.String())
	if info, err := os.Stat(name); err != nil || info.Size()%block != 0 || info.Size() > shortest || info.Mode() != 0o600 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := errors.Join(j.Close(), j.Close()); err != nil {
		t.Error(err)
	}
	if err := j.Append(journal.Record{Abstain: 300}); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("appended to a closed one: %v", err)
	}
	if j, m, err = Open(state, fleet, seat); err != nil || m.Abstain != 199 || m.Next != 3 {
		t.Fatalf("%+v, %v", m, err)
	}
	// Somebody else has written to it: then it is not known what it says.
	f := ledgertest.Must[*os.File](t)(os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0))
	if _, err := f.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(journal.Record{Abstain: 200}); err == nil || !strings.Contains(err.Error(), "somebody has changed it") {
		t.Errorf("appended to a file of another size: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	// It is damaged, and then gone.
	raw := ledgertest.Must[[]byte](t)(os.ReadFile(name))
	raw[strings.Index(string(raw), `"abstain"`)] = '?'
	raw = append(raw, journal.Append(3, journal.Record{Behind: true})...)
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if j, m, err = Open(state, fleet, seat); err != nil || m.Damage == "" || !m.Behind {
		t.Fatalf("%+v, %v", m, err)
	}
	if kept, err := os.ReadFile(name + ".damaged"); err != nil || string(kept) != string(raw) {
		t.Errorf("the damaged one is not kept: %v", err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(journal.Record{Abstain: 200}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("appended to nothing: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if j, _, err := Open(state, fleet, seat); !errors.Is(err, ErrLost) || j != nil {
			t.Errorf("it is gone: %v", err)
		}
	}
	// A folder in the place of the file: the disk does not give it, and may another time.
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(state, fleet, seat); err == nil || errors.Is(err, ErrLost) {
		t.Errorf("it cannot be read: %v", err)
	}
}
