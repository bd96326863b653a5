package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/clock"
	"kogge.example/init/network"
	"kogge.example/init/nodeconfig"
	"kogge.example/init/supervise"
)

// settled is when a service has started and what that took can go back to the node.
const settled = 30 * time.Second

// frugal is how much garbage a program of the init keeps once it has started, in percent of what
// is in use. Go's usual 100 let each keep some 4 MiB, which is more than they use.
const frugal = 25

// settle gives back what a start took, and keeps the heap small from then on.
func settle() {
	debug.SetGCPercent(frugal)
	debug.FreeOSMemory()
}

// networkService is the role "network": it runs until SIGTERM.
func networkService() error {
	// The port of a DHCP client is below 1024.
	if err := supervise.Limit(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := effectiveConfig()
	if err != nil {
		return err
	}
	time.AfterFunc(settled, settle)
	return network.Run(ctx, cfg, network.NodePaths)
}

// clockService is the role "clock": it runs until SIGTERM.
func clockService() error {
	if err := supervise.Limit(unix.CAP_SYS_TIME); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := effectiveConfig()
	if err != nil {
		return err
	}
	time.AfterFunc(settled, settle)
	floor, err := clock.SetFloor(clock.System{}, clock.NodePaths.Saved, imageTime())
	if err != nil {
		log.Print(err) // the floor is good without the saved time
	}
	return clock.Run(ctx, cfg, clock.Options{Floor: floor})
}

// effectiveConfig reads what PID 1 decided on, with the host name that it chose
// where the file names none.
func effectiveConfig() (nodeconfig.Config, error) {
	cfg, err := nodeconfig.ReadFile(nodeYAML)
	if err != nil {
		return cfg, fmt.Errorf("effective node.yaml: %w", err)
	}
	if cfg.Hostname == "" {
		cfg.Hostname, err = os.Hostname()
	}
	return cfg, err
}
