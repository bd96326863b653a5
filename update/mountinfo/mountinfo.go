// Package mountinfo reads the kernel's table of mounts.
//
// In comes the text of /proc/self/mountinfo; out go its mounts, the oldest first. The
// package opens no file and asks the kernel nothing.
//
// The code is our own, and not that of github.com/moby/sys/mountinfo, because PID 1 links
// it: with that one it is 6 KB larger.
//
// Source: Documentation/filesystems/proc.rst, section 3.5, in the kernel tree.
package mountinfo

import (
	"fmt"
	"strconv"
	"strings"
)

// Mount is one line.
type Mount struct {
	Device string // major:minor; a made-up one for btrfs and its like
	Target string // where it is mounted
	Source string // what is mounted there: for a disk its file in /dev
}

// Parse reads the lines. One of another form is left out, and the first of them is the
// error, beside the mounts of the others.
func Parse(text string) (mounts []Mount, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		before, after, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Split(after, " ")
		if len(left) < 6 || len(right) < 2 || right[0] == "" {
			if err == nil {
				err = fmt.Errorf("read mountinfo: line %q is not a mount", line)
			}
			continue
		}
		mounts = append(mounts, Mount{Device: left[2], Target: Unescape(left[4]), Source: Unescape(right[1])})
	}
	return mounts, err
}

// Unescape undoes the kernel's \040 for a blank, and its like, in a path of mountinfo or
// swaps.
func Unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
