package ledger_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// walks adds what walkers propose, whether it can be decided or not.
func (p *pile) walks() {
	for seed := range uint64(10) {
		w := &walker{Fleet: ledgertest.Founded(p.t, 1+int(seed%8), 1), t: p.t, rnd: rand.New(rand.NewPCG(seed, 2))}
		for step := range 40 {
			v := w.propose()
			plain := v.Encode()
			e := forge(w.Fleet, plain, rested(p.t, w.Fleet, example{said: func(_ *ledgertest.Fleet, id document.Hash) [][]byte { return w.known(v, id) }}, plain))
			if w.Log.AppendBroken(e) == nil {
				w.Entries = append(w.Entries, e)
				p.entries(fmt.Sprintf("walk %d, step %d", seed, step), w.Fleet)
				continue
			}
			p.entries(fmt.Sprintf("walk %d, step %d: %s", seed, step, plain), w.Fleet, e)
		}
		p.file(fmt.Sprintf("walk %d", seed), w.Genesis.Bytes(), written(p.t, w.Fleet))
	}
}

// mutant is a value with something of it changed: what the types allow, or a line of its text.
func mutant(t testing.TB, rnd *rand.Rand, v ledger.Value) []byte {
	raw := v.Encode()
	if rnd.IntN(8) == 0 {
		lines := bytes.SplitAfter(raw, []byte("\n"))
		i, j := rnd.IntN(len(lines)), rnd.IntN(len(lines))
		lines[i], lines[j] = lines[j], lines[i]
		return bytes.Join(lines, nil)
	}
	var copied ledger.Value
	if err := json.Unmarshal(raw, &copied); err != nil {
		t.Fatal(err)
	}
	for range 1 + rnd.IntN(2) {
		var edits []func()
		mutate(t, rnd, reflect.ValueOf(&copied).Elem(), &edits)
		edits[rnd.IntN(len(edits))]()
	}
	return copied.Encode()
}

// mutate collects what can be changed of a value.
func mutate(t testing.TB, rnd *rand.Rand, v reflect.Value, edits *[]func()) {
	add := func(edit func()) { *edits = append(*edits, edit) }
	names := []string{"n1", "n5", "n9", "x"}
	switch is := v.Addr().Interface().(type) {
	case *signed.Key:
		add(func() { *is = ledgertest.Key(t, []string{"n1", "n5", "owner 1", "owner 2", "x"}[rnd.IntN(5)]) })
		return
	case *netip.AddrPort:
		add(func() {
			*is = netip.MustParseAddrPort([]string{"192.0.2.2:7444", "127.0.0.1:1", "[2001:db8::5]:9"}[rnd.IntN(3)])
		})
		return
	case *document.Duration:
		add(func() {
			*is = []document.Duration{0, *is / 2, *is * 2, *is + 1, *is - 1, document.Duration(1500 * time.Millisecond), document.Duration(time.Microsecond)}[rnd.IntN(7)]
		})
		return
	case *[]byte:
		if len(*is) > 0 {
			add(func() { *is = bytes.Clone(*is); (*is)[rnd.IntN(len(*is))] ^= 1 })
		}
		add(func() { *is = [][]byte{nil, {}, ca(t, "ca-second"), ca(t, "ca-third")}[rnd.IntN(4)] })
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			mutate(t, rnd, v.Elem(), edits)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			mutate(t, rnd, v.Field(i), edits)
		}
	case reflect.Array:
		add(func() { at := v.Index(rnd.IntN(v.Len())); at.SetUint(at.Uint() ^ 1) })
		add(v.SetZero)
	case reflect.Slice:
		for i := range v.Len() {
			mutate(t, rnd, v.Index(i), edits)
		}
		add(func() { v.SetZero() })
		if n := v.Len(); n > 0 {
			clone := func() reflect.Value { return reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, n+1), v) }
			add(func() { i := rnd.IntN(n); c := clone(); v.Set(reflect.AppendSlice(c.Slice(0, i), v.Slice(i+1, n))) })
			add(func() { v.Set(reflect.Append(clone(), v.Index(rnd.IntN(n)))) })
			add(func() {
				c := clone()
				reflect.Swapper(c.Interface())(rnd.IntN(n), rnd.IntN(n))
				v.Set(c)
			})
		}
	case reflect.String:
		add(func() {
			v.SetString(append(names, "", "hanse", "kaper", "-a", "Ä", "a.b", v.String()+"x", strings.Repeat("a", 64), "majority", "two-thirds", "admin", "operator", "reader")[rnd.IntN(17)])
		})
	case reflect.Bool:
		add(func() { v.SetBool(!v.Bool()) })
	case reflect.Int, reflect.Int64:
		add(func() {
			v.SetInt([]int64{0, -1, 1, v.Int() + 1, v.Int() - 1, int64(rnd.IntN(9)), 1 << 30, 1 << 40}[rnd.IntN(8)])
		})
	}
}

// spellings adds documents that say the same in other bytes, or less, or more, signed all the same: values,
// proposals and what else a decision rests on.
func (p *pile) spellings() {
	founded := ledgertest.Begun(p.t, 2)
	for name, bad := range respelled(founded.Founding(p.t).Encode()) {
		p.entries("founding, "+name, founded, forge(founded, bad, nil))
	}
	all := examples(p.t)
	for _, kind := range []decision.Kind{decision.KindSeat, decision.KindOperators, decision.KindOwners, decision.KindBreakGlass} {
		x := all[kind][0]
		w := x.begin(p.t)
		plain := x.value(p.t, w).Encode()
		for name, bad := range respelled(plain) {
			p.entries(fmt.Sprint(kind, ", ", name), w, forge(w, bad, rested(p.t, w, x, bad)))
		}
		evidence := rested(p.t, w, x, plain)
		e := forge(w, plain, evidence)
		for i, document := range []*[]byte{&e.Record, &e.Certificate} {
			good := *document
			for name, bad := range respelled(good) {
				*document = bad
				p.entries(fmt.Sprint(kind, ", document ", i, ", ", name), w, e)
			}
			*document = good
		}
		for i, object := range evidence {
			with := func(name string, bad []byte) {
				objects := slices.Clone(evidence)
				objects[i] = bad
				p.entries(fmt.Sprint(kind, ", object ", i, ", ", name), w, forge(w, plain, objects))
			}
			if object[0] == '{' {
				for name, bad := range respelled(object) {
					with(name, bad)
				}
				continue
			}
			read := ledgertest.Must[signed.Envelope](p.t)(signed.Parse(object))
			if read.Kind != roster.RequestKind {
				continue
			}
			for name, bad := range respelled(read.Body) {
				seat, _ := w.Log.State().Roster.ByKey(read.By)
				if seat.Name == "" {
					seat = ledgertest.Seat(p.t, 5, "n5")
					if read.By != seat.Key {
						seat = ledgertest.Seat(p.t, 6, "n6")
					}
				}
				with(name, ledgertest.Must[signed.Envelope](p.t)(signed.Seal(read.Kind, read.Fleet, ledgertest.PrivateOf(seat), 1, bad)).Bytes())
			}
		}
	}
}

// respelled are a document without each of its lines, with each twice, with another one before it, and
// with fields that say nothing.
func respelled(raw []byte) map[string][]byte {
	all := map[string][]byte{
		"on one line": append(bytes.Join(bytes.Fields(raw), []byte(" ")), '\n'), "with no end": raw[:len(raw)-1], "with two ends": append(bytes.Clone(raw), '\n'),
		"with a mark": append([]byte("\ufeff"), raw...), "with tabs": bytes.ReplaceAll(raw, []byte("  "), []byte("\t")),
		"with returns": bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n")),
	}
	lines := strings.SplitAfter(string(raw), "\n")
	for i, line := range lines {
		body := strings.TrimSpace(line)
		if !strings.HasPrefix(body, `"`) || strings.HasSuffix(body, "{") || strings.HasSuffix(body, "[") {
			continue
		}
		less := slices.Delete(slices.Clone(lines), i, i+1)
		if !strings.HasSuffix(body, ",") && strings.HasSuffix(less[i-1], ",\n") {
			less[i-1] = strings.TrimSuffix(less[i-1], ",\n") + "\n"
		}
		full := strings.TrimSuffix(strings.TrimSuffix(line, "\n"), ",") + ",\n"
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		all[fmt.Sprint("without line ", i)] = []byte(strings.Join(less, ""))
		if i%3 > 0 && i > 3 { // of many lines that are alike
			continue
		}
		for what, more := range map[string]string{
			"twice": full, "behind another": indent + "\"more\": 1,\n", "behind no vote": indent + "\"vote\": false,\n", "behind no domain": indent + "\"domain\": \"\",\n",
			"behind nothing set": indent + "\"set\": [],\n", "behind nobody": indent + "\"owners\": null,\n", "behind round 0": indent + "\"round\": 0,\n", "behind no reason": indent + "\"why\": \"\",\n",
			"behind no evidence": indent + "\"evidence\": \"\",\n", "behind zeros": indent + "\"evidence\": \"" + strings.Repeat("0", 64) + "\",\n",
		} {
			all[fmt.Sprint("line ", i, " ", what)] = []byte(strings.Join(slices.Insert(slices.Clone(lines), i, more), ""))
		}
		for _, c := range [][2]string{
			{": true", ": 1"}, {": true", ": null"}, {": true", `: "true"`}, {": 1", ": 1.0"}, {": 1", ": 1e0"}, {": 1", ": 01"}, {": 1", ": \"1\""}, {": 1", ": true"}, {": 1", ": -0"}, {": 2", ": null"},
			{`": "`, `" : "`}, {`": "a`, `": "\u0061`}, {`": "n`, `": "\u006e`}, {`": "h`, `": "\u0068`}, {`/`, `\/`}, {`=",`, `",`}, {`A`, "A\\n"},
		} {
			if strings.Contains(line, c[0]) {
				other := slices.Clone(lines)
				other[i] = strings.Replace(line, c[0], c[1], 1)
				all[fmt.Sprint("line ", i, " with ", c[1])] = []byte(strings.Join(other, ""))
			}
		}
	}
	return all
}
