package gateway

import (
	"testing"

	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
)

// TestListed: a status that is written anew with another lease while it is listed is told, since
// that it was is no news to anybody. What says something else is told as news, or does not count.
func TestListed(t *testing.T) {
	key := ledgertest.Key(t, "n1")
	place := board.Place{Topic: board.Nodes, Node: key.ID(), Kind: notice.StatusKind}
	seal := func(name string, body string) signed.Envelope {
		e, err := signed.Seal(notice.StatusKind, document.Hash{1}, ledgertest.Private(name), 7, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	is, other := seal("n1", `{"version":1}`), seal("n1", `{"version":2}`)
	foreign := seal("n2", `{"version":1}`)
	g := &Gateway{index: map[string]lying{place.Key(): {revision: 9, lease: 2, says: sumOf(is.Body), genuine: true}}}
	for _, c := range []struct {
		name string
		item store.Item
		want int64 // revision; 0: it is not told
	}{
		{"as it is", store.Item{Value: is.Bytes(), Revision: 9, Lease: 2}, 9},
		{"as it was", store.Item{Value: is.Bytes(), Revision: 8, Lease: 1}, 9},
		{"as it will be", store.Item{Value: is.Bytes(), Revision: 10, Lease: 3}, 10},
		{"without a lease", store.Item{Value: is.Bytes(), Revision: 8}, 0},
		{"other words", store.Item{Value: other.Bytes(), Revision: 10, Lease: 3}, 0},
		{"another seat's", store.Item{Value: foreign.Bytes(), Revision: 10, Lease: 3}, 0},
		{"no object", store.Item{Value: []byte("x"), Revision: 10, Lease: 3}, 0},
	} {
		c.item.Key = place.Key()
		got := g.genuine([]store.Item{c.item})
		if c.want == 0 && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0].Revision != c.want || got[0].State != wire.Leased {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
