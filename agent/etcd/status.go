package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"kogge.example/agent/etcd/fsync"
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
	Unfit      string `json:"unfit,omitempty"` // why etcd cannot run here, while it does not
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
	// data is not that of the others, for which nothing is, 0 where nobody knows which.
	Full    []int `json:"full,omitempty"`
	Corrupt []int `json:"corrupt,omitempty"`

	Probe     fsync.Times `json:"probe,omitzero"`
	Snapshots []Snapshot  `json:"snapshots,omitempty"`
}

const (
	statusVersion = 1
	// maxGeneration is far above what restores ever make, and far below where numbers end.
	maxGeneration = 1 << 30
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
	if s.Version < 1 || s.Seat < 1 || s.Generation < 0 || s.Generation > maxGeneration || s.Size < 0 || s.InUse < 0 {
		return Status{}, fmt.Errorf("status of a member: version %d, seat %d, generation %d, %d of %d bytes", s.Version, s.Seat, s.Generation, s.InUse, s.Size)
	}
	return s, nil
}

// heard is what another seat's door has said.
type heard struct {
	last Status
	ok   bool      // it answered when it was asked last
	at   time.Time // when that was
}

// ears ask the other doors, all at once.
type ears struct {
	dial *dialer
	all  map[int]heard // only ask changes it
}

// ask asks seats how they stand, and says what is known of all; those who are not among all are
// forgotten.
func (e *ears) ask(ctx context.Context, seats, all []int) map[int]heard {
	ctx, cancel := context.WithTimeout(ctx, spared)
	defer cancel()
	known := make(map[int]heard)
	for _, seat := range all {
		if before, ok := e.all[seat]; ok {
			known[seat] = before
		}
	}
	var wait sync.WaitGroup
	var mu sync.Mutex // guards known, from here on
	for _, seat := range seats {
		wait.Go(func() {
			s, err := e.dial.status(ctx, seat)
			mu.Lock()
			defer mu.Unlock()
			now := heard{last: known[seat].last, ok: err == nil, at: time.Now()}
			if now.ok {
				now.last = s
			}
			known[seat] = now
		})
	}
	wait.Wait()
	e.all = known
	return known
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
