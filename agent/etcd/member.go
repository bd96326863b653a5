package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3"

	"kogge.example/agent/etcd/membership"
)

// How often a member looks.
const (
	calm    = 3 * time.Second        // all is as it is to be
	eager   = 250 * time.Millisecond // a step was done, or waits for something near
	callFor = 10 * time.Second       // one step about the list
	// defragmentFor is how long a database of the quota's size may take on a slow card.
	defragmentFor = 5 * time.Minute
	// livesFor is how long etcd has to live until its start counts as a good one.
	livesFor = 10 * time.Second
	// alone is how long a member that runs has no leader until it asks the others whether etcd
	// goes on without it.
	alone      = 4 * time.Second
	probeAgain = 30 * time.Minute
	// compactAgain is when old revisions are forgotten once more while there is no room.
	compactAgain = 10 * time.Minute
	// maxStarts is how often it may die before that, where others have the data.
	maxStarts = 3
)

// member is this node's part in etcd. Only run, and what it calls, changes it.
type member struct {
	c        Config
	folder   *folder
	dial     *dialer
	tunnels  *tunnels
	conns    *conns
	ears     *ears
	probed   Probe
	probedAt time.Time
	facts    Facts
	problem  string // why the facts are not new; "": they are

	changed   time.Time // when etcd's list did
	list      []membership.Member
	began     time.Time    // when etcd was started
	lives     bool         // it has lived for a while
	full      bool         // writes had stopped at the last look
	compacted time.Time    // when old revisions were forgotten since then
	done      map[int]bool // seats whose databases were defragmented since then
	snapped   time.Time    // when the last snapshot was tried
	refused   string       // the step that etcd refused last, and why
	led       time.Time    // when there was a leader last

	working sync.Mutex // held while the database is defragmented
	mu      sync.Mutex // guards what follows
	server  *server    // nil: etcd does not run
	status  Status
}

// Run runs this node's member until ctx ends: it waits for its turn, starts etcd, and if it leads
// sees to the others. It returns an error where it cannot even open its doors, or its folder.
func Run(ctx context.Context, c Config) error {
	for _, dir := range []string{c.Dir, c.Run} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
	}
	all := &conns{}
	m := &member{c: c, conns: all, dial: newDialer(c, all), changed: time.Now(), done: make(map[int]bool)}
	m.ears = &ears{dial: m.dial}
	var err error
	if m.tunnels, err = openTunnels(filepath.Join(c.Run, "peers"), m.dial); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer m.tunnels.close()
	entrance, err := openEntrance(c, all, m.handler())
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer entrance.close()
	defer m.stop()
	for ctx.Err() == nil {
		wait, err := m.look(ctx)
		if err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
		m.sleep(ctx, wait)
	}
	return nil
}

// sleep waits for the next look, or until something happens that is worth one.
func (m *member) sleep(ctx context.Context, wait time.Duration) {
	var leads <-chan struct{}
	var ends <-chan struct{}
	if s := m.running(); s != nil {
		leads, ends = s.etcd.LeaderChangedNotify(), s.etcd.StopNotify()
	}
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	case <-leads:
	case <-ends:
	}
}

func (m *member) running() *server {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.server
}

// look does what is next, and says when to look again. Its error ends the process.
func (m *member) look(ctx context.Context) (time.Duration, error) {
	facts, err := m.c.Facts()
	switch {
	case err == nil:
		m.facts, m.problem = facts, ""
	case m.folder == nil:
		m.publish(Status{Doing: "waits for what the fleet has decided", Problem: err.Error()})
		return calm, nil
	default: // what was decided before goes on
		m.problem = err.Error()
	}
	facts = m.facts
	m.folder = &folder{dir: m.c.Dir, disk: machine{}, mine: mark{Fleet: facts.Fleet, First: facts.First, Seat: m.c.Seat}}
	m.dial.know(facts.Addresses)
	if cut := m.conns.check(m.c.VerifyPeer); cut > 0 {
		say(m.c, fmt.Sprintf("%d connections were cut: their seats do not run etcd any more", cut))
	}
	if s := m.running(); s != nil && s.stopped() {
		say(m.c, "etcd has ended by itself")
		m.stop()
	}
	if s := m.running(); s != nil {
		return m.tend(ctx, s)
	}
	return m.begin(ctx)
}

// others are the seats that may run etcd, without this one, and those of a list.
func (m *member) others(list []membership.Member) (seats []int) {
	for _, s := range m.facts.Seats {
		seats = append(seats, s.Number)
	}
	for _, l := range list {
		seats = append(seats, l.Seat)
	}
	slices.Sort(seats)
	seats = slices.Compact(seats)
	return slices.DeleteFunc(seats, func(n int) bool { return n == m.c.Seat || n == 0 })
}

// begin is a look while etcd does not run.
func (m *member) begin(ctx context.Context) (time.Duration, error) {
	if did, err := m.folder.restore(); err != nil {
		say(m.c, err.Error())
	} else if did {
		say(m.c, "etcd begins anew, from the snapshot that was placed")
	}
	what, why, mk := m.folder.look()
	if what == membership.Absent {
		m.probe()
	}
	own := membership.Own{
		Seat: m.c.Seat, Folder: what, What: why, Begun: mk.Begun, Generation: mk.Generation, Unfit: "",
		Founder: slices.Contains(m.facts.Founders, m.c.Seat),
	}
	own.Alone = true
	for _, s := range m.facts.Seats {
		own.Wanted = own.Wanted || s.Number == m.c.Seat
		own.Alone = own.Alone && s.Number == m.c.Seat
	}
	own.Alone = own.Alone && own.Wanted
	if what == membership.Absent {
		own.Unfit = m.probed.Unfit(m.slowest())
	}
	own.Reports = reports(m.ears.ask(ctx, m.others(nil)))
	if what == membership.Mine && mk.Starts >= maxStarts {
		tried := own
		tried.Folder, tried.What = membership.Damaged, fmt.Sprintf("etcd ended %d times in a row soon after it was started on its data", mk.Starts)
		if s := membership.Begin(tried); s.Do == membership.Aside {
			own = tried // others have the data; else it is tried for ever
		}
	}
	step := membership.Begin(own)
	status := Status{Generation: mk.Generation, Lost: own.Lost(), Unfit: own.Unfit, Doing: step.String(), Probe: m.probed, Snapshots: m.folder.snapshots()}
	if step.Do == membership.Refuse || step.Do == membership.Wait && own.Wanted && own.Unfit != "" {
		status.Problem = step.Why
	}
	m.publish(status)
	if err := ctx.Err(); err != nil {
		return 0, nil
	}
	if starts := step.Do == membership.Start || step.Do == membership.New || step.Do == membership.Join; starts && m.free() < leastFree() {
		// It would die of it again and again, and look damaged.
		status.Problem = fmt.Sprintf("%s has less than %d MiB left: etcd waits for room", m.c.Dir, leastFree()>>20)
		m.publish(status)
		return calm, nil
	}
	err := m.start(own, mk, step)
	switch {
	case err != nil: // of a learner: another one was listed meanwhile
		status.Problem = err.Error()
		m.publish(status)
		say(m.c, err.Error())
		return calm / 3, nil
	case step.Do == membership.Wait || step.Do == membership.Refuse:
		return calm / 3, nil
	}
	say(m.c, step.String())
	return eager, nil
}

// probe probes the disk before it may hold data, and now and then again if it may not: it may
// only have been busy.
func (m *member) probe() {
	if m.probedAt.IsZero() || m.probed.Unfit(m.slowest()) != "" && time.Since(m.probedAt) >= probeAgain {
		m.probed, m.probedAt = ProbeDisk(m.c.Dir), time.Now()
	}
}

func (m *member) slowest() time.Duration {
	if m.c.Slowest == 0 {
		return Slowest
	}
	return m.c.Slowest
}

// reports are what those who answered say of their etcd.
func reports(all map[int]heard) (told []membership.Report) {
	for _, seat := range slices.Sorted(maps.Keys(all)) {
		h := all[seat]
		if !h.ok {
			continue
		}
		r := membership.Report{Seat: seat, Generation: h.last.Generation, Leader: h.last.Leader, Members: h.last.Members}
		if !h.last.Running {
			r.Leader = 0
		}
		told = append(told, r)
	}
	return told
}

// leastFree is how many bytes of its disk have to be free for etcd to start: two pieces of the log,
// and as much for what it writes meanwhile.
func leastFree() int64 { return 4 * segment }

// start carries out a step of [membership.Begin].
func (m *member) start(own membership.Own, mk mark, step membership.Step) error {
	b := begin{}
	switch step.Do {
	case membership.Aside:
		return m.folder.setAside(own.Folder, mk)
	case membership.Renew:
		return m.renew(mk)
	case membership.New:
		b = begin{fresh: true, members: m.facts.Founders}
		if mk.Generation > 0 {
			b.members = []int{m.c.Seat}
		}
		if err := m.folder.prepare(mark{Generation: mk.Generation}); err != nil {
			return err
		}
	case membership.Join:
		for _, r := range own.Reports {
			if slices.ContainsFunc(r.Members, func(l membership.Member) bool { return l.Seat == m.c.Seat && !l.Started }) && r.Leader != 0 {
				b.members, mk.Generation = nil, r.Generation
				for _, l := range r.Members {
					b.members = append(b.members, l.Seat)
				}
			}
		}
		if err := m.folder.prepare(mark{Generation: mk.Generation}); err != nil {
			return err
		}
	case membership.Start:
		b = begin{members: []int{m.c.Seat}} // what is in the log counts
	default:
		return nil
	}
	b.token = m.folder.token(mk.Generation)
	if err := m.tunnels.to(m.others(nil)...); err != nil {
		return err
	}
	begun := mark{Generation: mk.Generation, Begun: true, Starts: mk.Starts + 1}
	if step.Do == membership.Start { // before etcd reads what it may die of
		if err := m.folder.write(begun); err != nil {
			return err
		}
	}
	s, err := start(m.folder.data(mk.Generation), m.c, b, func() error { return m.folder.write(begun) })
	if err != nil {
		return err
	}
	m.began, m.led, m.lives, m.snapped = time.Now(), time.Now(), false, time.Time{}
	m.mu.Lock()
	m.server = s
	m.mu.Unlock()
	return nil
}

// renew has the only member begin anew after its data is gone: from its newest snapshot, or from
// nothing.
func (m *member) renew(mk mark) error {
	all := m.folder.snapshots()
	for _, s := range slices.Backward(all) {
		err := m.folder.renew(mk, filepath.Join(m.folder.path(snapshotsName), snapshotName(s.Revision)), true, 0)
		if err == nil {
			return nil
		}
		say(m.c, err.Error())
	}
	return m.folder.prepare(mark{Generation: mk.Generation + 1})
}

// stop ends etcd, if it runs.
func (m *member) stop() { m.end(false) }

// end ends etcd; at once where nobody is to lead in its place.
func (m *member) end(atOnce bool) {
	s := m.running()
	if s == nil {
		return
	}
	removed := s.etcd.IsIDRemoved(uint64(s.etcd.MemberID()))
	s.stop(atOnce)
	m.mu.Lock()
	m.server = nil
	m.mu.Unlock()
	what, _, mk := m.folder.look()
	var err error
	switch {
	case what == membership.Mine && removed:
		say(m.c, "etcd has removed this seat")
		err = m.folder.setAside(what, mk)
	case what == membership.Mine && mk.Starts > 0:
		mk.Starts = 0
		err = m.folder.write(mk)
	}
	if err != nil {
		say(m.c, err.Error())
	}
}

// tend is a look while etcd runs.
func (m *member) tend(ctx context.Context, s *server) (time.Duration, error) {
	if !m.lives && time.Since(m.began) >= livesFor {
		m.lives = true
		if mk, found, err := m.folder.read(); found && err == nil {
			mk.Starts = 0
			if err := m.folder.write(mk); err != nil {
				return 0, err
			}
		}
	}
	list := s.members()
	if !slices.Equal(list, m.list) {
		m.list, m.changed = list, time.Now()
	}
	if err := m.tunnels.to(m.others(list)...); err != nil {
		return 0, err
	}
	mk, _, _ := m.folder.read()
	status := m.now(s, mk.Generation)
	wait := calm
	var all map[int]heard
	switch status.Leader {
	case m.c.Seat:
		m.led = time.Now()
		all = m.ears.ask(ctx, m.others(list))
		wait = m.lead(ctx, s, &status, all)
	case 0:
		wait = eager
		status.Doing = membership.Next(membership.Cluster{}).String()
		if time.Since(m.led) >= alone {
			all = m.ears.ask(ctx, m.others(list))
		}
	default:
		m.led = time.Now()
		status.Doing = membership.Next(membership.Cluster{Self: m.c.Seat, Leader: status.Leader}).String()
	}
	own := membership.Own{Seat: m.c.Seat, Wanted: true, Folder: membership.Mine, Begun: true, Generation: mk.Generation, Reports: reports(all)}
	if status.Leader != 0 { // then it is listed, and what counts is only whether another etcd has begun
		own.Reports = slices.DeleteFunc(own.Reports, func(r membership.Report) bool { return r.Generation <= mk.Generation })
	}
	if step := membership.Begin(own); step.Do == membership.Aside {
		say(m.c, step.String())
		m.end(true)
		return eager, m.folder.setAside(membership.Mine, mk)
	}
	m.snapshot(ctx, s, status)
	status.Snapshots = m.folder.snapshots()
	m.publish(status)
	if time.Since(m.changed) < 2*calm {
		wait = min(wait, 2*eager)
	}
	return wait, nil
}

// now is how etcd stands here.
func (m *member) now(s *server, generation int) Status {
	full, corrupt := s.alarms()
	return Status{
		Generation: generation, Running: true, Leader: s.leader(), Members: s.members(), Committed: s.etcd.CommittedIndex(),
		Revision: s.etcd.KV().Rev(), Size: s.etcd.Backend().Size(), InUse: s.etcd.Backend().SizeInUse(), Quota: quota(m.c),
		Full: full, Corrupt: corrupt, Probe: m.probed,
	}
}

// lead is what the leader's node does: a step about the list, else a chore.
func (m *member) lead(ctx context.Context, s *server, status *Status, all map[int]heard) time.Duration {
	step := membership.Next(m.cluster(status, all))
	status.Doing = step.String()
	switch step.Do {
	case membership.Rest:
	case membership.Wait:
		if step.Seat == 0 || !slices.ContainsFunc(status.Members, func(l membership.Member) bool { return l.Seat == step.Seat && l.Learner }) {
			break
		}
		return eager
	default:
		limited, cancel := context.WithTimeout(ctx, callFor)
		defer cancel()
		if err := s.carryOut(limited, step); err != nil {
			status.Doing += "; etcd says that it is too early: " + err.Error()
			if status.Doing != m.refused {
				m.refused = status.Doing
				say(m.c, m.refused)
			}
			return 2 * eager
		}
		say(m.c, step.String())
		return eager
	}
	return m.chores(ctx, s, status, all)
}

// cluster is what membership decides by.
func (m *member) cluster(status *Status, all map[int]heard) membership.Cluster {
	c := membership.Cluster{
		Self: m.c.Seat, Leader: status.Leader, Seats: m.facts.Seats, Members: status.Members,
		Grace: m.facts.Grace, Settled: time.Since(m.changed), Peers: make(map[int]membership.Peer), Yields: m.facts.Yields[m.c.Seat],
	}
	for seat, h := range all {
		p := membership.Peer{Away: m.facts.Away[seat], Yields: m.facts.Yields[seat], Unfit: h.last.Unfit, Lost: h.ok && h.last.Lost}
		listed := slices.ContainsFunc(status.Members, func(l membership.Member) bool { return l.Seat == seat && l.Started })
		// A listed member whose etcd does not run is as silent as one that does not answer.
		if !h.ok || listed && !h.last.Running && !h.last.Lost {
			p.Silent = max(time.Since(h.at), time.Nanosecond)
		}
		same := h.last.Generation == status.Generation
		p.InSync = h.ok && same && h.last.Running && h.last.Committed > 0 && float64(h.last.Committed+nearly) >= 0.9*float64(status.Committed)
		c.Peers[seat] = p
	}
	return c
}

// nearly is how many entries a learner may lack on top of a tenth of them: a young log has few.
// etcd looks more closely, and refuses what is too early.
const nearly = 16

// chores does one chore about the databases.
func (m *member) chores(ctx context.Context, s *server, status *Status, all map[int]heard) time.Duration {
	if full := len(status.Full) > 0; full != m.full {
		m.full, m.compacted, m.done = full, time.Time{}, make(map[int]bool)
	}
	var databases []usage
	for _, l := range status.Members {
		u := usage{Seat: l.Seat, Voter: !l.Learner, Done: m.done[l.Seat]}
		if l.Seat == m.c.Seat {
			u.Answers, u.Size, u.InUse = true, status.Size, status.InUse
		} else if h := all[l.Seat]; h.ok && h.last.Running {
			u.Answers, u.Size, u.InUse = true, h.last.Size, h.last.InUse
		}
		databases = append(databases, u)
	}
	do := upkeep(m.c.Seat, quota(m.c), databases, status.Full, time.Since(m.compacted) < compactAgain)
	if do.Do == nothing {
		if do.Why != "" {
			status.Problem = do.Why
			return calm / 3
		}
		return calm
	}
	if err := m.do(ctx, s, do, status); err != nil {
		status.Problem = fmt.Sprintf("%s: %v", do.Do, err)
		say(m.c, status.Problem)
		return calm
	}
	say(m.c, fmt.Sprintf("%s (seat %d): %s", do.Do, do.Seat, do.Why))
	return eager
}

func (m *member) do(ctx context.Context, s *server, do chore, status *Status) error {
	limit := callFor
	if do.Do == defragment {
		limit = defragmentFor
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	switch do.Do {
	case compact:
		_, err := s.client.Compact(ctx, status.Revision, clientv3.WithCompactPhysical())
		if err != nil && !isCompacted(err) {
			return err
		}
		m.compacted, m.done = time.Now(), make(map[int]bool)
		return nil
	case defragment:
		if m.done[do.Seat] = true; do.Seat == m.c.Seat {
			return m.defragment(s)
		}
		return m.dial.defragment(ctx, do.Seat)
	case yield:
		return s.carryOut(ctx, membership.Step{Do: membership.Yield, Seat: do.Seat})
	case disarm:
		_, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
		return err
	}
	return nil
}

// defragment copies this node's database without its holes. It takes no write meanwhile.
func (m *member) defragment(s *server) error {
	m.working.Lock()
	defer m.working.Unlock()
	return s.etcd.Defragment()
}

// snapshot makes a copy of the data if it is time.
func (m *member) snapshot(ctx context.Context, s *server, status Status) {
	all := m.folder.snapshots()
	var last Snapshot
	if len(all) > 0 {
		last = all[len(all)-1]
	}
	running := time.Since(m.began)
	made := running // for clocks that were set, what has surely passed
	if age := time.Since(last.Made); last.Revision > 0 && age > made {
		made = age
	}
	if !m.snapped.IsZero() {
		made = time.Since(m.snapped)
		running = min(running, made)
	}
	if status.Leader == 0 || !snapshotDue(last, status.Revision, running, made, m.free(), status.Size) {
		return
	}
	m.snapped = time.Now()
	ctx, cancel := context.WithTimeout(ctx, defragmentFor)
	defer cancel()
	r, err := s.client.Snapshot(ctx)
	if err == nil {
		err = errors.Join(m.folder.keep(status.Revision, r), r.Close())
	}
	if err != nil {
		say(m.c, err.Error())
	}
}

// free is how many bytes the disk has left; 0 where it cannot be asked.
func (m *member) free() int64 {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.c.Dir, &fs); err != nil {
		return 0
	}
	return int64(fs.Bavail) * fs.Bsize
}

// publish is heard by whoever asks.
func (m *member) publish(s Status) {
	s.Version, s.Seat = statusVersion, m.c.Seat
	if s.Problem == "" {
		s.Problem = m.problem
	}
	m.mu.Lock()
	m.status = s
	m.mu.Unlock()
	if m.c.Said != nil {
		m.c.Said(s)
	}
}

// handler answers other members: etcd's own calls, and ours.
func (m *member) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, _ *http.Request) {
		m.mu.Lock()
		s := m.status
		if e := m.server; e != nil && s.Running { // newer than the last look
			s.Leader, s.Committed = e.leader(), e.etcd.CommittedIndex()
			s.Size, s.InUse = e.etcd.Backend().Size(), e.etcd.Backend().SizeInUse()
		}
		m.mu.Unlock()
		raw, err := json.Marshal(s)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(raw)
	})
	mux.HandleFunc("POST "+defragmentPath, func(w http.ResponseWriter, _ *http.Request) {
		s := m.running()
		if s == nil || s.leader() == m.c.Seat {
			http.Error(w, "this node's etcd does not run, or leads", http.StatusConflict)
			return
		}
		if err := m.defragment(s); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if s := m.running(); s != nil {
			s.handler.ServeHTTP(w, r)
			return
		}
		http.Error(w, "this node's etcd does not run", http.StatusServiceUnavailable)
	})
	return mux
}

// isCompacted says that somebody else was faster.
func isCompacted(err error) bool { return errors.Is(err, rpctypes.ErrCompacted) }
