// Package accounts finds users and groups, by name and by number, in the /etc/passwd and
// /etc/group of an image or a container.
//
// In comes the root of its file system, all of which others wrote; out go numbers. It opens
// nothing but regular files below that root, on file systems that keep what was written,
// reads a bounded part of them and waits for nobody: there may be pipes, devices, leases
// and links to files of the kernel's, and a container may change what is there meanwhile.
package accounts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxFile is how many bytes are read of each file: what is behind them is not there.
const MaxFile = 4 << 20

// maxID is the highest number that runc takes.
const maxID = math.MaxInt32

// Accounts are the users and groups of one root file system.
type Accounts struct{ passwd, group file }

// file is what was read of one, or why nothing was.
type file struct {
	name string
	text []byte
	err  error
}

// User is whom a process runs as.
type User struct {
	UID, GID uint32
	// Groups are the further groups that have the user as a member, and with GID in any
	// case: each once, in no order.
	Groups []uint32
	// Home is the user's folder; "/" of one who is not known.
	Home string
}

// What a file that is there may be instead of one that can be read.
var (
	errIrregular = errors.New("is no regular file")
	errHeld      = errors.New("is held by somebody who has a lease of it")
	errElsewhere = errors.New("is on a file system that is not for files, such as /proc")
)

// Read reads the accounts below root, a folder such as /proc/PID/root. What cannot be read
// is the business of whoever asks for a name in it.
func Read(root string) Accounts {
	a := Accounts{passwd: file{name: "/etc/passwd"}, group: file{name: "/etc/group"}}
	top, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		a.passwd.err, a.group.err = err, err
		return a
	}
	defer unix.Close(top)
	for _, f := range []*file{&a.passwd, &a.group} {
		f.text, f.err = read(top, f.name)
	}
	return a
}

// stores are the file systems that images, volumes, and configs of containers are on.
var stores = []int64{unix.OVERLAYFS_SUPER_MAGIC, unix.EXT4_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC}

// lookups is how often a path is looked up while others rename what is on it.
const lookups = 16

// read is the beginning of a regular file.
func read(top int, path string) ([]byte, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	at, err := unix.Openat2(top, path, &how)
	for range lookups {
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
		at, err = unix.Openat2(top, path, &how)
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	// Before it is opened: to open a pipe or a device may take for ever, or do something,
	// and what the kernel makes up, such as /proc/kmsg, may be gone once it was read.
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(at, &st), unix.Fstatfs(at, &fs)); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errIrregular
	}
	if !slices.Contains(stores, int64(fs.Type)) {
		return nil, errElsewhere
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", at), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EAGAIN) {
		return nil, errHeld
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxFile))
}

// Find is the user of USER, as a Compose file and the configuration of an image have it:
// NAME or ID, with :GROUP behind it where it is to be in that group alone. "" is root, and
// an ID may be one that nobody knows. The error says who is missing, and in which file.
func (a Accounts) Find(user string) (User, error) {
	name, group, _ := strings.Cut(user, ":")
	if strings.Contains(group, ":") {
		return User{}, fmt.Errorf("user %q: expected NAME or ID, with :GROUP if needed", user)
	}
	found, login, err := a.user(name)
	if err != nil {
		return User{}, err
	}
	if group != "" {
		gid, err := a.gid(group)
		if err != nil {
			return User{}, err
		}
		found.GID, found.Groups = gid, []uint32{gid}
		return found, nil
	}
	found.Groups = a.groupsOf(login, found.GID)
	return found, nil
}

// Groups are the numbers of groups by name or number.
func (a Accounts) Groups(names []string) ([]uint32, error) {
	var all []uint32
	for _, name := range names {
		gid, err := a.gid(name)
		if err != nil {
			return nil, err
		}
		all = append(all, gid)
	}
	return all, nil
}

// IDs are all numbers of users and groups that the files name.
func (a Accounts) IDs() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for fields := range entries(a.passwd.text, 4) {
			for _, field := range fields[2:4] {
				if id, ok := number(field, math.MaxUint32-1); ok && !yield(id) {
					return
				}
			}
		}
		for fields := range entries(a.group.text, 3) {
			if id, ok := number(fields[2], math.MaxUint32-1); ok && !yield(id) {
				return
			}
		}
	}
}

// user is a user by name or number, and the name.
func (a Accounts) user(name string) (u User, login string, err error) {
	if name == "" {
		name = "0"
	}
	uid, numeric, err := id("user", name)
	if err != nil {
		return User{}, "", err
	}
	for fields := range entries(a.passwd.text, 4) {
		its, ok := number(fields[2], maxID)
		gid, ok2 := number(fields[3], maxID)
		if !ok || !ok2 || numeric && its != uid || !numeric && string(fields[0]) != name {
			continue
		}
		return User{UID: its, GID: gid, Home: home(fields)}, string(fields[0]), nil
	}
	if numeric {
		return User{UID: uid, Home: home(nil)}, "", nil
	}
	return User{}, "", a.passwd.lacks("user", name)
}

// home is the folder that a line of /etc/passwd names, if a variable can say it.
func home(fields [][]byte) string {
	if len(fields) < 6 || len(fields[5]) == 0 || bytes.IndexByte(fields[5], 0) >= 0 {
		return "/"
	}
	return string(fields[5])
}

func (a Accounts) gid(name string) (uint32, error) {
	gid, numeric, err := id("group", name)
	if numeric || err != nil {
		return gid, err
	}
	for fields := range entries(a.group.text, 3) {
		if its, ok := number(fields[2], maxID); ok && string(fields[0]) == name {
			return its, nil
		}
	}
	return 0, a.group.lacks("group", name)
}

// groupsOf is own and the groups that have the user as a member.
func (a Accounts) groupsOf(login string, own uint32) []uint32 {
	all := []uint32{own}
	if login == "" {
		return all
	}
	for fields := range entries(a.group.text, 4) {
		gid, ok := number(fields[2], maxID)
		if !ok || string(fields[0]) == login || slices.Contains(all, gid) {
			continue
		}
		for member := range bytes.SplitSeq(fields[3], []byte(",")) {
			if string(member) == login && len(all) < MaxGroups {
				all = append(all, gid)
				break
			}
		}
	}
	return all
}

// MaxGroups is how many groups one user has at most: what a process can be in is bounded
// by the kernel's NGROUPS_MAX, and far more than these nobody means.
const MaxGroups = 1024

// lacks says that a name is not in the file, and why.
func (f file) lacks(what, name string) error {
	switch {
	case errors.Is(f.err, unix.ENOENT):
		return fmt.Errorf("%s %q: there is no %s", what, name, f.name)
	case errors.Is(f.err, errIrregular), errors.Is(f.err, errHeld), errors.Is(f.err, errElsewhere):
		return fmt.Errorf("%s %q: %s %w", what, name, f.name, f.err)
	case f.err != nil:
		return fmt.Errorf("%s %q: %s: %w", what, name, f.name, f.err)
	case len(f.text) == MaxFile:
		return fmt.Errorf("%s %q: not in the first %d MiB of %s, and more are not read", what, name, MaxFile>>20, f.name)
	}
	return fmt.Errorf("%s %q: %s has no such %s", what, name, f.name, what)
}

// id is the number that a name is, if it is one.
func id(what, name string) (n uint32, numeric bool, err error) {
	if strings.Trim(name, "0123456789") != "" || name == "" {
		return 0, false, nil
	}
	n, ok := number([]byte(name), maxID)
	if !ok {
		return 0, true, fmt.Errorf("%s %q: the highest ID is %d", what, name, maxID)
	}
	return n, true, nil
}

func number(field []byte, most uint32) (uint32, bool) {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(field)), 10, 32)
	return uint32(n), err == nil && n <= uint64(most)
}

// entries are the lines of a file by their fields, those that have at least so many; the
// eighth has the rest of the line.
func entries(text []byte, least int) iter.Seq[[][]byte] {
	return func(yield func([][]byte) bool) {
		for line := range bytes.Lines(text) {
			line = bytes.TrimSpace(line)
			fields := bytes.SplitN(line, []byte(":"), 8)
			if len(fields) >= least && !bytes.HasPrefix(line, []byte("#")) && !yield(fields) {
				return
			}
		}
	}
}
