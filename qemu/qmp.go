package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// monitor is a connection to QEMU's machine protocol.
//
// It is our own, and not digitalocean/go-qemu: that has no release, its commands cannot be
// ended by a context, and it brings libvirt's client along.
//
// Source: docs/interop/qmp-spec.txt in QEMU 7.2.
type monitor struct {
	conn net.Conn
	in   *json.Decoder
	// event takes what arrives between answers. It may be nil.
	event func(Event)
}

// Event is something that QEMU tells about the machine, for instance RESET,
// SHUTDOWN, POWERDOWN or WATCHDOG.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// message is anything that QEMU sends.
type message struct {
	Event
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// dialUnix connects to a socket in dir, however long dir's path is.
func dialUnix(ctx context.Context, dir, name string) (net.Conn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
}

// dialMonitor connects to the monitor behind a socket of dir and greets it. The
// socket serves one client at a time: dialMonitor waits for its turn until ctx ends.
func dialMonitor(ctx context.Context, dir, name string) (*monitor, error) {
	conn, err := dialUnix(ctx, dir, name)
	if err != nil {
		return nil, fmt.Errorf("connect to monitor: %w", err)
	}
	m := &monitor{conn: conn, in: json.NewDecoder(conn)}
	stop := m.until(ctx)
	defer stop()
	var greeting message
	if err := m.in.Decode(&greeting); err != nil {
		conn.Close()
		return nil, fmt.Errorf("greet monitor: %w", ctxErr(ctx, err))
	}
	if greeting.QMP == nil {
		conn.Close()
		return nil, errors.New("greet monitor: no QMP greeting")
	}
	if err := m.do("qmp_capabilities", nil, nil); err != nil {
		conn.Close()
		return nil, ctxErr(ctx, err)
	}
	return m, nil
}

// until makes pending reads and writes fail when ctx ends; stop undoes it.
func (m *monitor) until(ctx context.Context) (stop func()) {
	undo := context.AfterFunc(ctx, func() { m.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { undo() }
}

// ctxErr says that ctx ended where that is why err came about.
func ctxErr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// do runs one command and stores its answer in result, unless that is nil.
func (m *monitor) do(command string, args, result any) error {
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return fmt.Errorf("monitor: %s: %w", command, err)
	}
	for {
		var msg message
		if err := m.in.Decode(&msg); err != nil {
			return fmt.Errorf("monitor: %s: %w", command, err)
		}
		switch {
		case msg.Error != nil:
			return fmt.Errorf("monitor: %s: %s", command, msg.Error.Desc)
		case msg.Return != nil:
			if result == nil {
				return nil
			}
			if err := json.Unmarshal(msg.Return, result); err != nil {
				return fmt.Errorf("monitor: %s: %w", command, err)
			}
			return nil
		case msg.Name != "" && m.event != nil:
			m.event(msg.Event)
		}
	}
}

// follow hands events on until the connection ends.
func (m *monitor) follow() {
	for {
		var msg message
		if err := m.in.Decode(&msg); err != nil {
			return // QEMU is gone, or Close cut the line
		}
		if msg.Name != "" && m.event != nil {
			m.event(msg.Event)
		}
	}
}

// Monitor runs one command of QEMU's machine protocol, for instance
// "announce-self". args and result are what encoding/json takes; both may be nil.
// It may be called from any process and waits its turn until ctx ends.
func (v *VM) Monitor(ctx context.Context, command string, args, result any) error {
	m, err := dialMonitor(ctx, v.Dir, qmpSock)
	if err != nil {
		return fmt.Errorf("vm %s: %s: %w", v.Name, command, err)
	}
	defer m.conn.Close()
	defer m.until(ctx)()
	if err := m.do(command, args, result); err != nil {
		return fmt.Errorf("vm %s: %w", v.Name, ctxErr(ctx, err))
	}
	return nil
}

// Powerdown presses the power button: a guest that listens shuts down cleanly.
// It does not wait for that; see [VM.Stop].
func (v *VM) Powerdown(ctx context.Context) error {
	return v.Monitor(ctx, "system_powerdown", nil, nil)
}

// Reset presses the reset button. What the guest did not flush stays in QEMU's
// hands and reaches the disk: a reset is no power cut.
func (v *VM) Reset(ctx context.Context) error {
	return v.Monitor(ctx, "system_reset", nil, nil)
}
