package supervise

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"kogge.example/init/guard"
	"kogge.example/init/shutdown"
)

const (
	evKey    = 1   // EV_KEY
	keyPower = 116 // KEY_POWER
	// powerPause is how often new input devices are looked for: their modules load
	// when they like, and nobody presses the key within the first seconds.
	powerPause = 3 * time.Second
	// eventSize is sizeof(struct input_event): two longs, two shorts, an int.
	eventSize = 2*strconv.IntSize/8 + 8
)

// watchPower sends Poweroff to out when a power key is pressed: of the ACPI
// button, of a GPIO, of a keyboard. It reads only devices that have such a key,
// so that typing does not wake PID 1. dir is /dev/input, sys is /sys/class/input.
//
// Source: Documentation/input/input.rst and event-codes.rst in the kernel tree.
func watchPower(dir, sys string, out chan<- shutdown.How, done <-chan struct{}) {
	open := map[string]*os.File{} // every device looked at; nil: no power key
	gone := make(chan string)
	readers := 0
	scan := time.NewTicker(powerPause)
	defer scan.Stop()
	defer func() {
		for _, f := range open {
			if f != nil {
				f.Close()
			}
		}
		for ; readers > 0; readers-- {
			<-gone
		}
	}()
	for {
		paths, _ := filepath.Glob(filepath.Join(dir, "event*"))
		for _, path := range paths {
			if _, known := open[path]; known {
				continue
			}
			open[path] = openPowerKey(path, sys)
			if f := open[path]; f != nil {
				readers++
				guard.Go("power key "+path, func() {
					readPower(f, out)
					gone <- path
				})
			}
		}
		select {
		case <-scan.C:
		case path := <-gone: // unplugged: its name may come again
			readers--
			open[path].Close()
			delete(open, path)
		case <-done:
			return
		}
	}
}

// openPowerKey opens an input device if it has a power key; sys says so.
func openPowerKey(path, sys string) *os.File {
	caps, err := os.ReadFile(filepath.Join(sys, filepath.Base(path), "device/capabilities/key"))
	if err != nil || !hasKey(string(caps), keyPower) {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	return f
}

// hasKey looks for a key in a bitmap as sysfs prints it: words of a long in
// hexadecimal, the highest first.
func hasKey(bitmap string, key int) bool {
	words := strings.Fields(bitmap)
	i := len(words) - 1 - key/strconv.IntSize
	if i < 0 {
		return false
	}
	word, err := strconv.ParseUint(words[i], 16, strconv.IntSize)
	return err == nil && word>>(key%strconv.IntSize)&1 == 1
}

// readPower reads events until the device is gone or closed.
func readPower(f *os.File, out chan<- shutdown.How) {
	buf := make([]byte, 16*eventSize) // the kernel gives whole events
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		if pressed(buf[:n]) {
			select {
			case out <- shutdown.Poweroff:
			default: // asked already
			}
		}
	}
}

// pressed says whether one of the input events is the power key going down.
func pressed(events []byte) bool {
	for ; len(events) >= eventSize; events = events[eventSize:] {
		e := events[eventSize-8:]
		if binary.NativeEndian.Uint16(e) == evKey && binary.NativeEndian.Uint16(e[2:]) == keyPower &&
			binary.NativeEndian.Uint32(e[4:]) == 1 {
			return true
		}
	}
	return false
}
