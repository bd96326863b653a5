package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/agent/machine"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/download"
)

// probeLimit is what one check may take.
const probeLimit = 10 * time.Second

// Engine is containerd, as far as it is asked. engine.Engine is one.
type Engine interface {
	Serving(ctx context.Context) error
	// Run runs a command inside a container until it ends or ctx does.
	Run(ctx context.Context, instance string, command []string) (exit int, err error)
}

// Node is what there is to ask.
type Node struct {
	Config nodeconfig.Assess
	// API is where the node's own API listens: host:port.
	API string
	// State and Run are STATE and the folder of run-time files; Memory is the file in
	// which the last good boot is remembered, on STATE.
	State, Run, Memory string
	// Release is the version that runs, Trial whether it has not proven itself yet.
	Release string
	Trial   bool
	// Engine and Containers say how they are; an error is why nobody can know by now.
	Engine     func() (Engine, error)
	Containers func() (workload.Status, error)

	began   time.Time
	before  Before // as it was at the start
	blamed  bool   // this boot has been counted in before.SentBack
	reached bool   // of the peers, in the last round
}

// probe is one check.
type probe struct {
	name     string
	ask      func(ctx context.Context) error
	workload bool // it is about what runs on the node
}

// probes are the checks of one round.
func (n *Node) probes() []probe {
	all := []probe{
		{name: "STATE", ask: func(context.Context) error { return onDisk(n.State) }},
		{name: "API", ask: func(ctx context.Context) error { return dial(ctx, n.API) }},
		{name: "containerd", ask: func(ctx context.Context) error {
			e, err := n.Engine()
			if err != nil {
				return err
			}
			return e.Serving(ctx)
		}},
		{name: "containers", ask: func(context.Context) error { return n.containers() }, workload: true},
	}
	if n.before.Link {
		all = append(all, probe{name: "network", ask: func(context.Context) error {
			if !linkUp(n.Run) {
				return errors.New("no link is up, and one was at the last good boot")
			}
			return nil
		}})
	}
	for _, c := range n.Config.Checks {
		all = append(all, probe{name: c.String(), workload: true, ask: func(ctx context.Context) error {
			switch {
			case c.HTTP != "":
				return get(ctx, c.HTTP)
			case c.TCP != "":
				return dial(ctx, c.TCP)
			}
			return n.command(ctx, c)
		}})
	}
	return all
}

// onDisk wants a file system that outlives the boot, and that can be written to.
func onDisk(state string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(state, &st); err != nil {
		return fmt.Errorf("%s: %w", state, err)
	}
	if kind := uint32(st.Type); kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC { // int32 on arm
		return errors.New("is in memory, not on the disk")
	}
	return machine.Writable(state)
}

func dial(ctx context.Context, address string) error {
	conn, err := download.Dial(&net.Dialer{})(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// get wants an answer from 200 to 399.
func get(ctx context.Context, url string) error {
	transport := &http.Transport{
		DialContext:       download.Dial(&net.Dialer{}),
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // is it there, not who is it: see nodeconfig.Check
	}
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return errors.New("no request can be made from this URL")
	}
	request.Header.Set("User-Agent", "kogge-assess")
	answer, err := client.Do(request)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without the URL, whose query may be a secret
		}
		return err
	}
	defer answer.Body.Close()
	// A server that was heard out closes the connection in order.
	_, _ = io.CopyN(io.Discard, answer.Body, 64<<10)
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return nil
}

// command wants a command in a container to end with 0.
func (n *Node) command(ctx context.Context, c nodeconfig.Check) error {
	status, err := n.Containers()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(status.Units, func(u workload.UnitStatus) bool { return u.ID == c.Container })
	if i < 0 {
		return errors.New("no such container")
	}
	if u := status.Units[i]; u.State != workload.Running {
		return fmt.Errorf("the container is %s", u.State)
	}
	containerd, err := n.Engine()
	if err != nil {
		return err
	}
	code, err := containerd.Run(ctx, status.Units[i].Instance, c.Command)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("not finished within %s", probeLimit)
	case err == nil && code != 0:
		return fmt.Errorf("ended with %d", code)
	}
	return err
}

// containers wants those well that were at the last good boot and are still wanted.
func (n *Node) containers() error {
	status, err := n.Containers()
	if err != nil {
		return err
	}
	if status.Trouble != "" {
		return errors.New(status.Trouble)
	}
	if n.Config.Containers == nodeconfig.Ignore {
		return nil
	}
	for _, u := range status.Units {
		if slices.Contains(n.before.Containers, u.ID) && !well(u) {
			return fmt.Errorf("%s was well at the last good boot, and is %s", u.ID, state(u))
		}
	}
	if !status.Settled && time.Since(n.began) < settleLimit {
		return errors.New("not all have started yet")
	}
	return nil
}

// settleLimit is how long a boot waits for containers that were not well before: they
// may be new, and their images on the way. The others have all the time there is.
const settleLimit = 2 * time.Minute

// well says whether a container runs, and is healthy where that can be known.
func well(u workload.UnitStatus) bool {
	return u.State == workload.Running && (u.Health.State == workload.Unchecked || u.Health.State == workload.Healthy)
}

// state is a container's state in words.
func state(u workload.UnitStatus) string {
	text := string(u.State)
	if u.State == workload.Running {
		text = string(u.Health.State)
		if u.Health.State == workload.HealthStarting {
			text = "not healthy yet"
		}
	}
	if u.Reason != "" {
		text += " (" + u.Reason + ")"
	}
	return text
}

// linkUp reads what the network service says.
func linkUp(run string) bool {
	network, err := control.ReadNetwork(run)
	return err == nil && slices.ContainsFunc(network.Interfaces, func(i control.Interface) bool { return i.Carrier })
}
