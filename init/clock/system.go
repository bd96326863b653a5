package clock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Clock is a clock that can be read and set. [System] is the machine's; tests pass
// another, so that they never touch it.
type Clock interface {
	Now() time.Time
	Set(time.Time) error
	Slew(time.Duration) error // spread over the next minutes
	SaveRTC(time.Time) error  // to the hardware clock; nil without one
}

// System is the machine's clock.
type System struct{}

// Now reads the clock.
func (System) Now() time.Time { return time.Now() }

// Set sets the clock at once.
func (System) Set(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set clock to %s: %w", t.UTC().Format(time.RFC3339), err)
	}
	return nil
}

// Slew shifts the clock by d, at 500 microseconds a second.
func (System) Slew(d time.Duration) error {
	// ADJ_OFFSET_SINGLESHOT is adjtime(3): it needs no PLL to be kept in tune.
	tx := unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT}
	assign(&tx.Offset, d.Microseconds())
	if _, err := unix.Adjtimex(&tx); err != nil {
		return fmt.Errorf("slew clock by %s: %w", d, err)
	}
	return nil
}

// SaveRTC writes the hardware clock, in UTC. Boards without one are none the worse.
func (System) SaveRTC(t time.Time) error {
	f, err := os.OpenFile("/dev/rtc0", os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set hardware clock: %w", err)
	}
	defer f.Close()
	t = t.UTC()
	rtc := unix.RTCTime{Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()),
		Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year()) - 1900}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RTC_SET_TIME, uintptr(unsafe.Pointer(&rtc)))
	if errno != 0 {
		return fmt.Errorf("set hardware clock: %w", errno)
	}
	return nil
}

// assign stores v in a kernel long, whatever its width here.
func assign[T int32 | int64](long *T, v int64) { *long = T(v) }
