// Package confine is what keeps a container in where the kernel asks for it: the system calls
// that it may make, what it may use up, and the capabilities that the files of its programs
// want.
//
// In comes a container's specification; out go its seccomp profile, its limits, and why the
// kernel will not run a program of it. The package looks at files of containers, and starts none.
package confine

import (
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Seccomp is containerd's profile for the container s, without its second doors. It depends
// on the capabilities.
func Seccomp(s *specs.Spec) *specs.LinuxSeccomp { return shut(seccomp.DefaultProfile(s)) }

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
