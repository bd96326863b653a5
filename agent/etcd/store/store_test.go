package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/etcd"
	"kogge.example/agent/etcd/etcdtest"
)

func TestMain(m *testing.M) { etcdtest.Main(m) }

// view is what a follower knows.
type view struct {
	mu    sync.Mutex // guards what follows
	lies  map[string]string
	seen  map[string]bool
	whole int
	lost  []error
	back  bool
}

func (v *view) Begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seen = make(map[string]bool); v.back || v.lies == nil {
		v.lies, v.back = make(map[string]string), false
	}
}

func (v *view) Told(items []Item) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, i := range items {
		if v.seen != nil {
			v.seen[i.Key] = true
		}
		if i.Gone {
			delete(v.lies, i.Key)
		} else {
			v.lies[i.Key] = string(i.Value)
		}
	}
}

func (v *view) Whole() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for key := range v.lies {
		if !v.seen[key] {
			delete(v.lies, key)
		}
	}
	v.seen = nil
	v.whole++
}

func (v *view) Lost(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lost = append(v.lost, err)
	v.back = v.back || errors.Is(err, ErrBack)
}

// has says whether the view is this: "a=1 b=2".
func (v *view) has(want string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []string
	for key, value := range v.lies {
		all = append(all, strings.TrimPrefix(key, "/t/")+"="+value)
	}
	slices.Sort(all)
	return v.whole > 0 && strings.Join(all, " ") == want
}

func open(t *testing.T, f *etcdtest.Fleet, seat int) *Store {
	t.Helper()
	s, err := Open(f.Socket(seat))
	if err != nil {
		t.Fatal(err)
	}
	s.look = 200 * time.Millisecond
	t.Cleanup(func() { s.Close() })
	return s
}

// put writes a key until it is written.
func put(t *testing.T, f *etcdtest.Fleet, s *Store, key, value string) {
	t.Helper()
	f.Until("write "+key, func() bool {
		i, err := s.Get(t.Context(), "/t/"+key)
		if err != nil {
			return false
		}
		_, done, err := s.Write(t.Context(), []Write{{Key: "/t/" + key, Value: []byte(value), Was: i.Revision}})
		return err == nil && done
	})
}

// follow follows all keys of the tests until the test ends.
func follow(t *testing.T, s *Store) *view {
	v := &view{}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Follow(ctx, "/t/", v) })
	t.Cleanup(func() { stop(); running.Wait() })
	return v
}

// TestFollow follows through whatever becomes of etcd: members are killed, the leader stands
// still, what was missed is forgotten, and an older snapshot is restored. Each time the view is
// what etcd has.
func TestFollow(t *testing.T) {
	f := etcdtest.New(t, 3)
	var stores []*Store
	for seat := 1; seat <= 3; seat++ {
		stores = append(stores, open(t, f, seat))
	}
	put(t, f, stores[0], "a", "1")
	views := []*view{follow(t, stores[0]), follow(t, stores[1]), follow(t, stores[2])}
	all := func(want string) {
		t.Helper()
		f.Until("all see "+want, func() bool { return views[0].has(want) && views[1].has(want) && views[2].has(want) })
	}
	all("a=1")
	var snapshot bytes.Buffer
	if err := etcd.Backup(t.Context(), f.Socket(1), &snapshot); err != nil {
		t.Fatal(err)
	}
	put(t, f, stores[1], "b", "2")
	all("a=1 b=2")

	leader := f.Leader()
	other := leader%3 + 1
	f.Freeze(leader)
	put(t, f, stores[other-1], "c", "3")
	f.Until("the others see it", func() bool { return views[other-1].has("a=1 b=2 c=3") })
	f.Thaw(leader)
	all("a=1 b=2 c=3")

	f.Kill(other)
	rest := other%3 + 1
	f.Until("a is gone", func() bool {
		i, err := stores[rest-1].Get(t.Context(), "/t/a")
		if err != nil || i.Revision == 0 {
			return err == nil
		}
		_, done, err := stores[rest-1].Write(t.Context(), []Write{{Key: "/t/a", Was: i.Revision, Delete: true}})
		return done && err == nil
	})
	if _, err := stores[rest-1].c.Compact(t.Context(), revision(t, stores[rest-1])); err != nil {
		t.Fatal(err)
	}
	f.Start(other)
	all("b=2 c=3")

	f.Restore(snapshot.Bytes())
	all("a=1")
	for _, s := range stores {
		put(t, f, s, "d", "4")
	}
	all("a=1 d=4")
	for i, v := range views {
		v.mu.Lock()
		if !slices.ContainsFunc(v.lost, func(err error) bool { return errors.Is(err, ErrBack) }) {
			t.Errorf("seat %d was not told that etcd was set back: %v", i+1, v.lost)
		}
		v.mu.Unlock()
	}
}

// TestNoLeader follows at a member that is cut off from the two others: it may tell what it has, and
// nobody is told that this is all, until there is a leader again.
func TestNoLeader(t *testing.T) {
	f := etcdtest.New(t, 3)
	s := open(t, f, 1)
	put(t, f, s, "a", "1")
	v := follow(t, s)
	f.Until("a is seen", func() bool { return v.has("a=1") })
	f.Kill(2, 3)
	lost := func() (lost, whole int) {
		v.mu.Lock()
		defer v.mu.Unlock()
		return len(v.lost), v.whole
	}
	_, before := lost()
	f.Until("it is lost three times", func() bool { n, _ := lost(); return n >= 3 })
	if _, whole := lost(); whole != before {
		t.Errorf("it is whole %d times more, without a leader", whole-before)
	}
	f.Start(2, 3)
	f.Until("it is whole again", func() bool { _, whole := lost(); return whole > before })
}

func revision(t *testing.T, s *Store) int64 {
	m, err := s.now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m.revision
}

// TestWrite does all or nothing, and keeps leases.
func TestWrite(t *testing.T) {
	f := etcdtest.New(t, 1)
	s := open(t, f, 1)
	ctx := t.Context()
	lease, err := s.Lease(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	first, done, err := s.Write(ctx, []Write{{Key: "/t/a", Value: []byte("1"), Lease: lease}, {Key: "/t/b", Value: []byte("2")}})
	if err != nil || !done || first == 0 {
		t.Fatal(first, done, err)
	}
	if _, done, err := s.Write(ctx, []Write{{Key: "/t/c", Value: []byte("3")}, {Key: "/t/b", Value: []byte("x")}}); err != nil || done {
		t.Errorf("b was there: done %v, %v", done, err)
	}
	if i, err := s.Get(ctx, "/t/c"); err != nil || i.Revision != 0 {
		t.Errorf("half of it was done: %+v, %v", i, err)
	}
	if i, err := s.Get(ctx, "/t/a"); err != nil || i.Lease != lease || i.Revision != first || string(i.Value) != "1" {
		t.Errorf("%+v, %v", i, err)
	}
	if err := s.Keep(ctx, lease); err != nil {
		t.Error(err)
	}
	if err := s.Keep(ctx, 12345); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if _, _, err := s.Write(ctx, []Write{{Key: "/t/d", Lease: 12345}}); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	var keys []string
	for n := range 2*page + 1 {
		keys = append(keys, fmt.Sprintf("/u/%04d", n))
	}
	for some := range slices.Chunk(keys, 64) {
		var writes []Write
		for _, key := range some {
			writes = append(writes, Write{Key: key, Value: []byte(key)})
		}
		if _, done, err := s.Write(ctx, writes); err != nil || !done {
			t.Fatal(done, err)
		}
	}
	var got []string
	give := func(items []Item) error {
		for _, i := range items {
			got = append(got, i.Key)
		}
		return nil
	}
	if err := s.List(ctx, "/u/", "/u/0001", give); err != nil || !slices.Equal(got, keys[2:]) {
		t.Errorf("%d of %d, %v", len(got), len(keys)-2, err)
	}
	stop := errors.New("enough")
	if err := s.List(ctx, "/u/", "", func([]Item) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}
