package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3"

	"kogge.example/agent/etcd/membership"
)

// due are the seats that the leader's node asks at this look: those that etcd lists, and all others
// where one may be needed, or now and then.
func (m *member) due(list []membership.Member) (seats []int) {
	if !m.rested || time.Since(m.spares) >= unlisted {
		m.spares = time.Now()
		return m.others(list)
	}
	for _, l := range list {
		if l.Seat != m.c.Seat && l.Seat != 0 {
			seats = append(seats, l.Seat)
		}
	}
	return seats
}

// lead is what the leader's node does: a step about the list, else a chore.
func (m *member) lead(ctx context.Context, s *server, status *Status, all map[int]heard) time.Duration {
	step := membership.Next(m.cluster(status, all))
	status.Doing = step.String()
	learns := step.Do == membership.Wait && slices.ContainsFunc(status.Members, func(l membership.Member) bool { return l.Seat == step.Seat && l.Learner })
	m.rested = step.Do == membership.Rest || learns
	switch {
	case learns:
		return eager
	case step.Do == membership.Rest, step.Do == membership.Wait:
		return m.chores(ctx, s, status, all)
	}
	limited, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	if err := s.carryOut(limited, step); err != nil {
		status.Doing += "; etcd says that it is too early: " + err.Error()
		m.once(status.Doing)
		return 2 * eager
	}
	if step.Vain {
		m.vain[step.Seat] = time.Now()
	}
	say(m.c, step.String())
	return eager
}

// cluster is what membership decides by.
func (m *member) cluster(status *Status, all map[int]heard) membership.Cluster {
	c := membership.Cluster{
		Self: m.c.Seat, Leader: status.Leader, Seats: m.facts.Seats, Members: status.Members,
		Grace: m.facts.Grace, Settled: time.Since(m.voted), Peers: make(map[int]membership.Peer),
	}
	seen := make(map[int]membership.Sight)
	for seat, h := range all {
		runs := h.ok && h.last.Running && h.last.Generation == status.Generation
		if seen[seat] = m.seen[seat]; !seen[seat].At.Equal(h.at) { // it was asked at this look
			learner := slices.ContainsFunc(status.Members, func(l membership.Member) bool { return l.Seat == seat && l.Learner })
			seen[seat] = seen[seat].Look(h.at, h.ok, runs, learner)
		}
		p := seen[seat].Peer()
		p.Away, p.Unfit, p.Lost = m.facts.Away[seat], h.last.Unfit, h.ok && h.last.Lost
		p.Corrupt = slices.Contains(status.Corrupt, seat)
		p.InSync = runs && h.last.Committed > 0 && float64(h.last.Committed+nearly) >= 0.9*float64(status.Committed)
		if !h.ok { // it may be mended when it is back
			delete(m.vain, seat)
		}
		if at, ok := m.vain[seat]; ok {
			p.Vain = max(time.Since(at), time.Nanosecond)
		}
		c.Peers[seat] = p
	}
	m.seen = seen
	c.Peers[m.c.Seat] = membership.Peer{Corrupt: slices.Contains(status.Corrupt, m.c.Seat)}
	return c
}

// nearly is how many entries a learner may lack on top of a tenth of them: a young log has few.
// etcd looks more closely, and refuses what is too early.
const nearly = 16

// chores does one chore about the databases.
func (m *member) chores(ctx context.Context, s *server, status *Status, all map[int]heard) time.Duration {
	gone := 0
	for _, a := range s.alarms() {
		if a.gone {
			gone++
		}
	}
	status.Problem = m.trouble
	if slices.Contains(status.Corrupt, 0) {
		status.Problem = "etcd's members have different data, and no majority of them has the same: nothing is read or written until a snapshot is restored"
	}
	if len(status.Corrupt) > 0 && gone == 0 || m.job != nil && m.job.seat != 0 {
		return calm
	}
	if full := len(status.Full) > 0; full != m.full || m.done == nil {
		m.full, m.compacted, m.done = full, time.Time{}, make(map[int]bool)
	}
	if time.Since(m.counted) >= time.Hour {
		m.counted, m.often, m.trouble = time.Now(), make(map[int]int), ""
	}
	var databases []usage
	for _, l := range status.Members {
		u := usage{Seat: l.Seat, Voter: !l.Learner, Done: m.done[l.Seat], Often: m.often[l.Seat]}
		if l.Seat == m.c.Seat {
			u.Answers, u.Size, u.InUse = true, status.Size, status.InUse
		} else if h := all[l.Seat]; h.ok && h.last.Running {
			u.Answers, u.Size = true, min(h.last.Size, quota(m.c)) // whatever it says
			u.InUse = min(h.last.InUse, u.Size)
		}
		databases = append(databases, u)
	}
	do := upkeep(m.c.Seat, quota(m.c), databases, status.Full, gone, time.Since(m.compacted) < compactAgain)
	switch {
	case do.Do == defragment && m.job != nil: // a snapshot is being made
		return calm
	case do.Do == nothing:
		if do.Why != "" {
			status.Problem = do.Why
			return calm / 3
		}
		return calm
	}
	if err := m.do(ctx, s, do, status); err != nil {
		status.Problem = fmt.Sprintf("%s: %v", do.Do, err)
		m.once(status.Problem)
		return calm
	}
	say(m.c, fmt.Sprintf("%s (seat %d): %s", do.Do, do.Seat, do.Why))
	return eager
}

func (m *member) do(ctx context.Context, s *server, do chore, status *Status) error {
	limited, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	switch do.Do {
	case compact:
		_, err := s.client.Compact(limited, status.Revision, clientv3.WithCompactPhysical())
		if err != nil && !errors.Is(err, rpctypes.ErrCompacted) { // somebody else was faster
			return err
		}
		m.compacted, m.done = time.Now(), make(map[int]bool)
	case defragment:
		m.done[do.Seat] = true
		m.often[do.Seat]++
		m.work(ctx, fmt.Sprintf("defragment seat %d's database", do.Seat), do.Seat, func(ctx context.Context) error {
			if do.Seat == m.c.Seat {
				return m.defragment(s)
			}
			return m.dial.defragment(ctx, do.Seat)
		})
	case yield:
		return s.carryOut(limited, membership.Step{Do: membership.Yield, Seat: do.Seat})
	case disarm, forget:
		return s.disarm(limited, do.Do == disarm)
	}
	return nil
}

// job is work of minutes beside the looks.
type job struct {
	what   string // for people
	seat   int    // whose database is defragmented; 0: it is a snapshot
	cancel context.CancelFunc
	done   chan struct{} // closed at its end
	err    error         // then
}

// work begins a job. There is one at a time, and none outlives etcd.
func (m *member) work(ctx context.Context, what string, seat int, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, defragmentFor)
	j := &job{what: what, seat: seat, cancel: cancel, done: make(chan struct{})}
	m.job = j
	go func() {
		defer close(j.done)
		j.err = do(ctx)
	}()
}

// reap hears of a job that is over.
func (m *member) reap() {
	if m.job == nil {
		return
	}
	select {
	case <-m.job.done:
	default:
		return
	}
	m.job.cancel()
	if m.trouble = ""; m.job.err != nil {
		m.trouble = fmt.Sprintf("%s: %v", m.job.what, m.job.err)
		m.once(m.trouble)
	}
	m.job = nil
}

// drop ends a job before its time.
func (m *member) drop() {
	if m.job != nil {
		m.job.cancel()
		<-m.job.done
		m.job = nil
	}
}

// defragment copies this node's database without its holes. It takes no write meanwhile.
func (m *member) defragment(s *server) error {
	m.working.Lock()
	defer m.working.Unlock()
	return s.etcd.Defragment()
}

// mayCopy says whether another member may have this node defragment its database: a copy of it wears
// the disk.
func (m *member) mayCopy(now time.Time) bool {
	m.working.Lock()
	defer m.working.Unlock()
	m.copied = slices.DeleteFunc(m.copied, func(at time.Time) bool { return now.Sub(at) >= time.Hour })
	if len(m.copied) >= 2*mostDone { // two leaders ask
		return false
	}
	m.copied = append(m.copied, now)
	return true
}

// snapshot has a copy of the data made if it is time.
func (m *member) snapshot(ctx context.Context, s *server, status Status) {
	var last Snapshot
	if all := m.folder.snapshots(); len(all) > 0 && all[len(all)-1].Generation == status.Generation {
		last = all[len(all)-1]
	}
	running := time.Since(m.started)
	made := running // for clocks that were set, what has surely passed
	if age := time.Since(last.Made); last.Revision > 0 && age > made {
		made = age
	}
	if !m.snapped.IsZero() {
		made = time.Since(m.snapped)
		running = min(running, made)
	}
	if m.job != nil || status.Leader == 0 || !snapshotDue(last, status.Revision, running, made, m.free(), status.Size) {
		return
	}
	m.snapped = time.Now()
	folder := m.folder
	m.work(ctx, "snapshot", 0, func(ctx context.Context) error {
		r, err := s.client.Snapshot(ctx)
		if err != nil {
			return err
		}
		return errors.Join(folder.keep(status.Generation, status.Revision, r), r.Close())
	})
}
