package ledger_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// forge is an entry whose record and signatures are in order, whatever its value and evidence say: what
// only those can make who have all keys of a fleet. value is the document without evidence.
func forge(w *ledgertest.Fleet, value []byte, evidence [][]byte) ledger.Entry {
	s := w.Log.State()
	v := resting(value, evidence)
	r := ledger.Record{Version: 1, Fleet: s.Fleet(), Height: s.Height + 1, Previous: s.Record, Value: document.HashOf(v)}
	if s.Height > 0 {
		r.Roster = s.Roster.Hash()
	} else if read, err := ledger.ParseValue(v); err == nil && read.Founding != nil {
		r.Roster = read.Founding.Roster.Hash()
	}
	return resign(w, r, v, evidence, bytes.Contains(v, []byte("\n  \"breakGlass\": ")))
}

// resting is the document of a value that names its evidence.
func resting(value []byte, evidence [][]byte) []byte {
	if len(evidence) == 0 {
		return value
	}
	named := fmt.Sprintf("\"version\": 1,\n  \"evidence\": %q", ledger.EvidenceRoot(evidence))
	return bytes.Replace(value, []byte(`"version": 1`), []byte(named), 1)
}

// resign is an entry with the certificate of a quorum, or of the owner.
func resign(w *ledgertest.Fleet, r ledger.Record, value []byte, evidence [][]byte, broken bool) ledger.Entry {
	s := w.Log.State()
	c := ledger.Certificate{Version: 1, Evidence: evidence}
	switch {
	case s.Height == 0 || broken:
		message := ledger.FoundingBytes(r)
		if s.Height > 0 {
			message = ledger.BreakGlassBytes(r)
		}
		for i := 1; i <= 2; i++ {
			c.Owners = append(c.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), message))
		}
	default:
		for _, seat := range s.Roster.Seats {
			if seat.Vote && len(c.Seats) < s.Roster.Quorum() {
				c.Seats = append(c.Seats, signed.Sign(seat.Number, ledgertest.PrivateOf(seat), ledger.PrecommitBytes(r, 0, s.Tree)))
			}
		}
	}
	return ledger.Entry{Record: r.Encode(), Value: value, Certificate: c.Encode()}
}

// rested is the evidence of a value that ada proposes, unless it needs no proposal.
func rested(t testing.TB, w *ledgertest.Fleet, x example, value []byte) [][]byte {
	if x.bare || len(value) > 40<<10 {
		return x.said(w, document.Hash{})
	}
	s := w.Log.State()
	p := ledgertest.Must[signed.Envelope](t)(proposal.Seal(s.Fleet(), w.Ada, uint64(s.Height)+1, proposal.Proposal{Height: s.Height, Value: value}))
	return append([][]byte{p.Bytes()}, x.said(w, proposal.ID(p))...)
}

// golden adds the ledger that every release reads, and it with bytes, lines and documents changed.
func (p *pile) golden() {
	raw := ledgertest.Must[[]byte](p.t)(os.ReadFile("testdata/v1/ledger.txt"))
	f := ledgertest.Must[*ledger.File](p.t)(ledger.OpenFile(bytes.NewReader(raw)))
	genesis, rnd := f.Genesis.Bytes(), rand.New(rand.NewPCG(1, 1))
	p.file("golden", genesis, raw)
	for range 150 {
		bad, at := bytes.Clone(raw), rnd.IntN(len(raw))
		switch rnd.IntN(4) {
		case 0:
			bad = slices.Delete(bad, at, at+1)
		case 1:
			bad = slices.Insert(bad, at, raw[rnd.IntN(len(raw))])
		default:
			bad[at] ^= 1 << rnd.IntN(8)
		}
		p.file(fmt.Sprintf("golden, byte %d", at), genesis, bad)
	}
	lines := bytes.SplitAfter(raw, []byte("\n"))
	for range 30 {
		i, j := rnd.IntN(len(lines)), rnd.IntN(len(lines))
		swapped := slices.Clone(lines)
		swapped[i], swapped[j] = swapped[j], swapped[i]
		p.file(fmt.Sprintf("golden, lines %d and %d", i, j), genesis, bytes.Join(swapped, nil))
		p.file(fmt.Sprintf("golden, cut in line %d", i), genesis, bytes.Join(lines[:i], nil))
	}
	_, entries, err := ledger.Read(bytes.NewReader(raw), f.Genesis)
	if err != nil {
		p.t.Fatal(err)
	}
	part := func(e *ledger.Entry, i int) *[]byte { return []*[]byte{&e.Record, &e.Value, &e.Certificate}[i] }
	w := &ledgertest.Fleet{Genesis: f.Genesis, Log: ledger.New(f.Genesis)}
	for i := range entries {
		p.entries(fmt.Sprintf("golden up to %d", i), w)
		p.entries(fmt.Sprintf("golden without record %d", i+1), w, entries[i+1:]...)
		for j := range entries {
			for k := range 3 {
				mixed := entries[i]
				*part(&mixed, k) = *part(&entries[j], k)
				p.entries(fmt.Sprintf("golden record %d with document %d of %d", i+1, k, j+1), w, mixed)
			}
		}
		w.Take(p.t, entries[i])
	}
	// Genesis and file agree, and are another fleet's.
	for _, c := range [][2]string{
		{`"hanse"`, `"danse"`}, {`"threshold": 2`, `"threshold": 0`}, {`"threshold": 2`, `"threshold": 3`}, {`"threshold": 2`, `"threshold": 4`},
		{`"votes": 100`, `"votes": 3`}, {`"votes": 100`, `"votes": 0`}, {`"1h0m0s"`, `"1h"`}, {`"1h0m0s"`, `"60m0s"`}, {`"1h0m0s"`, `"1h0m0.5s"`},
		{`"1h0m0s"`, `"1h0m0.50s"`}, {`"5m0s"`, `"300s"`}, {`"5m0s"`, `"4m60s"`}, {`"5m0s"`, `"5m"`}, {`"5m0s"`, `"59.999999999s"`}, {`"5m0s"`, `"1m0.000000001s"`},
		{`"5m0s"`, `"0h5m0s"`}, {`"5m0s"`, `"05m0s"`}, {`"5m0s"`, `"+5m0s"`}, {`"5m0s"`, `"5m0s "`}, {`"5m0s"`, `"1m1s"`}, {`"5m0s"`, `"24h0m0s"`}, {`"5m0s"`, `"24h0m0.000000001s"`},
		{`"version": 2`, `"version": 3`}, {`"version": 2`, `"version": 2.0`}, {`"version": 2`, `"version": 02`}, {`"version"`, `"Version"`},
		{"  5,\n      15", "  15,\n      5"}, {"  5,\n      15", "  5,\n      5"}, {`"hanse"`, `null`}, {`"hanse"`, `"h\u0061nse"`}, {`"operator",`, `"admin",`}, {`"operator",`, `"reader",`},
	} {
		bad := bytes.Replace(genesis, []byte(c[0]), []byte(c[1]), 1)
		if bytes.Equal(bad, genesis) {
			p.t.Errorf("the genesis has no %s", c[0])
		}
		file := fmt.Appendf(nil, "kogge-ledger 1\ngenesis 0 %d\n%s", len(bad), bad)
		p.file(fmt.Sprintf("genesis with %s", c[1]), bad, file)
	}
}

// decisions adds a decision of each kind: as it is, and forged.
func (p *pile) decisions() {
	t, all := p.t, examples(p.t)
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		for i, x := range all[kind] {
			name, rnd := fmt.Sprint(kind, " ", i), rand.New(rand.NewPCG(uint64(i), uint64(len(kind))))
			w := x.begin(t)
			v := x.value(t, w)
			plain := v.Encode()
			evidence := rested(t, w, x, plain)
			e := forge(w, plain, evidence)
			p.entries(name, w, e)
			p.entries(name+" twice", w, e, e)
			if err := w.Log.Clone().AppendBroken(e); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if i == 0 {
				p.evidence(name, w, x, plain, evidence)
				p.certificates(name, w, e, x.broken)
			}
			for n := range 16 {
				bad := mutant(t, rnd, v)
				p.entries(fmt.Sprintf("%s, mutant %d %s", name, n, bad), w, forge(w, bad, rested(t, w, x, bad)))
			}
		}
	}
	p.founding()
	p.said()
	p.keys()
	p.rekeyed()
	p.cas()
	p.proofs()
	p.twins()
}

// founding adds foundings.
func (p *pile) founding() {
	for seats := 1; seats <= 5; seats += 2 {
		w := ledgertest.Begun(p.t, seats)
		v, rnd := w.Founding(p.t), rand.New(rand.NewPCG(9, uint64(seats)))
		e := forge(w, v.Encode(), nil)
		p.entries("founding", w, e)
		p.entries("founding that rests on something", w, forge(w, v.Encode(), [][]byte{{1}}))
		p.certificates("founding", w, e, true)
		for n := range 40 {
			bad := mutant(p.t, rnd, v)
			p.entries(fmt.Sprintf("founding, mutant %d %s", n, bad), w, forge(w, bad, nil))
		}
		for _, to := range []string{
			"127.0.0.1:7444", "0.0.0.0:1", "10.0.0.1:1", "255.255.255.255:1", "224.0.0.1:1", "169.254.0.1:1", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.01:1", "192.0.2.1:01",
			"[::1]:1", "[::]:1", "[2001:db8::1]:7444", "[2001:DB8::1]:7444", "[2001:db8:0:0:0:0:0:1]:7444", "[fe80::1]:1", "[fe80::1%eth0]:1", "[2001:db8::1%1]:1", "[::ffff:192.0.2.1]:1", "[ff02::1]:1", "[fd00::1]:1",
			"[2001:db8:0:1:1:1:1:1]:1", "[2001:db8::1:1:1:1:1]:1", "[2001:0:0:1:0:0:0:1]:1", "[::102:304]:1", "[::1.2.3.4]:1", "2001:db8::1:7444", "[192.0.2.1]:1", "192.0.2.1", "", "n1:7444",
		} {
			bad := bytes.Replace(v.Encode(), []byte("192.0.2.1:7444"), []byte(to), 1)
			p.entries("founding with a member at "+to, w, forge(w, bad, nil))
		}
	}
}

// evidence adds a decision that rests on something else.
func (p *pile) evidence(name string, w *ledgertest.Fleet, x example, plain []byte, evidence [][]byte) {
	s := w.Log.State()
	add := func(what string, objects ...[]byte) {
		p.entries(name+", "+what, w, forge(w, plain, objects))
	}
	other := x.said(w, document.HashOf([]byte("another proposal")))
	second := ledgertest.Must[signed.Envelope](p.t)(proposal.Seal(s.Fleet(), w.Ada, 99, proposal.Proposal{Height: s.Height, Value: plain}))
	id := document.HashOf([]byte("no proposal"))
	if !x.bare {
		id = proposal.ID(ledgertest.Must[signed.Envelope](p.t)(signed.Parse(evidence[0])))
	}
	extra := map[string][]byte{
		"a second proposal":         second.Bytes(),
		"an opinion":                w.Opinion(p.t, "n1", id),
		"an opinion of the topic":   w.Opinion(p.t, "n1", s.Topic(ledgertest.Must[ledger.Value](p.t)(ledger.ParseValue(plain)))),
		"an opinion of nothing":     w.Opinion(p.t, "n1", document.HashOf(nil)),
		"an answer":                 w.Answer(id, true, "hanse", "", 1, 2),
		"an answer by one key":      w.Answer(id, true, "hanse", "", 3),
		"a no":                      w.Answer(id, false, "hanse", "", 2, 3),
		"an answer of nobody":       w.Answer(id, true, "nobody", "", 1, 2),
		"a request":                 w.Request(p.t, ledgertest.Seat(p.t, 77, "n77")),
		"a proof":                   contrary(p.t, "n1")(w, id)[0],
		"nothing":                   {},
		"missing bytes":             nil,
		"something":                 []byte("x"),
		"an object":                 []byte("{}\n"),
		"a status":                  ledgertest.Must[signed.Envelope](p.t)(signed.Seal("kogge/status/v1", s.Fleet(), ledgertest.Private("n1"), 1, nil)).Bytes(),
		"another fleet's opinion":   ledgertest.Must[signed.Envelope](p.t)(proposal.SealOpinion(document.HashOf(nil), ledgertest.Private("n1"), 1, proposal.Opinion{Proposal: id, Height: 1, Valid: true, Ready: true})).Bytes(),
		"another operator's":        ledgertest.Must[signed.Envelope](p.t)(proposal.Seal(s.Fleet(), ledgertest.Must[*ecdsa.PrivateKey](p.t)(fleet.NewKey()), 99, proposal.Proposal{Height: s.Height, Value: plain})).Bytes(),
		"a proposal of a later day": ledgertest.Must[signed.Envelope](p.t)(proposal.Seal(s.Fleet(), w.Ada, 99, proposal.Proposal{Height: s.Height + 1, Value: plain})).Bytes(),
	}
	for _, what := range slices.Sorted(maps.Keys(extra)) {
		add("and "+what, append(slices.Clone(evidence), extra[what])...)
		add(what+" before", append([][]byte{extra[what]}, evidence...)...)
		if len(evidence) > 0 {
			add(what+" alone in the first's place", append([][]byte{extra[what]}, evidence[1:]...)...)
		}
	}
	for i := range evidence {
		add(fmt.Sprintf("without object %d", i), slices.Delete(slices.Clone(evidence), i, i+1)...)
		add(fmt.Sprintf("object %d twice", i), append(slices.Clone(evidence), evidence[i])...)
		for _, at := range []int{0, 3, 5, len(evidence[i]) / 2, len(evidence[i]) - 1} {
			bad := slices.Clone(evidence)
			bad[i] = bytes.Clone(bad[i])
			bad[i][at] ^= 4
			add(fmt.Sprintf("object %d, byte %d", i, at), bad...)
		}
	}
	reversed := slices.Clone(evidence)
	slices.Reverse(reversed)
	add("in another order", reversed...)
	if n := len(evidence) - len(other); n >= 0 {
		add("about another proposal", append(slices.Clone(evidence[:n]), other...)...)
	}
}

// certificates adds an entry with other certificates, and other records with the same.
func (p *pile) certificates(name string, w *ledgertest.Fleet, e ledger.Entry, owners bool) {
	s := w.Log.State()
	r := ledgertest.Must[ledger.Record](p.t)(ledger.ParseRecord(e.Record))
	good := ledgertest.Must[ledger.Certificate](p.t)(ledger.ParseCertificate(e.Certificate))
	add := func(what string, edit func(c *ledger.Certificate, list *[]signed.Signature)) {
		c := good
		c.Seats, c.Owners, c.Evidence = slices.Clone(c.Seats), slices.Clone(c.Owners), slices.Clone(c.Evidence)
		list := &c.Seats
		if owners {
			list = &c.Owners
		}
		edit(&c, list)
		raw, err := document.Encode(c) // and not Encode, which knows the version
		if err != nil {
			p.t.Fatal(err)
		}
		p.entries(name+", certificate "+what, w, ledger.Entry{Record: e.Record, Value: e.Value, Certificate: raw})
	}
	message := ledger.PrecommitBytes(r, 0, s.Tree)
	sign := func(i int, message []byte) signed.Signature {
		if owners {
			return signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), message)
		}
		seat, _ := s.Roster.Seat(i)
		return signed.Sign(i, ledgertest.PrivateOf(seat), message)
	}
	all := func(c *ledger.Certificate, list *[]signed.Signature, message []byte) {
		for i, s := range *list {
			(*list)[i] = sign(s.By, message)
		}
	}
	add("as it is", func(*ledger.Certificate, *[]signed.Signature) {})
	add("one too few", func(_ *ledger.Certificate, l *[]signed.Signature) { *l = (*l)[1:] })
	add("none", func(_ *ledger.Certificate, l *[]signed.Signature) { *l = nil })
	add("an empty list", func(_ *ledger.Certificate, l *[]signed.Signature) { *l = []signed.Signature{} })
	add("the first twice", func(_ *ledger.Certificate, l *[]signed.Signature) { *l = append([]signed.Signature{(*l)[0]}, *l...) })
	add("backwards", func(_ *ledger.Certificate, l *[]signed.Signature) { slices.Reverse(*l) })
	add("by 0", func(_ *ledger.Certificate, l *[]signed.Signature) { (*l)[0].By = 0 })
	add("by 2^40", func(_ *ledger.Certificate, l *[]signed.Signature) { (*l)[len(*l)-1].By = 1 << 40 })
	add("of another round", func(c *ledger.Certificate, _ *[]signed.Signature) { c.Round = 1 })
	add("of round -1", func(c *ledger.Certificate, _ *[]signed.Signature) { c.Round = -1 })
	add("version 3", func(c *ledger.Certificate, _ *[]signed.Signature) { c.Version = 3 })
	add("the other version", func(c *ledger.Certificate, _ *[]signed.Signature) { c.Version = 3 - c.Version })
	add("without evidence", func(c *ledger.Certificate, _ *[]signed.Signature) { c.Version, c.Evidence = 1, nil })
	add("over the founding", func(c *ledger.Certificate, l *[]signed.Signature) { all(c, l, ledger.FoundingBytes(r)) })
	add("over the glass", func(c *ledger.Certificate, l *[]signed.Signature) { all(c, l, ledger.BreakGlassBytes(r)) })
	add("over another history", func(c *ledger.Certificate, l *[]signed.Signature) { all(c, l, ledger.PrecommitBytes(r, 0, r.Value)) })
	add("over a prevote", func(c *ledger.Certificate, l *[]signed.Signature) {
		all(c, l, bytes.Replace(message, []byte("kogge/precommit/v1"), []byte("kogge/precommix/v1"), 1))
	})
	add("both of seats and owners", func(c *ledger.Certificate, _ *[]signed.Signature) { c.Seats, c.Owners = good.Owners, good.Seats })
	if !owners {
		add("of round 7, signed", func(c *ledger.Certificate, l *[]signed.Signature) {
			c.Round = 7
			all(c, l, ledger.PrecommitBytes(r, 7, s.Tree))
		})
		add("of all", func(_ *ledger.Certificate, l *[]signed.Signature) {
			*l = nil
			for _, seat := range s.Roster.Seats {
				*l = append(*l, sign(seat.Number, message))
			}
		})
		add("of owners, too", func(c *ledger.Certificate, _ *[]signed.Signature) {
			c.Owners = append(c.Owners, signed.Sign(1, ledgertest.Private("owner 1"), ledger.BreakGlassBytes(r)), signed.Sign(2, ledgertest.Private("owner 2"), ledger.BreakGlassBytes(r)))
		})
		add("of owners alone", func(c *ledger.Certificate, _ *[]signed.Signature) {
			c.Seats = nil
			c.Owners = append(c.Owners, signed.Sign(1, ledgertest.Private("owner 1"), ledger.BreakGlassBytes(r)), signed.Sign(2, ledgertest.Private("owner 2"), ledger.BreakGlassBytes(r)))
		})
	}
	for what, bad := range oddSignatures(good, owners) {
		add(what, func(_ *ledger.Certificate, l *[]signed.Signature) { (*l)[0].Signature = bad })
		add(what+", one more", func(_ *ledger.Certificate, l *[]signed.Signature) {
			*l = append(*l, signed.Signature{By: (*l)[len(*l)-1].By + 1, Signature: bad})
		})
	}
	for what, edit := range map[string]func(r *ledger.Record){
		"version": func(r *ledger.Record) { r.Version = 2 }, "fleet": func(r *ledger.Record) { r.Fleet[0] ^= 1 }, "height": func(r *ledger.Record) { r.Height++ },
		"previous": func(r *ledger.Record) { r.Previous[31] ^= 1 }, "roster": func(r *ledger.Record) { r.Roster[5] ^= 1 }, "value": func(r *ledger.Record) { r.Value[9] ^= 1 },
		"no roster": func(r *ledger.Record) { r.Roster = document.Hash{} }, "no value": func(r *ledger.Record) { r.Value = document.Hash{} },
	} {
		bad := r
		edit(&bad)
		p.entries(name+", record with another "+what, w, resign(w, bad, e.Value, good.Evidence, owners))
	}
}

// said adds decisions whose evidence has odd texts, numbers and addresses.
func (p *pile) said() {
	t := p.t
	w := ledgertest.Founded(t, 4, 1)
	s := w.Log.State()
	seat, rnd := ledgertest.Seat(t, 5, "n5"), rand.New(rand.NewPCG(6, 1))
	v := seated("", seat)
	prop := w.Proposal(t, v)
	sealed := func(kind string, body []byte) []byte {
		return ledgertest.Must[signed.Envelope](t)(signed.Seal(kind, s.Fleet(), ledgertest.PrivateOf(seat), 1, body)).Bytes()
	}
	for _, text := range []string{"", "a b", "<&>\"\\", "\b\f\n\r\t\x00\x1f\x7f", "\u2028\u2029", "\u0378", "\u061c", "\u202e", "\ufff9", "\ufffc", "\U0001f8ff", "\U0001fffe", "\U000e0041", "\U000dfffd", "\U000f0000", "é 日本 \U0001f600", "\u00a0", "\u00ad", "\ufffd", "\ue000", "\U0010ffff", "\xff", "\ufeff", "é", "\u200b", strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("é", 100), strings.Repeat("é", 251)} {
		name := fmt.Sprintf("text %.30q", text)
		request := roster.Request{Version: 1, Nonce: []byte("nonce"), Name: seat.Name, Journal: seat.Journal, Arch: "amd64", Problem: text}
		p.entries(name+" in a request", w, forge(w, v.Encode(), [][]byte{prop.Bytes(), sealed(roster.RequestKind, request.Encode())}))
		request.Problem, request.Arch = "", text
		p.entries(name+" as architecture", w, forge(w, v.Encode(), [][]byte{prop.Bytes(), sealed(roster.RequestKind, request.Encode())}))
		list := w.Operators(t, "carol").Encode()
		why, err := document.Encode(proposal.Proposal{Version: 1, Height: 1, Value: list, Why: text})
		if err != nil {
			t.Fatal(err)
		}
		e := ledgertest.Must[signed.Envelope](t)(signed.SealByOperator(proposal.Kind, s.Fleet(), w.Ada, 3, why))
		p.entries(name+" in a proposal", w, forge(w, list, [][]byte{e.Bytes()}))
		a := proposal.Answer{Proposal: proposal.ID(e), Owner: "hanse", Yes: true, Number: 1, Why: text}
		for k := 1; k <= 2; k++ {
			a.Signatures = append(a.Signatures, signed.Sign(k, ledgertest.Private(fmt.Sprintf("owner %d", k)), a.Bytes(s.Fleet())))
		}
		p.entries(name+" in an answer", w, forge(w, list, [][]byte{e.Bytes(), a.Encode()}))
		for _, o := range []proposal.Opinion{{Valid: true, Ready: true}, {Valid: true}, {Ready: true}} {
			for _, why := range [][]string{nil, {}, {text}, {text, "y"}, {"x", "y", text}} {
				o.Version, o.Proposal, o.Height, o.Why = 1, proposal.ID(e), 1, why
				body, err := document.Encode(o)
				if err != nil {
					t.Fatal(err)
				}
				opinion := ledgertest.Must[signed.Envelope](t)(signed.Seal(proposal.OpinionKind, s.Fleet(), ledgertest.Private("n1"), 1, body))
				if text == "" || len(why) == 1 {
					p.entries(fmt.Sprint(name, " in an opinion ", o), w, forge(w, list, [][]byte{e.Bytes(), opinion.Bytes()}))
				}
			}
		}
	}
	much := [][]byte{prop.Bytes(), sealed(roster.RequestKind, roster.Request{Version: 1, Name: seat.Name, Journal: seat.Journal, Arch: "arm"}.Encode())}
	for i := range uint64(110) { // of them the last ones are too many
		large := strings.Repeat("<", 150+rnd.IntN(50))
		o := proposal.Opinion{Proposal: proposal.ID(prop), Height: 1, Why: []string{large, large}}
		much = append(much, ledgertest.Must[signed.Envelope](t)(proposal.SealOpinion(s.Fleet(), ledgertest.Private("n1"), i+1, o)).Bytes())
		if i > 85 {
			p.entries(fmt.Sprintf("%d objects", len(much)), w, forge(w, v.Encode(), much))
		}
	}
	for name, edit := range map[string]func(*roster.Request){
		"no nonce": func(r *roster.Request) { r.Nonce = nil }, "an empty nonce": func(r *roster.Request) { r.Nonce = []byte{} },
		"a height": func(r *roster.Request) { r.Height = 1 }, "a head": func(r *roster.Request) { r.Head = document.HashOf(nil) },
		"both":              func(r *roster.Request) { r.Height, r.Head = 1, document.HashOf(nil) },
		"a negative height": func(r *roster.Request) { r.Height, r.Head = -1, document.HashOf(nil) },
		"no journal":        func(r *roster.Request) { r.Journal = roster.ID{} }, "no name": func(r *roster.Request) { r.Name = "" }, "version 2": func(r *roster.Request) { r.Version = 2 },
		"an address":       func(r *roster.Request) { r.Addresses = addresses("192.0.2.7") },
		"an address twice": func(r *roster.Request) { r.Addresses = addresses("192.0.2.7", "192.0.2.7") },
		"addresses":        func(r *roster.Request) { r.Addresses = addresses("2001:db8::1", "10.0.0.1", "fd00::1:2") },
		"a loopback":       func(r *roster.Request) { r.Addresses = addresses("127.0.0.1") }, "a link's": func(r *roster.Request) { r.Addresses = addresses("fe80::1") },
		"a zone": func(r *roster.Request) { r.Addresses = addresses("2001:db8::1%eth0") }, "one within": func(r *roster.Request) { r.Addresses = addresses("::ffff:192.0.2.1") },
		"none of them":      func(r *roster.Request) { r.Addresses = []netip.Addr{{}} },
		"sixteen addresses": func(r *roster.Request) { r.Addresses = many(16) }, "seventeen addresses": func(r *roster.Request) { r.Addresses = many(17) },
	} {
		r := roster.Request{Version: 1, Nonce: []byte("nonce"), Name: seat.Name, Journal: seat.Journal, Arch: "riscv64"}
		edit(&r)
		p.entries("a request with "+name, w, forge(w, v.Encode(), [][]byte{prop.Bytes(), sealed(roster.RequestKind, r.Encode())}))
	}
	r := roster.Request{Version: 1, Nonce: []byte("nonce"), Name: seat.Name, Journal: seat.Journal, Arch: "riscv64"}
	for _, envelope := range [][]byte{
		document.Message("", fleetBytes(s), []byte(ledgertest.Key(t, "n5")), make([]byte, 8), r.Encode()),
		document.Message(roster.RequestKind, fleetBytes(s), []byte(ledgertest.Key(t, "n5")), make([]byte, 7), r.Encode()),
		document.Message(roster.RequestKind, fleetBytes(s)[:31], []byte(ledgertest.Key(t, "n5")), make([]byte, 8), r.Encode()),
		document.Message(roster.RequestKind, fleetBytes(s), []byte(ledgertest.Key(t, "n5")), make([]byte, 8), r.Encode(), nil),
		document.Message(roster.RequestKind, fleetBytes(s), []byte(ledgertest.Key(t, "n5")), make([]byte, 8), r.Encode()),
	} {
		raw := append(envelope, ed25519.Sign(ledgertest.Private("n5"), envelope)...)
		p.entries("a request in another envelope", w, forge(w, v.Encode(), [][]byte{prop.Bytes(), raw}))
	}
}

func addresses(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func many(n int) (out []netip.Addr) {
	for i := range n {
		out = append(out, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	return out
}

// rekeyed adds owners who get other keys, whoever says yes to it and how often.
func (p *pile) rekeyed() {
	t := p.t
	for name, before := range map[string]func(testing.TB, *ledgertest.Fleet){"": withKaper, "while one waits": claimed} {
		w := ledgertest.Founded(t, 7, 1)
		before(t, w)
		kaper := ledgertest.NewOwner(t, "kaper", "")
		for change, o := range map[string]roster.Owner{
			"all keys": ledgertest.NewOwner(t, "kaper", "new"), "a lower threshold": {Name: "kaper", Keys: kaper.Keys, Threshold: 1},
			"a higher threshold": {Name: "kaper", Keys: kaper.Keys, Threshold: 3}, "one key less": {Name: "kaper", Keys: kaper.Keys[:2], Threshold: 2},
			"another order": {Name: "kaper", Keys: []signed.Key{kaper.Keys[2], kaper.Keys[0], kaper.Keys[1]}, Threshold: 2},
			"a seat's key":  {Name: "kaper", Keys: []signed.Key{ledgertest.Key(t, "n1")}, Threshold: 1},
		} {
			for _, lost := range []bool{false, true} {
				v := value(func(v *ledger.Value) { v.Owners = &decision.Owners{Owner: o, Lost: lost} })
				sayings := map[string]said{"hanse": func(w *ledgertest.Fleet, id document.Hash) [][]byte {
					return [][]byte{w.Answer(id, true, "hanse", "", 1, 2)}
				}}
				for _, generation := range []string{"", "new"} {
					for _, keys := range [][]int{{1}, {2, 3}, {1, 2}, {1, 2, 3}} {
						sayings[fmt.Sprint("kaper ", generation, keys)] = func(w *ledgertest.Fleet, id document.Hash) [][]byte {
							return [][]byte{w.Answer(id, true, "kaper", generation, keys...)}
						}
					}
				}
				sayings["not kaper"] = func(w *ledgertest.Fleet, id document.Hash) [][]byte {
					return [][]byte{w.Answer(id, false, "kaper", "", 1, 2)}
				}
				names := slices.Sorted(maps.Keys(sayings))
				rnd := rand.New(rand.NewPCG(4, uint64(len(change))))
				for range 6 {
					rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
					some := names[:1+rnd.IntN(5)]
					if rnd.IntN(3) > 0 && !slices.Contains(some, "hanse") {
						some = append(slices.Clone(some), "hanse")
					}
					x := example{said: func(w *ledgertest.Fleet, id document.Hash) (all [][]byte) {
						for _, n := range some {
							all = append(all, sayings[n](w, id)...)
						}
						return all
					}}
					p.entries(fmt.Sprint("owners ", name, ", ", change, ", lost ", lost, ": ", some), w, forge(w, v.Encode(), rested(t, w, x, v.Encode())))
				}
			}
		}
	}
}

func fleetBytes(s ledger.State) []byte {
	id := s.Fleet()
	return id[:]
}
