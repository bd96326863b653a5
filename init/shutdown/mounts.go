package shutdown

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// mount is one line of mountinfo.
type mount struct {
	target string
	fsType string
}

// leave returns the targets that a shutdown unmounts, in its order: the newest
// first. The root and the kernel's own file systems stay: nothing on them is
// written to a disk, and the last lines of PID 1 need them.
func leave(mounts []mount) []string {
	var targets []string
	for _, m := range slices.Backward(mounts) {
		stays := m.target == "/" || m.target == "/run"
		for _, own := range []string{"/dev", "/proc", "/sys"} {
			stays = stays || m.target == own || strings.HasPrefix(m.target, own+"/")
		}
		if !stays {
			targets = append(targets, m.target)
		}
	}
	return targets
}

// parseMounts reads /proc/self/mountinfo, in the order in which it was mounted.
//
// Source: Documentation/filesystems/proc.rst, section 3.5, in the kernel tree.
func parseMounts(text string) ([]mount, error) {
	var mounts []mount
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 1 {
			return nil, fmt.Errorf("read mountinfo: line %q is not a mount", line)
		}
		mounts = append(mounts, mount{target: unescape(left[4]), fsType: right[0]})
	}
	return mounts, nil
}

// unescape undoes the kernel's \040 for a space, and its like.
func unescape(s string) string {
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
