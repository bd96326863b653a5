package etcd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"kogge.example/agent/etcd/fsync"
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
	alone = 4 * time.Second
	// compactAgain is when old revisions are forgotten once more while there is no room.
	compactAgain = 10 * time.Minute
	// maxStarts is how often it may die before that, where others have the data; maxFailed how
	// often data may be kept aside for that.
	maxStarts, maxFailed = 3, 2
	// rare is how often who waits for a leader to list it asks how that stands, and who has
	// waited for rareAfter for anything. etcd knocks at once.
	rare, rareAfter = 5 * time.Second, time.Minute
	// unlisted is how often those are asked who are not in etcd's list while nobody is needed.
	unlisted = 15 * time.Second
	// cannotFor is for how long a start has to fail until this node says that it cannot.
	cannotFor = 15 * time.Second
	sayAgain  = 10 * time.Minute
	// stubborn is when something is tried again that writes much.
	stubborn = 30 * time.Second
)

// member is this node's part in etcd. Only run, and what it calls, changes it.
type member struct {
	c       Config
	folder  *folder
	dial    *dialer
	tunnels *tunnels
	conns   *conns
	guests  *guests
	ears    *ears
	twin    membership.Twin
	verdict verdict    // on the data, while etcd does not run
	disk    fsync.Disk // where the data is to lie
	facts   Facts
	problem string // why the facts are not new; "": they are
	refused string // why the last order to begin anew came to nothing; "": it did not

	quiet   time.Time // since when etcd has not died here: since this process began, if not later
	boss    int       // who leads, and will list this seat when it is needed; 0: nobody who is known
	waits   string    // the step that is waited for, and since when
	waited  time.Time
	failed  [2]time.Time         // when the first and the last of the starts in a row failed
	failure string               // why
	knocked chan struct{}        // etcd of another member wants to speak with the one here
	said    map[string]time.Time // when what would be said at each look was said

	changed time.Time // when etcd's list did
	voted   time.Time // when its voters did
	list    []membership.Member
	mark    mark      // as it lies beside the data while etcd runs
	started time.Time // when etcd was
	lives   bool      // it has lived for a while
	led     time.Time // when there was a leader last
	asked   time.Time // when others were asked while there was none
	snapped time.Time // when the last snapshot was tried
	job     *job      // nil: none runs

	// Of the leader's node.
	seen      map[int]membership.Sight // by seat
	vain      map[int]time.Time        // when a seat was taken out that came to nothing
	rested    bool                     // nobody was needed at the last look
	spares    time.Time                // when those were asked who are not in the list
	full      bool                     // writes had stopped at the last look
	compacted time.Time                // when old revisions were forgotten since then
	done      map[int]bool             // the seats whose databases were defragmented since then
	often     map[int]int              // how often each was since counted, an hour at most
	counted   time.Time
	trouble   string // why the last job came to nothing

	working sync.Mutex // held while the database is defragmented; guards copied
	copied  []time.Time
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
	all, guests := &conns{}, &guests{verify: c.VerifyPeer}
	m := &member{
		c: c, conns: all, guests: guests, dial: newDialer(c, all, guests.admit), quiet: time.Now(), changed: time.Now(), voted: time.Now(),
		knocked: make(chan struct{}, 1), vain: make(map[int]time.Time), said: make(map[string]time.Time),
	}
	m.ears = &ears{dial: m.dial}
	wal.SegmentSizeBytes = segment // also of what a restore makes
	var err error
	if m.tunnels, err = openTunnels(filepath.Join(c.Run, "peers"), m.dial); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer m.tunnels.close()
	entrance, err := openEntrance(c, all, guests.admit, m.handler())
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
	var leads, ends, done <-chan struct{}
	knocked := m.knocked
	if s := m.running(); s != nil {
		leads, ends, knocked = s.etcd.LeaderChangedNotify(), s.etcd.StopNotify(), nil
	}
	if m.job != nil {
		done = m.job.done
	}
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	case <-leads:
	case <-ends:
	case <-done:
	case <-knocked: // again and again, while it waits
		select {
		case <-ctx.Done():
		case <-time.After(min(wait, calm/3)):
		}
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
	m.folder = &folder{dir: m.c.Dir, disk: machine{}, mine: mark{Fleet: facts.Fleet, First: facts.First, Seat: m.c.Seat}, last: &m.verdict}
	m.dial.know(facts.Addresses)
	var list []membership.Member
	if s := m.running(); s != nil {
		list = s.members()
	}
	m.guests.note(facts, list, time.Now())
	if cut := m.conns.check(m.guests.admit); cut > 0 {
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

// others are the seats that may run etcd, without this one, and those of a list. Where there is
// no list, those that are leaving may be on it.
func (m *member) others(list []membership.Member) (seats []int) {
	for _, s := range m.facts.Seats {
		seats = append(seats, s.Number)
	}
	if len(list) == 0 {
		seats = append(seats, m.facts.Leaving...)
	}
	for _, l := range list {
		seats = append(seats, l.Seat)
	}
	slices.Sort(seats)
	seats = slices.Compact(seats)
	return slices.DeleteFunc(seats, func(n int) bool { return n == m.c.Seat || n == 0 })
}

// stop ends etcd, if it runs.
func (m *member) stop() { m.end(false) }

// end ends etcd; at once where nobody is to lead in its place.
func (m *member) end(atOnce bool) {
	s := m.running()
	if s == nil {
		return
	}
	m.drop()
	removed, itself := s.etcd.IsIDRemoved(uint64(s.etcd.MemberID())), s.stopped()
	s.stop(atOnce)
	m.mu.Lock()
	m.server = nil
	m.mu.Unlock()
	var err error
	switch {
	case removed:
		say(m.c, "etcd has removed this seat")
		err = m.folder.setAside(membership.Mine, m.mark)
	case m.mark.Starts > 0 && !itself:
		m.mark.Starts = 0
		err = m.folder.write(m.mark)
	}
	if err != nil {
		say(m.c, err.Error())
	}
}

// tend is a look while etcd runs.
func (m *member) tend(ctx context.Context, s *server) (time.Duration, error) {
	m.reap()
	m.lives = m.lives || time.Since(m.started) >= livesFor
	list := s.members()
	if !slices.Equal(list, m.list) {
		if !slices.Equal(voting(list), voting(m.list)) {
			m.voted = time.Now()
		}
		m.list, m.changed = list, time.Now()
	}
	mk := m.mark
	if mk.Only = len(list) == 1 && list[0].Seat == m.c.Seat; m.lives {
		mk.Starts, mk.Failed = 0, 0
	}
	if mk != m.mark {
		if err := m.folder.write(mk); err != nil {
			return 0, err
		}
		m.mark = mk
	}
	if err := m.tunnels.to(m.others(list)...); err != nil {
		return 0, err
	}
	status := m.now(s, mk.Generation)
	wait := calm
	var all map[int]heard
	switch status.Leader {
	case m.c.Seat:
		m.led = time.Now()
		all = m.ears.ask(ctx, m.due(list), m.others(list))
		wait = m.lead(ctx, s, &status, all)
	case 0:
		wait, m.rested = eager, false
		status.Doing = membership.Next(membership.Cluster{}).String()
		if time.Since(m.led) >= alone && time.Since(m.asked) >= calm {
			m.asked = time.Now()
			all = m.ears.ask(ctx, m.others(list), m.others(list))
		}
	default:
		m.led, m.rested, m.seen = time.Now(), false, nil
		status.Doing = membership.Next(membership.Cluster{Self: m.c.Seat, Leader: status.Leader}).String()
	}
	own := membership.Own{
		Seat: m.c.Seat, Wanted: true, Folder: membership.Mine, Begun: true, Generation: mk.Generation,
		Ordered: m.facts.Ordered, Runs: true, Orphan: status.Leader == 0 && time.Since(m.led) >= m.facts.Grace, Reports: reports(all),
	}
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

// voting are the seats of a list that vote.
func voting(list []membership.Member) (seats []int) {
	for _, l := range list {
		if !l.Learner {
			seats = append(seats, l.Seat)
		}
	}
	return seats
}

// now is how etcd stands here.
func (m *member) now(s *server, generation int) Status {
	status := Status{
		Generation: generation, Running: true, Leader: s.leader(), Members: s.members(), Committed: s.etcd.CommittedIndex(),
		Revision: s.etcd.KV().Rev(), Size: s.etcd.Backend().Size(), InUse: s.etcd.Backend().SizeInUse(), Quota: quota(m.c), Probe: m.disk.Times, Hears: m.dial.hears(),
	}
	for _, a := range s.alarms() {
		switch {
		case a.gone:
		case a.kind == pb.AlarmType_NOSPACE:
			status.Full = append(status.Full, a.seat)
		case a.kind == pb.AlarmType_CORRUPT:
			status.Corrupt = append(status.Corrupt, a.seat)
		}
	}
	return status
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
	s.Problem = cmp.Or(s.Problem, m.problem, m.refused)
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
			s.Size, s.InUse, s.Hears = e.etcd.Backend().Size(), e.etcd.Backend().SizeInUse(), m.dial.hears()
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
		if !m.mayCopy(time.Now()) {
			http.Error(w, "this node's database was defragmented often enough for now", http.StatusTooManyRequests)
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
		select {
		case m.knocked <- struct{}{}:
		default:
		}
		http.Error(w, "this node's etcd does not run", http.StatusServiceUnavailable)
	})
	return mux
}

// once says what would be said at each look.
func (m *member) once(line string) {
	if time.Since(m.said[line]) < sayAgain {
		return
	}
	if len(m.said) >= 50 {
		clear(m.said)
	}
	m.said[line] = time.Now()
	say(m.c, line)
}
