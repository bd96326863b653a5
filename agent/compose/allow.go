package compose

import (
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// asks notes that n needs the node's own file to allow it. An operator is told here; a
// node knows that file, and says no or nothing.
func (s *service) asks(n *yaml.Node) {
	if s.advise {
		s.warn(n, "%s: only a node whose node.yaml allows this runs it", s.at.shown)
	}
}

func (s *service) privileged(n *yaml.Node) {
	if s.boolean(n) {
		s.Rights.Privileged = true
		s.asks(n)
	}
}

// shares reads a key that says whose namespace to be in: the node's, or own, which is
// the container's own.
func (s *service) shares(n *yaml.Node, which rights.Namespace, own string) {
	if s.text(n) != "host" {
		s.alone(n, own)
		return
	}
	s.Rights.Host = append(s.Rights.Host, which)
	s.asks(n)
}

func (s *service) securityOpt(n *yaml.Node) {
	s.list(n, "security_opt", func(item *yaml.Node) {
		option := s.text(item)
		name, value, _ := strings.Cut(strings.ReplaceAll(option, "=", ":"), ":")
		profile := rights.Profile(name)
		switch {
		case slices.Contains(rights.Profiles, profile) && value == "unconfined":
			if !slices.Contains(s.Rights.Unconfined, profile) {
				s.Rights.Unconfined = append(s.Rights.Unconfined, profile)
			}
			s.asks(item)
		case name == "no-new-privileges" && (value == "" || value == "true"):
			s.NewPrivileges = false
		case name == "no-new-privileges" && value == "false":
			s.NewPrivileges = true
		case name == "apparmor" && value == "unconfined", name == "label" && value == "disable", option == "":
		default:
			s.report(item, "security_opt: %s is not supported on a node: %s", option, byPath()["services.*.security_opt"].Note)
		}
	})
}

func (s *service) capAdd(n *yaml.Node) {
	s.capability(n, "cap_add", func(item *yaml.Node, name string) {
		if slices.Contains(ordinary, name) {
			s.keepCaps = append(s.keepCaps, name)
			return
		}
		if !slices.Contains(s.Rights.Capabilities, name) {
			s.Rights.Capabilities = append(s.Rights.Capabilities, name)
		}
		s.asks(item)
	})
}

func (s *service) devices(n *yaml.Node) {
	s.list(n, "devices", func(item *yaml.Node) {
		var d workload.Device
		if item.Kind == yaml.MappingNode {
			s.fields(item, map[string]func(*yaml.Node){
				"source":      func(n *yaml.Node) { d.Path = s.text(n) },
				"target":      func(n *yaml.Node) { d.Target = s.text(n) },
				"permissions": func(n *yaml.Node) { d.Access = s.text(n) },
			})
		} else if parts := strings.Split(s.text(item), ":"); len(parts) > 3 {
			s.report(item, "devices: %q is not PATH, PATH:TARGET or PATH:TARGET:PERMISSIONS", item.Value)
			return
		} else {
			d.Path = parts[0]
			rest := parts[1:]
			if len(rest) == 1 && access(rest[0]) { // /dev/x:rw, as Docker takes it
				rest = []string{"", rest[0]}
			}
			if len(rest) > 0 {
				d.Target = rest[0]
			}
			if len(rest) > 1 {
				d.Access = rest[1]
			}
		}
		s.device(item, d)
	})
}

func (s *service) device(n *yaml.Node, d workload.Device) {
	if d.Target == "" {
		d.Target = d.Path
	}
	if d.Access == "" {
		d.Access = "rwm"
	}
	why := rights.Device(d.Path)
	switch {
	case d.Path == "": // said by now, or an empty text
		s.report(n, "devices: expected a path below /dev")
	case !path.IsAbs(d.Path):
		s.report(n, "devices: %s: name a device by its path: CDI is not supported on a node", d.Path)
	case why != "":
		s.report(n, "devices: %s %s", d.Path, why)
	case !strings.HasPrefix(path.Clean(d.Target), "/dev/") || strings.ContainsRune(d.Target, 0):
		s.report(n, "devices: %s: the target must be below /dev, not %s", d.Path, d.Target)
	case !access(d.Access):
		s.report(n, "devices: %s: permissions are made of r, w and m, got %q", d.Path, d.Access)
	default:
		d.Target = path.Clean(d.Target)
		s.Rights.Devices = append(s.Rights.Devices, d)
		s.asks(n)
	}
}

// access says whether text is what may be done with a device.
func access(text string) bool {
	return text != "" && len(text) <= 3 && strings.Trim(text, "rwm") == ""
}

// bind is a folder or file of the node. A relative path would be one of the computer
// that the file lies on.
func (s *service) bind(n *yaml.Node, v types.ServiceVolumeConfig) {
	source := path.Clean(v.Source)
	b := v.Bind
	if b == nil {
		b = &types.ServiceVolumeBind{}
	}
	why := rights.Bindable(source)
	switch {
	case !path.IsAbs(v.Source):
		s.report(n, "volume %s: a node has no folder of your computer; use a named volume, or configs for files", v.Source)
	case why != "":
		s.report(n, "volume %s %s", v.Source, why)
	case !slices.Contains([]string{"", "private", "rprivate"}, b.Propagation):
		s.report(n, "volume %s: propagation %s is not supported on a node: %s", v.Source, b.Propagation, byPath()["services.*.volumes.bind.propagation"].Note)
	default:
		if b.SELinux != "" {
			s.warn(n, "volume %s: option %s means nothing on a node: %s", v.Source, b.SELinux, byPath()["services.*.volumes.bind.selinux"].Note)
		}
		if target := s.target(n, v.Target); target != "" {
			s.Rights.Binds = append(s.Rights.Binds, workload.Bind{Path: source, Target: target, ReadOnly: v.ReadOnly})
			s.asks(n)
		}
	}
}

// longBind reads what a long entry of volumes says of a bind.
func (s *service) longBind(n *yaml.Node, b *types.ServiceVolumeBind) {
	s.fields(n, map[string]func(*yaml.Node){
		"create_host_path": func(n *yaml.Node) { s.boolean(n) },
		"propagation":      func(n *yaml.Node) { b.Propagation = s.text(n) },
	})
}

// rights checks what excludes what, once everything of the service is read.
func (s *service) rights(name *yaml.Node) {
	r := &s.Rights
	slices.Sort(r.Capabilities)
	slices.Sort(r.Host)
	slices.Sort(r.Unconfined)
	if s.Shares(rights.HostNetwork) && len(s.Ports) > 0 {
		s.warn(name, "services.%s.ports mean nothing: on the node's network its ports are the node's", s.ID)
		s.Ports = nil
	}
	for key := range s.Sysctls {
		if strings.HasPrefix(key, "net.") && s.Shares(rights.HostNetwork) || !strings.HasPrefix(key, "net.") && s.Shares(rights.HostIPC) {
			s.report(name, "services.%s: sysctl %s belongs to the node: the container shares that namespace with it", s.ID, key)
		}
	}
	if s.Shares(rights.HostUTS) && (s.Hostname != s.ID || s.Domainname != "") {
		s.report(name, "services.%s: with uts: host the host name is the node's", s.ID)
	}
	if s.Shares(rights.HostNetwork) && len(s.attached) > 0 {
		s.report(name, "services.%s: network_mode: host and networks exclude each other", s.ID)
	}
}
