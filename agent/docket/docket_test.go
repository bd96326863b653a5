package docket

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"testing"
	"time"

	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// disk is the folder on a disk that loses power.
type disk struct{ *crashdisk.Files }

func (d disk) Read(name string) ([]byte, error) { return d.ReadFile("docket/" + name) }

func (d disk) Replace(name string, data []byte) error {
	return durable.ReplaceIn(d.Files, "docket/"+name, data, 0o600)
}

func (d disk) Remove(name string) error { return d.Files.Remove("docket/" + name) }

func (d disk) Aside(name string) error {
	if err := d.Rename("docket/"+name, durable.AsideName("docket/"+name, 1)); err != nil {
		return err
	}
	return d.Sync("docket")
}

func (d disk) List() (names []string, err error) {
	for name := range d.AfterCut(1) {
		names = append(names, path.Base(name))
	}
	slices.Sort(names) // as a folder is read
	return names, nil
}

func onDisk(files map[string][]byte, writes int) disk {
	return disk{crashdisk.NewFiles(files, crashdisk.NewPower(writes))}
}

// world is a founded fleet, and how far a machine's clock is since its boot.
type world struct {
	*ledgertest.Fleet
	state   ledger.State
	running time.Duration
}

func begin(t *testing.T) *world {
	t.Helper()
	w := &world{Fleet: ledgertest.Founded(t, 4, 2)}
	w.state = w.Log.State()
	return w
}

func (w *world) open(t *testing.T, d files) *Store {
	t.Helper()
	return ledgertest.Must[*Store](t)(open(d, func() ledger.State { return w.state }, func() time.Duration { return w.running }))
}

// seat is ada's proposal that a node gets a seat, under a number.
func (w *world) seat(t *testing.T, number uint64, seat roster.Seat) signed.Envelope {
	t.Helper()
	v := ledger.Value{Version: 1, Seat: &decision.Seat{Seats: []roster.Seat{seat}}}
	return ledgertest.Must[signed.Envelope](t)(proposal.Seal(w.state.Fleet(), w.Ada, number, proposal.Proposal{Height: w.state.Height, Value: v.Encode()}))
}

// answer is the answer of the fleet's owner to a proposal.
func (w *world) answer(to signed.Envelope, yes bool, number int64) []byte {
	a := proposal.Answer{Proposal: proposal.ID(to), Owner: "hanse", Yes: yes, Number: number}
	for k := 1; k <= 2; k++ {
		a.Signatures = append(a.Signatures, signed.Sign(k, ledgertest.Private(fmt.Sprintf("owner %d", k)), a.Bytes(w.state.Fleet())))
	}
	return a.Encode()
}

func (w *world) votes(t *testing.T, node string, number int64) []byte {
	v := proposal.Votes{Node: ledgertest.Key(t, node), Number: number, Votes: map[decision.Kind]decision.Vote{decision.KindSeat: {Way: decision.Auto}}}
	for k := 1; k <= 2; k++ {
		v.Signatures = append(v.Signatures, signed.Sign(k, ledgertest.Private(fmt.Sprintf("owner %d", k)), v.Bytes(w.state.Fleet())))
	}
	return v.Encode()
}

func take(t *testing.T, s *Store, raw []byte) {
	t.Helper()
	if news, err := s.Take(raw); err != nil || !news {
		t.Fatalf("news=%v: %v", news, err)
	}
}

// TestPowerCut cuts the power at every write of a docket's life: what was taken is there afterwards, what has
// left the queue does not come again, and the same life goes on to the same end.
func TestPowerCut(t *testing.T) {
	w := begin(t)
	five := ledgertest.Seat(t, 5, "n5")
	one, two := w.seat(t, 1, five), w.seat(t, 2, ledgertest.Seat(t, 5, "n6"))
	give := func(raw []byte) func(*Store) error {
		return func(s *Store) error { _, err := s.Take(raw); return err }
	}
	drop := func(s *Store) error { s.Drop(proposal.ID(one), "most call it invalid"); return s.Keep() }
	steps := []func(*Store) error{
		give(one.Bytes()), give(w.Request(t, five)), give(w.answer(one, true, 1)), give(w.answer(one, false, 2)),
		give(w.votes(t, "n2", 1)), give(w.votes(t, "n2", 2)), give(two.Bytes()), drop, give(w.answer(two, true, 1)),
	}
	const answered, dropped = 4, 8
	for writes := 0; ; writes++ {
		d := onDisk(nil, writes)
		s, done := w.open(t, d), 0
		for _, step := range steps {
			if step(s) != nil {
				break
			}
			done++
		}
		for seed := range uint64(8) {
			after := w.open(t, onDisk(d.AfterCut(seed), 1000))
			here := slices.ContainsFunc(after.Open(), func(p Waiting) bool { return p.Number == 1 })
			answers := after.AnswersTo(proposal.ID(one))
			_, err := after.Take(one.Bytes())
			switch {
			case done > 0 && done < dropped-1 && !here, done >= dropped && (here || !errors.Is(err, docket.ErrOver)):
				t.Fatalf("writes=%d seed=%d: after %d steps the proposal is here: %v, %v", writes, seed, done, here, err)
			case here && done >= answered && (len(answers) != 1 || answers[0].Yes):
				t.Fatalf("writes=%d seed=%d: after %d steps the answers are %+v", writes, seed, done, answers)
			case after.Damaged() > 0:
				t.Fatalf("writes=%d seed=%d: a cut has damaged %d files", writes, seed, after.Damaged())
			}
			for i, step := range steps {
				if err := step(after); err != nil && !errors.Is(err, docket.ErrOver) && !errors.Is(err, docket.ErrEarly) {
					t.Fatalf("writes=%d seed=%d: step %d after the cut: %v", writes, seed, i, err)
				}
			}
			if v, _ := after.Votes(ledgertest.Key(t, "n2")); len(after.All()) != 3 || v.Number != 2 {
				t.Fatalf("writes=%d seed=%d: %d objects at the end", writes, seed, len(after.All()))
			}
			left, _ := after.files.List()
			left = slices.DeleteFunc(left, func(name string) bool { // List has what a cut might bring back, too
				_, err := after.files.Read(name)
				return err != nil || name == timesFile
			})
			if len(left) != 3 {
				t.Fatalf("writes=%d seed=%d: at the end there lie %v", writes, seed, left)
			}
		}
		if done == len(steps) {
			return
		}
	}
}

// TestWaited counts the running time of a node, boot by boot, and writes seldom.
func TestWaited(t *testing.T) {
	w := begin(t)
	w.running = time.Hour // since the boot, before the docket was opened
	d := onDisk(nil, 1000)
	s := w.open(t, d)
	times := func() bool { return d.AfterCut(1)["docket/"+timesFile] != nil }
	waited := func(want time.Duration) {
		t.Helper()
		if p := s.Open(); len(p) != 1 || time.Duration(p[0].Waited) != want {
			t.Errorf("%d proposals, and %s is wanted: %v", len(p), want, p[0].Waited)
		}
	}
	pass := func(d time.Duration) {
		t.Helper()
		w.running += d
		if err := s.Keep(); err != nil {
			t.Fatal(err)
		}
	}
	pass(time.Hour)
	p := w.seat(t, 1, ledgertest.Seat(t, 5, "n5"))
	take(t, s, p.Bytes())
	if times() {
		t.Error("it writes times where nothing has waited")
	}
	pass(Grain - time.Second)
	waited(Grain - time.Second)
	pass(time.Second)
	if !times() {
		t.Error("it has not written the times")
	}
	pass(time.Minute)
	waited(Grain + time.Minute)
	w.running = 5 * time.Second // the power was cut
	s = w.open(t, d)
	waited(Grain)
	pass(time.Minute)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	w.running = 0 // in order
	s = w.open(t, d)
	waited(Grain + time.Minute)
	// The same proposal in other bytes has not waited less.
	again := ledgertest.Must[signed.Envelope](t)(signed.SealByOperator(p.Kind, p.Fleet, w.Ada, p.Sequence, p.Body))
	if _, err := s.Take(again.Bytes()); err != nil {
		t.Fatal(err)
	}
	waited(Grain + time.Minute)
}

// TestFollow: what was decided goes, from memory and from the disk, and others are told that it is here.
func TestFollow(t *testing.T) {
	w := begin(t)
	d := onDisk(nil, 1000)
	s := w.open(t, d)
	told := 0
	s.Listen(func() { told++ })
	five := ledgertest.Seat(t, 5, "n5")
	p := w.seat(t, 1, five)
	take(t, s, p.Bytes())
	take(t, s, w.Request(t, five))
	v, evidence, err := w.state.Gather(p, s.Known())
	if err == nil {
		err = w.Decides(t, v, evidence)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.state = w.Log.State()
	if len(s.Open()) != 0 || !s.Sum().IsZero() || told != 2 {
		t.Errorf("%+v waits, told %d times", s.Open(), told)
	}
	if err := s.Keep(); err != nil || len(d.AfterCut(1)) != 0 {
		t.Errorf("%v: there lie %v", err, slices.Sorted(maps.Keys(d.AfterCut(1))))
	}
	if _, err := s.Take(p.Bytes()); !errors.Is(err, docket.ErrOver) {
		t.Error(err)
	}
	id := document.HashOf(p.Bytes())
	if !slices.Contains(s.IDs(), token.Short(id[:])) {
		t.Error("others would send it without an end")
	}
}

// TestDamaged passes over what has decayed, which comes from others again; what a later release has
// written stays, and so does a proposal of a height that this ledger has lost.
func TestDamaged(t *testing.T) {
	w := begin(t)
	d := onDisk(nil, 1000)
	s := w.open(t, d)
	p := w.seat(t, 1, ledgertest.Seat(t, 5, "n5"))
	take(t, s, p.Bytes())
	take(t, s, w.answer(p, true, 1))
	w.running = Grain
	if err := s.Keep(); err != nil {
		t.Fatal(err)
	}
	files := maps.Clone(d.AfterCut(1))
	for name := range files {
		raw := bytes.Clone(files[name])
		raw[len(raw)/2] ^= 1
		files[name] = raw
	}
	after := w.open(t, onDisk(files, 1000))
	if after.Damaged() != 3 || len(after.All()) != 0 {
		t.Errorf("%d files are damaged, %d objects", after.Damaged(), len(after.All()))
	}
	if again := w.open(t, after.files); again.Damaged() != 0 {
		t.Errorf("%d are damaged at the next start, too", again.Damaged())
	}
	for _, raw := range s.Lacking(after.IDs(), 1<<20) {
		if _, err := after.Take(raw); err != nil {
			t.Error(err)
		}
	}
	if after.Sum() != s.Sum() || after.Damaged() != 1 { // the times
		t.Errorf("%d are damaged still", after.Damaged())
	}

	now := w.state
	w.state = ledgertest.Founded(t, 4, 1).Log.State() // another fleet's: all of it is foreign
	early := *w
	early.state = now
	files = map[string][]byte{"docket/" + document.HashOf([]byte("later")).String(): summed([]byte("later"))}
	w.state = now
	w.state.Height++
	ahead := w.seat(t, 9, ledgertest.Seat(t, 5, "n5")).Bytes()
	w.state.Height--
	files["docket/"+document.HashOf(ahead).String()] = summed(ahead)
	lying := onDisk(files, 1000)
	left := w.open(t, lying)
	if err := left.Keep(); err != nil || left.Damaged() != 0 || len(left.All()) != 0 || len(lying.AfterCut(1)) != 2 {
		t.Errorf("%v: %d are damaged, there lie %d files", err, left.Damaged(), len(lying.AfterCut(1)))
	}
}

// TestBeside: what a cut has left beside what took its place goes at the next start, whatever the order in
// which files are read.
func TestBeside(t *testing.T) {
	w := begin(t)
	p := w.seat(t, 1, ledgertest.Seat(t, 5, "n5"))
	for document.HashOf(p.Bytes())[0] < 0xf8 { // so that it is read behind most of what rests on it
		p = w.seat(t, 1, ledgertest.Seat(t, 5, "n5"))
	}
	files := map[string][]byte{"docket/" + document.HashOf(p.Bytes()).String(): summed(p.Bytes())}
	for number := range int64(10) {
		raw := w.answer(p, number%2 == 0, number+1)
		files["docket/"+document.HashOf(raw).String()] = summed(raw)
	}
	s := w.open(t, onDisk(files, 1000))
	if a := s.AnswersTo(proposal.ID(p)); len(a) != 1 || a[0].Number != 10 || len(s.gone) != 9 {
		t.Errorf("%+v counts, and %d files are to go", a, len(s.gone))
	}
	if err := s.Keep(); err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if _, err := s.files.Read(path.Base(name)); err == nil && !bytes.Contains(files[name], p.Bytes()) && !bytes.Contains(files[name], w.answer(p, false, 10)) {
			t.Errorf("%s lies there still", name)
		}
	}
}

// TestComesAgain: what rested on nothing at the start, and comes again with what it rests on, stays.
func TestComesAgain(t *testing.T) {
	w := begin(t)
	five := ledgertest.Seat(t, 5, "n5")
	asks := w.Request(t, five)
	d := onDisk(map[string][]byte{"docket/" + document.HashOf(asks).String(): summed(asks)}, 1000)
	s := w.open(t, d)
	if len(s.All()) != 0 {
		t.Fatal("nobody gives it a seat")
	}
	gone := slices.Clone(s.gone)
	if len(gone) != 1 {
		t.Fatalf("%v are to go", gone)
	}
	take(t, s, w.seat(t, 1, five).Bytes())
	s.gone = gone // as where the proposal has come in the place of another one, and the disk was slow
	take(t, s, asks)
	if again := w.open(t, d); len(again.All()) != 2 {
		t.Errorf("%d objects are left of two", len(again.All()))
	}
}

// full is a disk that takes nothing more.
type full struct{ disk }

func (full) Replace(string, []byte) error { return errors.New("no space left on device") }

// TestFullDisk takes nothing that the disk does not take, and goes on with what it has.
func TestFullDisk(t *testing.T) {
	w := begin(t)
	d := onDisk(nil, 1000)
	p := w.seat(t, 1, ledgertest.Seat(t, 5, "n5"))
	before := w.open(t, d)
	take(t, before, p.Bytes())
	take(t, before, w.answer(p, true, 1))
	s := w.open(t, full{d})
	w.running = time.Minute
	if news, err := s.Take(w.answer(p, false, 2)); err == nil || news {
		t.Fatal("the disk takes it")
	}
	if a := s.AnswersTo(proposal.ID(p)); len(a) != 1 || a[0].Number != 1 {
		t.Errorf("%+v", a)
	}
	if of := s.Open(); len(of) != 1 || time.Duration(of[0].Waited) != time.Minute {
		t.Errorf("%+v", of)
	}
	s.Drop(proposal.ID(p), "why")
	if _, err := s.Take(w.votes(t, "n2", 1)); err == nil || len(s.Open()) != 0 {
		t.Errorf("%v: what has left the queue is there again: %+v", err, s.Open())
	}
	if err := s.Keep(); err == nil {
		t.Error("it was told that the disk keeps it")
	}
}

// TestCarried has papers and dockets travel as one, and shows a release before the docket nothing of it.
func TestCarried(t *testing.T) {
	w := begin(t)
	p := w.seat(t, 1, ledgertest.Seat(t, 5, "n5"))
	one := With(&pile{}, w.open(t, onDisk(nil, 1000)))
	other := With(&pile{}, w.open(t, onDisk(nil, 1000)))
	for i := range 30 {
		if _, err := one.Take(fmt.Appendf(nil, "paper %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if one.Sum() != one.Papers.Sum() {
		t.Error("a release before the docket sees another sum, and the docket is empty")
	}
	for _, raw := range [][]byte{p.Bytes(), w.answer(p, true, 1), w.votes(t, "n2", 1)} {
		if _, err := one.Take(raw); err != nil {
			t.Fatal(err)
		}
	}
	for _, raw := range one.Lacking(other.Papers.IDs(), 1<<20) {
		if docket.Is(raw) {
			t.Error("a release before the docket is given what it does not take")
		}
	}
	for tries := 0; one.Sum() != other.Sum(); tries++ {
		if tries > 1000 {
			t.Fatalf("%d of %d have come", len(other.IDs()), len(one.IDs()))
		}
		size := 0
		for _, raw := range one.Lacking(other.IDs(), 1<<10) {
			size += len(raw)
			if _, err := other.Take(raw); err != nil && !errors.Is(err, docket.ErrEarly) {
				t.Fatal(err)
			}
		}
		if size > 1<<10 {
			t.Fatalf("%d bytes at once", size)
		}
	}
	if len(other.Docket.All()) != 3 || len(*other.Papers.(*pile)) != 30 {
		t.Errorf("%d and %d", len(other.Docket.All()), len(*other.Papers.(*pile)))
	}
	for i := range token.MaxSet {
		*one.Papers.(*pile) = append(*one.Papers.(*pile), fmt.Appendf(nil, "more %d", i))
	}
	if ids := one.IDs(); len(ids) != token.MaxSet || ids[0] != takes {
		t.Errorf("%d ids do not go into a frame", len(ids))
	}
}

// pile is papers that nobody has signed.
type pile [][]byte

func (p *pile) Sum() document.Hash {
	sorted := slices.SortedFunc(slices.Values(*p), bytes.Compare)
	return document.HashOf(document.Message("pile", sorted...))
}

func (p *pile) IDs() (ids []token.Short) {
	for _, raw := range *p {
		id := document.HashOf(raw)
		ids = append(ids, token.Short(id[:]))
	}
	return ids
}

func (p *pile) Lacking(has []token.Short, most int) (all [][]byte) {
	for i, id := range p.IDs() {
		raw := (*p)[i]
		if slices.Contains(has, id) {
			continue
		}
		if most -= len(raw); most < 0 {
			return all
		}
		all = append(all, raw)
	}
	return all
}

func (p *pile) Take(raw []byte) (bool, error) {
	if slices.ContainsFunc(*p, func(has []byte) bool { return bytes.Equal(has, raw) }) {
		return false, nil
	}
	*p = append(*p, bytes.Clone(raw))
	return true, nil
}
