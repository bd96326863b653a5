package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"kogge.example/agent/engine"
	"kogge.example/agent/probe"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// assessBoot asks whether this boot is good until it is, and tells PID 1. Outside of a
// node there is no boot, and nobody to tell.
func assessBoot(ctx context.Context, at paths, now *parts) {
	if _, err := os.Stat(control.Path); err != nil {
		return
	}
	settings, err := nodeconfig.ReadFile(at.config)
	if err != nil {
		log.Printf("agent: boot assessment: %s", nodeconfig.Public(err)) // PID 1 wrote the file: the checks that need none go on
	}
	boot, err := control.ReadBoot(at.run)
	if err != nil {
		log.Printf("agent: boot assessment: %v", err)
	}
	p := probed{parts: now, socket: filepath.Join(at.run, "containerd.sock")}
	defer p.close()
	probe.Run(ctx, &probe.Node{
		Config: settings.Assessment(), API: own(at.api), State: at.state, Run: at.run,
		Memory: filepath.Join(at.state, probe.MemoryFile), Release: boot.Version, Trial: boot.Trial,
		Engine: p.engine, Containers: now.status,
	}, tellPID1)
}

// probed is containerd as the assessment asks it. An agent that refuses its workloads has no
// connection to it, and the node is as well as ever: then it is one of its own.
type probed struct {
	parts  *parts
	socket string

	mu   sync.Mutex // guards the field below
	lone *engine.Engine
}

func (a *probed) engine() (probe.Engine, error) {
	if e := a.parts.engine.Load(); e != nil {
		return e, nil
	}
	if a.parts.refused.Load() == nil {
		return nil, errors.New("the agent has no connection to containerd yet")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lone == nil {
		e, err := engine.Connect(engine.Paths{Socket: a.socket}, "")
		if err != nil {
			return nil, err
		}
		a.lone = e
	}
	return a.lone, nil
}

func (a *probed) close() {
	if a.lone != nil {
		_ = a.lone.Close()
	}
}

// status is what is known of the containers.
func (p *parts) status() (workload.Status, error) {
	if why := p.refused.Load(); why != nil {
		return workload.Status{}, errors.New(*why)
	}
	if k := p.keeper.Load(); k != nil {
		return k.Snapshot(), nil
	}
	return workload.Status{}, errors.New("the containers are not known yet")
}

// own is where a process of this node reaches an address that it listens on.
func own(address string) string {
	if host, port, err := net.SplitHostPort(address); err == nil && host == "" {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

// tellLimit is for PID 1 to answer.
const tellLimit = 10 * time.Second

func tellPID1(ctx context.Context, v probe.Verdict, why string) error {
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	c, err := control.Dial(ctx, control.Path)
	if err != nil {
		return err
	}
	defer c.Close()
	is, err := c.Assess(ctx, string(v), why)
	if err == nil && v == probe.Good && is.State != string(probe.Good) {
		return fmt.Errorf("%w: %s: %s", probe.ErrSettled, is.State, is.Why)
	}
	return err
}
