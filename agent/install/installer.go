package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/armings"
	"kogge.example/update/bootloader"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/memory"
	"kogge.example/update/release"
	"kogge.example/update/slot"
)

// Installer is the node's one way to its slots. Its fields stay as they are once it is
// in use.
type Installer struct {
	Run     string // facts and node.yaml: control.RunDir
	State   string // /state
	Image   string // the root of trust that the image brought: /usr/lib/kogge/tuf/root.json
	Cmdline string // cmdline.File
	Facts   string // of the release that runs: osrelease.File

	// Registry opens a release by its name in a registry; nil: there is none.
	Registry func(ctx context.Context, name string) (release.Stored, error)
	// Web opens a release in a folder of a web server, by its address.
	Web func(url string) (release.Stored, error)
	// Sticks finds a release on the sticks in the node.
	Sticks func() (release.Stored, error)
	// Remember notes which workloads are healthy, so that the trial is judged by them.
	Remember func() error
	// Noted is told of an arming before it happens, and once more if it fails: of which release,
	// as it is remembered, and whose right that is. nil: nobody notes it.
	Noted func(slot bootloader.Slot, r memory.Staged, by string, failed bool)
	// Drain stops the containers, each in its own way, for as long as ctx lasts.
	Drain func(ctx context.Context)
	// Ledger is what the fleet's ledger has decided; nil: the node does not know.
	Ledger func() (ledger.State, error)
	// Seat is the key of this node's seat: what a permit names the node by. It is asked for
	// nothing else, so that a node that has lost it can be updated where no permit is needed.
	Seat func() (signed.Key, error)
	// Format is the one that STATE is in, or is about to be: partition.SealedState, FleetState,
	// or 1; nil: 1.
	Format func() int
	// Reboot has PID 1 end this boot. It returns before that does.
	Reboot func(ctx context.Context) error

	Now func() time.Time // default: time.Now

	mu      sync.Mutex // guards the fields below
	busy    string     // the step of what is being done; "": nothing is
	leaving bool       // PID 1 ends this boot
	woken   chan struct{}
}

func (i *Installer) now() time.Time {
	if i.Now != nil {
		return i.Now()
	}
	return time.Now()
}

// memory is what the node remembers of its updates.
func (i *Installer) memory() memory.Folder { return memory.In(i.dir()) }

func (i *Installer) dir() string { return filepath.Join(i.State, "kogge", "update") }

func (i *Installer) trust() trust {
	return trust{image: i.Image, kept: filepath.Join(i.State, "kogge", "tuf", "root.json")}
}

// begin wants to be the only one who does something with the slots.
func (i *Installer) begin(what string) (done func(), err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.leaving:
		return nil, fmt.Errorf("%w: the node is about to reboot", ErrBusy)
	case i.busy != "":
		return nil, fmt.Errorf("%w: %s", ErrBusy, i.busy)
	}
	i.busy = what
	return func() { i.doing("") }, nil
}

// doing notes how far it is.
func (i *Installer) doing(what string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.busy = what
}

// telling is report, which also says what goes on to those who ask for the slots.
func (i *Installer) telling(report func(Step)) func(Step) {
	return func(s Step) {
		text := s.Step
		if s.Step == Staging && s.Total > 0 {
			text = fmt.Sprintf("%s %d %%", s.Step, 100*s.Done/s.Total)
		}
		i.doing(strings.TrimSpace(text + " release " + s.Version))
		report(s)
	}
}

// Update carries out an order, each step told by report. What was armed stays armed,
// whatever happens to whoever gave the order; until then the end of ctx ends it, and
// the next update of the same release goes on where it was.
func (i *Installer) Update(ctx context.Context, o Order, report func(Step)) error {
	done, err := i.begin("looking for a release")
	if err != nil {
		return err
	}
	defer done()
	if o.When == InWindow {
		if _, err := i.opens(); err != nil { // not only once all is written
			return err
		}
	}
	report = i.telling(report)
	src, err := i.open(ctx, o)
	if err != nil {
		return err
	}
	defer src.Close()
	d, err := i.openDisk()
	if err != nil {
		return err
	}
	defer d.Close()
	r, step, err := i.verify(ctx, src, d)
	if err != nil {
		return err
	}
	report(step)
	right, err := i.right(o.Permit)
	if err != nil {
		return err
	}
	if err := i.stage(ctx, d, right, r, step, report); err != nil {
		return err
	}
	return i.arm(ctx, step, o, right, report, func() (memory.Trial, error) {
		return slot.Arm(d.Disk, i.memory(), r.Digest, right, i.now())
	})
}

// Rollback arms what lies in the other slot, if it was proven once. Of the order it heeds when
// and by whom.
func (i *Installer) Rollback(ctx context.Context, o Order, report func(Step)) error {
	done, err := i.begin("rolling back")
	if err != nil {
		return err
	}
	defer done()
	if o.When == InWindow {
		if _, err := i.opens(); err != nil {
			return err
		}
	}
	d, err := i.openDisk()
	if err != nil {
		return err
	}
	defer d.Close()
	all, err := i.Slots(ctx)
	if err != nil {
		return err
	}
	var other Slot
	for _, s := range all.Slots {
		if !s.Running {
			other = s
		}
	}
	switch {
	case other.State == StagedHere, other.State == ArmedHere:
		// It was never proven; whoever wants it updates to it.
		return refuse("slot %s has release %s, which has not proven itself here yet: use an update, not a rollback", other.Slot, other.Version)
	case other.State == Failed:
		return refuse("slot %s: release %s %s", other.Slot, other.Version, other.Text)
	case other.State != Proven:
		return refuse("slot %s is %s: there is nothing to roll back to", other.Slot, other.State)
	}
	step := Step{Slot: other.Slot, Version: other.Version, Digest: other.Digest}
	right, err := i.right(o.Permit)
	if err != nil {
		return err
	}
	return i.arm(ctx, step, o, right, i.telling(report), func() (memory.Trial, error) {
		return slot.Rollback(d.Disk, i.memory(), right, i.now())
	})
}

// verify reads what the release says of this node, and who vouches for it. No byte of a
// part is read.
func (i *Installer) verify(ctx context.Context, src release.Source, d *disk) (*release.Release, Step, error) {
	root, err := i.trust().root()
	if err != nil {
		return nil, Step{}, err
	}
	r, err := release.Verify(ctx, src, root, i.refTime(), d.Board)
	if err != nil {
		return nil, Step{}, refusedBy(err, release.ErrLayout, release.ErrNoLayout, release.ErrSignatures, release.ErrExpired, release.ErrBoard, release.ErrTrust, release.ErrServer)
	}
	if err := i.trust().keep(r.Root, r.RootVersion); err != nil {
		return nil, Step{}, err
	}
	f := r.Facts
	return r, Step{
		Step: Verified, Slot: string(d.Running.Other()), Version: f.Version, Digest: r.Digest, Total: f.Size(),
		Text: fmt.Sprintf("%s, made %s, %d MiB", f.Board, f.Created.UTC().Format(time.DateOnly), (f.Size()+1<<20-1)>>20),
	}, nil
}

// refTime is the time by which signatures of a release are over: see
// [control.Clock.Reference]. Whoever sends the node a wrong time cannot move it far.
func (i *Installer) refTime() time.Time {
	clock, err := control.ReadClock(i.Run)
	if err != nil {
		log.Printf("agent: update: %v", err) // a floor that is not known is below all
	}
	return clock.Reference(i.now())
}

// partsOf is the release as update/slot wants it.
func partsOf(r *release.Release) slot.Release {
	f := r.Facts
	s := slot.Release{
		Version: f.Version, Digest: r.Digest, Board: f.Board, Counter: f.Counter, Verity: r.Verity(),
		Schema: f.Schema,
	}
	for _, p := range f.Parts {
		s.Parts = append(s.Parts, slot.Part{
			Name: p.Name, Size: p.Size, SHA256: p.SHA256,
			Open: func(ctx context.Context, offset int64) (io.ReadCloser, error) { return r.Open(ctx, p.Name, offset) },
		})
	}
	return s
}

// tellEvery is how often one who watches hears how far staging is.
const tellEvery = 250 * time.Millisecond

// stage writes the release into the slot, and reads it back.
func (i *Installer) stage(ctx context.Context, d *disk, right slot.Authorisation, r *release.Release, step Step, report func(Step)) error {
	var told time.Time
	began, retired := i.now(), false
	step.Text = ""
	err := slot.Stage(ctx, d.Disk, i.memory(), partsOf(r), right, func(part string, done, total int64) {
		if !retired {
			retired = true
			step.Step = Retired
			report(step)
		}
		if now := time.Now(); done == total || now.Sub(told) > tellEvery {
			told = now
			step.Step, step.Done, step.Total, step.Text = Staging, done, total, part
			if done == total {
				step.Text = "reading back"
			}
			report(step)
		}
	})
	if err != nil {
		return slotError(err)
	}
	step.Step, step.Done, step.Text = Staged, step.Total, "after "+i.now().Sub(began).Round(time.Second).String()
	if !retired {
		step.Text = "it was there already"
	}
	report(step)
	return nil
}

// slotError marks the refusals among the errors of update/slot.
func slotError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, slot.ErrBusy):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return refusedBy(err, slot.ErrOnTrial, slot.ErrWrongBoard, slot.ErrTooSmall, slot.ErrBelowFloor, slot.ErrSameRoot, slot.ErrFailedBefore,
		slot.ErrSchema, slot.ErrParts, slot.ErrNotStaged, slot.ErrUnauthorised, slot.ErrContent)
}

// refusal is an error that is also ErrRefused. It says no more.
type refusal struct{ error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

func (r refusal) Unwrap() []error { return []error{ErrRefused, r.error} }

func refusedBy(err error, rules ...error) error {
	for _, rule := range rules {
		if errors.Is(err, rule) {
			return refusal{err}
		}
	}
	return err
}

// arm arms the slot, and does what remains until the reboot.
func (i *Installer) arm(ctx context.Context, step Step, o Order, right slot.Authorisation, report func(Step), arm func() (memory.Trial, error)) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if i.Remember != nil {
		if err := i.Remember(); err != nil {
			return fmt.Errorf("record which workloads are healthy: %w", err)
		}
	}
	// A reboot that was asked for before was for something else.
	if err := i.dropReboot(); err != nil {
		return err
	}
	note := func(failed bool) {
		name := bootloader.Slot(step.Slot)
		if records, err := memory.ReadStaged(i.memory()); err == nil && i.Noted != nil && records[name] != nil {
			i.Noted(name, *records[name], right.String(), failed)
		}
	}
	note(false)
	trial, err := arm()
	if err != nil {
		note(true)
		return slotError(err)
	}
	log.Printf("agent: slot %s is armed: release %s, requested by %s, authorised by %s", trial.Slot, trial.Release, o.By, trial.By)
	step.Step, step.Text, step.Done, step.Total = Armed, fmt.Sprintf("%d tries", trial.Tries), 0, 0
	report(step)
	return i.reboot(context.WithoutCancel(ctx), step, o.When, report)
}

// right is the right to write a slot and to arm it. permit is what the order brought.
func (i *Installer) right(permit []byte) (slot.Authorisation, error) {
	right, err := i.rightOf(permit)
	return right, slotError(err)
}

func (i *Installer) rightOf(permit []byte) (slot.Authorisation, error) {
	_, err := os.Stat(filepath.Join(i.State, "kogge", "ledger"))
	switch {
	case errors.Is(err, fs.ErrNotExist): // a node that has no ledger is alone
		return slot.LoneVoter(1, "")
	case err == nil && i.Ledger == nil:
		err = errors.New("it is not known which fleet it is of")
	}
	if err != nil { // one whose ledger cannot be looked for may not be
		return slot.Authorisation{}, fmt.Errorf("%w: the fleet's ledger cannot be read: %w", slot.ErrUnauthorised, err)
	}
	state, err := i.Ledger()
	if err != nil {
		return slot.Authorisation{}, fmt.Errorf("%w: %w", slot.ErrUnauthorised, err)
	}
	if state.Height == 0 { // no record has come so far as to be taken
		return slot.LoneVoter(1, state.Genesis.Name)
	}
	if votes := state.Roster.Votes(); votes == 1 || len(permit) == 0 {
		return slot.LoneVoter(votes, state.Genesis.Name)
	}
	p, err := ledger.ParsePermit(permit)
	if err != nil {
		return slot.Authorisation{}, fmt.Errorf("%w: %w", slot.ErrUnauthorised, err)
	}
	key, err := i.Seat()
	if err != nil {
		return slot.Authorisation{}, fmt.Errorf("%w: whether this node is the one that the permit names: %w", slot.ErrUnauthorised, err)
	}
	return slot.Owners(state, key, p)
}

// Slots says what lies in the slots.
func (i *Installer) Slots(context.Context) (Slots, error) {
	b, err := i.boot()
	if err != nil {
		return Slots{}, err
	}
	l, err := b.loader()
	if err != nil {
		return Slots{}, err
	}
	state, err := b.readLoader(l)
	if err != nil {
		return Slots{}, err
	}
	records, err := memory.ReadStaged(i.memory())
	if err != nil {
		return Slots{}, err
	}
	failures, err := memory.ReadFailures(i.memory())
	if err != nil {
		return Slots{}, err
	}
	var all Slots
	for _, name := range []bootloader.Slot{bootloader.A, bootloader.B} {
		all.Slots = append(all.Slots, look(b, name, state.Of(name), records[name], failures))
	}
	all.NextArming = i.nextArming(state)
	if assessment, err := control.ReadAssessment(i.Run); err == nil { // not there yet: not known
		all.Assessment, all.Why = assessment.State, assessment.Why
	}
	for n, s := range all.Slots {
		// PID 1 says good, and then makes it so: until then the loader counts.
		if s.Running && s.State == OnTrial && all.Assessment == string(memory.Good) && state.Of(bootloader.Slot(s.Slot)).Proven() {
			all.Slots[n].State, all.Slots[n].TriesLeft = Proven, 0
		}
	}
	if p, err := i.pending(); err == nil && p != nil {
		if opens, err := i.opens(); err == nil {
			all.RebootAt = opens
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	all.Busy = i.busy
	return all, nil
}

// nextArming is 0 where the node has lost count and somebody is at the slots: he begins anew. What
// lies in the slots can be told all the same.
func (i *Installer) nextArming(state bootloader.State) int64 {
	next, err := armings.Next(i.memory(), state)
	if errors.Is(err, armings.ErrLost) {
		if done, busy := i.begin("counting its armings anew"); busy == nil {
			if err = i.recount(); err == nil {
				next, err = armings.Next(i.memory(), state)
			}
			done()
		}
	}
	if err != nil {
		log.Printf("agent: %v", err)
	}
	return next
}

// recount begins the count of armings anew where the disk has lost it: nobody could repair it by
// hand, and a node must not refuse every update over it. Whoever calls has the turn.
func (i *Installer) recount() error {
	why, err := armings.Anew(i.memory())
	if why != nil && err == nil {
		log.Printf("agent: %v: it is counted anew, from a number on that was not there before; what was permitted until now is over", why)
	}
	return err
}

// look says what lies in one slot: by the loader's entry, what Stage remembers of it, and
// what became of its release on this node. It asks nobody else.
func look(b boot, name bootloader.Slot, e bootloader.Entry, r *memory.Staged, failures memory.Failures) Slot {
	s := Slot{Slot: string(name), Version: e.Version, Number: e.Number}
	if e.Counted {
		s.TriesLeft = e.Left
	}
	if r != nil {
		s.Version, s.Digest, s.Counter = r.Release, r.Digest, r.Counter
		s.RootHash = rootHash(r.Verity)
	}
	failure, failed := failures.Find(s.Version, s.Digest)
	switch {
	case b.Slot == string(name):
		s.Running, s.State, s.Version, s.RootHash, s.TriesLeft = true, Proven, b.Version, b.RootHash, 0
		if b.Trial {
			s.State, s.TriesLeft = OnTrial, b.TriesLeft
		}
		return s
	case e.Present && !e.Counted:
		s.State = Proven
	case e.Present && e.Left > 0:
		s.State = ArmedHere
	case e.Present:
		s.State, s.Text = Failed, fmt.Sprintf("gave up after %d tries", e.Done)
	case r == nil:
		s.State, s.Version = Empty, ""
	case r.Whole:
		s.State = StagedHere
	default:
		s.State, s.Text = Incomplete, fmt.Sprintf("%d MiB of the root file system are written", r.Written>>20)
	}
	if failed && s.Version != "" && s.State != Proven && s.State != ArmedHere {
		s.State, s.Text = Failed, failure.Outcome()
	}
	return s
}

// rootHash is the root hash among verity's parameters, as they are written.
func rootHash(params string) string {
	hash, _, _ := strings.Cut(params, ":")
	return hash
}

// History lists the boots.
func (i *Installer) History(context.Context) ([]Boot, error) {
	boots, err := memory.LoadHistory(filepath.Join(i.dir(), memory.HistoryFile))
	if err != nil {
		if len(boots) == 0 {
			return nil, err
		}
		log.Printf("agent: %v", err) // a line that was torn is no reason to keep the rest to oneself
	}
	all := make([]Boot, 0, len(boots))
	for _, b := range boots {
		all = append(all, past(b))
	}
	return all, nil
}

// past is a boot as it is listed.
func past(b memory.Boot) Boot {
	one := Boot{
		Time: b.Time, Slot: string(b.Slot), Version: b.Release, Trial: b.Trial, TriesLeft: b.Left,
		Verdict: string(b.Assessment), Reason: b.Why, Took: time.Duration(b.Seconds) * time.Second,
	}
	if one.Verdict == "" {
		one.Verdict = string(memory.None)
	}
	for _, more := range append([]string{b.End, b.EndWhy}, b.Notes...) {
		if more != "" {
			one.Reason = strings.TrimPrefix(one.Reason+"; "+more, "; ")
		}
	}
	return one
}

// ForgetFailure lets a release be tried again, by version or digest, and returns the
// versions that it was about.
func (i *Installer) ForgetFailure(_ context.Context, name string) ([]string, error) {
	done, err := i.begin("forgetting a failure")
	if err != nil {
		return nil, err
	}
	defer done()
	failures, err := memory.ReadFailures(i.memory())
	if err != nil {
		return nil, err
	}
	left, gone := failures.Forget(name)
	if len(gone) == 0 {
		return nil, fmt.Errorf("release %.128q: %w", name, ErrNoFailure)
	}
	if err := memory.WriteFailures(i.memory(), left); err != nil {
		return nil, err
	}
	var versions []string
	for _, f := range gone {
		versions = append(versions, f.Release)
	}
	return versions, nil
}

// settings are those that the node runs with now.
func (i *Installer) settings() (nodeconfig.Update, error) {
	c, err := nodeconfig.ReadFile(filepath.Join(i.Run, "node.yaml"))
	return c.Update, err
}
