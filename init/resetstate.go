package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"kogge.example/init/change"
	"kogge.example/init/control"
	"kogge.example/init/mount"
	"kogge.example/init/reset"
	"kogge.example/update/durable"
	"kogge.example/update/fat"
)

// askReset leaves on the boot partition what the next boot makes of STATE. kept is the
// node.yaml of the request that keeps it.
func (n *node) askReset(r control.Request, kept []byte) error {
	switch {
	case n.disk.Name == "":
		return errors.New("the node has no boot disk that it may write to")
	case r.KeepConfig && !n.persist:
		return errors.New("STATE is not on the disk, so there are no settings to keep")
	case r.File != "" && readOptional(fwcfgJoin) != nil:
		return errors.New("QEMU hands over a join.yaml (fw_cfg), which comes before the one on the boot partition: change that file on the host")
	}
	var w reset.Wish
	if r.KeepConfig {
		w = reset.Wish{Keep: true, Settings: kept, Imported: strings.TrimSpace(string(readOptional(configHash)))}
	}
	var join []byte
	if r.File != "" {
		var err error
		if join, err = change.ReadFile(runDir, r); err != nil {
			return err
		}
	}
	n.asking.Lock()
	defer n.asking.Unlock()
	err := editBootPartition(n.disk, func(v *fat.Volume) error { return reset.Ask(v, w, join, time.Now()) })
	if err != nil {
		return fmt.Errorf("boot partition: %w", err)
	}
	n.say("kogge: the next boot formats STATE, as requested")
	return nil
}

// resetState makes STATE anew if somebody asked for that on the boot partition, and
// says whether it is mounted then. A wish that cannot be read costs no data.
func (n *node) resetState(ctx context.Context) (mounted bool, err error) {
	text, err := readBootPartition(n.disk, reset.File)
	n.degraded.Add("boot partition", err)
	if text == nil {
		return false, nil
	}
	w, err := reset.Parse(text)
	if err != nil {
		n.degraded.Add("reset of STATE", fmt.Errorf("not done: %s on the boot partition: %w", reset.File, err))
		return false, nil
	}
	if err := editBootPartition(n.disk, func(v *fat.Volume) error { return reset.Begin(v, time.Now()) }); err != nil {
		n.degraded.Add("reset of STATE", fmt.Errorf("not done, as %s could not be removed: %w", reset.File, err))
		return false, nil
	}
	n.say("kogge: STATE is formatted: the boot partition has the file " + reset.File)
	return true, w.Fulfil(&resetting{n, ctx})
}

// resetting is the node while STATE is made anew.
type resetting struct {
	*node
	ctx context.Context
}

func (r *resetting) Reformat() error { return r.reformat(r.disk) }

func (r *resetting) Mount() error { return mount.MountState(r.ctx, r.disk, r.check) }

func (r *resetting) Restore(settings []byte, imported string) error {
	if err := os.MkdirAll(ownDir, 0o700); err != nil {
		return err
	}
	if err := durable.Replace(configCopy, settings, 0o600); err != nil || imported == "" {
		return err
	}
	return durable.Replace(configHash, []byte(imported+"\n"), 0o600)
}

// Forget failing is no reason to do without STATE.
func (r *resetting) Forget() error {
	r.degraded.Add("boot partition", editBootPartition(r.disk, reset.Forget))
	return nil
}
