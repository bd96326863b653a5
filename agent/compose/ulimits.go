package compose

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
)

// limits are those of setrlimit(2).
var limits = strings.Fields("as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack")

func (s *service) ulimits(n *yaml.Node) {
	s.names(n, func(k, v *yaml.Node) {
		if !slices.Contains(limits, k.Value) {
			s.report(k, "ulimits: unknown limit %q: expected one of %s", k.Value, strings.Join(limits, ", "))
			return
		}
		u := workload.Ulimit{Name: k.Value}
		value := func(n *yaml.Node) int64 { return s.integer(n, -1, 1<<62) }
		before := s.reported()
		if v.Kind == yaml.ScalarNode {
			u.Soft = value(v)
			u.Hard = u.Soft
		} else {
			var soft, hard *yaml.Node
			s.fields(v, map[string]func(*yaml.Node){
				"soft": func(n *yaml.Node) { u.Soft, soft = value(n), n },
				"hard": func(n *yaml.Node) { u.Hard, hard = value(n), n },
			})
			if soft == nil || hard == nil {
				s.report(k, "%s: set both soft and hard", s.at.shown)
			}
		}
		if s.reported() == before && u.Hard >= 0 && (u.Soft > u.Hard || u.Soft < 0) {
			s.report(k, "%s: soft is above hard", s.at.shown)
		}
		s.Ulimits = append(s.Ulimits, u)
	})
	slices.SortFunc(s.Ulimits, func(a, b workload.Ulimit) int { return cmp.Compare(a.Name, b.Name) })
}

// Sysctls are the settings that a container can have: each belongs to its own
// network or IPC namespace, and none changes another container or the node.
//
// Source: Documentation/networking/ip-sysctl.rst and Documentation/admin-guide/sysctl
// in the kernel tree.
func Sysctls() []string { return slices.Clone(sysctls) }

var sysctls = strings.Fields(`
	fs.mqueue.msg_default fs.mqueue.msg_max fs.mqueue.msgsize_default fs.mqueue.msgsize_max fs.mqueue.queues_max
	kernel.msgmax kernel.msgmnb kernel.msgmni
	kernel.sem
	kernel.shm_rmid_forced kernel.shmall kernel.shmmax kernel.shmmni
	net.core.somaxconn
	net.ipv4.conf.all.accept_redirects net.ipv4.conf.all.forwarding net.ipv4.conf.all.rp_filter
	net.ipv4.conf.all.send_redirects net.ipv4.conf.all.src_valid_mark
	net.ipv4.conf.default.accept_redirects net.ipv4.conf.default.forwarding net.ipv4.conf.default.rp_filter
	net.ipv4.conf.default.send_redirects net.ipv4.conf.default.src_valid_mark
	net.ipv4.icmp_echo_ignore_broadcasts net.ipv4.ip_default_ttl net.ipv4.ip_forward
	net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports net.ipv4.ip_nonlocal_bind
	net.ipv4.ip_unprivileged_port_start net.ipv4.ping_group_range
	net.ipv4.tcp_ecn net.ipv4.tcp_fastopen net.ipv4.tcp_fin_timeout
	net.ipv4.tcp_keepalive_intvl net.ipv4.tcp_keepalive_probes net.ipv4.tcp_keepalive_time
	net.ipv4.tcp_max_syn_backlog net.ipv4.tcp_mtu_probing net.ipv4.tcp_notsent_lowat net.ipv4.tcp_orphan_retries
	net.ipv4.tcp_retries1 net.ipv4.tcp_retries2 net.ipv4.tcp_rmem net.ipv4.tcp_sack
	net.ipv4.tcp_slow_start_after_idle net.ipv4.tcp_syn_retries net.ipv4.tcp_synack_retries
	net.ipv4.tcp_syncookies net.ipv4.tcp_timestamps net.ipv4.tcp_tw_reuse net.ipv4.tcp_window_scaling
	net.ipv4.tcp_wmem
	net.ipv6.bindv6only net.ipv6.conf.all.disable_ipv6 net.ipv6.conf.all.forwarding
	net.ipv6.conf.default.disable_ipv6 net.ipv6.conf.default.forwarding net.ipv6.conf.lo.disable_ipv6
	net.ipv6.ip_nonlocal_bind`)

// sysctlValue is what such a setting can be: numbers and words with blanks and
// commas between them.
var sysctlValue = regexp.MustCompile(`^[A-Za-z0-9_.,\t -]{1,256}$`)

func (s *service) sysctls(n *yaml.Node) {
	values := make(map[string]string)
	set := func(at *yaml.Node, name, value string) {
		switch {
		case !slices.Contains(sysctls, name):
			s.report(at, "sysctls: a container cannot set %s, only some of its own network and IPC namespaces", name)
		case !sysctlValue.MatchString(value):
			s.report(at, "sysctls: %s: %q is not a value", name, value)
		default:
			values[name] = value
		}
	}
	if n.Kind == yaml.SequenceNode {
		s.list(n, "sysctls", func(item *yaml.Node) {
			name, value, _ := strings.Cut(s.text(item), "=")
			set(item, strings.TrimSpace(name), strings.TrimSpace(value))
		})
	} else {
		s.names(n, func(k, v *yaml.Node) { set(k, k.Value, s.text(v)) })
	}
	if len(values) > 0 {
		s.Sysctls = values
	}
}

// maxHosts is how many lines a service adds to /etc/hosts at most.
const maxHosts = 1000

// extraHosts reads NAME=ADDRESS or NAME:ADDRESS, or a mapping to one address or a
// list of them.
func (s *service) extraHosts(n *yaml.Node) {
	if n.Kind == yaml.SequenceNode {
		s.list(n, "extra_hosts", func(item *yaml.Node) {
			text := s.text(item)
			name, address, found := strings.Cut(text, "=")
			if !found {
				name, address, found = strings.Cut(text, ":")
			}
			if !found {
				s.report(item, "extra_hosts: expected NAME=ADDRESS, got %s", describe(item))
				return
			}
			s.extraHost(item, strings.TrimSpace(name), strings.TrimSpace(address))
		})
	} else {
		s.names(n, func(k, v *yaml.Node) {
			if v.Kind == yaml.ScalarNode {
				s.extraHost(k, k.Value, s.text(v))
				return
			}
			s.list(v, "addresses", func(item *yaml.Node) { s.extraHost(item, k.Value, s.text(item)) })
		})
	}
	// Of one name the order counts, of different ones it does not.
	slices.SortStableFunc(s.ExtraHosts, func(a, b workload.Host) int { return cmp.Compare(a.Name, b.Name) })
}

func (s *service) extraHost(n *yaml.Node, name, address string) {
	for part := range strings.SplitSeq(strings.ToLower(name), ".") {
		if !label(strings.ReplaceAll(part, "_", "-")) || len(name) > 253 {
			s.report(n, "extra_hosts: %q is not a host name", name)
			return
		}
	}
	if address == "host-gateway" {
		s.report(n, "extra_hosts: %s: host-gateway is not supported on a node: a container does not reach its node", name)
		return
	}
	addr, err := netip.ParseAddr(strings.Trim(address, "[]"))
	switch {
	case err != nil || addr.Zone() != "":
		s.report(n, "extra_hosts: %s: %q is not an address", name, address)
	case len(s.ExtraHosts) == maxHosts:
		s.report(n, "extra_hosts: more than %d", maxHosts)
	default:
		s.ExtraHosts = append(s.ExtraHosts, workload.Host{Name: name, Addr: addr})
	}
}
