package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"kogge.example/agent/etcd/fsync"
	"kogge.example/agent/etcd/membership"
)

// begin is a look while etcd does not run.
func (m *member) begin(ctx context.Context) (time.Duration, error) {
	did, err := m.folder.restore(m.free())
	if did {
		say(m.c, "etcd begins anew, from the snapshot that was placed")
	}
	what, why, mk := m.folder.look()
	m.refused = m.folder.refused(mk)
	if err != nil {
		m.once(err.Error())
		if mayPass(err) { // it is to begin anew, so it does not go on as it was
			m.publish(Status{Generation: mk.Generation, Doing: "waits to begin anew", Problem: err.Error(), Unfit: err.Error(), Snapshots: m.folder.snapshots()})
			return stubborn, nil
		}
	}
	if mk.Failed >= maxFailed && time.Since(m.quiet) >= fsync.Rest {
		mk.Failed = 0 // it is tried once more
		if err := m.folder.write(mk); err != nil {
			return 0, err
		}
	}
	own := m.own(ctx, what, why, mk)
	held := m.held()
	if m.twin.Was && held == "" && what == membership.Mine {
		own.Folder, own.What = membership.Damaged, outdated
	}
	step := membership.Begin(own)
	status := Status{Generation: mk.Generation, Lost: own.Lost(), Unfit: own.Unfit, Doing: step.String(), Probe: m.disk.Times, Snapshots: m.folder.snapshots()}
	switch {
	case step.Do == membership.Refuse:
		status.Problem = step.Why
		if what == membership.Unread {
			status.Unfit = step.Why
		}
	case step.Do == membership.Wait && own.Wanted && own.Unfit != "":
		status.Problem = own.Unfit
	}
	m.publish(status)
	if err := ctx.Err(); err != nil {
		return 0, nil
	}
	switch step.Do {
	case membership.Wait, membership.Refuse:
		return m.patience(own, step), nil
	case membership.Aside:
	default:
		if short := m.short(); short != "" { // it would die of it again and again, and look damaged
			held = short + ": etcd waits for room"
		}
		if held == "" {
			break
		}
		status.Problem = held
		m.publish(status)
		return calm / 3, nil
	}
	if err := m.start(own, mk, step); err != nil { // of a learner: another one was listed meanwhile
		if now := time.Now(); now.Sub(m.failed[1]) < time.Minute {
			m.failed[1] = now
		} else {
			m.failed = [2]time.Time{now, now}
		}
		m.failure, status.Problem = err.Error(), err.Error()
		m.publish(status)
		m.once(err.Error())
		if step.Do == membership.Renew {
			return stubborn, nil
		}
		return calm / 3, nil
	}
	say(m.c, step.String())
	return eager, nil
}

// own is what this node knows of itself, and hears from others.
func (m *member) own(ctx context.Context, what membership.Folder, why string, mk mark) membership.Own {
	own := membership.Own{
		Seat: m.c.Seat, Folder: what, What: why, Begun: mk.Begun, Generation: mk.Generation, Ordered: m.facts.Ordered,
		Founder: slices.Contains(m.facts.Founders, m.c.Seat),
	}
	// Nobody else runs etcd; nobody else but spares, and none has, nor was to begin it anew.
	alone, only := true, mk.Only && m.facts.Ordered <= mk.Generation
	for _, s := range m.facts.Seats {
		other := s.Number != m.c.Seat
		own.Wanted = own.Wanted || !other
		alone, only = alone && !other, only && !(other && !s.Spare)
	}
	own.Alone = own.Wanted && (alone || only)
	own.Unfit = m.short()
	if what == membership.Absent {
		m.disk.Slowest = cmp.Or(m.c.Slowest, Slowest(m.facts.Trial))
		m.disk.Probe(m.c.Dir)
		dies := ""
		if mk.Failed >= maxFailed {
			dies = fmt.Sprintf("etcd ended again and again soon after it was started, also on new data: it is tried again after %s", fsync.Rest)
		}
		own.Unfit = cmp.Or(own.Unfit, m.disk.Unfit(), dies, m.cannot())
	}
	own.Reports = reports(m.hear(ctx))
	if what == membership.Mine && mk.Starts >= maxStarts && !own.Alone {
		tried := own
		tried.Folder, tried.What = membership.Damaged, fmt.Sprintf("etcd ended %d times in a row soon after it was started on its data", mk.Starts)
		if s := membership.Begin(tried); s.Do == membership.Aside {
			return tried // others have the data; else it is tried for ever
		}
	}
	return own
}

// hear asks the others how etcd stands, or only the one that leads and has nothing for this node to
// do yet.
func (m *member) hear(ctx context.Context) map[int]heard {
	all := m.others(nil)
	if slices.Contains(all, m.boss) {
		only := []int{m.boss}
		heard := m.ears.ask(ctx, only, only)
		if h := heard[m.boss]; h.ok && h.last.Running && h.last.Leader == m.boss {
			return heard
		}
	}
	return m.ears.ask(ctx, all, all)
}

// patience is how long to wait while there is nothing to be done.
func (m *member) patience(own membership.Own, step membership.Step) time.Duration {
	told, found := own.Told()
	listed := slices.ContainsFunc(told.Members, func(l membership.Member) bool { return l.Seat == m.c.Seat })
	m.boss = 0
	if found && told.Seat == told.Leader && !listed {
		m.boss = told.Seat
	}
	if text := step.String(); text != m.waits {
		m.waits, m.waited = text, time.Now()
	}
	if m.boss != 0 || time.Since(m.waited) >= rareAfter {
		return rare
	}
	return calm / 3
}

// short says that the disk has no room for etcd; "": it has.
func (m *member) short() string {
	if m.free() >= leastFree() {
		return ""
	}
	return fmt.Sprintf("%s has less than %d MiB left", m.c.Dir, leastFree()>>20)
}

// cannot says why etcd has not started for a while, and not long ago; "": it was not tried, or it
// has.
func (m *member) cannot() string {
	if m.failed[1].Sub(m.failed[0]) < cannotFor || time.Since(m.failed[1]) >= fsync.Rest {
		return ""
	}
	return "etcd does not start: " + m.failure
}

// reports are what those who answered say of their etcd.
func reports(all map[int]heard) (told []membership.Report) {
	for _, seat := range slices.Sorted(maps.Keys(all)) {
		h := all[seat]
		if !h.ok {
			continue
		}
		r := membership.Report{Seat: seat, Generation: h.last.Generation, Runs: h.last.Running, Leader: h.last.Leader, Members: h.last.Members}
		if !r.Runs {
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
		if mk.Starts >= maxStarts {
			mk.Failed++
			m.quiet = time.Now()
		}
		return m.folder.setAside(own.Folder, mk)
	case membership.Renew:
		nothing, err := m.renew(mk)
		if err != nil || !nothing {
			return err
		}
		b = begin{fresh: true, members: []int{m.c.Seat}}
		mk = mark{Generation: max(mk.Generation, m.facts.Ordered) + 1, Begun: true, Only: true}
	case membership.New:
		b = begin{fresh: true, members: m.facts.Founders}
		mk = mark{}
	case membership.Join:
		told, _ := own.Told()
		for _, l := range told.Members {
			b.members = append(b.members, l.Seat)
		}
		// Whatever comes of it: an etcd is there that this seat has not founded.
		mk = mark{Generation: told.Generation, Begun: true, Failed: mk.Failed}
	case membership.Start:
		b = begin{members: []int{m.c.Seat}} // what is in the log counts
	default:
		return nil
	}
	if step.Do != membership.Start {
		if err := m.folder.prepare(mk); err != nil {
			return err
		}
	}
	b.token = m.folder.token(mk.Generation)
	if err := m.tunnels.to(m.others(nil)...); err != nil {
		return err
	}
	begun := mk
	begun.Begun, begun.Starts = true, mk.Starts+1
	if step.Do == membership.Start { // before etcd reads what it may die of
		if err := m.folder.write(begun); err != nil {
			return err
		}
	}
	s, err := start(m.folder.data(mk.Generation), m.c, b, func() error { return m.folder.write(begun) })
	if err != nil {
		return err
	}
	m.started, m.led, m.lives, m.snapped = time.Now(), time.Now(), false, time.Time{}
	m.mark, m.failed, m.boss, m.waits, m.twin = begun, [2]time.Time{}, 0, "", membership.Twin{}
	m.mu.Lock()
	m.server = s
	m.mu.Unlock()
	return nil
}

// renew has the only member begin anew after its data is gone: from its newest snapshot that is one.
// nothing says that there is none; where one is there and cannot be used, a person has to say so.
func (m *member) renew(mk mark) (nothing bool, err error) {
	if max(mk.Generation, m.facts.Ordered) >= maxGeneration {
		return false, fmt.Errorf("%s: there are no more numbers for another etcd", m.c.Dir)
	}
	for _, s := range slices.Backward(m.folder.snapshots()) {
		name := filepath.Join(m.folder.path(snapshotsName), m.folder.snapshotName(s.Generation, s.Revision))
		err := m.folder.renew(mk, name, true, m.facts.Ordered, m.free())
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, errBad) {
			return false, fmt.Errorf("etcd's data is gone here, and this snapshot of it cannot be used: %w; it is tried again; remove it if it is not to be used", err)
		}
		say(m.c, err.Error())
	}
	return true, nil
}
