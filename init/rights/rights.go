// Package rights is what a container may have of its node beyond what every container has,
// and what none ever gets.
//
// It is plain data, which node.yaml allows and a Compose file asks for. Package nodeconfig
// reads it out of the one, package compose out of the other, and package workload compares
// the two.
package rights

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Allow is what one container may have beyond what every container has. A Compose file
// asks for it; whoever holds the node says yes, in node.yaml. Several of one container add up.
type Allow struct {
	// Container is its name, as kogge ps shows it ("shop.web", or "web" for one of
	// node.yaml's own workloads), or "*" for every container. Required.
	Container string `yaml:"container"`
	Rights    `yaml:",inline"`
}

// String is a as an entry of node.yaml's list has it, on one line.
func (a Allow) String() string {
	all := []string{"container: " + word(a.Container)}
	add := func(key string, entries []string) {
		if len(entries) > 0 {
			all = append(all, key+": ["+strings.Join(entries, ", ")+"]")
		}
	}
	if a.Privileged {
		all = append(all, "privileged: true")
	}
	add("capabilities", words(a.Capabilities))
	add("devices", words(a.Devices))
	var binds []string
	for _, b := range a.Binds {
		one := "{path: " + word(b.Path)
		if b.ReadOnly {
			one += ", readOnly: true"
		}
		binds = append(binds, one+"}")
	}
	add("binds", binds)
	add("host", words(a.Host))
	add("unconfined", words(a.Unconfined))
	return "{" + strings.Join(all, ", ") + "}"
}

func words[T ~string](all []T) []string {
	var quoted []string
	for _, one := range all {
		quoted = append(quoted, word(string(one)))
	}
	return quoted
}

// plain is what YAML takes for text without quotes, whatever stands around it, but for the
// words that some release of YAML takes for something else.
var (
	plain    = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./-]*$`)
	notPlain = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
)

// word is s as YAML has it: JSON's strings are YAML's.
func word(s string) string {
	if plain.MatchString(s) && !slices.Contains(notPlain, strings.ToLower(s)) {
		return s
	}
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("text is not JSON: %v", err)) // any string is
	}
	return string(quoted)
}

// Rights are ways out of what keeps a container in. The zero Rights are none.
type Rights struct {
	// Privileged is Compose's privileged: all capabilities and devices, nothing filtered
	// and nothing masked. Such a container can do whatever the node can.
	Privileged bool `yaml:"privileged,omitempty"`
	// Capabilities are those of cap_add, without CAP_ ("NET_ADMIN"), or "ALL".
	Capabilities []string `yaml:"capabilities,omitempty,flow"`
	// Devices are paths below /dev, of one device or a folder of them.
	Devices []string `yaml:"devices,omitempty,flow"`
	// Binds are files and folders of the node, each as [Bindable] says.
	Binds []Bind `yaml:"binds,omitempty,flow"`
	// Host are namespaces of the node to be in, instead of an own one.
	Host []Namespace `yaml:"host,omitempty,flow"`
	// Unconfined are profiles to be without.
	Unconfined []Profile `yaml:"unconfined,omitempty,flow"`
}

// None says whether r allows nothing.
func (r Rights) None() bool {
	return !r.Privileged && len(r.Capabilities)+len(r.Devices)+len(r.Binds)+len(r.Host)+len(r.Unconfined) == 0
}

// Bind is a file or folder of the node; in the file also its path alone.
type Bind struct {
	Path     string `yaml:"path"`
	ReadOnly bool   `yaml:"readOnly,omitempty"`
}

// Namespace is one of the node's, by the word that Compose has for it.
type Namespace string

// The namespaces that a container can share with its node.
const (
	HostNetwork Namespace = "network"
	HostPID     Namespace = "pid"
	HostIPC     Namespace = "ipc"
	HostUTS     Namespace = "uts"
	HostCgroup  Namespace = "cgroup"
	HostUser    Namespace = "user"
)

// Namespaces are all of them.
var Namespaces = []Namespace{HostNetwork, HostPID, HostIPC, HostUTS, HostCgroup, HostUser}

// Profile is something that every container is confined by.
type Profile string

// The profiles that a container can be without.
const (
	Seccomp     Profile = "seccomp"     // the filter of system calls
	SystemPaths Profile = "systempaths" // what is masked or read-only in /proc and /sys
)

// Profiles are all of them.
var Profiles = []Profile{Seccomp, SystemPaths}

// Capabilities are those of linux/capability.h, without CAP_.
var Capabilities = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
	SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE
	AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
	CHECKPOINT_RESTORE`)

// Data is the folder of STATE for what containers get by a bind. Everything else there
// is the node's own, or a volume.
const Data = "/state/data"

// unbound are folders of the node of which no container gets anything: the kernel's, the
// agent's and containerd's files at run time, the boot partition.
var unbound = []string{"/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/tmp"}

// Bindable says why no container gets the node's file or folder p, whatever a file
// allows; "" if it may.
func Bindable(p string) string {
	switch {
	case !path.IsAbs(p) || path.Clean(p) != p || strings.ContainsRune(p, 0):
		return "is not a plain absolute path"
	case p == "/":
		return "is the whole node: no container may have it"
	case within(p, Data):
		return ""
	case within(p, "/state"):
		return "belongs to the node: of /state a container may have only volumes and what is below " + Data
	}
	for _, folder := range unbound {
		if within(p, folder) {
			return "belongs to the node: no container may have anything of " + folder
		}
	}
	return ""
}

// within says whether p is folder or below it; both are clean.
func within(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// Device says why p cannot be a device of the node; "" if it can.
func Device(p string) string {
	switch {
	case path.Clean(p) != p || !strings.HasPrefix(p, "/dev/") || strings.ContainsRune(p, 0):
		return "is not a path below /dev"
	case slices.Contains([]string{"/dev/mem", "/dev/kmem", "/dev/port"}, p) || strings.HasPrefix(p, "/dev/watchdog"):
		return "belongs to the node: no container may have it"
	}
	return ""
}
