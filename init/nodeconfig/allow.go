package nodeconfig

import (
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Allow is what one container may have beyond what every container has. A Compose file
// asks for it; whoever holds the node says yes, here. Several of one container add up.
type Allow struct {
	// Container is its name, as kogge ps shows it ("shop.web", or "web" for one of this
	// file's own workloads), or "*" for every container. Required.
	Container string `yaml:"container"`
	Rights    `yaml:",inline"`
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
		return "is no plain absolute path"
	case p == "/":
		return "is all of the node: no container gets that"
	case within(p, Data):
		return ""
	case within(p, "/state"):
		return "is the node's own: no container gets anything of /state but volumes and what is below " + Data
	}
	for _, folder := range unbound {
		if within(p, folder) {
			return "is the node's own: no container gets anything of " + folder
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
		return "is no path below /dev"
	case slices.Contains([]string{"/dev/mem", "/dev/kmem", "/dev/port"}, p) || strings.HasPrefix(p, "/dev/watchdog"):
		return "is the node's own: no container gets it"
	}
	return ""
}

// How many entries the lists of allow have.
const (
	maxAllow  = 64
	maxRights = 64
)

func (d *decoder) allow(n *yaml.Node) []Allow {
	var all []Allow
	d.list(n, "allow", maxAllow, func(v *yaml.Node) {
		if a, ok := d.allowed(v); ok {
			all = append(all, a)
		}
	})
	return all
}

func (d *decoder) allowed(n *yaml.Node) (a Allow, ok bool) {
	before := d.count()
	words := func(what string, each func(v *yaml.Node)) func(*yaml.Node) {
		return func(v *yaml.Node) { d.list(v, what, maxRights, each) }
	}
	d.mapping(n, "entry of allow", []key{
		{"container", func(v *yaml.Node) { a.Container = d.containerName(v) }},
		{"privileged", func(v *yaml.Node) {
			if yes := d.boolean(v); yes != nil {
				a.Privileged = *yes
			}
		}},
		{"capabilities", words("capabilities", func(v *yaml.Node) { a.Capabilities = add(d, v, a.Capabilities, d.capability(v)) })},
		{"devices", words("devices", func(v *yaml.Node) { a.Devices = add(d, v, a.Devices, d.device(v)) })},
		{"binds", words("binds", func(v *yaml.Node) { a.Binds = add(d, v, a.Binds, d.bind(v)) })},
		{"host", words("host", func(v *yaml.Node) {
			a.Host = add(d, v, a.Host, Namespace(d.choice(v, texts(Namespaces)...)))
		})},
		{"unconfined", words("unconfined", func(v *yaml.Node) {
			a.Unconfined = add(d, v, a.Unconfined, Profile(d.choice(v, texts(Profiles)...)))
		})},
	})
	switch {
	case d.count() > before:
		return a, false
	case a.Container == "":
		d.report(n, `this entry needs "container": a name as kogge ps shows it, or "*" for every one`)
		return a, false
	case a.Rights.None():
		d.report(n, "this entry allows nothing")
		return a, false
	}
	return a, true
}

// None says whether r allows nothing.
func (r Rights) None() bool {
	return !r.Privileged && len(r.Capabilities)+len(r.Devices)+len(r.Binds)+len(r.Host)+len(r.Unconfined) == 0
}

// add appends what an entry of a list says, unless it was wrong, which is reported by
// now, or is there.
func add[T comparable](d *decoder, n *yaml.Node, all []T, one T) []T {
	var wrong T
	if one == wrong {
		return all
	}
	if slices.Contains(all, one) {
		d.report(n, "this is in the list already")
		return all
	}
	return append(all, one)
}

func texts[T ~string](all []T) []string {
	var words []string
	for _, one := range all {
		words = append(words, string(one))
	}
	return words
}

// containerName is that of one container, or "*".
func (d *decoder) containerName(n *yaml.Node) string {
	s, ok := d.text1(n, "the name of a container")
	if !ok || s == "*" {
		return s
	}
	for part := range strings.SplitSeq(s, ".") {
		if strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || part == "" || len(s) > 128 {
			d.report(n, `container %q: a name as kogge ps shows it, such as shop.web, or "*" for every one`, s)
			return ""
		}
	}
	return s
}

func (d *decoder) capability(n *yaml.Node) string {
	s, ok := d.text1(n, "a capability")
	if !ok {
		return ""
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "CAP_")
	if name != "ALL" && !slices.Contains(Capabilities, name) {
		d.report(n, "there is no capability %q", s)
		return ""
	}
	return name
}

func (d *decoder) device(n *yaml.Node) string {
	s, ok := d.text1(n, "a device")
	if !ok {
		return ""
	}
	if why := Device(s); why != "" {
		d.report(n, "%q %s", s, why)
		return ""
	}
	return s
}

func (d *decoder) bind(n *yaml.Node) (b Bind) {
	at := n
	if resolve(n).Kind == yaml.MappingNode {
		at = d.find(n, "path")
		d.mapping(n, "entry of binds", []key{
			{"path", func(v *yaml.Node) { b.Path, _ = d.text1(v, "a path") }},
			{"readOnly", func(v *yaml.Node) {
				if yes := d.boolean(v); yes != nil {
					b.ReadOnly = *yes
				}
			}},
		})
		if at == nil {
			d.report(n, `this entry needs "path"`)
			return Bind{}
		}
	} else {
		b.Path, _ = d.text1(n, "a path")
	}
	if b.Path == "" {
		return Bind{}
	}
	if why := Bindable(b.Path); why != "" {
		d.report(at, "%q %s", b.Path, why)
		return Bind{}
	}
	return b
}
