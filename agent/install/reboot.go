package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"time"

	"kogge.example/update/durable"
)

// DrainLimit is how long containers have to stop, all of them together, before a reboot
// into a slot: what takes longer is killed.
const DrainLimit = 3 * time.Minute

// rebootLimit bounds the question to PID 1.
const rebootLimit = 20 * time.Second

// pendingReboot is a reboot that waits for the window. It lies where a boot forgets it:
// whatever reboots the node boots what is armed.
type pendingReboot struct {
	Slot    string `json:"slot"`
	Version string `json:"version"`
}

func (i *Installer) pendingFile() string { return filepath.Join(i.Run, "update-reboot.json") }

// pending returns nil if no reboot waits.
func (i *Installer) pending() (*pendingReboot, error) {
	text, err := os.ReadFile(i.pendingFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var p pendingReboot
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("reboot that waits: %w", err)
	}
	return &p, nil
}

func (i *Installer) dropReboot() error {
	if err := os.Remove(i.pendingFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take back a reboot: %w", err)
	}
	return nil
}

// opens is when the node may reboot by its settings of now.
func (i *Installer) opens() (time.Time, error) {
	settings, err := i.settings()
	if err != nil {
		return time.Time{}, err
	}
	return Opens(settings, i.now())
}

// reboot is what comes behind arming.
func (i *Installer) reboot(ctx context.Context, step Step, when When, report func(Step)) error {
	switch when {
	case Manual:
		return nil
	case InWindow:
		opens, err := i.opens()
		if err != nil {
			return err
		}
		if opens.After(i.now()) {
			text, err := json.Marshal(pendingReboot{Slot: step.Slot, Version: step.Version})
			if err == nil {
				err = durable.Replace(i.pendingFile(), text, 0o600)
			}
			if err != nil {
				return fmt.Errorf("note that a reboot waits: %w", err)
			}
			i.wake()
			step.Step, step.Text, step.At = Waiting, "", opens
			report(step)
			return nil
		}
	}
	return i.drainAndReboot(ctx, step, report)
}

func (i *Installer) drainAndReboot(ctx context.Context, step Step, report func(Step)) error {
	step.Step, step.Text = Draining, fmt.Sprintf("within %s", DrainLimit)
	report(step)
	limited, cancel := context.WithTimeout(ctx, DrainLimit)
	i.Drain(limited)
	cancel()
	limited, cancel = context.WithTimeout(ctx, rebootLimit)
	defer cancel()
	if err := i.Reboot(limited); err != nil {
		return fmt.Errorf("reboot into slot %s: %w", step.Slot, err)
	}
	// What is armed now has to stay so until PID 1 has stopped everything.
	i.mu.Lock()
	i.leaving = true
	i.mu.Unlock()
	log.Printf("agent: reboot into slot %s, release %s", step.Slot, step.Version)
	step.Step, step.Text = Rebooting, "into slot "+step.Slot
	report(step)
	return nil
}

func (i *Installer) wake() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.woken != nil {
		select {
		case i.woken <- struct{}{}:
		default:
		}
	}
}

// lookAgain is how often a reboot that waits is held against clock and settings, which
// may both change.
const lookAgain = 30 * time.Second

// Serve carries out what waits for its time, until ctx ends: a reboot in the window, also
// one from before the agent was started anew.
func (i *Installer) Serve(ctx context.Context) {
	woken := make(chan struct{}, 1)
	i.mu.Lock()
	i.woken = woken
	i.mu.Unlock()
	said := ""
	for ctx.Err() == nil {
		wait, err := i.rebootIfOpen(ctx)
		if err != nil && err.Error() != said {
			said = err.Error()
			log.Printf("agent: reboot into the armed slot: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-woken:
		case <-time.After(wait):
		}
	}
}

// rebootIfOpen reboots if one waits and the window is open, and returns when to look
// again.
func (i *Installer) rebootIfOpen(ctx context.Context) (time.Duration, error) {
	const idle = time.Hour // one that comes wakes us
	p, err := i.pending()
	if err != nil || p == nil {
		return idle, err
	}
	opens, err := i.opens()
	if err != nil {
		return lookAgain, err // somebody may mend the settings
	}
	if left := opens.Sub(i.now()); left > 0 {
		return min(left, lookAgain), nil
	}
	done, err := i.begin("rebooting release " + p.Version)
	if err != nil {
		return lookAgain, nil // an update of something else goes on, which asks for its own reboot
	}
	defer done()
	all, err := i.Slots(ctx)
	if err != nil {
		return lookAgain, err
	}
	if !slices.ContainsFunc(all.Slots, func(s Slot) bool {
		return s.Slot == p.Slot && s.Version == p.Version && (s.State == ArmedHere || s.State == Proven)
	}) {
		log.Printf("agent: no reboot: slot %s is no longer armed with release %s", p.Slot, p.Version)
		return idle, i.dropReboot()
	}
	err = i.drainAndReboot(ctx, Step{Slot: p.Slot, Version: p.Version}, func(Step) {})
	return lookAgain, err
}
