package keyring

import (
	"errors"
	"os"
	"slices"
	"testing"

	"kogge.example/update/fleet/document"
)

// TestFirst: a folder signs one record 1, whatever comes back from where; the next only in the
// place of one that is named, which is never forgotten.
func TestFirst(t *testing.T) {
	k := savedFleet(t, "dev")
	one, two, three := document.HashOf([]byte("1")), document.HashOf([]byte("2")), document.HashOf([]byte("3"))
	var none document.Hash
	if f, err := k.First(); err != nil || !f.Record.IsZero() {
		t.Fatalf("a new folder: %+v, %v", f, err)
	}
	for i, c := range []struct {
		record  document.Hash
		owners  []int
		instead document.Hash
		err     error
		counts  document.Hash
		by      []int
	}{
		{one, []int{1}, none, nil, one, []int{1}},
		{one, []int{3, 1}, none, nil, one, []int{1, 3}},
		{two, []int{1}, none, ErrOtherFirst, one, []int{1, 3}},
		{two, []int{1}, three, ErrOtherFirst, one, []int{1, 3}},
		{two, []int{1}, two, ErrOtherFirst, one, []int{1, 3}},
		{two, []int{2}, one, nil, two, []int{2}},
		{one, nil, none, ErrOtherFirst, two, []int{2}},
		{two, nil, one, nil, two, []int{2}},
		{one, nil, two, nil, one, []int{1, 3}},
	} {
		if err := k.NoteFirst(c.record, c.owners, c.instead, today); !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%d: %v", i, err)
		}
		if f, err := k.First(); err != nil || f.Record != c.counts || !slices.Equal(f.Owners, c.by) || !f.Noted.Equal(today) {
			t.Errorf("%d: %+v, %v", i, f, err)
		}
	}
	if all, err := firstList.all(k); err != nil || len(all) != 2 || all[1].GivenUp == nil {
		t.Errorf("%+v, %v", all, err)
	}
	for _, bad := range []string{"", "{", `{"version":2,"firsts":[]}`, `{"version":1,"firsts":[{}]}`,
		`{"version":1,"firsts":[{"record":"` + one.String() + `"},{"record":"` + two.String() + `"}]}`} {
		if err := os.WriteFile(k.path(firstsName), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.NoteFirst(three, []int{1}, none, today); err == nil {
			t.Errorf("%s: what it says is not known, and it is signed", bad)
		}
	}
}

func FuzzParseFirsts(f *testing.F) {
	f.Add([]byte(`{"version":1,"firsts":[{"record":"` + document.HashOf(nil).String() + `","owners":[1],"noted":"2026-11-30T07:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if all, err := parseFirsts(raw); err == nil {
			if _, err := document.Encode(firstList.file(all)); err != nil {
				t.Error(err)
			}
		}
	})
}
