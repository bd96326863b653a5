package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"kogge.example/agent/etcd/membership"
)

// Status is how a member stands, for people and for the other members.
type Status struct {
	Version    int    `json:"version"` // of this document: 1
	Seat       int    `json:"seat"`
	Generation int    `json:"generation"`
	Running    bool   `json:"running"`         // etcd runs here
	Leader     int    `json:"leader"`          // the seat that leads; 0: none is known
	Lost       bool   `json:"lost,omitempty"`  // etcd lists this seat, and its data is gone
	Unfit      string `json:"unfit,omitempty"` // why this node's disk is none for etcd, while it does not run here
	Doing      string `json:"doing"`           // what is done or waited for
	Problem    string `json:"problem,omitempty"`

	Members []membership.Member `json:"members,omitempty"` // etcd's list
	// Hears are the seats whose etcd speaks to the one here now.
	Hears []int `json:"hears,omitempty"`
	// Committed is the newest entry of the log that is here and counts.
	Committed uint64 `json:"committed,omitempty"`
	// Revision of the data, Size of its file and how much of that is InUse, in bytes; Quota is
	// what it may have.
	Revision int64 `json:"revision,omitempty"`
	Size     int64 `json:"size,omitempty"`
	InUse    int64 `json:"inUse,omitempty"`
	Quota    int64 `json:"quota,omitempty"`
	// Full are the seats that have no room, for which no write is taken; Corrupt those whose
	// data is not that of the others.
	Full    []int `json:"full,omitempty"`
	Corrupt []int `json:"corrupt,omitempty"`

	Probe     Probe      `json:"probe,omitzero"`
	Snapshots []Snapshot `json:"snapshots,omitempty"`
}

const (
	statusVersion = 1
	maxStatus     = 64 << 10 // bytes
	statusPath    = "/kogge/status"
	// defragmentPath is for the leader's node: this node's database is the next.
	defragmentPath = "/kogge/defragment"
)

// parseStatus reads what another member says.
func parseStatus(raw []byte) (Status, error) {
	var s Status
	if len(raw) > maxStatus {
		return Status{}, fmt.Errorf("status of a member: more than %d bytes", maxStatus)
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return Status{}, fmt.Errorf("status of a member: %w", err)
	}
	if s.Version < 1 || s.Seat < 1 || s.Generation < 0 || s.Size < 0 || s.InUse < 0 {
		return Status{}, fmt.Errorf("status of a member: version %d, seat %d, generation %d", s.Version, s.Seat, s.Generation)
	}
	return s, nil
}

// heard is what another seat's door has said.
type heard struct {
	last Status
	at   time.Time // when it answered last, by the monotonic clock
	ok   bool      // the last time
}

// ears ask the other doors, all at once.
type ears struct {
	dial *dialer

	mu  sync.Mutex // guards all
	all map[int]heard
}

// ask asks seats how they stand, and forgets those that are not among them. Who has never
// answered is silent since he was asked first.
func (e *ears) ask(ctx context.Context, seats []int) map[int]heard {
	ctx, cancel := context.WithTimeout(ctx, spared)
	defer cancel()
	var wait sync.WaitGroup
	fresh := make(map[int]heard)
	var mu sync.Mutex // guards fresh
	for _, seat := range seats {
		e.mu.Lock()
		before := e.all[seat]
		e.mu.Unlock()
		if before.at.IsZero() {
			before.at = time.Now()
		}
		wait.Go(func() {
			now := before
			s, err := e.dial.status(ctx, seat)
			if now.ok = err == nil; now.ok {
				now.last, now.at = s, time.Now()
			}
			mu.Lock()
			defer mu.Unlock()
			fresh[seat] = now
		})
	}
	wait.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = fresh
	return fresh
}

// status asks one seat.
func (d *dialer) status(ctx context.Context, seat int) (Status, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+memberName(seat)+statusPath, nil)
	if err != nil {
		return Status{}, err
	}
	answer, err := d.calls.RoundTrip(r)
	if err != nil {
		return Status{}, err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxStatus+1))
	if err != nil {
		return Status{}, err
	}
	s, err := parseStatus(raw)
	if err == nil && s.Seat != seat {
		err = fmt.Errorf("seat %d says that it is seat %d", seat, s.Seat)
	}
	return s, err
}

// defragment has a seat's node defragment its database, and waits until it has.
func (d *dialer) defragment(ctx context.Context, seat int) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+memberName(seat)+defragmentPath, nil)
	if err != nil {
		return err
	}
	answer, err := d.calls.RoundTrip(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 1024)) // it only explains
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("seat %d: defragment: %s", seat, text)
	}
	return nil
}
