package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// TestSeatPowerCut cuts the power at every write: the key that anybody has seen is the one
// that is there afterwards, with its journal.
func TestSeatPowerCut(t *testing.T) {
	for writes := range 2 {
		for _, lands := range []bool{false, true} {
			m := &memoryFiles{disk: make(map[string]string), left: writes, lands: lands}
			shown, err := openSeat(m)
			if err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			after := &memoryFiles{disk: maps.Clone(m.disk), left: 100}
			s, errAfter := openSeat(after)
			if errAfter != nil {
				t.Fatalf("writes=%d lands=%v: %v", writes, lands, errAfter)
			}
			if err == nil && (s.Key != shown.Key || s.Journal != shown.Journal) {
				t.Errorf("writes=%d lands=%v: another key than the one that was shown", writes, lands)
			}
			again, err := openSeat(after)
			if err != nil || again.Key != s.Key || again.Journal != s.Journal {
				t.Errorf("writes=%d lands=%v: another key at the next start: %v", writes, lands, err)
			}
		}
	}
}

// TestSeatDamaged replaces no file that it cannot read.
func TestSeatDamaged(t *testing.T) {
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	if _, err := openSeat(m); err != nil {
		t.Fatal(err)
	}
	good := m.disk[seatName]
	for _, bad := range []string{"", "{}", good[:len(good)/2], good + "\n", strings.Replace(good, `"journal": "`, `"journal": "00`, 1), `{"version": 2}`} {
		m.disk[seatName] = bad
		if s, err := openSeat(m); err == nil || m.disk[seatName] != bad {
			t.Errorf("%q: %v, %v; now %q", bad, s, err, m.disk[seatName])
		}
	}
}

// TestSeatSecret signs, and shows its key to nobody.
func TestSeatSecret(t *testing.T) {
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	s, err := openSeat(m)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Seal("kogge/test/v1", document.HashOf(nil), 1, []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := signed.Open(e.Bytes()); err != nil || got.By != s.Key {
		t.Errorf("%+v, %v", got, err)
	}
	seed := s.private.Seed()
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v %#v %x %s %q %d", s, s, s, s, s, s), string(e.Bytes())} {
		for _, secret := range []string{string(seed), hex.EncodeToString(seed), base64.StdEncoding.EncodeToString(seed), fmt.Sprint([]byte(seed))[1:20]} {
			if bytes.Contains([]byte(text), []byte(secret)) {
				t.Errorf("the key is in %q", text)
			}
		}
	}
}
