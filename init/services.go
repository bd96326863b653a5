package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"kogge.example/init/network"
	"kogge.example/init/nodeconfig"
)

// networkService is the role "network": it runs until SIGTERM.
func networkService() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := effectiveConfig()
	if err != nil {
		return err
	}
	return network.Run(ctx, cfg, network.NodePaths)
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
