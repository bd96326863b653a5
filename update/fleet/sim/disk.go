package sim

import (
	"crypto/ed25519"
	"testing"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// keyOf is the key of a machine, by its name.
func keyOf(name string) ed25519.PrivateKey { return ledgertest.Private(name) }

func publicKey(t testing.TB, key ed25519.PrivateKey) signed.Key {
	return ledgertest.Must[signed.Key](t)(signed.KeyOf(key.Public().(ed25519.PublicKey)))
}

// disk is the journal of a machine: bytes, and behind them records that are spelled out when somebody reads.
type disk struct {
	raw     []byte
	next    int64 // number of the first of records
	records []journal.Record
	torn    []byte
	written int
	glass   proposal.Glass
	drafts  []*object // of values that the machine has voted for: without their bytes a decision is worth nothing
}

func (d *disk) begin(m *machine) {
	d.raw = journal.Begun(journal.Title{ID: roster.ID{byte(m.index), byte(m.index >> 8), 1}, Fleet: m.page.state.Fleet(), Key: m.pub})
	d.next = 2
}

func (d *disk) append(r journal.Record) {
	d.records = append(d.records, r)
	d.written++
}

// bytes are what is on the disk.
func (d *disk) bytes() []byte {
	raw := d.raw[:len(d.raw):len(d.raw)]
	for i, r := range d.records {
		raw = append(raw, journal.Append(d.next+int64(i), r)...)
	}
	return append(raw, d.torn...)
}

// replay reads the journal as a boot does, and cuts off what is torn. Now and then it is compacted, after
// which it has to say the same.
func (m *machine) replay() journal.Memory {
	d := &m.disk
	raw := d.bytes()
	memory, err := journal.Replay(raw)
	if err != nil || memory.Damage != "" {
		m.w.wrong(Damaged, "the journal of %s: %v %s", m.name, err, memory.Damage)
		return memory
	}
	d.raw, d.next, d.records, d.torn = raw[:memory.Size], memory.Next, nil, nil
	if m.w.chance(0.3) {
		short := memory.Compact()
		again, err := journal.Replay(short)
		if err != nil || !same(memory, again) {
			m.w.wrong(Damaged, "the journal of %s says something else when it is compacted: %v", m.name, err)
		}
		d.raw, d.next, memory = short, again.Next, again
	}
	return memory
}

func same(a, b journal.Memory) bool {
	return len(a.Own) == len(b.Own) && (len(a.Own) == 0 || a.Own[len(a.Own)-1] == b.Own[len(b.Own)-1]) && (a.Lock == nil) == (b.Lock == nil) &&
		a.Head == b.Head && a.Abstain == b.Abstain && a.Behind == b.Behind
}

// step is what an honest seat signs once.
type step struct {
	height int64
	round  int32
	kind   ballot.Kind
}
