package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// table is the name of our nftables tables that Apply makes (families ip and arp).
const table = "kogge"

// Registers of the nftables machine: the concatenated key of a lookup is built in
// 4-byte pieces from reg0 on (NFT_REG32_00), and its answer replaces it there. The name of
// a link takes four of them.
const (
	reg0 = unix.NFT_REG32_00
	reg1 = unix.NFT_REG32_01
	reg2 = unix.NFT_REG32_02
	reg4 = unix.NFT_REG32_04
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

// maxBatch is what the kernel takes of us in one transaction, and what it may have to say
// about that, in bytes: some hundred thousand ports. Its default is 208 KiB of each.
const maxBatch = 16 << 20

// Apply makes the tables exactly r, in one transaction: there is no moment without
// them, nor one with half of them. Connections that exist keep their translation; see
// forgetFlows.
//
// There is one rule for all networks, and one for all ports: of those, each is an element of
// what the rule looks up.
func Apply(r Ruleset) error {
	conn, err := nftables.New(nftables.WithSockOptions(
		func(c *netlink.Conn) error { return c.SetReadBuffer(maxBatch) },
		func(c *netlink.Conn) error { return c.SetWriteBuffer(maxBatch) },
	))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	b := newTable(conn, nftables.TableFamilyIPv4)
	if err := errors.Join(b.sets(r), b.networks(r), b.maps(r)); err != nil {
		return err
	}
	b.untracked()
	b.translate()
	b.filter()
	b.masquerade()
	b.uplinks()
	if err := newTable(conn, nftables.TableFamilyARP).known(r); err != nil {
		return err
	}
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

	// Of networks: bridges with their subnets, and with their gateways; subnets; bridges
	// of those that are internal, and of those that are not.
	subnets, gateways, sources, internal, open *nftables.Set
}

// batch is how many elements go into one message: their list is an attribute of netlink,
// whose length has 16 bits. An element takes less than 100 bytes.
const batch = 500

// add adds a set with its elements.
func (b *builder) add(s *nftables.Set, elements []nftables.SetElement) (*nftables.Set, error) {
	s.Table = b.table
	s.KeyByteOrder = binaryutil.NativeEndian // of a name, for nft(8), which shows it
	if err := b.conn.AddSet(s, nil); err != nil {
		return nil, fmt.Errorf("nftables set %s: %w", s.Name, err)
	}
	for some := range slices.Chunk(elements, batch) {
		if err := b.conn.SetAddElements(s, some); err != nil {
			return nil, fmt.Errorf("nftables set %s: %w", s.Name, err)
		}
	}
	return s, nil
}

// sets adds what the rules look up.
func (b *builder) sets(r Ruleset) (err error) {
	port := nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
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
	if b.own, err = b.add(&nftables.Set{Name: "own", Concatenation: true, KeyType: port}, own); err != nil {
		return err
	}
	if b.names, err = b.add(&nftables.Set{Name: "names", Concatenation: true, KeyType: port}, names); err != nil {
		return err
	}
	b.routed, err = b.add(&nftables.Set{Name: "routed", KeyType: nftables.TypeIFName}, routed)
	return err
}

// onBridge is a bridge and an address.
var onBridge = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr)

// subnetsOf adds which addresses are of the network of a bridge.
func (b *builder) subnetsOf(r Ruleset) (err error) {
	var all []nftables.SetElement
	for _, n := range r.Networks {
		first, last := ends(n.Prefix)
		all = append(all, nftables.SetElement{Key: append(exact(n.Device), first[:]...), KeyEnd: append(exact(n.Device), last[:]...)})
	}
	b.subnets, err = b.add(&nftables.Set{Name: "subnets", Concatenation: true, Interval: true, KeyType: onBridge}, all)
	return err
}

// networks adds what there is to know of those.
func (b *builder) networks(r Ruleset) (err error) {
	if err := b.subnetsOf(r); err != nil {
		return err
	}
	var gateways, sources, internal, open []nftables.SetElement
	for _, n := range r.Networks {
		gateway := n.Gateway().As4()
		gateways = append(gateways, nftables.SetElement{Key: append(exact(n.Device), gateway[:]...)})
		first, last := ends(n.Prefix)
		behind := netip.AddrFrom4(last).Next().As4()
		sources = append(sources, nftables.SetElement{Key: first[:]}, nftables.SetElement{Key: behind[:], IntervalEnd: true})
		if n.Internal {
			internal = append(internal, nftables.SetElement{Key: exact(n.Device)})
		} else {
			open = append(open, nftables.SetElement{Key: exact(n.Device)})
		}
	}
	if b.gateways, err = b.add(&nftables.Set{Name: "gateways", Concatenation: true, KeyType: onBridge}, gateways); err != nil {
		return err
	}
	if b.sources, err = b.add(&nftables.Set{Name: "sources", Interval: true, KeyType: nftables.TypeIPAddr}, sources); err != nil {
		return err
	}
	if b.internal, err = b.add(&nftables.Set{Name: "internal", KeyType: nftables.TypeIFName}, internal); err != nil {
		return err
	}
	b.open, err = b.add(&nftables.Set{Name: "open", KeyType: nftables.TypeIFName}, open)
	return err
}

// ends are the first and the last address of p.
func ends(p netip.Prefix) (first, last [4]byte) {
	first = p.Masked().Addr().As4()
	binary.BigEndian.PutUint32(last[:], binary.BigEndian.Uint32(first[:])|^uint32(0)>>p.Bits())
	return first, last
}

// maps adds where ports lead.
func (b *builder) maps(r Ruleset) (err error) {
	var bound, anywhere []nftables.SetElement
	for _, p := range r.Bound {
		ip := p.HostIP.As4()
		bound = append(bound, nftables.SetElement{Key: append(ip[:], portKey(p.Protocol, p.HostPort)...), Val: target4(p.To)})
	}
	for _, p := range r.Any {
		anywhere = append(anywhere, nftables.SetElement{Key: portKey(p.Protocol, p.HostPort), Val: target4(p.To)})
	}
	target := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	if b.bound, err = b.add(&nftables.Set{
		Name: "bound", IsMap: true, Concatenation: true, DataType: target,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
	}, bound); err != nil {
		return err
	}
	b.any, err = b.add(&nftables.Set{
		Name: "any", IsMap: true, Concatenation: true, DataType: target,
		KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
	}, anywhere)
	return err
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
func (b *builder) untracked() {
	notrack := []expr.Any{&expr.Notrack{}}
	in := b.chain("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	out := b.chain("answers", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	for _, p := range unreachable {
		b.rule(in, iif(ours, expr.CmpOpEq), network(destination, p), verdict(expr.VerdictDrop))
	}
	b.rule(in, iif(ours, expr.CmpOpEq), without(expr.MetaKeyIIFNAME, source, b.subnets), verdict(expr.VerdictDrop))
	b.rule(in, with(expr.MetaKeyIIFNAME, destination, b.gateways), port(b.names, destination), notrack)
	b.rule(out, with(expr.MetaKeyOIFNAME, source, b.gateways), port(b.names, source), notrack)
	b.rule(in, addressed(expr.CmpOpNeq, unix.RTN_UNICAST), port(b.own, destination), notrack) // local, or to all
	b.rule(out, addressed(expr.CmpOpEq, unix.RTN_LOCAL), port(b.own, destination), notrack)
	b.rule(out, port(b.own, source), notrack)
}

// known lets nobody tell the node of neighbours that are not of his network: the kernel
// keeps those who ask for it, and has room for so many of all links together.
func (b *builder) known(r Ruleset) error {
	if err := b.subnetsOf(r); err != nil {
		return err
	}
	in := b.chain("input", nftables.ChainTypeFilter, nftables.ChainHookRef(0), nftables.ChainPriorityFilter) // NF_ARP_IN
	b.rule(in, iif(ours, expr.CmpOpEq), without(expr.MetaKeyIIFNAME, arpSender, b.subnets), verdict(expr.VerdictDrop))
	return nil
}

// translate adds the two lookups: for one address, then for all local ones. The node's
// own ports pass before them, and so does all that comes from an internal network: a
// published port would be its way out. A packet of another protocol than tcp and udp finds
// no element: protocol is part of the key. (Its bytes where the port would be are loaded
// and mean nothing.)
func (b *builder) translate() {
	in := b.chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	out := b.chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	b.rule(in, link(expr.MetaKeyIIFNAME, b.internal), verdict(expr.VerdictAccept))
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
func (b *builder) filter() {
	answered := ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	input := b.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	b.rule(input, iif(ours, expr.CmpOpNeq), verdict(expr.VerdictAccept))
	b.rule(input, answered, verdict(expr.VerdictAccept))
	b.rule(input, with(expr.MetaKeyIIFNAME, destination, b.gateways), port(b.names, destination), verdict(expr.VerdictAccept))
	b.rule(input, link(expr.MetaKeyIIFNAME, b.open), protocol(unix.IPPROTO_ICMP), verdict(expr.VerdictAccept))
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
	// On a network: guard has let nobody speak for another one.
	b.rule(forward, iif(ours, expr.CmpOpEq), with(expr.MetaKeyOIFNAME, source, b.subnets), verdict(expr.VerdictAccept))
	b.rule(forward, link(expr.MetaKeyIIFNAME, b.open), oif(ours, expr.CmpOpNeq), verdict(expr.VerdictAccept))
	b.rule(forward, link(expr.MetaKeyIIFNAME, b.routed), link(expr.MetaKeyOIFNAME, b.routed), verdict(expr.VerdictAccept))
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
func (b *builder) masquerade() {
	c := b.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	masq := []expr.Any{&expr.Masq{}}
	b.rule(c, oif(ours, expr.CmpOpEq), ct(expr.CtKeySTATUS, statusDNAT), network(source, netip.MustParsePrefix("127.0.0.0/8")), masq)
	b.rule(c, with(expr.MetaKeyOIFNAME, source, b.subnets), ct(expr.CtKeySTATUS, statusDNAT), masq)
	// Without a route to anybody else it could not answer.
	b.rule(c, link(expr.MetaKeyOIFNAME, b.internal), ct(expr.CtKeySTATUS, statusDNAT), masq)
	b.rule(c, oif(ours, expr.CmpOpNeq), []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: source.addr, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: b.sources.Name, SetID: b.sources.ID},
	}, masq)
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

// network wants the address of the end to lie in p.
func network(e end, p netip.Prefix) []expr.Any {
	ip := p.Masked().Addr().As4()
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: e.addr, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ip[:]},
	}
}

// link wants a link to be in a set.
func link(key expr.MetaKey, set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}}
}

// with wants a link and the address of the end to be in a set together, without not to be.
func with(key expr.MetaKey, e end, set *nftables.Set) []expr.Any    { return pair(key, e, set, false) }
func without(key expr.MetaKey, e end, set *nftables.Set) []expr.Any { return pair(key, e, set, true) }

func pair(key expr.MetaKey, e end, set *nftables.Set, not bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg0},
		&expr.Payload{DestRegister: reg4, Base: expr.PayloadBaseNetworkHeader, Offset: e.addr, Len: 4},
		&expr.Lookup{SourceRegister: reg0, SetName: set.Name, SetID: set.ID, Invert: not},
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
