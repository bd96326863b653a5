// Package confine is what keeps a container in where the kernel asks for it: the system calls
// that it may make, what it may use up, and the capabilities that the files of its programs
// want.
//
// In comes a container's specification; out go its seccomp profile, its limits, and why the
// kernel will not run a program of it. Of what the kernel tells of all containers, it says which
// has to end when memory is short that counts against no limit. The package looks at files of
// containers, and starts none.
package confine

import (
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Seccomp is containerd's profile for the container s, without its second doors, and without
// some that lead to memory which counts as nobody's. It depends on the capabilities.
func Seccomp(s *specs.Spec) *specs.LinuxSeccomp { return spare(shut(seccomp.DefaultProfile(s))) }

// shut closes the ways around the filter of socket(2), which keeps containers from
// address families of the kernel that are dangerous (AF_ALG) or lead to others (AF_VSOCK):
//
//   - socketcall(2), by which 32-bit programs of old make sockets too. Its arguments lie
//     where no filter reads them, so it does not exist. C libraries since 2016 go without it;
//     programs of 386 made by Go do not, and have no network here.
//   - socketpair(2), which makes a socket of any family, and loads its module, before it
//     says that the family has no pairs. Two have.
//
// The answer to socketcall has to differ from the profile's own, or runc leaves the rule
// out, and libseccomp allows what it makes itself of the rules for the other calls.
//
// Source: github.com/moby/profiles/pull/21, github.com/containerd/containerd/pull/13330.
func shut(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	for i, rule := range p.Syscalls {
		p.Syscalls[i].Names = slices.DeleteFunc(slices.Clone(rule.Names), func(name string) bool { return name == "socketcall" || name == "socketpair" })
	}
	nosys := uint(unix.ENOSYS)
	first := []specs.LinuxSyscall{{Names: []string{"socketcall"}, Action: specs.ActErrno, ErrnoRet: &nosys}}
	for _, family := range []uint64{unix.AF_UNIX, unix.AF_TIPC} {
		first = append(first, specs.LinuxSyscall{
			Names: []string{"socketpair"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: family, Op: specs.OpEqualTo}},
		})
	}
	p.Syscalls = append(first, p.Syscalls...)
	return p
}

// protocols are those of netlink that programs in containers have a use for: the rest is for
// hardware and old firewalls, or, as NETLINK_USERSOCK, for messages among programs, which
// wait in memory that counts as nobody's.
var protocols = []uint64{
	unix.NETLINK_ROUTE, unix.NETLINK_SOCK_DIAG, unix.NETLINK_XFRM, unix.NETLINK_AUDIT,
	unix.NETLINK_NETFILTER, unix.NETLINK_KOBJECT_UEVENT, unix.NETLINK_GENERIC,
}

// largestAttribute is how long an extended attribute of a file can be, in bytes. ext4 takes no
// more, in its block; tmpfs does, and the kernel keeps an access list of 64 KiB in memory that
// counts as nobody's. One of this length takes a page there.
const largestAttribute = 4040

// attributes are the calls that set one. The fourth argument is its length.
var attributes = []string{"setxattr", "lsetxattr", "fsetxattr"}

// unheard is a call whose arguments no filter can read, and that the node's kernel does not
// have yet: programs go without it.
const unheard = "setxattrat"

// spare bounds what a container can hold of such memory for each socket and file.
//
// Source: netlink_create in net/netlink/af_netlink.c, posix_acl_alloc in fs/posix_acl.c of the
// kernel.
func spare(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	var all []specs.LinuxSyscall
	for _, rule := range p.Syscalls {
		if slices.Contains(rule.Names, "socket") && len(rule.Args) == 1 {
			all = append(all, sockets(rule)...)
			continue
		}
		rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(name string) bool { return slices.Contains(attributes, name) || name == unheard })
		if len(rule.Names) > 0 {
			all = append(all, rule)
		}
	}
	tooBig, nosys := uint(unix.E2BIG), uint(unix.ENOSYS)
	for _, name := range attributes {
		length := specs.LinuxSeccompArg{Index: 3, Value: largestAttribute, Op: specs.OpLessEqual}
		all = append(all, allowed(name, length))
		length.Op = specs.OpGreaterThan
		all = append(all, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &tooBig, Args: []specs.LinuxSeccompArg{length}})
	}
	all = append(all, specs.LinuxSyscall{Names: []string{unheard}, Action: specs.ActErrno, ErrnoRet: &nosys})
	for _, protocol := range protocols {
		all = append(all, allowed("socket", family(unix.AF_NETLINK), specs.LinuxSeccompArg{Index: 2, Value: protocol, Op: specs.OpEqualTo}))
	}
	p.Syscalls = all
	return p
}

// sockets are rules for the families of one, but for netlink. runc takes no two for the same
// argument in one rule.
func sockets(rule specs.LinuxSyscall) (all []specs.LinuxSyscall) {
	arg := rule.Args[0]
	switch {
	case arg.Op == specs.OpEqualTo && arg.Value == unix.AF_NETLINK:
		return nil
	case arg.Op != specs.OpLessThan || arg.Value <= unix.AF_NETLINK:
		return []specs.LinuxSyscall{rule}
	}
	less := arg
	less.Value = unix.AF_NETLINK
	all = []specs.LinuxSyscall{allowed("socket", less)}
	for n := uint64(unix.AF_NETLINK + 1); n < arg.Value; n++ {
		all = append(all, allowed("socket", family(n)))
	}
	return all
}

func family(n uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: 0, Value: n, Op: specs.OpEqualTo}
}

func allowed(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args}
}
