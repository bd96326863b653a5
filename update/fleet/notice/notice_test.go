package notice_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// node is a record with all fields.
func node() notice.Node {
	root := document.HashOf([]byte("root of slot A"))
	return notice.Node{
		Version: 1, Name: "n1", Arch: "arm64", Board: "qemu-arm64", Model: "QEMU Virtual Machine", Kernel: "6.12.118+deb13",
		Addresses: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7443"), netip.MustParseAddrPort("[2001:db8::1]:7443")},
		Slots:     []notice.Slot{{Name: "A", Release: "1.0", Root: root, Running: true, Boot: "good"}, {Name: "B"}},
		Capacity:  notice.Capacity{CPUs: 4, Memory: 1 << 30, Disk: 8 << 30},
		Measured:  notice.Labels{"disk": "emmc"},
		// An ECDSA signature is another one each time: this one was made once, and is not checked.
		Attested: &notice.Attestation{Labels: notice.Labels{"owner": "ada", "region": "eu"}, Issuer: []byte("a key"), Signature: []byte("a signature")},
	}
}

func status() notice.Status {
	return notice.Status{
		Version: 1, Height: 7, Head: document.HashOf([]byte("record 7")),
		Deeds: notice.Deeds{Size: 3, Root: document.HashOf([]byte("deeds"))},
		Wrong: []notice.Fault{{"clock", "no time server answers"}},
	}
}

func tlsKey() notice.TLSKey {
	return notice.TLSKey{Version: 1, Seat: 1, Key: document.HashOf([]byte("spki"))}
}

func wrapKey() notice.WrapKey {
	return notice.WrapKey{Version: 1, Seat: 1, Key: bytes.Repeat([]byte{7}, 32), Holds: document.HashOf([]byte("CA"))}
}

// caKey is a wrapped key for as many seats as there can be.
func caKey() notice.CAKey {
	k := notice.CAKey{Version: 1, CA: document.HashOf([]byte("CA"))}
	for seat := 1; seat <= notice.MaxWrapped; seat++ {
		k.For = append(k.For, notice.WrappedFor{Seat: seat + 16380, Sealed: bytes.Repeat([]byte{byte(seat)}, 80)})
	}
	return k
}

// TestGolden holds the bytes of each document that a fleet exchanges: what was written once is
// read for ever.
func TestGolden(t *testing.T) {
	for name, body := range map[string][]byte{"node-v1.json": node().Encode(), "status-v1.json": status().Encode(), "tls-key-v1.json": tlsKey().Encode(),
		"wrap-key-v1.json": wrapKey().Encode(), "ca-key-v1.json": caKey().Encode()} {
		golden.Compare(t, name, string(body))
	}
	if n, err := notice.ParseNode(node().Encode()); err != nil || n.Slots[0].Release != "1.0" || n.Attested.Labels["region"] != "eu" {
		t.Errorf("%+v, %v", n, err)
	}
	if s, err := notice.ParseStatus(status().Encode()); err != nil || s.Height != 7 || s.Wrong[0].What != "clock" {
		t.Errorf("%+v, %v", s, err)
	}
	if k, err := notice.ParseWrapKey(wrapKey().Encode()); err != nil || k.Holds != wrapKey().Holds || !bytes.Equal(k.Key, wrapKey().Key) {
		t.Errorf("%+v, %v", k, err)
	}
	if k, err := notice.ParseCAKey(caKey().Encode()); err != nil || len(k.For) != notice.MaxWrapped || k.For[3].Seat != 16384 {
		t.Errorf("%+v, %v", k, err)
	}
	if k, err := notice.ParseTLSKey(tlsKey().Encode()); err != nil || k != tlsKey() {
		t.Errorf("%+v, %v", k, err)
	}
}

// TestRefused shows in words what a document may not say.
func TestRefused(t *testing.T) {
	var out strings.Builder
	say := func(what string, err error) {
		if err == nil {
			err = errors.New("TAKEN")
		} else if !errors.Is(err, notice.ErrNotice) {
			t.Errorf("%s: %v is no ErrNotice", what, err)
		}
		fmt.Fprintf(&out, "%s\n    %v\n", what, err)
	}
	nodes := []struct {
		what   string
		change func(*notice.Node)
	}{
		{"version 2", func(n *notice.Node) { n.Version = 2 }},
		{"no name", func(n *notice.Node) { n.Name = "" }},
		{"a name with a capital", func(n *notice.Node) { n.Name = "N1" }},
		{"a loopback address", func(n *notice.Node) { n.Addresses[0] = netip.MustParseAddrPort("127.0.0.1:1") }},
		{"no port", func(n *notice.Node) { n.Addresses[0] = netip.MustParseAddrPort("192.0.2.1:0") }},
		{"an address twice", func(n *notice.Node) { n.Addresses[1] = n.Addresses[0] }},
		{"17 addresses", func(n *notice.Node) { n.Addresses = make([]netip.AddrPort, 17) }},
		{"no architecture", func(n *notice.Node) { n.Arch = "" }},
		{"words for a terminal", func(n *notice.Node) { n.Model = "\x1b[2J" }},
		{"a long kernel", func(n *notice.Node) { n.Kernel = strings.Repeat("k", 129) }},
		{"no processor", func(n *notice.Node) { n.Capacity.CPUs = 0 }},
		{"two slots run", func(n *notice.Node) { n.Slots[1].Running = true }},
		{"slot C", func(n *notice.Node) { n.Slots[1].Name = "C" }},
		{"slot B before A", func(n *notice.Node) { n.Slots[0], n.Slots[1] = n.Slots[1], n.Slots[0] }},
		{"an assessment of its own", func(n *notice.Node) { n.Slots[0].Boot = "fine" }},
		{"a region that it measured", func(n *notice.Node) { n.Measured["region"] = "eu" }},
		{"a label with a space", func(n *notice.Node) { n.Measured["a b"] = "c" }},
		{"an attestation of nothing", func(n *notice.Node) { n.Attested.Labels = nil }},
		{"a signature of 1 KiB", func(n *notice.Node) { n.Attested.Signature = make([]byte, 1024) }},
	}
	for _, c := range nodes {
		n := node()
		c.change(&n)
		_, err := notice.ParseNode(n.Encode())
		say("node: "+c.what, err)
	}
	statuses := []struct {
		what   string
		change func(*notice.Status)
	}{
		{"a height without a head", func(s *notice.Status) { s.Head = document.Hash{} }},
		{"a head without a height", func(s *notice.Status) { s.Height = 0 }},
		{"deeds without a root", func(s *notice.Status) { s.Deeds.Root = document.Hash{} }},
		{"a fault of nothing", func(s *notice.Status) { s.Wrong[0].What = "" }},
		{"words for a terminal", func(s *notice.Status) { s.Wrong[0].Why = "a\nb" }},
		{"a long fault", func(s *notice.Status) { s.Wrong[0].Why = strings.Repeat("w", 301) }},
		{"17 faults", func(s *notice.Status) { s.Wrong = make([]notice.Fault, 17) }},
	}
	for _, c := range statuses {
		s := status()
		c.change(&s)
		_, err := notice.ParseStatus(s.Encode())
		say("status: "+c.what, err)
	}
	_, err := notice.ParseTLSKey(notice.TLSKey{Version: 1, Key: tlsKey().Key}.Encode())
	say("TLS key: seat 0", err)
	_, err = notice.ParseTLSKey(notice.TLSKey{Version: 1, Seat: 1}.Encode())
	say("TLS key: none", err)
	for what, raw := range map[string]string{
		"TLS key: a field more":  strings.Replace(string(tlsKey().Encode()), `"seat": 1`, `"seat": 1, "x": 2`, 1),
		"TLS key: a space more":  strings.Replace(string(tlsKey().Encode()), `"seat": 1`, `"seat":  1`, 1),
		"TLS key: text behind":   string(tlsKey().Encode()) + "x",
		"TLS key: nothing":       "",
		"TLS key: a list":        "[]",
		"TLS key: no version":    "{}",
		"TLS key: seat is words": strings.Replace(string(tlsKey().Encode()), `"seat": 1`, `"seat": "1"`, 1),
	} {
		if _, err := notice.ParseTLSKey([]byte(raw)); !errors.Is(err, notice.ErrNotice) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, c := range []struct {
		what   string
		change func(*notice.WrapKey)
	}{
		{"seat 0", func(k *notice.WrapKey) { k.Seat = 0 }}, {"31 bytes", func(k *notice.WrapKey) { k.Key = k.Key[:31] }},
	} {
		k := wrapKey()
		c.change(&k)
		_, err := notice.ParseWrapKey(k.Encode())
		say("wrap key: "+c.what, err)
	}
	for _, c := range []struct {
		what   string
		change func(*notice.CAKey)
	}{
		{"of no CA", func(k *notice.CAKey) { k.CA = document.Hash{} }}, {"a seat twice", func(k *notice.CAKey) { k.For[1].Seat = k.For[0].Seat }},
		{"nothing inside", func(k *notice.CAKey) { k.For[0].Sealed = nil }}, {"too much inside", func(k *notice.CAKey) { k.For[0].Sealed = make([]byte, 257) }},
		{"for too many", func(k *notice.CAKey) { k.For = append(k.For, notice.WrappedFor{Seat: 20000, Sealed: []byte{1}}) }},
	} {
		k := caKey()
		c.change(&k)
		_, err := notice.ParseCAKey(k.Encode())
		say("CA key: "+c.what, err)
	}
	golden.Compare(t, "refused.txt", out.String())
}

// TestFaults takes whatever programs write about themselves: the status says what fits.
func TestFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := status()
		s.Wrong = nil
		for range rapid.IntRange(0, 40).Draw(t, "faults") {
			s.Wrong = append(s.Wrong, notice.Fault{What: rapid.String().Draw(t, "what"), Why: string(rapid.SliceOfN(rapid.Byte(), 0, 500).Draw(t, "why"))})
		}
		most := rapid.IntRange(1<<10, 4<<10).Draw(t, "most")
		fit := s.Fit(most)
		if _, err := notice.ParseStatus(fit.Encode()); err != nil {
			t.Fatal(err)
		}
		e, err := signed.Seal(notice.StatusKind, document.HashOf(nil), ledgertest.Private("n1"), 1, fit.Encode())
		if err != nil || len(e.Bytes()) > most {
			t.Fatalf("%d bytes of %d: %v", len(e.Bytes()), most, err)
		}
		if len(s.Wrong) > 0 && len(fit.Wrong) == 0 {
			t.Fatal("nothing is wrong any more")
		}
	})
	many := make([]notice.Fault, 20)
	if list := notice.Faults(many, 3); len(list) != 3 || list[2].Why != "18 more things are wrong" {
		t.Errorf("%+v", list)
	}
}

// TestKinds seals documents of the largest size that each kind has room for in every fleet.
func TestKinds(t *testing.T) {
	full := status()
	for len(full.Wrong) < 20 {
		full.Wrong = append(full.Wrong, notice.Fault{What: strings.Repeat("w", 64), Why: strings.Repeat("y", 300)})
	}
	bodies := map[string][]byte{notice.NodeKind: node().Encode(), notice.StatusKind: full.Fit(1 << 10).Encode(), notice.TLSKeyKind: tlsKey().Encode(),
		notice.WrapKeyKind: wrapKey().Encode(), notice.CAKeyKind: caKey().Encode()}
	for _, k := range notice.Kinds() {
		e, err := signed.Seal(k.Name, document.HashOf(nil), ledgertest.Private("n1"), notice.MaxNumber, bodies[k.Name])
		if err != nil || len(e.Bytes()) > k.Least || k.Least > k.Most || k.Most > signed.MaxEnvelope {
			t.Errorf("%s: %d bytes, %d to %d: %v", k.Name, len(e.Bytes()), k.Least, k.Most, err)
		}
		if err := k.Check(bodies[k.Name]); err != nil {
			t.Error(err)
		}
		if k.Check([]byte("{}")) == nil {
			t.Errorf("%s: an empty one is taken", k.Name)
		}
	}
}

// TestBound asks whose seat a TLS key is.
func TestBound(t *testing.T) {
	f := ledgertest.Founded(t, 4, 1)
	state := f.Log.State()
	key := tlsKey().Key
	seal := func(name string, fleet document.Hash, kind string, body []byte) signed.Envelope {
		return ledgertest.Must[signed.Envelope](t)(signed.Seal(kind, fleet, ledgertest.Private(name), 1, body))
	}
	other := notice.TLSKey{Version: 1, Seat: 2, Key: key}
	for what, c := range map[string]struct {
		e    signed.Envelope
		key  document.Hash
		seat int
	}{
		"its own":               {seal("n1", state.Fleet(), notice.TLSKeyKind, tlsKey().Encode()), key, 1},
		"another TLS key":       {seal("n1", state.Fleet(), notice.TLSKeyKind, tlsKey().Encode()), document.HashOf([]byte("other")), 0},
		"another seat's number": {seal("n1", state.Fleet(), notice.TLSKeyKind, other.Encode()), key, 0},
		"no seat":               {seal("n9", state.Fleet(), notice.TLSKeyKind, tlsKey().Encode()), key, 0},
		"another fleet":         {seal("n1", document.HashOf(nil), notice.TLSKeyKind, tlsKey().Encode()), key, 0},
		"a status":              {seal("n1", state.Fleet(), notice.StatusKind, status().Encode()), key, 0},
		"junk":                  {seal("n1", state.Fleet(), notice.TLSKeyKind, []byte("junk")), key, 0},
	} {
		seat, err := notice.Bound(c.e, state, c.key)
		if seat.Number != c.seat || (err == nil) != (c.seat > 0) || err != nil && !errors.Is(err, notice.ErrTLSKey) {
			t.Errorf("%s: seat %d, %v", what, seat.Number, err)
		}
	}
}

// TestAttested takes labels by the word of an admin of the ledger, for one node.
func TestAttested(t *testing.T) {
	operator := func(name string, role fleet.Role) (*ecdsa.PrivateKey, ledger.Operator) {
		key := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
		spki := ledgertest.Must[[]byte](t)(x509.MarshalPKIXPublicKey(&key.PublicKey))
		return key, ledger.Operator{Name: name, Role: role, Key: document.HashOf(spki)}
	}
	adaKey, ada := operator("ada", fleet.RoleAdmin)
	bobKey, bob := operator("bob", fleet.RoleOperator)
	evaKey, _ := operator("eva", fleet.RoleAdmin)
	state := ledger.State{Genesis: ledgertest.Begun(t, 1).Genesis, Operators: []ledger.Operator{ada, bob}}
	node := ledgertest.Must[signed.Key](t)(signed.KeyOf(ledgertest.Private("n1").Public().(ed25519.PublicKey)))
	other := ledgertest.Must[signed.Key](t)(signed.KeyOf(ledgertest.Private("n2").Public().(ed25519.PublicKey)))
	labels := notice.Labels{"region": "eu", "owner": "ada"}
	attest := func(key *ecdsa.PrivateKey) notice.Attestation {
		return *ledgertest.Must[*notice.Attestation](t)(notice.Attest(state.Fleet(), node, labels, key))
	}
	good := attest(adaKey)
	more := good
	more.Labels = notice.Labels{"region": "us", "owner": "ada"}
	junk := good
	junk.Signature = []byte("junk")
	for what, c := range map[string]struct {
		a    notice.Attestation
		node signed.Key
		by   string
	}{
		"by an admin": {good, node, "ada"}, "for another node": {good, other, ""}, "with another label": {more, node, ""},
		"by an operator": {attest(bobKey), node, ""}, "by a stranger": {attest(evaKey), node, ""}, "junk": {junk, node, ""}, "nothing": {notice.Attestation{}, node, ""},
	} {
		by, err := c.a.Verify(state, c.node)
		if by.Name != c.by || (err == nil) != (c.by != "") || err != nil && !errors.Is(err, notice.ErrAttestation) {
			t.Errorf("%s: %q, %v", what, by.Name, err)
		}
	}
	// What a node carries is read back as it was attested.
	n := node0(good)
	parsed, err := notice.ParseNode(n.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if by, err := parsed.Attested.Verify(state, node); by.Name != "ada" {
		t.Error(err)
	}
	if _, err := notice.Attest(state.Fleet(), node, nil, adaKey); err == nil {
		t.Error("no labels are attested")
	}
}

func node0(a notice.Attestation) notice.Node {
	n := node()
	n.Attested = &a
	return n
}

// TestDue walks a seat through its day.
func TestDue(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		changed bool
		ago     time.Duration
		want    time.Duration
	}{
		{true, 0, notice.Pause}, {true, time.Second, time.Second}, {true, notice.Pause, 0}, {true, time.Hour, 0},
		{false, 0, time.Hour}, {false, 50 * time.Minute, 10 * time.Minute}, {false, time.Hour, 0}, {false, 1000 * time.Hour, 0},
		{false, -40 * 365 * 24 * time.Hour, time.Hour}, // the clock was in 2066
	} {
		if got := notice.Due(notice.NodeKind, c.changed, now.Add(-c.ago), now); c.changed && got != c.want || !c.changed && got != notice.Renewal {
			t.Errorf("a node record, changed %v, %s ago: %s", c.changed, c.ago, got)
		}
		if got := notice.Due(notice.StatusKind, c.changed, now.Add(-c.ago), now); got != c.want {
			t.Errorf("changed %v, %s ago: %s, and %s is wanted", c.changed, c.ago, got, c.want)
		}
	}
	if notice.Due(notice.NodeKind, false, time.Time{}, now) != 0 {
		t.Error("what was never signed waits")
	}
	last := time.Duration(-1)
	for times := range 100 {
		wait := notice.Again(times)
		if wait < last || wait > time.Hour || times < 2 && wait != 0 || times > 8 && wait != time.Hour {
			t.Errorf("overruled %d times: %s", times, wait)
		}
		last = wait
	}
}

// TestNumbers runs a seat for long, with reboots, a disk that was restored from any of its
// copies, and one that fails: a number that was on the disk is never given again, and once a
// seat has heard of all its numbers the next one is above them.
func TestNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk, copies, given, highest := uint64(0), []uint64{0}, map[uint64]bool{}, uint64(0)
		random := rapid.Uint64()
		n := notice.Begin(disk, random.Draw(t, "random"))
		restored, last := false, uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"sign": func(t *rapid.T) {
				number, reserve := n.Next()
				if reserve != 0 {
					disk = reserve
				}
				if number <= last || number > disk || number > notice.MaxNumber {
					t.Fatalf("%d after %d, and the disk says %d", number, last, disk)
				}
				if given[number] && !restored {
					t.Fatalf("%d is given twice", number)
				}
				last, given[number], highest = number, true, max(highest, number)
			},
			"disk fails": func(t *rapid.T) {
				if number, reserve := n.Next(); reserve != 0 {
					n.Unwritten()
					if again, reserve := n.Next(); again <= number || reserve == 0 {
						t.Fatalf("%d, then %d, with %d to be reserved", number, again, reserve)
					}
					n.Unwritten()
				}
			},
			"copy": func(t *rapid.T) { copies = append(copies, disk) },
			"reboot": func(t *rapid.T) {
				n, last = notice.Begin(disk, random.Draw(t, "random")), 0
			},
			"restore": func(t *rapid.T) {
				disk = rapid.SampledFrom(copies).Draw(t, "copy")
				n, restored, last = notice.Begin(disk, random.Draw(t, "random")), true, 0
			},
			"hear": func(t *rapid.T) {
				n.Heard(highest)
				if number, reserve := n.Next(); number <= highest {
					t.Fatalf("%d, though %d was heard", number, highest)
				} else {
					if reserve != 0 {
						disk = reserve
					}
					last, highest, given[number] = number, number, true
				}
			},
		})
	})
	n := notice.Begin(0, 0)
	if n.Heard(notice.MaxNumber + 1) {
		t.Error("a number that nobody counts to is taken")
	}
	n.Heard(notice.MaxNumber)
	if number, _ := n.Next(); number != notice.MaxNumber {
		t.Errorf("%d follows on the highest", number)
	}
}

// FuzzParse has bytes of strangers: what is read is written as it was.
func FuzzParse(f *testing.F) {
	for _, body := range [][]byte{node().Encode(), status().Encode(), tlsKey().Encode(), wrapKey().Encode(), caKey().Encode(), {}} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if n, err := notice.ParseNode(body); err == nil && !bytes.Equal(n.Encode(), body) {
			t.Errorf("a node record of %q", body)
		}
		if s, err := notice.ParseStatus(body); err == nil && !bytes.Equal(s.Encode(), body) {
			t.Errorf("a status of %q", body)
		}
		if k, err := notice.ParseTLSKey(body); err == nil && !bytes.Equal(k.Encode(), body) {
			t.Errorf("a TLS key of %q", body)
		}
		if k, err := notice.ParseWrapKey(body); err == nil && !bytes.Equal(k.Encode(), body) {
			t.Errorf("a wrap key of %q", body)
		}
		if k, err := notice.ParseCAKey(body); err == nil && !bytes.Equal(k.Encode(), body) {
			t.Errorf("a CA key of %q", body)
		}
		var any json.RawMessage
		if json.Unmarshal(body, &any) != nil {
			if _, err := notice.ParseNode(body); err == nil {
				t.Error("no JSON, and a node record")
			}
		}
	})
}
