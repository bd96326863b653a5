package compose

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"kogge.example/agent/imageref"
	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// service is one service while it is read.
type service struct {
	*parser
	workload.Container
	restart *workload.Restart // of deploy, which wins
	after   []dependency
	stored  []mounted // configs and secrets, in the order of the file
	// attached are its networks, given at attachedAt; none: the default one.
	attached   []*attached
	attachedAt *yaml.Node
	apart      bool   // on none
	known      string // its container_name
	// keepCaps are added again after cap_drop: ALL, and would be there without.
	keepCaps []string
}

// keys are what there is to read of a service: all that [Keys] says is done and
// that makes a difference.
func (s *service) keys() map[string]func(*yaml.Node) {
	c := &s.Container
	return map[string]func(*yaml.Node){
		"cap_add":           s.capAdd,
		"cap_drop":          s.capDrop,
		"cgroup":            func(n *yaml.Node) { s.shares(n, rights.HostCgroup, "private") },
		"command":           func(n *yaml.Node) { s.command(n, &c.Command) },
		"container_name":    s.containerName,
		"configs":           func(n *yaml.Node) { s.store(n, s.configs, "config") },
		"cpus":              func(n *yaml.Node) { s.cpus(n, c) },
		"depends_on":        s.dependsOn,
		"deploy":            s.deploy,
		"devices":           s.devices,
		"dns":               s.dns,
		"dns_opt":           s.dnsOptions,
		"dns_search":        s.dnsSearch,
		"domainname":        func(n *yaml.Node) { c.Domainname = s.host(n, "domainname") },
		"entrypoint":        func(n *yaml.Node) { s.command(n, &c.Entrypoint) },
		"environment":       s.environment,
		"extra_hosts":       s.extraHosts,
		"group_add":         s.groupAdd,
		"healthcheck":       s.healthcheck,
		"hostname":          func(n *yaml.Node) { c.Hostname = s.host(n, "hostname") },
		"image":             s.image,
		"init":              func(n *yaml.Node) { c.Init = s.boolean(n) },
		"ipc":               func(n *yaml.Node) { s.shares(n, rights.HostIPC, "private") },
		"labels":            s.labels,
		"links":             s.links,
		"logging":           s.logging,
		"mem_limit":         func(n *yaml.Node) { s.memory(n, c) },
		"network_mode":      s.networkMode,
		"networks":          s.networks,
		"pid":               func(n *yaml.Node) { s.shares(n, rights.HostPID, "") },
		"pids_limit":        func(n *yaml.Node) { s.pids(n, c) },
		"platform":          s.platform,
		"ports":             s.ports,
		"privileged":        s.privileged,
		"read_only":         func(n *yaml.Node) { c.ReadOnly = s.boolean(n) },
		"restart":           s.restarts,
		"scale":             s.one,
		"secrets":           func(n *yaml.Node) { s.store(n, s.secrets, "secret") },
		"security_opt":      s.securityOpt,
		"shm_size":          func(n *yaml.Node) { c.ShmBytes = s.bytes(n) },
		"stop_grace_period": func(n *yaml.Node) { c.StopGrace = s.duration(n, time.Hour) },
		"stop_signal":       s.stopSignal,
		"sysctls":           s.sysctls,
		"tmpfs":             s.tmpfs,
		"ulimits":           s.ulimits,
		"user":              s.user,
		"userns_mode":       func(n *yaml.Node) { s.shares(n, rights.HostUser, "") },
		"uts":               func(n *yaml.Node) { s.shares(n, rights.HostUTS, "") },
		"volumes":           s.volumes,
		"working_dir":       func(n *yaml.Node) { c.WorkingDir = s.absolute(n) },
	}
}

// alone reads a key of which a node does one value only.
func (s *service) alone(n *yaml.Node, value string) {
	if got := s.text(n); got != value && got != "" {
		s.report(n, "%s: %s is not supported on a node: %s", s.at.shown, got, byPath()[s.at.path].Note)
	}
}

// one reads a number of containers.
func (s *service) one(n *yaml.Node) {
	if s.text(n) != "1" {
		s.report(n, "%s: a node runs one container of each service", s.at.shown)
	}
}

func (s *service) image(n *yaml.Node) {
	name := s.text(n)
	if name == "" {
		return
	}
	full, err := imageref.Full(name)
	if err != nil {
		s.report(n, "%v", err)
		return
	}
	s.Image = full
}

func (s *service) environment(n *yaml.Node) {
	var m types.MappingWithEquals
	if !s.mapping(n, "environment", func(v any) error { return m.DecodeMapstructure(v) }) {
		return
	}
	for k, v := range m {
		switch {
		case v == nil && s.part:
		case v == nil:
			s.report(n, "environment: %s has no value, and a node has no environment to take it from", k)
		case k == "" || strings.ContainsAny(k, "\x00=") || strings.ContainsAny(*v, "\x00"):
			s.report(n, "environment: %q is not a variable", k+"="+*v)
		default:
			s.Env = append(s.Env, k+"="+*v)
		}
	}
	slices.Sort(s.Env)
}

// ownLabels is for labels that the agent itself writes.
const ownLabels = "kogge.example/"

func (s *service) labels(n *yaml.Node) {
	var m types.Mapping
	if !s.mapping(n, "labels", func(v any) error { return m.DecodeMapstructure(v) }) {
		return
	}
	for k, v := range m {
		switch {
		case strings.HasPrefix(k, ownLabels):
			s.report(n, "labels: %s: names that begin with %s are reserved for the node", k, ownLabels)
		case k == "" || len(k)+len(v) > 4096: // containerd's limit
			s.report(n, "labels: %q: a label needs a name, and has at most 4096 bytes with it", k)
		}
	}
	if len(m) > 0 {
		s.Labels = m
	}
}

func (s *service) restarts(n *yaml.Node) {
	text := s.text(n)
	policy, limit, counted := strings.Cut(text, ":")
	switch {
	case text == "no" || text == "false":
		s.Restart.Policy = workload.No
	case text == "always" || text == "unless-stopped":
		s.Restart.Policy = workload.Always
	case policy == "on-failure":
		s.Restart.Policy = workload.OnFailure
		if !counted {
			return
		}
		var err error
		if s.Restart.Max, err = strconv.Atoi(limit); err != nil || s.Restart.Max < 1 {
			s.report(n, "restart: %q is not a number of tries", limit)
		}
	default:
		s.report(n, `restart: expected "no", always, unless-stopped or on-failure[:TRIES], got %s`, describe(n))
	}
}

func (p *parser) host(n *yaml.Node, what string) string {
	name := p.text(n)
	for part := range strings.SplitSeq(strings.ToLower(name), ".") {
		if !label(part) || len(name) > 64 {
			p.report(n, "%s %q: use letters, digits and hyphens, at most 64", what, name)
			return ""
		}
	}
	return name
}

func (s *service) user(n *yaml.Node) {
	u := s.text(n)
	if u == "" || strings.Count(u, ":") > 1 || strings.ContainsAny(u, " \t\n/") {
		s.report(n, "user: expected NAME or ID, with :GROUP if needed, got %s", describe(n))
		return
	}
	s.User = u
}

func (s *service) groupAdd(n *yaml.Node) {
	s.list(n, "group_add", func(item *yaml.Node) {
		g := s.text(item)
		if g == "" || strings.ContainsAny(g, " \t\n/:") {
			s.report(item, "expected the NAME or ID of a group, got %s", describe(item))
			return
		}
		if !slices.Contains(s.GroupAdd, g) {
			s.GroupAdd = append(s.GroupAdd, g)
		}
	})
}

func (s *service) stopSignal(n *yaml.Node) {
	name := s.text(n)
	if _, err := workload.ParseSignal(name); err != nil {
		s.report(n, "stop_signal: unknown signal %s: expected a name such as SIGINT, or a number from 1 to %d", describe(n), workload.LastSignal)
		return
	}
	s.StopSignal = name
}

func (s *service) platform(n *yaml.Node) {
	name := s.text(n)
	parts := strings.Split(name, "/")
	good := len(parts) == 2 || len(parts) == 3
	for _, part := range parts {
		good = good && label(part)
	}
	switch {
	case !good:
		s.report(n, "platform: expected one such as linux/arm64, got %s", describe(n))
	case parts[0] != "linux":
		s.report(n, "platform %s: a node runs linux", name)
	default:
		s.Platform = name
	}
}

// logging warns, unless the output is wanted at a place to which it does not go.
func (s *service) logging(n *yaml.Node) {
	s.fields(n, map[string]func(*yaml.Node){"driver": func(n *yaml.Node) {
		switch driver := s.text(n); driver {
		case "json-file", "local", "journald", "":
		default:
			s.report(n, "%s: %s is not supported on a node: %s", s.at.shown, driver, byPath()[s.at.path].Note)
		}
	}})
}

func (s *service) capDrop(n *yaml.Node) {
	s.capability(n, "cap_drop", func(_ *yaml.Node, name string) {
		if name == "ALL" {
			s.DropCaps = []string{name}
		} else if !slices.Contains(s.DropCaps, "ALL") && !slices.Contains(s.DropCaps, name) {
			s.DropCaps = append(s.DropCaps, name)
		}
	})
}

func (s *service) capability(n *yaml.Node, what string, each func(item *yaml.Node, name string)) {
	s.list(n, what, func(item *yaml.Node) {
		name := strings.ToUpper(s.text(item))
		if name != "ALL" {
			name = strings.TrimPrefix(name, "CAP_")
			if !slices.Contains(rights.Capabilities, name) {
				s.report(item, "%s: unknown capability %s", what, name)
				return
			}
			name = "CAP_" + name
		}
		each(item, name)
	})
}

// capabilities makes of what is dropped and kept what is dropped.
func (s *service) capabilities() {
	if len(s.keepCaps) > 0 && slices.Contains(s.DropCaps, "ALL") {
		s.DropCaps = slices.Clone(ordinary)
	}
	s.DropCaps = slices.DeleteFunc(s.DropCaps, func(name string) bool { return slices.Contains(s.keepCaps, name) })
	if len(s.DropCaps) == 0 {
		s.DropCaps = nil
	}
	slices.Sort(s.DropCaps)
}

// ordinary are the capabilities that a container has by itself: Docker's, but for
// CAP_NET_RAW, which package engine withholds.
var ordinary = strings.Fields(`CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD
	CAP_NET_BIND_SERVICE CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT`)

// deploy knows what makes sense for one container.
func (s *service) deploy(n *yaml.Node) {
	c := &s.Container
	limits := map[string]func(*yaml.Node){
		"memory": func(n *yaml.Node) { s.memory(n, c) },
		"cpus":   func(n *yaml.Node) { s.cpus(n, c) },
		"pids":   func(n *yaml.Node) { s.pids(n, c) },
	}
	s.fields(n, map[string]func(*yaml.Node){
		"replicas": s.one,
		"mode": func(n *yaml.Node) {
			if mode := s.text(n); mode != "replicated" && mode != "global" {
				s.report(n, "%s: %s is not supported on a node: use restart: \"no\" for a container that ends by itself", s.at.shown, describe(n))
			}
		},
		"resources": func(n *yaml.Node) {
			s.fields(n, map[string]func(*yaml.Node){
				"limits":       func(n *yaml.Node) { s.fields(n, limits) },
				"reservations": func(n *yaml.Node) { s.fields(n, nil) },
			})
		},
		"restart_policy": s.restartPolicy,
		"update_config": func(n *yaml.Node) {
			s.fields(n, map[string]func(*yaml.Node){"order": func(n *yaml.Node) {
				switch order := workload.Order(s.text(n)); order {
				case workload.StartFirst, workload.StopFirst:
					c.Order = order
				default:
					s.report(n, "order: expected start-first or stop-first, got %s", describe(n))
				}
			}})
		},
	})
}

func (s *service) restartPolicy(n *yaml.Node) {
	r := &workload.Restart{Policy: workload.Always} // Compose's default: any
	s.restart = r
	var attempts *yaml.Node
	s.fields(n, map[string]func(*yaml.Node){
		"condition": func(n *yaml.Node) {
			switch s.text(n) {
			case "any":
			case "on-failure":
				r.Policy = workload.OnFailure
			case "none":
				r.Policy = workload.No
			default:
				s.report(n, "condition: expected none, on-failure or any, got %s", describe(n))
			}
		},
		"max_attempts": func(n *yaml.Node) {
			attempts = n
			r.Max = int(s.integer(n, 0, 1<<20))
		},
	})
	if r.Policy == workload.Always && r.Max > 0 {
		s.report(attempts, "max_attempts works with condition: on-failure")
	}
	if r.Policy != workload.OnFailure {
		r.Max = 0
	}
}
