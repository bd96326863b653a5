package module

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Coldplug loads the modules of all devices that the kernel found before anybody
// listened. Errors are joined, after every device had its turn.
func (x *Index) Coldplug() error { return x.coldplug("/sys") }

// shelves are where sysfs lists its devices, as globs below it. Each device is on the
// list of its bus or class, and the processor on that of the system. To walk all of
// /sys/devices instead takes four times as long, and each boot does it twice.
//
// Source: Documentation/admin-guide/sysfs-rules.rst in the kernel tree.
var shelves = []string{"bus/*/devices", "class/*", "devices/system"}

func (x *Index) coldplug(sys string) error {
	seen := map[string]bool{}
	var errs []error
	for _, shelf := range shelves {
		folders, _ := filepath.Glob(filepath.Join(sys, shelf)) // the patterns are well formed
		for _, folder := range folders {
			devices, _ := os.ReadDir(folder) // devices come and go while we look
			for _, d := range devices {
				data, err := os.ReadFile(filepath.Join(folder, d.Name(), "modalias"))
				if err != nil {
					continue
				}
				if alias := strings.TrimSpace(string(data)); alias != "" && !seen[alias] {
					seen[alias] = true
					_, err := x.Load(alias)
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// Listen opens the kernel's device events. Events from then on wait in its buffer.
func Listen() (*Events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("device events: %w", err)
	}
	// A machine full of USB devices sends hundreds at once.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("device events: %w", err)
	}
	return &Events{fd: fd}, nil
}

// Events is the kernel's stream of device events.
type Events struct{ fd int }

// Event is what happened to one device.
type Event struct {
	Action   string // "add", "remove", "change" …
	Modalias string // "" for devices without a driver of their own
	DevPath  string // below /sys
}

// Serve loads modules for devices that appear until ctx ends. say gets one line
// for each thing that went wrong.
func (e *Events) Serve(ctx context.Context, x *Index, say func(string)) {
	stop := context.AfterFunc(ctx, func() { unix.Shutdown(e.fd, unix.SHUT_RDWR); unix.Close(e.fd) })
	defer stop()
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, from, err := unix.Recvfrom(e.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			// Events were lost; the devices are still there.
			if err := x.Coldplug(); err != nil {
				say(err.Error())
			}
			continue
		case err != nil:
			return
		}
		// Port 0 is the kernel; anybody else could only pretend.
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue
		}
		ev := ParseEvent(buf[:n])
		if ev.Action != "add" && ev.Action != "change" || ev.Modalias == "" {
			continue
		}
		if _, err := x.Load(ev.Modalias); err != nil {
			say(err.Error())
		}
	}
}

// ParseEvent reads one message: "action@path", then KEY=value strings, each ended
// by a zero byte. What it does not know stays out.
func ParseEvent(msg []byte) Event {
	var ev Event
	for i, field := range bytes.Split(msg, []byte{0}) {
		key, value, ok := strings.Cut(string(field), "=")
		switch {
		case i == 0 || !ok:
		case key == "ACTION":
			ev.Action = value
		case key == "MODALIAS":
			ev.Modalias = value
		case key == "DEVPATH":
			ev.DevPath = value
		}
	}
	return ev
}
