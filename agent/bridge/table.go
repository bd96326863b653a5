package bridge

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// table is the name of our nftables tables that Apply makes (families ip and arp).
const table = "kogge"

// Registers of the nftables machine: the concatenated key of a lookup is built in
// 4-byte pieces from reg0 on (NFT_REG32_00), and its answer replaces it there.
const (
	reg0 = unix.NFT_REG32_00
	reg1 = unix.NFT_REG32_01
	reg2 = unix.NFT_REG32_02
)

// Ports of others that are answered by whom they take for the node.
const (
	mdnsPort       = 5353
	dhcpServerPort = 67
)

// These are IPS_CONFIRMED and IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const (
	statusConfirmed = 1 << 3
	statusDNAT      = 1 << 5
)

// Apply makes the tables exactly r, in one transaction: there is no moment without
// them, nor one with half of them. Connections that exist keep their translation; see
// forgetFlows.
func Apply(r Ruleset) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	b := newTable(conn, nftables.TableFamilyIPv4)
	if err := b.sets(r); err != nil {
		return err
	}
	b.untracked(r)
	b.translate(r)
	b.filter(r)
	b.masquerade(r)
	b.uplinks()
	newTable(conn, nftables.TableFamilyARP).known(r)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("replace nftables table %s: %w", table, err)
	}
	return nil
}

// newTable adds our table of a family in place of the one that is there.
func newTable(conn *nftables.Conn, family nftables.TableFamily) *builder {
	t := &nftables.Table{Family: family, Name: table}
	conn.AddTable(t) // one cannot be deleted unless it exists
	conn.DelTable(t)
	return &builder{conn: conn, table: conn.AddTable(t)}
}

type builder struct {
	conn       *nftables.Conn
	table      *nftables.Table
	bound, any *nftables.Set // ports that lead to containers
	own, names *nftables.Set // ports of the node, and of its name server
	routed     *nftables.Set // links
}

// sets adds what the rules look up.
func (b *builder) sets(r Ruleset) error {
	port := nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	b.own = &nftables.Set{Table: b.table, Name: "own", Concatenation: true, KeyType: port}
	b.names = &nftables.Set{Table: b.table, Name: "names", Concatenation: true, KeyType: port}
	b.routed = &nftables.Set{Table: b.table, Name: "routed", KeyType: nftables.TypeIFName}
	var own, names, routed []nftables.SetElement
	for _, p := range workload.NodePorts {
		own = append(own, nftables.SetElement{Key: portKey(p.Protocol, p.Port)})
	}
	for _, protocol := range []workload.Protocol{workload.TCP, workload.UDP} {
		names = append(names, nftables.SetElement{Key: portKey(protocol, workload.NamePort)})
	}
	for _, link := range r.Routed {
		routed = append(routed, nftables.SetElement{Key: exact(link)})
	}
	for _, s := range []struct {
		set      *nftables.Set
		elements []nftables.SetElement
	}{{b.own, own}, {b.names, names}, {b.routed, routed}} {
		if err := b.conn.AddSet(s.set, s.elements); err != nil {
			return fmt.Errorf("nftables set %s: %w", s.set.Name, err)
		}
	}
	return b.maps(r)
}

func (b *builder) maps(r Ruleset) error {
	target := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	b.bound = &nftables.Set{
		Table: b.table, Name: "bound", IsMap: true, Concatenation: true, DataType: target,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
	}
	b.any = &nftables.Set{
		Table: b.table, Name: "any", IsMap: true, Concatenation: true, DataType: target,
		KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
	}
	var bound, anywhere []nftables.SetElement
	for _, p := range r.Bound {
		ip := p.HostIP.As4()
		bound = append(bound, nftables.SetElement{Key: append(ip[:], portKey(p.Protocol, p.HostPort)...), Val: target4(p.To)})
	}
	for _, p := range r.Any {
		anywhere = append(anywhere, nftables.SetElement{Key: portKey(p.Protocol, p.HostPort), Val: target4(p.To)})
	}
	if err := b.conn.AddSet(b.bound, bound); err != nil {
		return fmt.Errorf("nftables map bound: %w", err)
	}
	if err := b.conn.AddSet(b.any, anywhere); err != nil {
		return fmt.Errorf("nftables map any: %w", err)
	}
	return nil
}

// portKey is protocol . port, each padded to 4 bytes as the registers hold them.
func portKey(protocol workload.Protocol, port uint16) []byte {
	proto := byte(unix.IPPROTO_TCP)
	if protocol == workload.UDP {
		proto = unix.IPPROTO_UDP
	}
	key := []byte{proto, 0, 0, 0}
	key = binary.BigEndian.AppendUint16(key, port)
	return append(key, 0, 0)
}

func target4(to netip.AddrPort) []byte {
	ip := to.Addr().As4()
	return append(binary.BigEndian.AppendUint16(ip[:], to.Port()), 0, 0)
}

func (b *builder) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{Name: name, Table: b.table, Type: kind, Hooknum: hook, Priority: priority})
}

func (b *builder) rule(c *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: all})
}

// untracked is what needs no connection tracking, so that a full table closes none of it:
// the node's own ports, and the questions of containers for names. It also drops what no
// container has any business with, and what bears an address that is not of its network.
func (b *builder) untracked(r Ruleset) {
	notrack := []expr.Any{&expr.Notrack{}}
	in := b.chain("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	out := b.chain("answers", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	for _, p := range unreachable {
		b.rule(in, iif(ours, expr.CmpOpEq), network(destination, p), verdict(expr.VerdictDrop))
	}
	for _, n := range r.Networks {
		gateway := netip.PrefixFrom(n.Gateway(), 32)
		b.rule(in, iif(exact(n.Device), expr.CmpOpEq), notNetwork(source, n.Prefix), verdict(expr.VerdictDrop))
		b.rule(in, iif(exact(n.Device), expr.CmpOpEq), network(destination, gateway), port(b.names, destination), notrack)
		b.rule(out, oif(exact(n.Device), expr.CmpOpEq), network(source, gateway), port(b.names, source), notrack)
	}
	b.rule(in, addressed(expr.CmpOpNeq, unix.RTN_UNICAST), port(b.own, destination), notrack) // local, or to all
	b.rule(out, addressed(expr.CmpOpEq, unix.RTN_LOCAL), port(b.own, destination), notrack)
	b.rule(out, port(b.own, source), notrack)
}

// known lets nobody tell the node of neighbours that are not of his network: the kernel
// keeps those who ask for it, and has room for so many of all links together.
func (b *builder) known(r Ruleset) {
	in := b.chain("input", nftables.ChainTypeFilter, nftables.ChainHookRef(0), nftables.ChainPriorityFilter) // NF_ARP_IN
	for _, n := range r.Networks {
		b.rule(in, iif(exact(n.Device), expr.CmpOpEq), notNetwork(arpSender, n.Prefix), verdict(expr.VerdictDrop))
	}
}

// translate adds the two lookups: for one address, then for all local ones. The node's
// own ports pass before them, and so does all that comes from an internal network: a
// published port would be its way out. A packet of another protocol than tcp and udp finds
// no element: protocol is part of the key. (Its bytes where the port would be are loaded
// and mean nothing.)
func (b *builder) translate(r Ruleset) {
	in := b.chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	out := b.chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	for _, n := range r.Networks {
		if n.Internal {
			b.rule(in, iif(exact(n.Device), expr.CmpOpEq), verdict(expr.VerdictAccept))
		}
	}
	local := addressed(expr.CmpOpEq, unix.RTN_LOCAL)
	dnat := []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0, RegProtoMin: reg1, Specified: true}}
	for _, c := range []*nftables.Chain{in, out} {
		b.rule(c, local, port(b.own, destination), verdict(expr.VerdictAccept))
		b.rule(c, local, []expr.Any{
			&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
			&expr.Payload{DestRegister: reg2, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: b.bound.Name, SetID: b.bound.ID},
		}, dnat)
		b.rule(c, local, []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
			&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: b.any.Name, SetID: b.any.ID},
		}, dnat)
	}
}

// filter says what may; the rest is dropped, or refused where it is the node that is
// called. A container reaches of its node a name server, by its gateway, and an echo; of
// an internal network only the former. Nobody from outside and from another network
// reaches a port of a container that is not published; from an internal network nobody
// gets out, and from none anybody who speaks for the node. Between links of the node
// nothing is routed but between those of r.Routed.
func (b *builder) filter(r Ruleset) {
	answered := ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	input := b.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	b.rule(input, iif(ours, expr.CmpOpNeq), verdict(expr.VerdictAccept))
	b.rule(input, answered, verdict(expr.VerdictAccept))
	for _, n := range r.Networks {
		b.rule(input, iif(exact(n.Device), expr.CmpOpEq), network(destination, netip.PrefixFrom(n.Gateway(), 32)), port(b.names, destination), verdict(expr.VerdictAccept))
		if !n.Internal {
			b.rule(input, iif(exact(n.Device), expr.CmpOpEq), protocol(unix.IPPROTO_ICMP), verdict(expr.VerdictAccept))
		}
	}
	// Whoever calls is told at once: port unreachable.
	b.rule(input, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}})

	forward := b.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	b.rule(forward, fitSegments)
	// What is routed between links is asked packet by packet: it ends when node.yaml says so.
	b.rule(forward, iif(ours, expr.CmpOpEq), answered, verdict(expr.VerdictAccept))
	b.rule(forward, oif(ours, expr.CmpOpEq), answered, verdict(expr.VerdictAccept))
	out := slices.Concat(iif(ours, expr.CmpOpEq), oif(ours, expr.CmpOpNeq))
	b.rule(forward, out, ct(expr.CtKeySTATE, expr.CtStateBitINVALID), verdict(expr.VerdictDrop)) // of no flow that is counted
	b.rule(forward, out, port(b.own, source), verdict(expr.VerdictDrop))
	for _, number := range []uint16{mdnsPort, dhcpServerPort} { // nobody answers or asks in the node's name
		b.rule(forward, out, protocol(unix.IPPROTO_UDP), toPort(number), verdict(expr.VerdictDrop))
	}
	b.rule(forward, oif(ours, expr.CmpOpEq), ct(expr.CtKeySTATUS, statusDNAT), verdict(expr.VerdictAccept))
	for _, n := range r.Networks {
		b.rule(forward, iif(exact(n.Device), expr.CmpOpEq), oif(exact(n.Device), expr.CmpOpEq), verdict(expr.VerdictAccept))
		if !n.Internal {
			b.rule(forward, iif(exact(n.Device), expr.CmpOpEq), oif(ours, expr.CmpOpNeq), verdict(expr.VerdictAccept))
		}
	}
	member := []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: b.routed.Name, SetID: b.routed.ID}}
	b.rule(forward, []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}}, member,
		[]expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}}, member, verdict(expr.VerdictAccept))
	b.rule(forward, verdict(expr.VerdictDrop))
}

// fitSegments has both ends of a TCP connection send what fits through the narrowest link
// that the node knows on the way: a router behind it that drops what is longer need not say
// so. It is nft's "tcp option maxseg size set rt mtu", finds that option in the first packet
// of each side alone, and makes no segment longer.
var fitSegments = slices.Concat(protocol(unix.IPPROTO_TCP), []expr.Any{
	&expr.Rt{Register: 1, Key: expr.RtTCPMSS},
	&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 2, Size: 2},
	&expr.Exthdr{SourceRegister: 1, Op: expr.ExthdrOpTcpopt, Type: maxSegmentOption, Offset: 2, Len: 2},
})

// maxSegmentOption is the option of TCP that says the longest segment (RFC 9293).
const maxSegmentOption = 2

// masquerade makes answers come back: to the node itself for its own loopback, to
// a container that reached another of its network (or itself) by the node's address,
// to whoever reached an internal network, and to containers that talk to the world.
func (b *builder) masquerade(r Ruleset) {
	c := b.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	masq := []expr.Any{&expr.Masq{}}
	b.rule(c, oif(ours, expr.CmpOpEq), ct(expr.CtKeySTATUS, statusDNAT), network(source, netip.MustParsePrefix("127.0.0.0/8")), masq)
	for _, n := range r.Networks {
		from := network(source, n.Prefix)
		if n.Internal { // without a route to anybody else it could not answer
			from = nil
		}
		b.rule(c, oif(exact(n.Device), expr.CmpOpEq), ct(expr.CtKeySTATUS, statusDNAT), from, masq)
		b.rule(c, oif(ours, expr.CmpOpNeq), network(source, n.Prefix), masq)
	}
}

// ours matches every bridge of ours: a name that is compared in part, as nft's "kogge*".
var ours = []byte(Prefix)

// exact is a name that is compared to its end.
func exact(device string) []byte {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, device)
	return name
}

func iif(name []byte, op expr.CmpOp) []expr.Any { return interfaceName(expr.MetaKeyIIFNAME, name, op) }
func oif(name []byte, op expr.CmpOp) []expr.Any { return interfaceName(expr.MetaKeyOIFNAME, name, op) }

func interfaceName(key expr.MetaKey, name []byte, op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: name}}
}

// end is one of the two ends of a packet.
type end struct{ addr, port uint32 } // offsets in the network and the transport header

var source, destination = end{12, 0}, end{16, 2}

// arpSender is who asks or answers in a packet of ARP; it has no port.
var arpSender = end{addr: 14}

// network wants the address of the end to lie in p, notNetwork to lie elsewhere.
func network(e end, p netip.Prefix) []expr.Any    { return inNetwork(e, p, expr.CmpOpEq) }
func notNetwork(e end, p netip.Prefix) []expr.Any { return inNetwork(e, p, expr.CmpOpNeq) }

func inNetwork(e end, p netip.Prefix, op expr.CmpOp) []expr.Any {
	ip := p.Masked().Addr().As4()
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: e.addr, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: ip[:]},
	}
}

// addressed compares what the destination address is to the node (RTN_LOCAL, …).
func addressed(op expr.CmpOp, kind uint32) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: op, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(kind)},
	}
}

// port wants protocol and port of the end to be in a set.
func port(set *nftables.Set, e end) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: e.port, Len: 2},
		&expr.Lookup{SourceRegister: reg0, SetName: set.Name, SetID: set.ID},
	}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}}}
}

// ct matches connections with any of the bits set, noCt those with none.
func ct(key expr.CtKey, bits uint32) []expr.Any   { return ctBits(key, bits, expr.CmpOpNeq) }
func noCt(key expr.CtKey, bits uint32) []expr.Any { return ctBits(key, bits, expr.CmpOpEq) }

func ctBits(key expr.CtKey, bits uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

// toPort compares the destination port of what has one.
func toPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }
