package compose

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/sys/signal"
	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
	"kogge.example/agent/workload/bridge"
)

type decoder = func(p *parser, n *yaml.Node, c *workload.Container)

// serviceKeys is what a service can say.
var serviceKeys = map[string]decoder{
	"image":       image,
	"command":     func(p *parser, n *yaml.Node, c *workload.Container) { p.command(n, &c.Command) },
	"entrypoint":  func(p *parser, n *yaml.Node, c *workload.Container) { p.command(n, &c.Entrypoint) },
	"environment": environment,
	"labels":      labels,
	"ports":       ports,
	"restart":     restart,
	"hostname":    hostname,
	"working_dir": func(p *parser, n *yaml.Node, c *workload.Container) { c.WorkingDir = p.absolute(n) },
	"user":        user,
	"read_only":   func(p *parser, n *yaml.Node, c *workload.Container) { c.ReadOnly = p.boolean(n) },
	"tmpfs":       tmpfs,
	"volumes":     volumes,
	"mem_limit":   func(p *parser, n *yaml.Node, c *workload.Container) { p.memory(n, c) },
	"cpus":        func(p *parser, n *yaml.Node, c *workload.Container) { p.cpus(n, c) },
	"pids_limit":  func(p *parser, n *yaml.Node, c *workload.Container) { p.pids(n, c) },
	"shm_size":    func(p *parser, n *yaml.Node, c *workload.Container) { c.ShmBytes = p.bytes(n) },
	"deploy":      deploy,
	"stop_signal": stopSignal,
	"stop_grace_period": func(p *parser, n *yaml.Node, c *workload.Container) {
		c.StopGrace = p.duration(n, time.Hour)
	},
	"cap_drop": capDrop,
}

// meaningless are keys that change nothing here, with what is so instead.
var meaningless = map[string]string{
	"container_name": "the container is called like its service",
	"expose":         "containers of a node reach each other's ports anyway",
	"pull_policy":    "a node takes the image that it has",
	"attach":         "output goes to the node's log of the container",
}

// lackingKeys are the other keys of a Compose service, with what to do about it.
var lackingKeys = map[string]string{
	"privileged":          "a container never has the rights of its node",
	"cap_add":             "capabilities can only be taken away",
	"devices":             "a container sees no hardware",
	"device_cgroup_rules": "a container sees no hardware",
	"gpus":                "a container sees no hardware",
	"network_mode":        "a container has a network of its own; use ports",
	"networks":            "all containers of a node are on one network",
	"pid":                 "a container sees no processes but its own",
	"ipc":                 "a container shares no memory with others",
	"uts":                 "a container has a host name of its own",
	"cgroup":              "a container sees no cgroup but its own",
	"cgroup_parent":       "the cgroup is /workload/NAME",
	"userns_mode":         "",
	"security_opt":        "the profile is fixed",
	"build":               "build it elsewhere and preload the image",
	"env_file":            "write the variables under environment",
	"label_file":          "write the labels under labels",
	"depends_on":          "containers start together and are restarted until they work",
	"extends":             "write it out, or use a YAML anchor",
	"profiles":            "what is in the file is started",
	"scale":               "one container each",
	"logging":             "output goes to the node's log of the container",
	"init":                "let the program reap its children",
	"tty":                 "there is no terminal",
	"stdin_open":          "there is no terminal",
	"platform":            "a node runs images for itself",
	"runtime":             "the runtime is fixed",
	"healthcheck":         "",
	"dns":                 "containers use the node's resolvers",
	"dns_opt":             "containers use the node's resolvers",
	"dns_search":          "containers use the node's resolvers",
	"domainname":          "", "mac_address": "", "extra_hosts": "", "external_links": "", "links": "",
	"group_add": "", "oom_kill_disable": "", "oom_score_adj": "", "sysctls": "", "ulimits": "",
	"blkio_config": "", "cpu_count": "", "cpu_percent": "", "cpu_shares": "", "cpu_period": "", "cpu_quota": "",
	"cpu_rt_runtime": "", "cpu_rt_period": "", "cpuset": "", "mem_reservation": "", "mem_swappiness": "",
	"memswap_limit": "", "storage_opt": "", "isolation": "", "credential_spec": "", "configs": "", "secrets": "",
	"volumes_from": "", "annotations": "", "develop": "", "post_start": "", "pre_stop": "", "pre_start": "",
	"provider": "", "models": "", "use_api_socket": "",
}

func image(p *parser, n *yaml.Node, c *workload.Container) {
	s := p.text(n)
	if s == "" {
		return
	}
	full, err := workload.FullName(s)
	if err != nil {
		p.report(n, "%v", err)
		return
	}
	c.Image = full
}

func environment(p *parser, n *yaml.Node, c *workload.Container) {
	var m types.MappingWithEquals
	if !p.mapping(n, "environment", func(v any) error { return m.DecodeMapstructure(v) }) {
		return
	}
	for k, v := range m {
		if v == nil {
			p.report(n, "environment: %s has no value, and a node has no environment to take it from", k)
			continue
		}
		if k == "" || strings.ContainsAny(k+*v, "\x00") {
			p.report(n, "environment: %q is no variable", k+"="+*v)
			continue
		}
		c.Env = append(c.Env, k+"="+*v)
	}
	slices.Sort(c.Env)
}

// ownLabels is for labels that the agent itself writes.
const ownLabels = "kogge.example/"

func labels(p *parser, n *yaml.Node, c *workload.Container) {
	var m types.Mapping
	if !p.mapping(n, "labels", func(v any) error { return m.DecodeMapstructure(v) }) {
		return
	}
	for k, v := range m {
		switch {
		case strings.HasPrefix(k, ownLabels):
			p.report(n, "labels: %s: names that begin with %s are the node's own", k, ownLabels)
		case k == "" || len(k)+len(v) > 4096: // containerd's limit
			p.report(n, "labels: %q: a label has a name, and with it at most 4096 bytes", k)
		}
	}
	if len(m) > 0 {
		c.Labels = m
	}
}

func restart(p *parser, n *yaml.Node, c *workload.Container) {
	s := p.text(n)
	policy, limit, counted := strings.Cut(s, ":")
	switch {
	case s == "no" || s == "false":
		c.Restart.Policy = workload.No
	case s == "always" || s == "unless-stopped":
		c.Restart.Policy = workload.Always
	case policy == "on-failure":
		c.Restart.Policy = workload.OnFailure
		if !counted {
			return
		}
		var err error
		if c.Restart.Max, err = strconv.Atoi(limit); err != nil || c.Restart.Max < 1 {
			p.report(n, "restart: %q is no number of tries", limit)
		}
	default:
		p.report(n, `restart is "no", always, unless-stopped or on-failure[:TRIES], this is %s`, describe(n))
	}
}

func hostname(p *parser, n *yaml.Node, c *workload.Container) {
	s := p.text(n)
	for part := range strings.SplitSeq(strings.ToLower(s), ".") {
		if !label(part) || len(s) > 64 {
			p.report(n, "hostname %q: use letters, digits and hyphens, at most 64", s)
			return
		}
	}
	c.Hostname = s
}

func user(p *parser, n *yaml.Node, c *workload.Container) {
	s := p.text(n)
	if s == "" || strings.Count(s, ":") > 1 || strings.ContainsAny(s, " \t\n/") {
		p.report(n, "user is NAME or ID, with :GROUP if need be, this is %s", describe(n))
		return
	}
	c.User = s
}

func stopSignal(p *parser, n *yaml.Node, c *workload.Container) {
	s := p.text(n)
	if _, err := signal.ParseSignal(s); err != nil {
		p.report(n, "stop_signal: there is no signal %s", describe(n))
		return
	}
	c.StopSignal = s
}

func capDrop(p *parser, n *yaml.Node, c *workload.Container) {
	p.list(n, "cap_drop", func(item *yaml.Node) {
		name := strings.ToUpper(p.text(item))
		if name == "ALL" {
			c.DropCaps = []string{"ALL"}
			return
		}
		name = "CAP_" + strings.TrimPrefix(name, "CAP_")
		if !slices.Contains(capabilities, name) {
			p.report(item, "cap_drop: there is no capability %s", name)
			return
		}
		if !slices.Contains(c.DropCaps, "ALL") && !slices.Contains(c.DropCaps, name) {
			c.DropCaps = append(c.DropCaps, name)
		}
	})
	slices.Sort(c.DropCaps)
}

// capabilities are those of linux/capability.h.
var capabilities = strings.Fields(`CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL
	CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN
	CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT
	CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE
	CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM
	CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE`)

// deploy knows limits only.
func deploy(p *parser, n *yaml.Node, c *workload.Container) {
	p.only(n, "deploy", map[string]func(*yaml.Node){
		"resources": func(n *yaml.Node) {
			p.only(n, "deploy.resources", map[string]func(*yaml.Node){
				"limits": func(n *yaml.Node) {
					p.only(n, "deploy.resources.limits", map[string]func(*yaml.Node){
						"memory": func(n *yaml.Node) { p.memory(n, c) },
						"cpus":   func(n *yaml.Node) { p.cpus(n, c) },
						"pids":   func(n *yaml.Node) { p.pids(n, c) },
					})
				},
			})
		},
	})
}

// maxPorts is how many ports of the node a container can have, ranges counted out.
const maxPorts = 256

func ports(p *parser, n *yaml.Node, c *workload.Container) {
	p.list(n, "ports", func(item *yaml.Node) {
		if len(c.Ports) > maxPorts {
			return
		}
		defer func() {
			if len(c.Ports) > maxPorts {
				p.report(item, "more than %d ports", maxPorts)
			}
		}()
		if item.Kind == yaml.MappingNode {
			p.longPort(item, c)
			return
		}
		s := p.text(item)
		if s == "" {
			return
		}
		parsed, err := types.ParsePortConfig(s)
		if err != nil {
			p.report(item, "port %q: %v", s, err)
			return
		}
		for _, one := range parsed {
			p.port(item, one, c)
		}
	})
}

func (p *parser) longPort(n *yaml.Node, c *workload.Container) {
	one := types.ServicePortConfig{Protocol: "tcp"}
	before := len(p.problems.List)
	ignore := func(*yaml.Node) {}
	p.only(n, "ports", map[string]func(*yaml.Node){
		"target":       func(v *yaml.Node) { one.Target = uint32(p.integer(v, 1, 65535)) },
		"published":    func(v *yaml.Node) { one.Published = p.text(v) },
		"host_ip":      func(v *yaml.Node) { one.HostIP = p.text(v) },
		"protocol":     func(v *yaml.Node) { one.Protocol = p.text(v) },
		"mode":         ignore, // host or ingress: on one node the same
		"name":         ignore, // for people
		"app_protocol": ignore, // for people
	})
	if len(p.problems.List) == before {
		p.port(n, one, c)
	}
}

func (p *parser) port(n *yaml.Node, one types.ServicePortConfig, c *workload.Container) {
	port := workload.Port{Protocol: bridge.Protocol(strings.ToLower(one.Protocol)), Container: uint16(one.Target)}
	if port.Protocol != bridge.TCP && port.Protocol != bridge.UDP {
		p.report(n, "port %d: %s is not supported on a node: tcp and udp are", one.Target, one.Protocol)
		return
	}
	if one.Target < 1 || one.Target > 65535 {
		p.report(n, "port: the container's port (target) is missing")
		return
	}
	if one.Published == "" || one.Published == "0" {
		p.report(n, "port %d: say which port of the node leads there, such as %d:%d", one.Target, one.Target, one.Target)
		return
	}
	number, err := strconv.ParseUint(one.Published, 10, 16)
	if err != nil {
		p.report(n, "port %d: %q is not one port of the node", one.Target, one.Published)
		return
	}
	port.HostPort = uint16(number)
	if one.HostIP != "" {
		ip, err := netip.ParseAddr(one.HostIP)
		if err != nil {
			p.report(n, "port %d: %q is no address", one.Target, one.HostIP)
			return
		}
		if !ip.Is4() {
			p.report(n, "port %d: host address %s: published ports answer on IPv4 only", one.Target, ip)
			return
		}
		if !ip.IsUnspecified() {
			port.HostIP = ip
		}
	}
	c.Ports = append(c.Ports, port)
}
