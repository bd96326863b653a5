package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
)

// frozen is a record as the first release that voted writes it: written once, from the description of the
// format, and never changed with the code.
func frozen(number int64, body string) string {
	var b []byte
	for _, f := range []string{"kogge/journal/v1", strconv.FormatInt(number, 10), body} {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
	}
	sum := sha256.Sum256(b)
	return fmt.Sprintf("record %d %d %x\n%s", number, len(body), sum[:8], body)
}

// frozenRead is the bodies of the records as that release reads them.
func frozenRead(t *testing.T, raw []byte) (bodies []string) {
	t.Helper()
	rest, ok := strings.CutPrefix(string(raw), "kogge-journal 1\n")
	for rest = strings.TrimLeft(rest, "\n"); rest != "" && ok; rest = strings.TrimLeft(rest, "\n") {
		var number int64
		var size int
		var sum string
		if _, err := fmt.Sscanf(rest, "record %d %d %s\n", &number, &size, &sum); err != nil || number != int64(len(bodies)+1) {
			t.Fatalf("record %d: %.60q: %v", len(bodies)+1, rest, err)
		}
		_, body, _ := strings.Cut(rest, "\n")
		if len(body) < size || !strings.HasPrefix(rest, frozen(number, body[:size])) {
			t.Fatalf("record %d: %.60q", number, rest)
		}
		bodies, rest = append(bodies, body[:size]), body[size:]
	}
	if !ok {
		t.Fatalf("%.60q", raw)
	}
	return bodies
}

// frozenVote is the body with an own ballot, as that release writes it.
func frozenVote(kind, fleet string, height, round int64, value string) string {
	some := strings.Repeat("17", 32)
	return fmt.Sprintf(`{
  "version": 1,
  "ballot": {
    "kind": %q,
    "fleet": %q,
    "height": %d,
    "round": %d,
    "roster": %q,
    "value": %q,
    "tree": %q,
    "validRound": -1
  }
}
`, kind, fleet, height, round, some, value, some)
}

// TestReleases has two releases write to one journal by turns, as a node does that goes back and forth
// between its slots: each knows what the other has signed, and a note of the one that the other does
// not know stays.
func TestReleases(t *testing.T) {
	first, err := os.ReadFile("testdata/first.txt") // by the first release that voted: it never changes
	if err != nil {
		t.Fatal(err)
	}
	title := titled(t)
	name, fleet := folderName+"/"+title.ID.String(), title.Fleet.String()
	d := onDisk(map[string][]byte{name: first}, 1000)
	var want []string // what was voted for, by round
	for turn := range int64(12) {
		_, m, err := open(d, title)
		if err != nil || m.Damage != "" || m.Behind || m.Head.Height != 4 || m.Lock == nil || m.Abstain != 3 {
			t.Fatalf("turn %d: %+v, %v", turn, m, err)
		}
		if len(m.Own) != 2+len(want) {
			t.Fatalf("turn %d: %d ballots, not %d", turn, len(m.Own), 2+len(want))
		}
		for i, w := range m.Own[2:] {
			if w.Value.String() != want[i] || w.Round != int32(i)+1 {
				t.Errorf("turn %d: ballot %d is %+v, not for %s", turn, i, w, want[i])
			}
		}
		value := document.HashOf(fmt.Append(nil, turn))
		if turn%2 == 0 {
			j, _, err := open(d, title)
			if err != nil {
				t.Fatal(err)
			}
			w := m.Own[0]
			w.Round, w.Value = int32(len(want))+1, value
			w.Roster, w.Tree = document.Hash(bytes.Repeat([]byte{0x17}, 32)), document.Hash(bytes.Repeat([]byte{0x17}, 32))
			if err := j.Append(journal.Record{Ballot: &w}); err != nil {
				t.Fatal(err)
			}
		} else {
			raw, _ := d.ReadFile(name)
			bodies := frozenRead(t, raw)
			if !slices.Contains(bodies, frozenVote("prevote", fleet, 5, int64(len(want)), want[len(want)-1])) {
				t.Fatalf("turn %d: the first release does not read what this one has signed: %q", turn, bodies)
			}
			more := frozen(int64(len(bodies))+1, frozenVote("prevote", fleet, 5, int64(len(want))+1, value.String()))
			more += frozen(int64(len(bodies))+2, fmt.Sprintf("{\n  \"version\": 1,\n  \"note\": {\n    \"name\": \"later %d\",\n    \"body\": \"eA==\"\n  }\n}\n", turn))
			if err := d.Append(name, int64(len(raw)), []byte(more)); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, value.String())
	}
	_, m, err := open(d, title)
	if err != nil || len(m.Notes) != 6 || string(m.Notes["later 1"]) != "x" {
		t.Errorf("of the notes of the other release there are %v: %v", m.Notes, err)
	}
}
