package confine

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestShut: whatever a container may do, no call makes a socket whose family is not looked
// at. That the kernel holds to it, by calls of every width, is in testdata of the agent.
func TestShut(t *testing.T) {
	for _, capabilities := range [][]string{nil, {"CAP_NET_ADMIN"}, {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}} {
		s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}}}
		p := shut(seccomp.DefaultProfile(s))
		denied := false
		for _, rule := range p.Syscalls {
			for _, name := range rule.Names {
				switch {
				case name == "socketcall" && rule.Action == specs.ActErrno && *rule.ErrnoRet == uint(unix.ENOSYS) && len(rule.Args) == 0:
					denied = true
				case name == "socketcall":
					t.Errorf("%v: %+v", capabilities, rule)
				case (name == "socket" || name == "socketpair") && (rule.Action != specs.ActAllow || len(rule.Args) != 1 || rule.Args[0].Index != 0 || meets(rule.Args[0], unix.AF_ALG) || meets(rule.Args[0], unix.AF_VSOCK)):
					t.Errorf("%v: %+v", capabilities, rule)
				}
			}
		}
		if !denied || p.DefaultAction != specs.ActErrno {
			t.Errorf("%v: socketcall is not denied", capabilities)
		}
		if i := slices.IndexFunc(p.Syscalls, func(r specs.LinuxSyscall) bool {
			return slices.Contains(r.Names, "socket") && meets(r.Args[0], unix.AF_INET)
		}); i < 0 {
			t.Errorf("%v: no IPv4", capabilities)
		}
	}
}

// meets says whether the argument's rule is met by value.
func meets(a specs.LinuxSeccompArg, value uint64) bool {
	switch a.Op {
	case specs.OpEqualTo:
		return value == a.Value
	case specs.OpLessThan:
		return value < a.Value
	case specs.OpLessEqual:
		return value <= a.Value
	case specs.OpGreaterThan:
		return value > a.Value
	}
	return true // whatever else it is, nobody has looked at it here
}

// TestSpare: what leads to memory that counts as nobody's is refused, and the like of it
// that programs need is not.
func TestSpare(t *testing.T) {
	for _, capabilities := range [][]string{nil, {"CAP_NET_ADMIN"}, {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}} {
		p := Seccomp(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}}})
		// answer is what becomes of a call: 0 is that the kernel gets it.
		answer := func(call string, args ...uint64) unix.Errno {
			for _, rule := range p.Syscalls {
				if slices.Contains(rule.Names, call) && !slices.ContainsFunc(rule.Args, func(a specs.LinuxSeccompArg) bool { return !meets(a, args[a.Index]) }) {
					if rule.Action == specs.ActAllow {
						return 0
					}
					return unix.Errno(*rule.ErrnoRet)
				}
			}
			return unix.EPERM
		}
		for family := range uint64(50) {
			want := unix.Errno(0)
			if family == unix.AF_ALG || family == unix.AF_VSOCK || family == unix.AF_NETLINK || left(family) {
				want = unix.EPERM
			}
			if got := answer("socket", family, unix.SOCK_DGRAM, unix.NETLINK_USERSOCK); got != want {
				t.Errorf("%v: family %d: %v, want %v", capabilities, family, got, want)
			}
		}
		for protocol, want := range map[uint64]unix.Errno{
			unix.NETLINK_ROUTE: 0, unix.NETLINK_GENERIC: 0, unix.NETLINK_KOBJECT_UEVENT: 0, unix.NETLINK_SOCK_DIAG: 0, unix.NETLINK_NETFILTER: 0,
			unix.NETLINK_USERSOCK: unix.EPERM, unix.NETLINK_CONNECTOR: unix.EPERM, unix.NETLINK_CRYPTO: unix.EPERM, 31: unix.EPERM, 1 << 32: unix.EPERM,
		} {
			if got := answer("socket", unix.AF_NETLINK, unix.SOCK_RAW, protocol); got != want {
				t.Errorf("%v: protocol %d of netlink: %v, want %v", capabilities, protocol, got, want)
			}
		}
		for _, call := range []string{"setxattr", "lsetxattr", "fsetxattr"} {
			for length, want := range map[uint64]unix.Errno{0: 0, 64: 0, 4040: 0, 4041: unix.E2BIG, 65536: unix.E2BIG, 1<<32 + 1: unix.E2BIG} {
				if got := answer(call, 0, 0, 0, length, 0); got != want {
					t.Errorf("%v: %s of %d bytes: %v, want %v", capabilities, call, length, got, want)
				}
			}
		}
		if got := answer("setxattrat", 0, 0, 0, 0, 0, 0); got != unix.ENOSYS {
			t.Errorf("%v: setxattrat: %v", capabilities, got)
		}
		for _, call := range []string{"getxattr", "read", "bind"} {
			if got := answer(call, 0, 0, 0, 0); got != 0 {
				t.Errorf("%v: %s: %v", capabilities, call, got)
			}
		}
	}
}

// left says whether containerd's own profile leaves a family out.
func left(family uint64) bool {
	return !slices.ContainsFunc(seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}).Syscalls, func(r specs.LinuxSyscall) bool {
		return slices.Contains(r.Names, "socket") && meets(r.Args[0], family)
	})
}
