package bridge

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// table is the name of the one nftables table (family ip) that is ours.
const table = "kogge"

// Registers of the nftables machine: the concatenated key of a lookup is built in
// 4-byte pieces from reg0 on (NFT_REG32_00), and its answer replaces it there.
const (
	reg0 = unix.NFT_REG32_00
	reg1 = unix.NFT_REG32_01
	reg2 = unix.NFT_REG32_02
)

// mdnsPort is that of multicast DNS.
const mdnsPort = 5353

// statusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const statusDNAT = 1 << 5

// Apply makes the table exactly r, in one transaction: there is no moment without
// it, nor one with half of it. Connections that exist keep their translation; see
// forgetFlows.
func Apply(r Ruleset) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	// A table cannot be deleted unless it exists, hence the first line.
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: table}
	conn.AddTable(t)
	conn.DelTable(t)
	t = conn.AddTable(t)
	b := builder{conn: conn, table: t}
	if err := b.maps(r); err != nil {
		return err
	}
	b.translate(r, "prerouting", nftables.ChainHookPrerouting)
	b.translate(Ruleset{}, "output", nftables.ChainHookOutput)
	b.filter(r)
	b.masquerade(r)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("replace nftables table %s: %w", table, err)
	}
	return nil
}

type builder struct {
	conn       *nftables.Conn
	table      *nftables.Table
	bound, any *nftables.Set
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
		bound = append(bound, nftables.SetElement{Key: append(ip[:], portKey(p)...), Val: target4(p.To)})
	}
	for _, p := range r.Any {
		anywhere = append(anywhere, nftables.SetElement{Key: portKey(p), Val: target4(p.To)})
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
func portKey(p workload.Publish) []byte {
	proto := byte(unix.IPPROTO_TCP)
	if p.Protocol == workload.UDP {
		proto = unix.IPPROTO_UDP
	}
	key := []byte{proto, 0, 0, 0}
	key = binary.BigEndian.AppendUint16(key, p.HostPort)
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

// translate adds the two lookups: for one address, then for all local ones. What a
// container asks its own gateway for names stays there, whoever publishes that port. A
// packet of another protocol than tcp and udp finds no element: protocol is part
// of the key. (Its bytes where the port would be are loaded and mean nothing.)
func (b *builder) translate(r Ruleset, name string, hook *nftables.ChainHook) {
	c := b.chain(name, nftables.ChainTypeNAT, hook, nftables.ChainPriorityNATDest)
	for _, n := range r.Networks {
		b.rule(c, iif(exact(n.Device), expr.CmpOpEq), network(16, netip.PrefixFrom(n.Gateway(), 32)), toPort(namePort), verdict(expr.VerdictAccept))
	}
	local := []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
	dnat := []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0, RegProtoMin: reg1, Specified: true}}
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

// filter keeps the promises of the networks: a container reaches nothing that listens
// on the node but a name server, neither on its loopback nor elsewhere, nor what only a
// cloud's machine itself may ask (metadata, on link-local addresses); nobody from outside
// and from another network reaches a port of a container that is not published; from an
// internal network nobody gets out, and from none anybody who speaks for the node.
func (b *builder) filter(r Ruleset) {
	guard := b.chain("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	for _, p := range unreachable {
		b.rule(guard, iif(ours, expr.CmpOpEq), network(16, p), verdict(expr.VerdictDrop))
	}
	input := b.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	b.rule(input, iif(ours, expr.CmpOpNeq), verdict(expr.VerdictAccept))
	b.rule(input, ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept))
	b.rule(input, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMP}},
	}, verdict(expr.VerdictAccept))
	b.rule(input, toPort(namePort), verdict(expr.VerdictAccept))
	// Whoever calls is told at once: port unreachable.
	b.rule(input, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}})
	forward := b.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	b.rule(forward, ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept))
	// Nobody from a container answers the node's neighbours in its name (multicast DNS).
	for _, offset := range []uint32{0, 2} { // source, destination
		b.rule(forward, iif(ours, expr.CmpOpEq), oif(ours, expr.CmpOpNeq), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(mdnsPort)},
		}, verdict(expr.VerdictDrop))
	}
	b.rule(forward, oif(ours, expr.CmpOpEq), ct(expr.CtKeySTATUS, statusDNAT), verdict(expr.VerdictAccept))
	for _, n := range r.Networks {
		b.rule(forward, iif(exact(n.Device), expr.CmpOpEq), oif(exact(n.Device), expr.CmpOpEq), verdict(expr.VerdictAccept))
		if n.Internal {
			b.rule(forward, iif(exact(n.Device), expr.CmpOpEq), verdict(expr.VerdictDrop))
		}
	}
	b.rule(forward, oif(ours, expr.CmpOpEq), verdict(expr.VerdictDrop))
}

// masquerade makes answers come back: to the node itself for its own loopback, to
// a container that reached another of its network (or itself) by the node's address,
// to whoever reached an internal network, and to containers that talk to the world.
func (b *builder) masquerade(r Ruleset) {
	c := b.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	masq := []expr.Any{&expr.Masq{}}
	b.rule(c, oif(ours, expr.CmpOpEq), ct(expr.CtKeySTATUS, statusDNAT), network(12, netip.MustParsePrefix("127.0.0.0/8")), masq)
	for _, n := range r.Networks {
		from := network(12, n.Prefix)
		if n.Internal { // without a route to anybody else it could not answer
			from = nil
		}
		b.rule(c, oif(exact(n.Device), expr.CmpOpEq), ct(expr.CtKeySTATUS, statusDNAT), from, masq)
		b.rule(c, oif(ours, expr.CmpOpNeq), network(12, n.Prefix), masq)
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

// network compares the IPv4 address at offset (12 source, 16 destination) of the
// network header.
func network(offset uint32, p netip.Prefix) []expr.Any {
	ip := p.Masked().Addr().As4()
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ip[:]},
	}
}

// ct matches connections with any of the bits set.
func ct(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// namePort is a name server's.
const namePort = 53

// toPort compares the destination port of what has one.
func toPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }
