package confine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// Remedy says what to do about capabilities that the file of a program has, and c lacks.
func Remedy(c workload.Container, missing []string) string {
	var dropped []string
	for _, name := range missing {
		if slices.Contains(c.DropCaps, name) || slices.Contains(c.DropCaps, "ALL") {
			dropped = append(dropped, name)
		}
	}
	if len(dropped) > 0 {
		return Lacking(missing) + fmt.Sprintf(": cap_drop takes %s away", plain(dropped))
	}
	allow := rights.Allow{Container: c.ID, Rights: rights.Rights{Capabilities: strings.Split(plain(missing), ", ")}}
	return Lacking(missing) + fmt.Sprintf(": it needs cap_add: [%s], and under \"allow:\" in node.yaml the line - %s", plain(missing), allow)
}

// Lacking says what keeps the kernel from running a program.
func Lacking(missing []string) string {
	return fmt.Sprintf("the file has the capability %s (setcap), which the container does not have, and the kernel runs it only with all of them", plain(missing))
}

// plain are capabilities as a Compose file has them.
func plain(names []string) string {
	return strings.ReplaceAll(strings.Join(names, ", "), "CAP_", "")
}

// Unmet finds the program args[0] of the container s, in the file system of its process pid,
// and the capabilities without which the kernel does not run it. It does not say why it
// found none: what is not there, or cannot be run for another reason, is runc's to say.
func Unmet(pid uint32, args []string, s *specs.Spec) (program string, missing []string) {
	if len(args) == 0 || s.Process.Capabilities == nil {
		return "", nil
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil
	}
	defer unix.Close(root)
	for _, path := range candidates(args[0], s.Process.Cwd, s.Process.Env) {
		fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if err != nil {
			continue
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
			continue
		}
		var fs unix.Statfs_t
		if unix.Fstatfs(fd, &fs) != nil || fs.Flags&unix.ST_NOSUID != 0 {
			return path, nil // file capabilities do not count there
		}
		var data [64]byte
		n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", fd), "security.capability", data[:])
		if err != nil {
			return path, nil
		}
		first := uint32(0)
		if s.Linux != nil && len(s.Linux.UIDMappings) > 0 {
			first = s.Linux.UIDMappings[0].HostID
		}
		missing, _ := lackedBy(data[:n], first, s.Process.Capabilities.Bounding, s.Process.Capabilities.Inheritable)
		return path, missing
	}
	return "", nil
}

// candidates are the paths at which a program is looked for.
func candidates(name, folder string, env []string) []string {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(folder, name)
		}
		return []string{name}
	}
	var all []string
	for _, one := range env {
		if path, ok := strings.CutPrefix(one, "PATH="); ok {
			all = nil
			for _, dir := range filepath.SplitList(path) {
				all = append(all, filepath.Join("/", folder, name))
				if filepath.IsAbs(dir) {
					all[len(all)-1] = filepath.Join(dir, name)
				}
			}
		}
	}
	return all
}

// The attribute security.capability.
//
// Source: struct vfs_cap_data and vfs_ns_cap_data in include/uapi/linux/capability.h.
const (
	capRevisionMask = 0xff000000
	capRevision1    = 0x01000000
	capRevision2    = 0x02000000
	capRevision3    = 0x03000000
	capEffective    = 0x000001
)

// errFileCapability means that the kernel would not take the attribute for one.
var errFileCapability = errors.New("not a file's capabilities")

// lackedBy are the capabilities of a file, by its attribute security.capability, that keep
// a process from running it, as it has not all of them: those that are to be effective at
// once, of a file that speaks to the user namespace whose root is root on the node.
//
// Source: bprm_caps_from_vfs_caps and get_vfs_caps_from_disk in security/commoncap.c of the
// kernel.
func lackedBy(attribute []byte, root uint32, bounding, inheritable []string) ([]string, error) {
	word := func(n int) uint64 { return uint64(binary.LittleEndian.Uint32(attribute[4*n:])) }
	if len(attribute) < 4 {
		return nil, errFileCapability
	}
	magic := word(0)
	var permitted, inherits uint64
	switch revision := magic & capRevisionMask; {
	case revision == capRevision1 && len(attribute) == 12:
		permitted, inherits = word(1), word(2)
	case revision == capRevision2 && len(attribute) == 20, revision == capRevision3 && len(attribute) == 24:
		permitted, inherits = word(1)|word(3)<<32, word(2)|word(4)<<32
		if revision == capRevision3 && uint32(word(5)) != root {
			return nil, nil // another namespace's
		}
	default:
		return nil, errFileCapability
	}
	if magic&capEffective == 0 {
		return nil, nil // a program that knows of capabilities helps itself
	}
	var lacks []string
	for n := range 64 {
		name := cap.FromNumber(n)
		if permitted&(1<<n) == 0 || name == "" { // the kernel knows no more
			continue
		}
		if slices.Contains(bounding, name) || inherits&(1<<n) != 0 && slices.Contains(inheritable, name) {
			continue
		}
		lacks = append(lacks, name)
	}
	return lacks, nil
}
