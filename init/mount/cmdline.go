package mount

import (
	"fmt"
	"os"
	"strings"

	"kogge.example/update/gpt"
	"kogge.example/update/verity"
)

// Cmdline is what a release writes on the kernel command line for us.
type Cmdline struct {
	Verity  verity.Params // kogge.verity: root hash, salt, blocks of the root file system
	Version string        // kogge.version: the release, as people name it
	Board   string        // kogge.board
	Trial   bool          // kogge.trial=1: from boot loaders that cannot say it otherwise, and from kexec
	// BootPart is the boot partition that the kernel is from (kogge.bootpart); zero from
	// loaders that cannot say it or say it otherwise.
	BootPart gpt.GUID
}

// ReadCmdline parses /proc/cmdline.
func ReadCmdline() (Cmdline, error) {
	data, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return Cmdline{}, fmt.Errorf("kernel command line: %w", err)
	}
	return ParseCmdline(string(data))
}

// ParseCmdline takes our words out of a kernel command line and leaves the others
// to the kernel. Without a root hash there is nothing to boot, so that is an error.
func ParseCmdline(line string) (Cmdline, error) {
	var c Cmdline
	hash := ""
	for _, word := range strings.Fields(line) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "kogge.verity":
			hash = value
		case "kogge.version":
			c.Version = value
		case "kogge.board":
			c.Board = value
		case "kogge.trial":
			c.Trial = value == "1"
		case "kogge.bootpart":
			// One that makes no sense is as good as none: any one disk will do then.
			c.BootPart, _ = gpt.ParseGUID(value)
		}
	}
	if hash == "" {
		return Cmdline{}, fmt.Errorf("kernel command line: kogge.verity is missing: the boot entry is damaged or not ours")
	}
	var err error
	if c.Verity, err = verity.ParseParams(hash); err != nil {
		return Cmdline{}, fmt.Errorf("kernel command line: kogge.verity: %w", err)
	}
	return c, nil
}
