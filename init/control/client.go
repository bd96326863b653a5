package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Client asks PID 1 over one connection. It is for one goroutine.
type Client struct {
	conn  net.Conn
	lines *bufio.Reader
}

// Dial connects to the control socket at path (see [Path]).
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to PID 1: %w", err)
	}
	return &Client{conn: conn, lines: bufio.NewReader(conn)}, nil
}

// Close hangs up.
func (c *Client) Close() error { return c.conn.Close() }

// Status asks how the node is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	r, err := c.ask(ctx, Request{Op: OpStatus})
	if err != nil {
		return nil, err
	}
	if r.Status == nil {
		return nil, errors.New("ask PID 1 for status: answer has none")
	}
	return r.Status, nil
}

// Restart restarts a service; nil says that the order was given.
func (c *Client) Restart(ctx context.Context, service string) error {
	_, err := c.ask(ctx, Request{Op: OpRestart, Service: service})
	return err
}

// Start and Stop do that to a service that a node has on demand; nil says that the order was
// given, or that there was nothing to do.
func (c *Client) Start(ctx context.Context, service string) error {
	_, err := c.ask(ctx, Request{Op: OpStart, Service: service})
	return err
}

func (c *Client) Stop(ctx context.Context, service string) error {
	_, err := c.ask(ctx, Request{Op: OpStop, Service: service})
	return err
}

// Reboot and Poweroff end the machine; nil says that it has begun.
func (c *Client) Reboot(ctx context.Context) error {
	_, err := c.ask(ctx, Request{Op: OpReboot})
	return err
}

func (c *Client) Poweroff(ctx context.Context) error {
	_, err := c.ask(ctx, Request{Op: OpPoweroff})
	return err
}

// Config asks how node.yaml stands.
func (c *Client) Config(ctx context.Context) (*Config, error) {
	return c.config(ctx, Request{Op: OpConfig})
}

// Set gives the node the text in r's file.
func (c *Client) Set(ctx context.Context, r Request) (*Config, error) {
	r.Op = OpSet
	return c.config(ctx, r)
}

// Confirm keeps the network settings of the revision base, Undo takes those back that
// are tried.
func (c *Client) Confirm(ctx context.Context, base string) (*Config, error) {
	return c.config(ctx, Request{Op: OpConfirm, Base: base})
}

func (c *Client) Undo(ctx context.Context) (*Config, error) {
	return c.config(ctx, Request{Op: OpUndo})
}

func (c *Client) config(ctx context.Context, r Request) (*Config, error) {
	answer, err := c.ask(ctx, r)
	if err != nil {
		return nil, err
	}
	if answer.Config == nil {
		return nil, fmt.Errorf("ask PID 1 for %s: answer has none", r.Op)
	}
	return answer.Config, nil
}

// Reset has the next boot make STATE anew, as r says.
func (c *Client) Reset(ctx context.Context, r Request) error {
	r.Op = OpReset
	_, err := c.ask(ctx, r)
	return err
}

// Assess tells PID 1 the verdict on this boot, "good", "pending" or "sick", and why; "" only
// asks. Bad is for PID 1 to say. The answer is how the assessment stands then.
func (c *Client) Assess(ctx context.Context, verdict, why string) (*Assessment, error) {
	answer, err := c.ask(ctx, Request{Op: OpAssess, Verdict: verdict, Why: strings.ToValidUTF8(why[:min(len(why), MaxWhy)], "")})
	if err != nil {
		return nil, err
	}
	if answer.Assessment == nil {
		return nil, errors.New("ask PID 1 for assess: answer has none")
	}
	return answer.Assessment, nil
}

// Logs calls line for each line of a service's log: the last tail ones (0: all
// that are kept) and, with follow, those to come until ctx is over, which is no
// error then.
func (c *Client) Logs(ctx context.Context, service string, tail int, follow bool, line func(string)) error {
	defer c.until(ctx)()
	if err := c.send(Request{Op: OpLogs, Service: service, Tail: tail, Follow: follow}); err != nil {
		return err
	}
	for {
		r, err := c.receive(OpLogs)
		if err != nil {
			if follow && ctx.Err() != nil {
				return nil
			}
			return err
		}
		if r.Line == nil {
			return nil
		}
		line(*r.Line)
	}
}

func (c *Client) ask(ctx context.Context, r Request) (Response, error) {
	defer c.until(ctx)()
	if err := c.send(r); err != nil {
		return Response{}, err
	}
	return c.receive(r.Op)
}

// until lets ctx end what is waited for; the function it returns undoes that.
func (c *Client) until(ctx context.Context) func() {
	_ = c.conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

func (c *Client) send(r Request) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("ask PID 1 for %s: %w", r.Op, err)
	}
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("ask PID 1 for %s: %w", r.Op, err)
	}
	return nil
}

func (c *Client) receive(op Op) (Response, error) {
	var r Response
	b, err := c.lines.ReadBytes('\n')
	if err != nil {
		return r, fmt.Errorf("ask PID 1 for %s: %w", op, err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("ask PID 1 for %s: %w", op, err)
	}
	if r.NoService {
		return r, fmt.Errorf("ask PID 1 for %s: %w", op, noService(r.Error))
	}
	if r.Error != "" {
		return r, fmt.Errorf("ask PID 1 for %s: %s", op, r.Error)
	}
	return r, nil
}

// ErrNoService means that PID 1 has no service of that name.
var ErrNoService = errors.New("no such service")

// noService is ErrNoService in PID 1's words.
type noService string

func (n noService) Error() string        { return string(n) }
func (n noService) Is(target error) bool { return target == ErrNoService }
