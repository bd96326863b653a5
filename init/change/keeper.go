package change

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/guard"
	"kogge.example/init/nodeconfig"
	"kogge.example/init/seed"
	"kogge.example/update/durable"
)

// Bounds of the time to confirm.
const (
	DefaultUndo = 2 * time.Minute
	shortest    = 10 * time.Second
	longest     = time.Hour
)

// restartPause lets an answer reach the operator before the services restart that
// it goes through.
const restartPause = time.Second

// Options are what a keeper works with.
type Options struct {
	Running string // path of the text that the node runs with
	// Copy is the path of the text that the next boot reads; "" where STATE is not
	// on the disk: then nothing can be changed.
	Copy string
	// Rename gives the node its host name; "" is the one that PID 1 chooses.
	Rename func(hostname string) error
	// Restart orders a service to start anew. It may wait.
	Restart func(service string)
	Say     func(line string)

	pause time.Duration // zero: restartPause
}

// Keeper owns node.yaml on a running node. Its methods may be called from any
// goroutine; they write to the disk.
type Keeper struct {
	o Options

	mu            sync.Mutex // guards what is below, and the files
	state         State
	kept, running text
	undoAt        time.Time // while it is not Kept
	timer         *time.Timer
	last          string // what became of the last change
	starts        int    // of the network service, as last seen
	before        int    // those when it was ordered to start anew
}

// text is a node.yaml that was parsed.
type text struct {
	content []byte
	config  nodeconfig.Config
}

func (t text) revision() string { return revision(t.content) }

// revision names a text: its SHA-256 in hex.
func revision(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// New makes the keeper of a node that has booted with the given text.
func New(o Options, content []byte, config nodeconfig.Config) *Keeper {
	if o.pause == 0 {
		o.pause = restartPause
	}
	now := text{content, config}
	return &Keeper{o: o, state: Kept, kept: now, running: now}
}

// Status says how node.yaml stands.
func (k *Keeper) Status() *control.Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status()
}

// status is Status with k.mu held.
func (k *Keeper) status() *control.Config {
	s := &control.Config{State: string(k.state), Running: k.running.revision(), Kept: k.kept.revision(), Last: k.last}
	if k.state != Kept {
		s.UndoSeconds = int64(max(0, time.Until(k.undoAt)).Round(time.Second) / time.Second)
	}
	return s
}

// Kept is the text that the next boot runs with.
func (k *Keeper) Kept() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept.content
}

// Set gives the node another node.yaml, as r asks for it, and says how it stands
// then and which services start anew; with r.Check it only says what it would. The
// error says what is wrong with the text, or why there can be no change now.
//
// After a power cut the copy on STATE has its old text or the new one, and the new
// one only if the answer's state is [Kept].
func (k *Keeper) Set(r control.Request, content []byte) (*control.Config, error) {
	undo := DefaultUndo
	if r.UndoSeconds != 0 {
		undo = time.Duration(r.UndoSeconds) * time.Second
	}
	if undo < shortest || undo > longest {
		return nil, fmt.Errorf("undo after %s: at least %s, at most %s", undo, shortest, longest)
	}
	config, err := seed.Parse(content)
	if err != nil {
		return nil, err
	}
	next := text{content, config}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.o.Copy == "":
		return nil, errors.New("STATE is not on the disk, so a change would be lost at the next boot: write node.yaml on the boot partition")
	case r.Base != "" && r.Base != k.running.revision():
		return nil, fmt.Errorf("node.yaml was changed since you read it: it has revision %.12s now, yours was made from %.12s", k.running.revision(), r.Base)
	}
	event := SetSame
	if slices.Contains(differing(k.kept.config, config), "Network") {
		event = SetOther
	}
	state, action := k.state.Step(event)
	if action == Refuse {
		return nil, k.state.refusal(event)
	}
	services, warned := restarts(k.running.config, config), warnings(k.running.config, config)
	status := k.status()
	if r.Check {
		status.State, status.Running = string(state), next.revision()
	} else {
		before := k.kept
		if action == SaveRun {
			if err := k.save(next); err != nil {
				return nil, err
			}
		}
		if err := k.run(next); err != nil {
			if action == SaveRun { // or the next boot would run with what was refused
				err = errors.Join(err, k.save(before))
			}
			return nil, err
		}
		k.state = state
		if state == Kept {
			k.tell("changed")
		} else {
			k.tell("new network settings are tried for " + undo.String())
			k.undoAt = time.Now().Add(undo)
			k.timer = time.AfterFunc(undo, func() { guard.Go("undo of node.yaml", k.over) })
		}
		status = k.status()
	}
	if state != Kept {
		status.UndoSeconds = int64(undo / time.Second)
	}
	status.Restarts, status.Warnings = services, warned
	return status, nil
}

// Confirm keeps the network settings that are tried. revision is that of the text
// that was set; "" is any.
func (k *Keeper) Confirm(revision string) (*control.Config, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if revision != "" && revision != k.running.revision() {
		return nil, fmt.Errorf("revision %.12s is not in use here: %.12s is", revision, k.running.revision())
	}
	return k.end(Confirm, "confirmed")
}

// Undo runs with what is kept again.
func (k *Keeper) Undo() (*control.Config, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.end(Undo, "the change was undone on request")
}

// over is called when the time to confirm is over.
func (k *Keeper) over() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == Kept || time.Now().Before(k.undoAt) {
		return // a timer that was stopped too late
	}
	if _, err := k.end(Timer, "the change was undone: nobody confirmed it in time"); err != nil {
		k.tell(err.Error())
		k.timer = time.AfterFunc(shortest, func() { guard.Go("undo of node.yaml", k.over) })
	}
}

// end is what Confirm, Undo and the timer have in common. k.mu is held.
func (k *Keeper) end(e Event, said string) (*control.Config, error) {
	state, action := k.state.Step(e)
	var err error
	switch action {
	case Refuse:
		err = k.state.refusal(e)
	case Save:
		err = k.save(k.running)
	case Back:
		err = k.run(k.kept)
	}
	if err != nil {
		return nil, err // the timer goes on
	}
	k.timer.Stop()
	k.state = state
	k.tell(said)
	return k.status(), nil
}

// Observe takes notice of how the services are.
func (k *Keeper) Observe(s control.Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, one := range s.Services {
		if one.Name != network {
			continue
		}
		k.starts = one.Starts
		if one.State == "running" && one.Starts > k.before {
			k.state, _ = k.state.Step(Up)
		}
	}
}

// save makes t what the next boot runs with. k.mu is held.
func (k *Keeper) save(t text) error {
	if err := durable.Replace(k.o.Copy, t.content, 0o600); err != nil {
		return err
	}
	k.kept = t
	return nil
}

// run makes t what the node runs with, and has the services for which it is new
// start anew. k.mu is held.
func (k *Keeper) run(t text) error {
	// It lies in memory: nothing to sync, but nobody may read a half.
	temp := k.o.Running + ".new"
	if err := os.WriteFile(temp, t.content, 0o600); err != nil {
		return fmt.Errorf("effective node.yaml: %w", err)
	}
	if err := os.Rename(temp, k.o.Running); err != nil {
		return fmt.Errorf("effective node.yaml: %w", err)
	}
	services := restarts(k.running.config, t.config)
	if t.config.Hostname != k.running.config.Hostname {
		if err := k.o.Rename(t.config.Hostname); err != nil {
			k.tell(err.Error())
		}
	}
	k.running, k.before = t, k.starts
	if len(services) > 0 {
		time.AfterFunc(k.o.pause, func() {
			guard.Go("restarts for node.yaml", func() {
				for _, s := range services {
					k.o.Restart(s)
				}
			})
		})
	}
	return nil
}

// tell remembers and says what became of a change. k.mu is held.
func (k *Keeper) tell(what string) {
	k.last = what
	k.o.Say("kogge: node.yaml: " + what)
}

// ReadFile reads the file of a request, in dir, which has to have the hash that the
// request names.
func ReadFile(dir string, r control.Request) ([]byte, error) {
	if r.File == "" || strings.ContainsAny(r.File, "/\x00") || r.File == "." || r.File == ".." {
		return nil, fmt.Errorf("%q is not the name of a file in %s", r.File, dir)
	}
	f, err := os.Open(filepath.Join(dir, r.File))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than the parser takes: it says what is wrong with that.
	content, err := io.ReadAll(io.LimitReader(f, nodeconfig.MaxSize+1))
	if err != nil {
		return nil, err
	}
	if have := revision(content); have != r.SHA256 {
		return nil, fmt.Errorf("%s has SHA-256 %.12s, the request says %.12s", r.File, have, r.SHA256)
	}
	return content, nil
}
