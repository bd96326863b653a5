package workload

// APIPort is where a node's API answers, TCP.
const APIPort = 7443

// MemberPort is where the etcd of a fleet's members answers the others, TCP, as founding says.
const MemberPort = 7444

// NamePort is where the node's name server answers containers, TCP and UDP: on the
// gateway of each of their networks, and nowhere else.
const NamePort = 53

// NodePort is a port at which the node itself is called, on all of its addresses.
type NodePort struct {
	Protocol Protocol
	Port     uint16
	What     string // who listens there, as people are told
}

// NodePorts are the node's own. Nobody publishes them: package compose refuses it, and
// the packet filter leads none of them elsewhere, whatever is published. NamePort is not
// among them: whoever serves names to a LAN publishes it, and containers still reach the
// node's own at their gateway.
var NodePorts = []NodePort{
	{TCP, APIPort, "its API"},
	{TCP, MemberPort, "the fleet's etcd, where it runs"},
	{UDP, 68, "its DHCP client"},
	{UDP, 5353, "its multicast DNS"},
}

// NodeOwns is the node's own port of that number, if there is one.
func NodeOwns(protocol Protocol, port uint16) (NodePort, bool) {
	for _, p := range NodePorts {
		if p.Protocol == protocol && p.Port == port {
			return p, true
		}
	}
	return NodePort{}, false
}
