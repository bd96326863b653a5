package keeper

import (
	"fmt"
	"log"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"kogge.example/agent/workload"
)

// ports are those of running containers: for any other the node itself answers
// "refused" at once, where a packet to nobody would be waited for.
func (k *Keeper) ports() []workload.Publish {
	var all []workload.Publish
	taken := make(map[workload.Port]bool)
	add := func(ports []workload.Port, i workload.Instance) {
		for _, p := range ports {
			key := workload.Port{Protocol: p.Protocol, HostIP: p.HostIP, HostPort: p.HostPort}
			if taken[key] {
				continue // by one that is wanted: it goes before one that was
			}
			taken[key] = true
			all = append(all, workload.Publish{
				Protocol: p.Protocol, HostIP: p.HostIP, HostPort: p.HostPort,
				To: netip.AddrPortFrom(k.front(i), p.Container),
			})
		}
	}
	for _, id := range k.ids {
		u := k.units[id]
		// What was found running is about to be adopted, and led to all the time.
		found := u.State == workload.Waiting && u.found != nil && u.found.Task == workload.Alive && !u.Held
		if (u.State == workload.Running || found) && u.Old != Serving {
			add(u.want.Ports, u.now)
		}
	}
	for _, id := range k.ids {
		if u := k.units[id]; u.Old == Serving {
			add(u.old.Ports, u.old.Instance)
		}
	}
	return all
}

// follow has the networks go by what the node's own links have become. Some may have to
// move: that is the end of the session, and the next one finds that nothing on them is
// where it should be, and starts it anew.
func (k *Keeper) follow() error {
	moving, err := k.Network.Follow()
	trouble := ""
	if err != nil {
		trouble = workload.Line(err.Error())
		if trouble != k.links {
			log.Printf("workloads: %s", trouble)
		}
	}
	k.links = trouble
	var why []string
	for _, name := range slices.Sorted(maps.Keys(moving)) {
		if _, linked := k.subnets[name]; linked { // nobody makes any other one anew
			why = append(why, "network "+name+": "+moving[name])
		}
	}
	if len(why) > 0 {
		return fmt.Errorf("networks move, and their containers are restarted: %s", strings.Join(why, "; "))
	}
	return nil
}

// publishPorts makes the port map what it should be, if it is not known to be.
// Without it containers may still be of use to each other, so it is tried again
// and stops nothing.
func (k *Keeper) publishPorts() {
	if !k.publish {
		return
	}
	trouble := ""
	if err := k.Network.Publish(k.ports()); err != nil {
		trouble = workload.Line("published ports: " + err.Error())
		if trouble != k.trouble {
			log.Printf("workloads: %s", trouble)
		}
	}
	k.trouble, k.publish = trouble, trouble != ""
}
