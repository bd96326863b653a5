// Package watchdog keeps the hardware watchdog fed while PID 1 is alive.
//
// Stage 0 opens the device, in the process that goes on as PID 1; beats of the
// supervisor loop come in, pings to the device go out. No beat, no ping, and the
// hardware resets the machine. The descriptor is a plain number that no finalizer
// finds; it is never closed and never told to stop ("magic close").
//
// Source: Documentation/watchdog/watchdog-api.rst in the kernel tree.
package watchdog

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Device is the first watchdog that the kernel found.
const Device = "/dev/watchdog"

// idle is the pace of the beats where no device sets one.
const idle = 5 * time.Second

// timer is the hardware. The kernel's driver is one, tests bring another.
type timer interface {
	ping() error
	setTimeout(time.Duration) error
	timeout() (time.Duration, error)
	bootStatus() (int, error)
}

// Dog is the watchdog of this machine, or the knowledge that it has none: every
// method works on both.
type Dog struct {
	hw      timer // nil: none
	fd      int
	why     error // why there is none
	timeout time.Duration
}

// None is a machine without a watchdog, for the reason why.
func None(why error) *Dog { return &Dog{fd: -1, why: why} }

// Open starts the watchdog at dev (see [Device]) and sets its time, in whole
// seconds; the driver may choose another, see [Dog.Timeout]. From now on the
// machine resets unless it is pinged. A machine without the device gives a Dog
// all the same, whose [Dog.Missing] says why.
func Open(dev string, timeout time.Duration) *Dog {
	fd, err := unix.Open(dev, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return None(fmt.Errorf("open watchdog %s: %w", dev, err))
	}
	d := &Dog{hw: device(fd), fd: fd}
	d.start(timeout)
	return d
}

// start sets the time and asks which one it became.
func (d *Dog) start(timeout time.Duration) {
	if timeout > 0 {
		// A driver with a fixed time refuses: its own one, asked for next, holds.
		_ = d.hw.setTimeout(timeout)
	}
	real, err := d.hw.timeout()
	if err != nil || real <= 0 {
		real = min(max(timeout, time.Second), 10*time.Second) // cannot say: ping often
	}
	d.timeout = real
	_ = d.hw.ping()
}

// Missing is nil where a watchdog runs, otherwise the reason why none does.
func (d *Dog) Missing() error { return d.why }

// Timeout is the time without a ping after which the hardware resets the
// machine; zero without a device.
func (d *Dog) Timeout() time.Duration { return d.timeout }

// Interval is the pace at which beats are due: a third of the timeout, so that
// two may be late.
func (d *Dog) Interval() time.Duration {
	if d.timeout == 0 {
		return idle
	}
	return d.timeout / 3
}

// Fired says whether the hardware's last reset was the watchdog's doing, as far as the
// driver can tell.
func (d *Dog) Fired() bool {
	if d.hw == nil {
		return false
	}
	status, err := d.hw.bootStatus()
	return err == nil && status&unix.WDIOF_CARDRESET != 0
}

// Ping restarts the hardware's count. It is for the straight path of boot and
// shutdown; while the supervisor runs, [Dog.Keep] does it.
func (d *Dog) Ping() error {
	if d.hw == nil {
		return nil
	}
	if err := d.hw.ping(); err != nil {
		return fmt.Errorf("ping watchdog: %w", err)
	}
	return nil
}

// Maximum is the longest time that [Dog.SetMax] asks for: enough for firmware,
// loader and kernel of the slowest board. A reboot that hangs for longer than
// that is worse than one reset too many.
const Maximum = 10 * time.Minute

// SetMax gives the hardware the longest time it takes, up to [Maximum], and
// pings once: the reboot that follows, up to the next stage 0, has that long.
func (d *Dog) SetMax() error {
	if d.hw == nil {
		return nil
	}
	for t := Maximum; t > d.timeout; t -= t / 4 {
		if d.hw.setTimeout(t.Truncate(time.Second)) != nil {
			continue
		}
		if real, err := d.hw.timeout(); err == nil && real >= d.timeout {
			d.timeout = real
			break
		}
	}
	return d.Ping()
}

// device is the descriptor of the kernel's driver.
type device int

func (d device) ping() error { return unix.IoctlWatchdogKeepalive(int(d)) }

func (d device) setTimeout(t time.Duration) error {
	return unix.IoctlSetPointerInt(int(d), unix.WDIOC_SETTIMEOUT, int(t/time.Second))
}

func (d device) timeout() (time.Duration, error) {
	seconds, err := unix.IoctlGetInt(int(d), unix.WDIOC_GETTIMEOUT)
	return time.Duration(seconds) * time.Second, err
}

func (d device) bootStatus() (int, error) { return unix.IoctlGetInt(int(d), unix.WDIOC_GETBOOTSTATUS) }
