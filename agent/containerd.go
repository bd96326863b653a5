package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"time"

	"kogge.example/agent/containerd"
	"kogge.example/agent/engine"
	"kogge.example/init/control"
	"kogge.example/update/memory"
)

// runContainerd is the role containerd: serve until told to stop. Its watchdog is
// fed only while the server answers over its own socket.
func runContainerd(ctx context.Context, args []string) error {
	var c containerd.Config
	flags := flag.NewFlagSet("containerd", flag.ContinueOnError)
	flags.StringVar(&c.Root, "root", "/state/containerd", "`folder` of images and metadata; on a tmpfs if there is no STATE")
	flags.StringVar(&c.State, "state", "/run/kogge/containerd", "`folder` of what a boot forgets")
	flags.StringVar(&c.Socket, "socket", "/run/kogge/containerd.sock", "`path` to serve on")
	flags.StringVar(&c.Bin, "bin", "/bin", "`folder` of containerd-shim-runc-v2")
	run := flags.String("run", control.RunDir, "`folder` of what is known of this boot")
	updates := flags.String("updates", memory.Dir, "`folder` of what is remembered of updates")
	if err := flags.Parse(args); err != nil {
		return err
	}
	limitMemory(8, 20<<20, 256<<20)
	parent, err := newSupervisor()
	if err != nil {
		return err
	}
	if err := keepStores(c.Root, *run, *updates); err != nil {
		log.Printf("containerd: %v", err) // it starts all the same: what it cannot read it says itself
	}
	if err := hurryShims(); err != nil {
		return err
	}
	began := time.Now()
	// Not ctx: its end must not cut the server's own work before Stop.
	server, err := containerd.Start(context.Background(), c)
	if err != nil {
		return err
	}
	defer server.Stop()
	log.Printf("containerd: serving on %s after %s", c.Socket, time.Since(began).Round(time.Millisecond))
	parent.tell("READY=1", "STATUS=serving on "+c.Socket)
	rest()
	if err := health(ctx, c.Socket, parent); err != nil {
		return err
	}
	parent.tell("STOPPING=1")
	return nil
}

// hurryShims is for the shims that this process will start: a call of one lives for a few
// milliseconds, and what it allocates is less than a collection costs. The shim that stays
// sets a collector for itself. How many processors a shim uses containerd says.
func hurryShims() error { return os.Setenv("GOGC", "off") }

// keepStores copies the databases before a trial, or puts them back after it.
func keepStores(root, run, updates string) error {
	boot, err := control.ReadBoot(run)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no node, or none that was booted from a slot
	}
	if err != nil {
		return err
	}
	now := containerd.Boot{Slot: boot.Slot, Trial: boot.Trial}
	if boot.Trial {
		trial, there, err := memory.ReadTrial(memory.In(updates))
		if err != nil {
			return err
		}
		if there {
			now.Number = trial.Number
		}
	}
	did, err := containerd.KeepStores(root, filepath.Join(updates, "containerd"), now)
	if did != "" {
		log.Print("containerd: " + did)
	}
	return err
}

// health asks the server whether it serves, as a client would, and feeds the
// watchdog while it does. A server that does not answer is left to the watchdog.
func health(ctx context.Context, socket string, parent *supervisor) error {
	if parent.watchdog == 0 {
		<-ctx.Done()
		return nil
	}
	engine, err := engine.Connect(engine.Paths{Socket: socket}, "")
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	defer engine.Close()
	tick := time.NewTicker(parent.watchdog / 3)
	defer tick.Stop()
	healthy := true
	for {
		limited, cancel := context.WithTimeout(ctx, parent.watchdog/3)
		err := engine.Serving(limited)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			parent.tell("WATCHDOG=1")
		case healthy:
			log.Printf("containerd: health check: %v", err)
			parent.tell("STATUS=does not answer: " + err.Error())
		}
		if err == nil && !healthy {
			parent.tell("STATUS=serving on " + socket)
		}
		healthy = err == nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
