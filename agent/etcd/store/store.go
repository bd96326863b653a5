// Package store is what lies in etcd, as a member's gateway reads and writes it: by one
// connection to the socket of the etcd on its own machine.
//
// In come keys and values; out go the same, as they are now and as they change, with a word
// whenever what was known may be of another etcd. What a value means, who may write it and who
// is told is the caller's; nothing is believed here, and nothing is decided.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Store is a connection to etcd. Its methods may be called from any goroutine.
type Store struct {
	c *clientv3.Client
	// look is how often a watch is asked how far it is.
	look time.Duration
}

// Times of a connection.
const (
	// CallLimit is how long one call may take: two elections, and a slow card.
	CallLimit = 5 * time.Second
	lookEvery = 10 * time.Second
	// page is how many keys are read at once, and shortPage that where many are given lists at a time.
	page, shortPage = 256, 64
)

// ErrGone is of a lease that etcd does not have any more.
var ErrGone = errors.New("etcd has no such lease")

// Open makes a connection to a socket. Whether somebody answers there the calls say.
func Open(socket string) (*Store, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + socket}, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("client of etcd at %s: %w", socket, err)
	}
	return &Store{c: c, look: lookEvery}, nil
}

// Close ends the connection, and what waits on it.
func (s *Store) Close() error { return s.c.Close() }

// Item is what lies under a key.
type Item struct {
	Key      string
	Value    []byte
	Revision int64 // of the write that put it there
	Lease    int64 // 0: it stays
	Gone     bool  // nothing lies there any more since Revision
}

// Get is what lies under a key; Revision is 0 where nothing does.
func (s *Store) Get(ctx context.Context, key string) (Item, error) {
	ctx, cancel := context.WithTimeout(ctx, CallLimit)
	defer cancel()
	r, err := s.c.Get(ctx, key)
	if err != nil {
		return Item{}, fmt.Errorf("etcd: read %s: %w", key, err)
	}
	if len(r.Kvs) == 0 {
		return Item{Key: key}, nil
	}
	kv := r.Kvs[0]
	return Item{Key: key, Value: kv.Value, Revision: kv.ModRevision, Lease: kv.Lease}, nil
}

// List reads what lies under a prefix behind a key, in the order of the keys, and gives it some
// at a time. It needs no leader: what it gives may be behind by what this member has not heard
// of yet.
func (s *Store) List(ctx context.Context, prefix, after string, give func([]Item) error) error {
	_, err := s.list(ctx, prefix, after, give, clientv3.WithSerializable(), clientv3.WithLimit(shortPage))
	return err
}

// list returns the revision and the cluster of which the list is.
func (s *Store) list(ctx context.Context, prefix, after string, give func([]Item) error, more ...clientv3.OpOption) (at mark, err error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	if after != "" {
		from = after + "\x00"
	}
	for {
		options := append([]clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(page)}, more...)
		if at.revision > 0 {
			options = append(options, clientv3.WithRev(at.revision))
		}
		limited, cancel := context.WithTimeout(ctx, CallLimit)
		r, err := s.c.Get(limited, from, options...)
		cancel()
		if err != nil {
			return mark{}, fmt.Errorf("etcd: list %s: %w", prefix, err)
		}
		if at.revision == 0 {
			at = mark{r.Header.ClusterId, r.Header.Revision}
		}
		items := make([]Item, 0, len(r.Kvs))
		for _, kv := range r.Kvs {
			items = append(items, Item{Key: string(kv.Key), Value: kv.Value, Revision: kv.ModRevision, Lease: kv.Lease})
		}
		if len(items) > 0 {
			if err := give(items); err != nil {
				return mark{}, err
			}
			from = items[len(items)-1].Key + "\x00"
		}
		if !r.More || len(items) == 0 {
			return at, nil
		}
	}
}

// Page is some keys of all there are, in their order.
type Page struct {
	Keys []Found
	More bool // there are more behind those
	// Cluster and Revision are of which etcd that is, and how far it was.
	Cluster  uint64
	Revision int64
}

// Found is a key under which something lies, since the write of a revision. What that is, and by which
// lease, [Store.Get] says: etcd answers from its index, which has neither.
type Found struct {
	Key      string
	Revision int64
}

// Keys are some of all keys, behind one. They may be behind as [Store.List] is.
func (s *Store) Keys(ctx context.Context, after string) (Page, error) {
	ctx, cancel := context.WithTimeout(ctx, CallLimit)
	defer cancel()
	r, err := s.c.Get(ctx, after+"\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly(), clientv3.WithSerializable(), clientv3.WithLimit(shortPage))
	if err != nil {
		return Page{}, fmt.Errorf("etcd: list keys: %w", err)
	}
	p := Page{More: r.More, Cluster: r.Header.ClusterId, Revision: r.Header.Revision}
	for _, kv := range r.Kvs {
		p.Keys = append(p.Keys, Found{string(kv.Key), kv.ModRevision})
	}
	return p, nil
}

// Write is one of several that are done together.
type Write struct {
	Key    string
	Value  []byte
	Lease  int64 // 0: it stays
	Was    int64 // the revision of what has to lie there; 0: nothing
	Delete bool
	Under  bool // all keys are deleted that begin so, whatever lies there; Was says nothing
}

// Write does all of some writes, or none: done is false where something else lies under one of
// the keys. It returns the revision of the writes. The error wraps [ErrGone] where the lease is
// gone.
func (s *Store) Write(ctx context.Context, writes []Write) (revision int64, done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, CallLimit)
	defer cancel()
	var were []clientv3.Cmp
	var ops []clientv3.Op
	for _, w := range writes {
		if !w.Under {
			were = append(were, clientv3.Compare(clientv3.ModRevision(w.Key), "=", w.Was))
		}
		switch {
		case w.Delete && w.Under:
			ops = append(ops, clientv3.OpDelete(w.Key, clientv3.WithPrefix()))
		case w.Delete:
			ops = append(ops, clientv3.OpDelete(w.Key))
		default:
			ops = append(ops, clientv3.OpPut(w.Key, string(w.Value), clientv3.WithLease(clientv3.LeaseID(w.Lease))))
		}
	}
	r, err := s.c.Txn(ctx).If(were...).Then(ops...).Commit()
	if err != nil {
		return 0, false, fmt.Errorf("etcd: write %d keys: %w", len(writes), lease(err))
	}
	return r.Header.Revision, r.Succeeded, nil
}

// Lease makes a lease that ends when it is not kept for so long.
func (s *Store) Lease(ctx context.Context, lasts time.Duration) (id int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, CallLimit)
	defer cancel()
	r, err := s.c.Grant(ctx, int64(lasts/time.Second))
	if err != nil {
		return 0, fmt.Errorf("etcd: make a lease: %w", err)
	}
	return int64(r.ID), nil
}

// Keep keeps a lease. The error wraps [ErrGone] where it has ended.
func (s *Store) Keep(ctx context.Context, id int64) error {
	ctx, cancel := context.WithTimeout(ctx, CallLimit)
	defer cancel()
	if _, err := s.c.KeepAliveOnce(ctx, clientv3.LeaseID(id)); err != nil {
		return fmt.Errorf("etcd: keep a lease: %w", lease(err))
	}
	return nil
}

func lease(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}
