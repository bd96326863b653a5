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
	}
	return true // whatever else it is, nobody has looked at it here
}
