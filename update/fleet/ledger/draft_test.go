package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
)

func ownerSigns(d ledger.Draft, i int) signed.Signature {
	return signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), ledger.FoundingBytes(d.Record))
}

// TestDraft has owners sign a founding one after the other, through files, until it is enough.
func TestDraft(t *testing.T) {
	f := ledgertest.Begun(t, 4)
	d, err := ledger.NewDraft(f.Genesis, f.Founding(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []int{3, 1, 3} {
		if d.Enough() && len(d.Signers()) < 2 {
			t.Fatalf("enough by %v", d.Signers())
		}
		l := ledger.New(f.Genesis)
		if err := l.Append(d.Entry()); (err == nil) != d.Enough() || err != nil && !errors.Is(err, ledger.ErrCertificate) {
			t.Errorf("signed by %v: %v", d.Signers(), err)
		}
		d = d.With(ownerSigns(d, by))
		e, err := ledger.ParseEntry(ledger.FormatEntry(1, d.Entry()), 1)
		if err != nil {
			t.Fatal(err)
		}
		if d, err = ledger.ParseDraft(f.Genesis, e); err != nil {
			t.Fatal(err)
		}
	}
	if !d.Enough() || !slices.Equal(d.Signers(), []int{1, 3}) || d.State.Height != 1 || d.State.Roster.Votes() != 4 {
		t.Errorf("%v, %+v", d.Signers(), d.State)
	}
	e := d.Entry()
	for name, part := range map[string]*[]byte{"record": &e.Record, "value": &e.Value, "certificate": &e.Certificate} {
		whole := *part
		for i := range whole {
			bent := bytes.Clone(whole)
			bent[i] ^= 1
			*part = bent
			if _, err := ledger.ParseDraft(f.Genesis, e); err == nil {
				t.Fatalf("%s: byte %d changed: taken", name, i)
			}
		}
		*part = whole
	}
	if _, err := ledger.ParseDraft(ledgertest.Begun(t, 4).Genesis, e); err == nil {
		t.Error("taken by another fleet")
	}
	g := ledgertest.Founded(t, 4, 2)
	if _, err := ledger.ParseDraft(g.Genesis, g.Entries[1]); err == nil {
		t.Error("record 2 is a founding")
	}
}
