package compose

import (
	"slices"
	"strings"
	"sync"
)

// Verdict is what becomes of a key of the Compose specification.
type Verdict string

// The verdicts.
const (
	Done     Verdict = "done"     // the node does what the specification says
	Resolved Verdict = "resolved" // done on the operator's machine by package project; refused in a node's own file
	Warned   Verdict = "warned"   // it changes nothing here, which is said
	Refused  Verdict = "refused"  // the file is not accepted with it
)

// Key is what this node does about one key of the specification.
type Key struct {
	// Path is where the key stands, with a * for each name that the file gives
	// and without the indexes of lists: "services.*.ports.target".
	Path    string
	Verdict Verdict
	// Whole says that the keys below share the verdict and have no row.
	Whole bool
	// Note says what is so instead, or what to do.
	Note string
	// Own says that the specification does not have the key.
	Own bool
}

// Keys are all keys of the specification, in its order, and those of our own.
func Keys() []Key { return slices.Clone(keys) }

// Notes that several keys share.
const (
	allowed   = "where the node's node.yaml allows it"
	byDevices = "list the devices under the service's devices"
	windows   = "it is for Windows"
	useCPUs   = "use cpus"
	byApply   = "kogge apply reads it on your machine; in node.yaml, "
	unset     = "a node reserves nothing for a container"
	noSwap    = "containers have no swap"
	fleetOnly = "there is only one node to run on"
	oneEach   = "there is only one container of each service"
)

// keys is the one list of what a node does with each key: the parser decides by
// it, and kogge help compose-keys is made of it.
var keys = []Key{
	{Path: "version", Verdict: Warned, Note: "it is obsolete"},
	{Path: "name", Verdict: Done, Note: "the project's name for kogge apply; its containers are called PROJECT.SERVICE"},
	{Path: "include", Verdict: Resolved, Whole: true, Note: byApply + "copy the services in"},
	{Path: "services", Verdict: Done},

	{Path: "services.*.annotations", Verdict: Warned, Note: "no program reads them; use labels"},
	{Path: "services.*.attach", Verdict: Warned, Note: "output goes to the node's log of the container"},
	{Path: "services.*.blkio_config", Verdict: Refused, Whole: true, Note: "disk bandwidth is not limited"},
	{Path: "services.*.build", Verdict: Refused, Whole: true, Note: "build and push the image first, and name it under image"},
	{Path: "services.*.cap_add", Verdict: Done, Note: "the default ones, after cap_drop; others " + allowed},
	{Path: "services.*.cap_drop", Verdict: Done},
	{Path: "services.*.cgroup", Verdict: Done, Note: "private, the default; host " + allowed},
	{Path: "services.*.cgroup_parent", Verdict: Refused, Note: "the cgroup is /workload/NAME"},
	{Path: "services.*.command", Verdict: Done},
	{Path: "services.*.configs", Verdict: Done, Note: "on /NAME unless it has a target; mode 0444"},
	{Path: "services.*.configs.source", Verdict: Done},
	{Path: "services.*.configs.target", Verdict: Done},
	{Path: "services.*.configs.uid", Verdict: Done, Note: "a number"},
	{Path: "services.*.configs.gid", Verdict: Done, Note: "a number"},
	{Path: "services.*.configs.mode", Verdict: Done},
	{Path: "services.*.container_name", Verdict: Done, Note: "one more name on its networks; kogge calls it PROJECT.SERVICE"},
	{Path: "services.*.cpu_count", Verdict: Refused, Note: windows + "; " + useCPUs},
	{Path: "services.*.cpu_percent", Verdict: Refused, Note: windows + "; " + useCPUs},
	{Path: "services.*.cpu_period", Verdict: Refused, Note: useCPUs},
	{Path: "services.*.cpu_quota", Verdict: Refused, Note: useCPUs},
	{Path: "services.*.cpu_rt_period", Verdict: Refused, Note: useCPUs},
	{Path: "services.*.cpu_rt_runtime", Verdict: Refused, Note: useCPUs},
	{Path: "services.*.cpu_shares", Verdict: Refused, Note: useCPUs},
	{Path: "services.*.cpus", Verdict: Done},
	{Path: "services.*.cpuset", Verdict: Refused, Note: useCPUs},
	{Path: "services.*.credential_spec", Verdict: Refused, Whole: true, Note: windows},
	{Path: "services.*.depends_on", Verdict: Done},
	{Path: "services.*.depends_on.*.condition", Verdict: Done},
	{Path: "services.*.depends_on.*.required", Verdict: Done},
	{Path: "services.*.depends_on.*.restart", Verdict: Done},
	{Path: "services.*.deploy", Verdict: Done},
	{Path: "services.*.deploy.endpoint_mode", Verdict: Warned, Note: fleetOnly},
	{Path: "services.*.deploy.labels", Verdict: Warned, Note: "they are the service's; use labels for the container's"},
	{Path: "services.*.deploy.mode", Verdict: Done, Note: "replicated or global, which is the same on one node"},
	{Path: "services.*.deploy.placement", Verdict: Warned, Whole: true, Note: fleetOnly},
	{Path: "services.*.deploy.replicas", Verdict: Done, Note: "1 only"},
	{Path: "services.*.deploy.resources", Verdict: Done},
	{Path: "services.*.deploy.resources.limits", Verdict: Done},
	{Path: "services.*.deploy.resources.limits.cpus", Verdict: Done},
	{Path: "services.*.deploy.resources.limits.memory", Verdict: Done},
	{Path: "services.*.deploy.resources.limits.pids", Verdict: Done},
	{Path: "services.*.deploy.resources.reservations", Verdict: Done},
	{Path: "services.*.deploy.resources.reservations.cpus", Verdict: Warned, Note: unset},
	{Path: "services.*.deploy.resources.reservations.memory", Verdict: Warned, Note: unset},
	{Path: "services.*.deploy.resources.reservations.devices", Verdict: Refused, Whole: true, Note: byDevices},
	{Path: "services.*.deploy.resources.reservations.generic_resources", Verdict: Refused, Whole: true, Note: byDevices},
	{Path: "services.*.deploy.restart_policy", Verdict: Done, Note: "wins over restart"},
	{Path: "services.*.deploy.restart_policy.condition", Verdict: Done},
	{Path: "services.*.deploy.restart_policy.delay", Verdict: Warned, Note: "the pauses between starts grow from a second to a minute"},
	{Path: "services.*.deploy.restart_policy.max_attempts", Verdict: Done, Note: "with condition on-failure"},
	{Path: "services.*.deploy.restart_policy.window", Verdict: Warned, Note: "the pauses between starts grow from a second to a minute"},
	{Path: "services.*.deploy.rollback_config", Verdict: Warned, Whole: true, Note: "where the new container can start first, the old one keeps running until the new one is healthy"},
	{Path: "services.*.deploy.update_config", Verdict: Done},
	{Path: "services.*.deploy.update_config.delay", Verdict: Warned, Note: oneEach},
	{Path: "services.*.deploy.update_config.failure_action", Verdict: Warned, Note: "a new container that fails is started again; where it can start first, the old one keeps running"},
	{Path: "services.*.deploy.update_config.max_failure_ratio", Verdict: Warned, Note: oneEach},
	{Path: "services.*.deploy.update_config.monitor", Verdict: Warned, Note: "the health check says when the new container works"},
	{Path: "services.*.deploy.update_config.order", Verdict: Done, Note: "by default start-first, if there is a health check and no volume that it can write to"},
	{Path: "services.*.deploy.update_config.parallelism", Verdict: Warned, Note: oneEach},
	{Path: "services.*.develop", Verdict: Warned, Whole: true, Note: "a node runs finished images"},
	{Path: "services.*.device_cgroup_rules", Verdict: Refused, Note: byDevices},
	{Path: "services.*.devices", Verdict: Done, Note: allowed + "; paths below /dev, of a device or of a folder of devices"},
	{Path: "services.*.devices.permissions", Verdict: Done},
	{Path: "services.*.devices.source", Verdict: Done},
	{Path: "services.*.devices.target", Verdict: Done, Note: "below /dev"},
	{Path: "services.*.dns", Verdict: Done, Note: "asked for names that the node's own server does not know"},
	{Path: "services.*.dns_opt", Verdict: Done},
	{Path: "services.*.dns_search", Verdict: Done},
	{Path: "services.*.domainname", Verdict: Done},
	{Path: "services.*.entrypoint", Verdict: Done},
	{Path: "services.*.env_file", Verdict: Resolved, Whole: true, Note: byApply + "write the variables under environment"},
	{Path: "services.*.environment", Verdict: Done, Note: "a name without a value takes the value from your environment, with kogge apply"},
	{Path: "services.*.expose", Verdict: Done, Note: "nothing to do: containers reach each other's ports"},
	{Path: "services.*.extends", Verdict: Resolved, Whole: true, Note: byApply + "write it out, or use a YAML anchor"},
	{Path: "services.*.external_links", Verdict: Refused, Note: "put both services on a network with one name"},
	{Path: "services.*.extra_hosts", Verdict: Done, Note: "not host-gateway: a container does not reach its node"},
	{Path: "services.*.gpus", Verdict: Refused, Whole: true, Note: byDevices},
	{Path: "services.*.group_add", Verdict: Done},
	{Path: "services.*.healthcheck", Verdict: Done},
	{Path: "services.*.healthcheck.disable", Verdict: Done},
	{Path: "services.*.healthcheck.interval", Verdict: Done},
	{Path: "services.*.healthcheck.retries", Verdict: Done},
	{Path: "services.*.healthcheck.start_interval", Verdict: Done},
	{Path: "services.*.healthcheck.start_period", Verdict: Done},
	{Path: "services.*.healthcheck.test", Verdict: Done},
	{Path: "services.*.healthcheck.timeout", Verdict: Done},
	{Path: "services.*.hostname", Verdict: Done},
	{Path: "services.*.image", Verdict: Done},
	{Path: "services.*.init", Verdict: Done},
	{Path: "services.*.ipc", Verdict: Done, Note: "private, the default; host " + allowed},
	{Path: "services.*.isolation", Verdict: Refused, Note: windows},
	{Path: "services.*.label_file", Verdict: Resolved, Note: byApply + "write the labels under labels"},
	{Path: "services.*.labels", Verdict: Done, Note: "not kogge.example/…, which are reserved for the node"},
	{Path: "services.*.links", Verdict: Done, Note: "without an alias; it means depends_on: names work without it"},
	{Path: "services.*.logging", Verdict: Done},
	{Path: "services.*.logging.driver", Verdict: Warned, Note: "output goes to the node's log of the container, which is bounded"},
	{Path: "services.*.logging.options", Verdict: Warned, Note: "output goes to the node's log of the container, which is bounded"},
	{Path: "services.*.mac_address", Verdict: Refused, Note: "the node chooses it"},
	{Path: "services.*.mem_limit", Verdict: Done},
	{Path: "services.*.mem_reservation", Verdict: Warned, Note: unset},
	{Path: "services.*.mem_swappiness", Verdict: Warned, Note: noSwap},
	{Path: "services.*.memswap_limit", Verdict: Warned, Note: noSwap},
	{Path: "services.*.models", Verdict: Refused, Whole: true, Note: "run the model server as a service"},
	{Path: "services.*.network_mode", Verdict: Done, Note: "bridge, the default, or none; host " + allowed},
	{Path: "services.*.networks", Verdict: Done, Note: "16 at most"},
	{Path: "services.*.networks.*.aliases", Verdict: Done},
	{Path: "services.*.networks.*.driver_opts", Verdict: Refused, Note: "a network is a bridge of the node"},
	{Path: "services.*.networks.*.gw_priority", Verdict: Done, Note: "eth0 is the first by gw_priority, then by priority, then by name"},
	{Path: "services.*.networks.*.interface_name", Verdict: Refused, Note: "interfaces are called eth0, eth1 and so on"},
	{Path: "services.*.networks.*.ipv4_address", Verdict: Refused, Note: "the node chooses it; use the service's name"},
	{Path: "services.*.networks.*.ipv6_address", Verdict: Refused, Note: "the node chooses it; use the service's name"},
	{Path: "services.*.networks.*.link_local_ips", Verdict: Refused, Note: "the node chooses it; use the service's name"},
	{Path: "services.*.networks.*.mac_address", Verdict: Refused, Note: "the node chooses it"},
	{Path: "services.*.networks.*.priority", Verdict: Done},
	{Path: "services.*.networks.*.use_service_name_alias", Verdict: Warned, Note: "a service always has its name"},
	{Path: "services.*.oom_kill_disable", Verdict: Refused, Note: "a container that is out of memory is killed"},
	{Path: "services.*.oom_score_adj", Verdict: Refused, Note: "the node decides what is killed first"},
	{Path: "services.*.pid", Verdict: Done, Note: "host " + allowed + "; not that of another container"},
	{Path: "services.*.pids_limit", Verdict: Done},
	{Path: "services.*.platform", Verdict: Done, Note: "the node's own, or another that it runs; of a multi-platform image, that platform is pulled"},
	{Path: "services.*.ports", Verdict: Done, Note: "TCP and UDP on IPv4, with the node's port"},
	{Path: "services.*.ports.app_protocol", Verdict: Done, Note: "for people to read"},
	{Path: "services.*.ports.host_ip", Verdict: Done},
	{Path: "services.*.ports.mode", Verdict: Done, Note: "host or ingress, which is the same on one node"},
	{Path: "services.*.ports.name", Verdict: Done, Note: "for people to read"},
	{Path: "services.*.ports.protocol", Verdict: Done},
	{Path: "services.*.ports.published", Verdict: Done, Note: "one port, not a range, and none of the node's own"},
	{Path: "services.*.ports.target", Verdict: Done},
	{Path: "services.*.post_start", Verdict: Refused, Whole: true, Note: "let the container's program do it, or another service that depends on it"},
	{Path: "services.*.pre_start", Verdict: Refused, Whole: true, Note: "use a service of its own, and depends_on with service_completed_successfully"},
	{Path: "services.*.pre_stop", Verdict: Refused, Whole: true, Note: "let the container's program do it when stop_signal comes"},
	{Path: "services.*.privileged", Verdict: Done, Note: allowed},
	{Path: "services.*.profiles", Verdict: Resolved, Note: byApply + "every service in the file is started"},
	{Path: "services.*.provider", Verdict: Refused, Whole: true, Note: "a node runs containers only"},
	{Path: "services.*.pull_policy", Verdict: Warned, Note: "a node uses the image that it has, and pulls one that it lacks"},
	{Path: "services.*.pull_refresh_after", Verdict: Warned, Note: "a node uses the image that it has, and pulls one that it lacks"},
	{Path: "services.*.read_only", Verdict: Done},
	{Path: "services.*.restart", Verdict: Done, Note: "unless-stopped means always"},
	{Path: "services.*.runtime", Verdict: Refused, Note: "the runtime is runc"},
	{Path: "services.*.scale", Verdict: Done, Note: "1 only"},
	{Path: "services.*.secrets", Verdict: Done, Note: "on /run/secrets/NAME unless it has a target; mode 0444"},
	{Path: "services.*.secrets.source", Verdict: Done},
	{Path: "services.*.secrets.target", Verdict: Done},
	{Path: "services.*.secrets.uid", Verdict: Done, Note: "a number"},
	{Path: "services.*.secrets.gid", Verdict: Done, Note: "a number"},
	{Path: "services.*.secrets.mode", Verdict: Done},
	{Path: "services.*.security_opt", Verdict: Done, Note: "no-new-privileges, apparmor=unconfined and label=disable, the default; no-new-privileges:false for a container in a user namespace of its own; seccomp=unconfined and systempaths=unconfined " + allowed},
	{Path: "services.*.shm_size", Verdict: Done},
	{Path: "services.*.stdin_open", Verdict: Warned, Note: "nobody types into a service"},
	{Path: "services.*.stop_grace_period", Verdict: Done, Note: "an hour at most"},
	{Path: "services.*.stop_signal", Verdict: Done},
	{Path: "services.*.storage_opt", Verdict: Refused, Note: "use a volume, or tmpfs with a size"},
	{Path: "services.*.sysctls", Verdict: Done, Note: "those of the container's own namespaces, listed below"},
	{Path: "services.*.tmpfs", Verdict: Done, Note: "with size, mode, uid, gid and noexec; nosuid and nodev are always on"},
	{Path: "services.*.tty", Verdict: Warned, Note: "nobody types into a service"},
	{Path: "services.*.ulimits", Verdict: Done},
	{Path: "services.*.ulimits.*.hard", Verdict: Done},
	{Path: "services.*.ulimits.*.soft", Verdict: Done},
	{Path: "services.*.umask", Verdict: Refused, Note: "the umask is 0022"},
	{Path: "services.*.use_api_socket", Verdict: Refused, Note: "no container reaches the node's sockets"},
	{Path: "services.*.user", Verdict: Done},
	{Path: "services.*.userns_mode", Verdict: Done, Note: "host " + allowed + "; by default a container's root is an unprivileged user on its node"},
	{Path: "services.*.uts", Verdict: Done, Note: "host " + allowed},
	{Path: "services.*.volumes", Verdict: Done, Note: "named volumes and tmpfs; files and folders of the node " + allowed},
	{Path: "services.*.volumes.bind", Verdict: Done},
	{Path: "services.*.volumes.bind.create_host_path", Verdict: Done, Note: "a folder below /state/data is created if missing, no other is"},
	{Path: "services.*.volumes.bind.propagation", Verdict: Done, Note: "private only: mounts do not propagate"},
	{Path: "services.*.volumes.bind.recursive", Verdict: Refused, Note: "what is mounted below the folder is not included"},
	{Path: "services.*.volumes.bind.selinux", Verdict: Warned, Note: "a node has no SELinux"},
	{Path: "services.*.volumes.consistency", Verdict: Warned, Note: "it is obsolete"},
	{Path: "services.*.volumes.image", Verdict: Refused, Whole: true, Note: "an image is not mounted as a volume"},
	{Path: "services.*.volumes.read_only", Verdict: Done},
	{Path: "services.*.volumes.source", Verdict: Done},
	{Path: "services.*.volumes.target", Verdict: Done},
	{Path: "services.*.volumes.tmpfs", Verdict: Done},
	{Path: "services.*.volumes.tmpfs.mode", Verdict: Done},
	{Path: "services.*.volumes.tmpfs.size", Verdict: Done},
	{Path: "services.*.volumes.type", Verdict: Done, Note: "volume, tmpfs or bind"},
	{Path: "services.*.volumes.volume", Verdict: Done},
	{Path: "services.*.volumes.volume.labels", Verdict: Warned, Note: "a volume is a folder on STATE"},
	{Path: "services.*.volumes.volume.nocopy", Verdict: Done, Note: "otherwise an empty volume is filled from the image, its owner included"},
	{Path: "services.*.volumes.volume.subpath", Verdict: Refused, Note: "use a volume for each folder"},
	{Path: "services.*.volumes_from", Verdict: Refused, Note: "name the same volumes in both services"},
	{Path: "services.*.working_dir", Verdict: Done},

	{Path: "jobs", Verdict: Refused, Whole: true, Note: `use a service with restart: "no"`},
	{Path: "models", Verdict: Refused, Whole: true, Note: "run the model server as a service"},
	{Path: "networks", Verdict: Done, Note: "a bridge of the node for each, called PROJECT.NAME; at most 120 services on one"},
	{Path: "networks.*.attachable", Verdict: Warned, Note: "there is nothing else to attach"},
	{Path: "networks.*.driver", Verdict: Done, Note: "bridge or overlay, which is the same on one node"},
	{Path: "networks.*.driver_opts", Verdict: Refused, Note: "a network is a bridge of the node"},
	{Path: "networks.*.enable_ipv4", Verdict: Done, Note: "true only"},
	{Path: "networks.*.enable_ipv6", Verdict: Refused, Note: "containers have IPv4 addresses"},
	{Path: "networks.*.external", Verdict: Done, Note: "its name is the node's, as with name; it is created if missing"},
	{Path: "networks.*.external.name", Verdict: Done},
	{Path: "networks.*.internal", Verdict: Done, Note: "published ports of its containers are answered"},
	{Path: "networks.*.ipam", Verdict: Refused, Whole: true, Note: "the node chooses addresses"},
	{Path: "networks.*.labels", Verdict: Warned, Note: "no program reads them"},
	{Path: "networks.*.name", Verdict: Done, Note: "its name on the node, where projects can share it"},
	{Path: "volumes", Verdict: Done, Note: "folders on STATE, called PROJECT.NAME"},
	{Path: "volumes.*.driver", Verdict: Done, Note: "local only: a volume is a folder on STATE"},
	{Path: "volumes.*.driver_opts", Verdict: Refused, Note: "a volume is a folder on STATE"},
	{Path: "volumes.*.external", Verdict: Done, Note: "its name is the node's, as with name; it is created if missing"},
	{Path: "volumes.*.external.name", Verdict: Done},
	{Path: "volumes.*.labels", Verdict: Warned, Note: "a volume is a folder on STATE"},
	{Path: "volumes.*.name", Verdict: Done, Note: "its name on the node, where projects can share it"},
	{Path: "configs", Verdict: Done, Note: "1 MiB for all of a container, secrets included"},
	{Path: "configs.*.content", Verdict: Done},
	{Path: "configs.*.environment", Verdict: Resolved, Note: byApply + "write it under content"},
	{Path: "configs.*.external", Verdict: Refused, Whole: true, Note: "a node has no store for them: use file or content"},
	{Path: "configs.*.file", Verdict: Resolved, Note: byApply + "write it under content"},
	{Path: "configs.*.labels", Verdict: Warned, Note: "no program reads them"},
	{Path: "configs.*.name", Verdict: Warned, Note: "it keeps the name in this file"},
	{Path: "configs.*.template_driver", Verdict: Refused, Note: "use Compose variables"},
	{Path: "secrets", Verdict: Done, Note: "shown to nobody; in memory only inside the container"},
	{Path: "secrets.*.content", Verdict: Done, Own: true, Note: "kogge apply writes it from file and environment"},
	{Path: "secrets.*.driver", Verdict: Refused, Note: "use file or environment"},
	{Path: "secrets.*.driver_opts", Verdict: Refused, Note: "use file or environment"},
	{Path: "secrets.*.environment", Verdict: Resolved, Note: byApply + "write it under content"},
	{Path: "secrets.*.external", Verdict: Refused, Whole: true, Note: "a node has no store for them: use file or environment"},
	{Path: "secrets.*.file", Verdict: Resolved, Note: byApply + "write it under content"},
	{Path: "secrets.*.labels", Verdict: Warned, Note: "no program reads them"},
	{Path: "secrets.*.name", Verdict: Warned, Note: "it keeps the name in this file"},
	{Path: "secrets.*.template_driver", Verdict: Refused, Note: "use Compose variables"},
}

// byPath finds the rows.
var byPath = sync.OnceValue(func() map[string]Key {
	all := make(map[string]Key, len(keys))
	for _, k := range keys {
		all[k.Path] = k
	}
	return all
})

// extension says whether k is nobody's by definition.
func extension(k string) bool { return strings.HasPrefix(k, "x-") }

// meant is a key at path that wrong is probably a slip of, as a question; "" if
// there is none.
func meant(path, wrong string) string {
	prefix := ""
	if path != "" {
		prefix = path + "."
	}
	best, least := "", 3 // slips
	for _, k := range keys {
		name, in := strings.CutPrefix(k.Path, prefix)
		if !in || strings.ContainsAny(name, ".*") || len(wrong) > 2*len(name) {
			continue
		}
		if n := slips(wrong, name); n < least && n < len(name)/2 {
			best, least = name, n
		}
	}
	if best == "" {
		return ""
	}
	return ": do you mean " + best + "?"
}

// slips is how many letters to insert, drop, change or swap with their neighbour
// make b of a.
func slips(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now := make([]int, len(b)+1)
		now[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last = last, now
	}
	return last[len(b)]
}
