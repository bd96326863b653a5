package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// TestPadded has a hostile chair put forward what is good, with as many of its own opinions as a certificate
// cannot hold. If voters took it, the fleet would decide what no ledger can take, and nothing ever after.
func TestPadded(t *testing.T) {
	w := ledgertest.Founded(t, 4, 1)
	why := strings.Repeat("<", 200) // six bytes each in a document
	for opinions, good := range map[int]bool{40: true, 110: false, 250: false} {
		v, evidence := w.Proposed(t, w.Operators(t, "carol"))
		id := proposal.ID(ledgertest.Must[signed.Envelope](t)(signed.Parse(evidence[0])))
		for i := range opinions {
			o := proposal.Opinion{Proposal: id, Height: 1, Why: []string{why, fmt.Sprint(i) + why[:150]}}
			evidence = append(evidence, ledgertest.Must[signed.Envelope](t)(proposal.SealOpinion(w.Log.State().Fleet(), ledgertest.Private("n4"), uint64(i), o)).Bytes())
		}
		v = v.Resting(evidence)
		judged := w.Log.State().Judge(v, evidence)
		r := ledgertest.Must[ledger.Record](t)(w.Log.State().Next(v))
		taken := w.Log.Clone().Append(w.Proved(r, v, 4, evidence...))
		if (judged == nil) != good || (taken == nil) != good || judged != nil && !errors.Is(judged, ledger.ErrValue) {
			t.Errorf("%d opinions: a voter says %v, the ledger %v", opinions, judged, taken)
		}
	}
}

// TestRoom has the signatures of as many seats as there may be, and as much evidence as there may be, fit into
// one certificate.
func TestRoom(t *testing.T) {
	var c ledger.Certificate
	for i := range roster.MaxVotes {
		c.Seats = append(c.Seats, signed.Signature{By: 1<<30 - roster.MaxVotes + i, Signature: make([]byte, 64)})
	}
	c.Round = 1<<31 - 1
	for size := ledger.MaxEvidenceBytes; size > 0; size -= 8192 {
		c.Evidence = append(c.Evidence, bytes.Repeat([]byte{byte(size)}, (min(size, 8192)-8)/4*3))
	}
	if n := ledger.EvidenceBytes(c.Evidence); n > ledger.MaxEvidenceBytes || n < ledger.MaxEvidenceBytes-100 {
		t.Fatalf("%d bytes of evidence", n)
	}
	if _, err := ledger.ParseCertificate(c.Encode()); err != nil {
		t.Error(err)
	}
}
