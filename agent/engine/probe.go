package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"

	"kogge.example/agent/workload"
)

// testID names the one process that tests a container's health: there cannot be two.
const testID = "health"

// kept is how much of a test's output is kept: its end.
const kept = 4 << 10

// testStart is how long the start of a test may take, and cleanup its end: a child that
// it left behind holds its output for ten seconds.
const (
	testStart = 30 * time.Second
	cleanup   = 15 * time.Second
)

// Health is the complete health check of c: what it says itself, else what its image
// says, with every default. It is zero if there is none.
func (e *Engine) Health(ctx context.Context, c workload.Container) (workload.Health, error) {
	var own, image workload.Health
	if c.Health != nil {
		own = *c.Health
	}
	if !own.Off && len(own.Test) == 0 {
		var err error
		if image, err = e.imageHealth(e.context(ctx), c.Image, c.Platform); err != nil {
			return workload.Health{}, err
		}
	}
	whole, _ := own.Complete(image)
	return whole, nil
}

// imageHealth reads Docker's HEALTHCHECK, which is no part of OCI's image format but
// lies in many images' configuration.
func (e *Engine) imageHealth(ctx context.Context, name, platform string) (workload.Health, error) {
	data, _, err := e.Configuration(ctx, name, platform)
	if err != nil {
		return workload.Health{}, err
	}
	h, err := workload.ParseHealth(data)
	if err != nil {
		return workload.Health{}, fmt.Errorf("image %s: health check: %w", name, err)
	}
	return h, nil
}

// Test runs h's command in the running instance, in its cgroup and with its user,
// environment and limits, and says whether it ended with 0 in time. output is the end
// of what it wrote, or why it could not be run. When Test returns, the command has
// ended, or it is killed before the next one starts.
func (e *Engine) Test(ctx context.Context, name string, h workload.Health) (good bool, output string) {
	// The shim writes there, so that no test waits for an agent that has gone.
	out := filepath.Join(e.paths.Files, name, "health")
	code, err := e.test(e.context(ctx), name, h, out)
	text := takeTail(out)
	switch {
	case err != nil:
		return false, fmt.Sprintf("%shealth check: %v", text, err)
	case code != 0:
		return false, fmt.Sprintf("%sexit code %d", text, code)
	}
	return true, text
}

func (e *Engine) test(ctx context.Context, name string, h workload.Health, out string) (code int, err error) {
	done, err := e.turns.take(ctx, name)
	if err != nil {
		return 0, err
	}
	p, exit, err := e.startTest(ctx, name, h, out)
	done()
	if err != nil {
		return 0, err
	}
	timer := time.NewTimer(h.Timeout)
	defer timer.Stop()
	select {
	case status := <-exit:
		code, err = int(status.ExitCode()), status.Error()
	case <-timer.C:
		err = fmt.Errorf("no answer within %s", h.Timeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	// Whatever it was, also the end of ctx: no process is left.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	if _, gone := p.Delete(ctx, client.WithProcessKill); gone != nil && !errdefs.IsNotFound(gone) && err == nil {
		err = fmt.Errorf("delete test: %w", gone)
	}
	return code, err
}

// startTest starts the test; when it fails, none runs, or the next one finds it.
func (e *Engine) startTest(ctx context.Context, name string, h workload.Health, out string) (client.Process, <-chan client.ExitStatus, error) {
	limited, cancel := context.WithTimeout(ctx, testStart)
	defer cancel()
	c, err := e.client.LoadContainer(limited, name)
	if err != nil {
		return nil, nil, err
	}
	task, err := c.Task(limited, nil)
	if err != nil {
		return nil, nil, err
	}
	spec, err := c.Spec(limited)
	if err != nil {
		return nil, nil, fmt.Errorf("spec: %w", err)
	}
	process := *spec.Process
	process.Args, process.Terminal = h.Test, false
	streams := func(string) (cio.IO, error) { return output{"ring://" + out}, nil }
	p, err := task.Exec(limited, testID, &process, streams)
	if errdefs.IsAlreadyExists(err) { // an agent was killed during a test
		if err := forget(limited, task, testID); err != nil {
			return nil, nil, err
		}
		p, err = task.Exec(limited, testID, &process, streams)
	}
	if err != nil {
		return nil, nil, err
	}
	exit, err := p.Wait(ctx)
	if err == nil {
		err = p.Start(limited)
	}
	if err != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
		defer cancel()
		_, _ = p.Delete(limited, client.WithProcessKill)
		return nil, nil, err
	}
	return p, exit, nil
}

// forget kills and deletes the process called exec, which may be of an earlier agent.
func forget(ctx context.Context, task client.Task, exec string) error {
	p, err := task.LoadProcess(ctx, exec, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %s: %w", exec, err)
	}
	status, err := p.Status(ctx)
	if err == nil && status.Status == client.Running {
		exit, err := p.Wait(ctx)
		if err != nil {
			return fmt.Errorf("wait for process %s: %w", exec, err)
		}
		if err := p.Kill(ctx, syscall.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("kill process %s: %w", exec, err)
		}
		select {
		case <-exit:
		case <-ctx.Done():
			return fmt.Errorf("process %s does not end: %w", exec, ctx.Err())
		}
	}
	if _, err := p.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete process %s: %w", exec, err)
	}
	return nil
}

// takeTail removes the ring at path and returns the end of what was in it, valid UTF-8
// and ending in a new line unless it is empty.
func takeTail(path string) string {
	var all []byte
	for _, name := range []string{path + ".1", path} {
		if data, err := os.ReadFile(name); err == nil { // of bounded size; else there is none
			all = append(all, data...)
		}
		_ = os.Remove(name) // if it stays, the next test's output begins with this one's
	}
	more := ""
	if over := len(all) - kept; over > 0 {
		all, more = all[over:], "…"
	}
	s := more + strings.ToValidUTF8(string(all), "\uFFFD")
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return s
}
