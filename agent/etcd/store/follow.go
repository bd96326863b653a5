package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/client/v3"
)

// Follower is told what lies under a prefix, from one goroutine.
type Follower interface {
	// Begin says that all is told anew: etcd is another one, or too much was missed.
	Begin()
	// Told is what lies there, or has changed, in the order of the revisions; what is told
	// between Begin and Whole is in the order of the keys.
	Told([]Item)
	// Whole says that all was told, and that changes will be: what was not told since Begin is
	// not there any more.
	Whole()
	// Lost says that nobody knows what changes now, and why.
	Lost(error)
}

// mark says which etcd something is of, and how far that was.
type mark struct {
	cluster  uint64
	revision int64
}

// behind says whether an answer of etcd is of another one than this mark, or of one that was
// set back: then a watch from here on would wait for ever for what has been long ago.
func (m mark) behind(now mark) bool {
	return m != mark{} && (now.cluster != m.cluster || now.revision < m.revision)
}

// Follow tells a follower what lies under a prefix, and what changes, until ctx ends. It comes
// through a change of leader, a partition, a compaction, and a restore of an older snapshot.
func (s *Store) Follow(ctx context.Context, prefix string, f Follower) {
	const least, most = 250 * time.Millisecond, 5 * time.Second
	wait := least
	var last mark // how far what was told is
	for ctx.Err() == nil {
		began := time.Now()
		err := s.follow(ctx, prefix, f, &last)
		if errors.Is(err, ErrBack) {
			last = mark{}
		}
		if ctx.Err() != nil {
			return
		}
		f.Lost(err)
		if wait = min(2*wait, most); time.Since(began) > time.Minute {
			wait = least
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// follow tells all, and then what changes, from where the last one ended if that is the same etcd.
// It always returns an error.
func (s *Store) follow(ctx context.Context, prefix string, f Follower, last *mark) error {
	now, err := s.now(ctx)
	if err != nil {
		return err
	}
	if last.behind(now) {
		return fmt.Errorf("etcd: %w", ErrBack)
	}
	f.Begin()
	at, err := s.list(ctx, prefix, "", func(items []Item) error { f.Told(items); return ctx.Err() }, clientv3.WithSerializable())
	if err == nil && last.behind(at) {
		err = fmt.Errorf("etcd: %w", ErrBack)
	}
	if err != nil {
		return err
	}
	*last = at
	return s.watch(ctx, prefix, last, f)
}

// ErrBack is of an etcd that was set back, or is another one: what it said before counts no
// more.
var ErrBack = errors.New("etcd was set back")

var errStuck = errors.New("etcd has gone on, and the watch has not")

// watch tells what changes after a mark, which goes along. That all was told it says once etcd watches:
// a member without a leader does not, and still lists what it has. It always returns an error.
func (s *Store) watch(ctx context.Context, prefix string, at *mark, f Follower) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := s.c.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(at.revision+1), clientv3.WithFragment(), clientv3.WithCreatedNotify())
	look := time.NewTicker(s.look)
	defer look.Stop()
	var due int64 // how far the watch has to be by the next look
	created := false
	for {
		select {
		case r, ok := <-changes:
			if !ok {
				return fmt.Errorf("etcd: watch of %s: it has ended", prefix)
			}
			if err := r.Err(); err != nil {
				return fmt.Errorf("etcd: watch of %s: %w", prefix, err)
			}
			now := mark{r.Header.ClusterId, r.Header.Revision}
			if r.Created {
				now.revision = max(now.revision, at.revision) // it may say from where on
			}
			if at.behind(now) {
				return fmt.Errorf("etcd: watch of %s: %w", prefix, ErrBack)
			}
			*at = now
			if r.Created {
				created = true
				f.Whole()
			}
			if items := itemsOf(r.Events); len(items) > 0 {
				f.Told(items)
			}
		case <-look.C:
			now, err := s.now(ctx)
			if err != nil {
				return err
			}
			switch {
			case at.behind(now):
				return fmt.Errorf("etcd: watch of %s: %w", prefix, ErrBack)
			case due > at.revision, !created:
				return fmt.Errorf("etcd: watch of %s: %w", prefix, errStuck)
			}
			if due = now.revision; due > at.revision {
				if err := s.c.RequestProgress(ctx); err != nil {
					return fmt.Errorf("etcd: watch of %s: %w", prefix, err)
				}
			}
		}
	}
}

// now is how far this machine's etcd is. It asks no other, but fails where it knows no leader.
func (s *Store) now(ctx context.Context) (mark, error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), CallLimit)
	defer cancel()
	r, err := s.c.Get(ctx, "\x00", clientv3.WithSerializable(), clientv3.WithCountOnly())
	if err != nil {
		return mark{}, fmt.Errorf("etcd: how far it is: %w", err)
	}
	return mark{r.Header.ClusterId, r.Header.Revision}, nil
}

func itemsOf(events []*clientv3.Event) []Item {
	items := make([]Item, 0, len(events))
	for _, e := range events {
		i := Item{Key: string(e.Kv.Key), Revision: e.Kv.ModRevision}
		if i.Gone = e.Type == clientv3.EventTypeDelete; !i.Gone {
			i.Value, i.Lease = e.Kv.Value, e.Kv.Lease
		}
		items = append(items, i)
	}
	return items
}
