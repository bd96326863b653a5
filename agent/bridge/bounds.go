package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// boundsTable is the name of the nftables tables (families ip, arp and ip6) that count. They
// are made once and not replaced with the others: what has been counted would be forgotten.
const boundsTable = "kogge-bounds"

// bounds are what the containers of one network can use up of what the kernel has for
// all: each network has its own, so nobody uses up what is the node's or another's.
//
// A flow counts for the network of the container that begins it, or else for that of the
// container that it is led to, until the kernel forgets it; of a closed one of TCP that is
// after closedFor. Each network has two accounts: whoever calls its containers, with
// addresses that are not his if he likes, never takes away what they may begin themselves.
type bounds struct {
	flows uint32 // not closed, at a time, of one account
	pace  uint64 // new ones in a second
	burst uint32 // and so many at once
	// share is what an account takes up of the kernel's table at most, and own what is kept
	// there for the node itself.
	share, own int
	// neighbours is how many addresses the kernel can know of links at a time, of all.
	// Of those that nobody has, a network asks for seek in a second and seekBurst at once,
	// and the kernel forgets them after some seconds.
	neighbours int
	seek       uint64
	seekBurst  uint32
	// newcomers is how many addresses a link of the node's own makes known in a second, and at
	// once. The kernel keeps each for five seconds, and throws none out for another before: with
	// what strangers say in their names, they could fill the table for all links.
	newcomers uint32
}

// closedFor is how long the kernel keeps a flow of TCP that is closed. Its default of two
// minutes would let a network with quick connections fill the table.
const closedFor = 2 * time.Second

// How long the kernel keeps a flow that may lead to nobody. The defaults of TCP, one minute
// and two, would let a stranger who never says more than a word keep others out with some
// tens of packets in a second.
const (
	answeredFor = 5 * time.Second  // of TCP, an answer to nobody: whoever is there tries again
	calledFor   = 10 * time.Second // of TCP, a call to nobody: longer than between two tries
	// askedFor is for UDP to a container from outside, and from one to name servers: a
	// question and an answer. What goes on for longer is kept for spokenFor, the default. What
	// a container begins elsewhere keeps the default of half a minute: a tunnel may be silent
	// for 25 s at a time, and still be spoken to.
	askedFor  = 5 * time.Second
	spokenFor = 2 * time.Minute
)

// optionMemory is what the options of one socket of a container can take, its filter first of
// all, in bytes: most of what the kernel keeps for a filter counts as nobody's. It was the
// kernel's default until 6.8, which has 128 KiB.
const optionMemory = 20 << 10

// dnsPort is that of name servers.
const dnsPort = 53

// boundsFor are those of a node with so much memory, in bytes: a flow takes up about 400
// of them, a neighbour 500. More than 16384 flows of an account are for no amount of memory:
// the kernel looks at all of them whenever it counts one more (nf_conncount).
func boundsFor(memory uint64) bounds {
	share := int(min(max(memory>>17, 2048), 32768))
	return bounds{
		share: share, own: int(min(max(memory>>15, 8192), 262144)),
		// What is open, what has been closed for less than closedFor, and a burst.
		flows: uint32(share / 2), pace: uint64(share / 8), burst: uint32(share / 4),
		neighbours: int(min(max(memory>>15, 8192), 65536)), seek: 32, seekBurst: 128,
		newcomers: uint32(min(max(memory>>15, 8192), 65536) / 32),
	}
}

// table is how many flows the kernel has to be able to track, with so many networks.
func (b bounds) table(networks int) int { return b.own + 2*networks*b.share }

// memory is the node's, in bytes.
func memory() (uint64, error) {
	var i unix.Sysinfo_t
	if err := unix.Sysinfo(&i); err != nil {
		return 0, os.NewSyscallError("sysinfo", err)
	}
	return uint64(i.Totalram) * uint64(i.Unit), nil
}

// bound makes the tables that count, unless they are there, and gives the kernel room for
// what so many networks may use.
func (b bounds) bound(networks int) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, its := range []struct {
		family nftables.TableFamily
		fill   func(*nftables.Conn) error
	}{{nftables.TableFamilyIPv4, b.count}, {nftables.TableFamilyARP, b.greet4}, {nftables.TableFamilyIPv6, b.greet6}} {
		tables, err := conn.ListTablesOfFamily(its.family)
		if err != nil {
			return fmt.Errorf("list nftables tables: %w", err)
		}
		if slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == boundsTable }) {
			continue
		}
		if err := its.fill(conn); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		file  string
		value int
		fits  func(now, value int) bool
	}{
		{"netfilter/nf_conntrack_buckets", b.own, atLeast},
		{"netfilter/nf_conntrack_max", b.table(networks), atLeast},
		{"netfilter/nf_conntrack_tcp_timeout_time_wait", int(closedFor.Seconds()), atMost},
		{"netfilter/nf_conntrack_tcp_timeout_close", int(closedFor.Seconds()), atMost},
		{"netfilter/nf_conntrack_tcp_timeout_syn_recv", int(answeredFor.Seconds()), atMost},
		{"netfilter/nf_conntrack_tcp_timeout_syn_sent", int(calledFor.Seconds()), atMost},
		{"ipv4/neigh/default/gc_thresh3", b.neighbours, atLeast},
		{"ipv4/neigh/default/gc_thresh2", b.neighbours / 2, atLeast},
		{"ipv6/neigh/default/gc_thresh3", b.neighbours, atLeast},
		{"ipv6/neigh/default/gc_thresh2", b.neighbours / 2, atLeast},
	} {
		if err := setting(s.file, s.value, s.fits); err != nil {
			return err
		}
	}
	return nil
}

func atLeast(now, value int) bool { return now >= value }
func atMost(now, value int) bool  { return now <= value }

// setting sets a number below net that does not fit. Those that are one for all network
// namespaces can be set in the first one alone: elsewhere, in tests, they stay.
func setting(file string, value int, fits func(now, value int) bool) error {
	path := "/proc/sys/net/" + file
	text, err := os.ReadFile(path)
	if err == nil {
		if now, bad := strconv.Atoi(strings.TrimSpace(string(text))); bad == nil && fits(now, value) {
			return nil
		}
		err = os.WriteFile(path, []byte(strconv.Itoa(value)), 0o644)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("net setting %s: %w", file, err)
	}
	return nil
}

// account are the counts of all networks for one of two: those who begin, or are called.
type account struct{ flows, pace *nftables.Set }

// count makes the one of IPv4.
func (b bounds) count(conn *nftables.Conn) error {
	t := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: boundsTable})
	c := builder{conn: conn, table: t}
	// Elements are bridges, each with its own count and pace. Of one that is gone, they go.
	begun := account{
		flows: &nftables.Set{Table: t, Name: "flows", KeyType: nftables.TypeIFName, Dynamic: true},
		pace:  &nftables.Set{Table: t, Name: "pace", KeyType: nftables.TypeIFName, Dynamic: true, HasTimeout: true, Timeout: time.Minute},
	}
	called := account{
		flows: &nftables.Set{Table: t, Name: "calledflows", KeyType: nftables.TypeIFName, Dynamic: true},
		pace:  &nftables.Set{Table: t, Name: "calledpace", KeyType: nftables.TypeIFName, Dynamic: true, HasTimeout: true, Timeout: time.Minute},
	}
	seek := &nftables.Set{Table: t, Name: "seek", KeyType: nftables.TypeIFName, Dynamic: true, HasTimeout: true, Timeout: time.Minute}
	// Those that were asked for lately. The first packet after that pays once more.
	hops := &nftables.Set{Table: t, Name: "hops", KeyType: nftables.TypeIPAddr, Dynamic: true, HasTimeout: true, Timeout: 5 * time.Second}
	for _, s := range []*nftables.Set{begun.flows, begun.pace, called.flows, called.pace, seek, hops} {
		if err := conn.AddSet(s, nil); err != nil {
			return fmt.Errorf("nftables set %s: %w", s.Name, err)
		}
	}
	over := func(set *nftables.Set, op uint32, key expr.MetaKey, what expr.Any) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: key, Register: 1},
			&expr.Dynset{SrcRegKey: 1, SetName: set.Name, SetID: set.ID, Operation: op, Exprs: []expr.Any{what}},
		}
	}
	limit := func(rate uint64, burst uint32) expr.Any {
		return &expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Burst: burst, Over: true}
	}
	// The first packet of a flow, once: the kernel knows no flow by then.
	first := slices.Concat(ct(expr.CtKeySTATE, expr.CtStateBitNEW), noCt(expr.CtKeySTATUS, statusConfirmed))
	take := func(chain *nftables.Chain, of []expr.Any, key expr.MetaKey, from account) {
		c.rule(chain, of, first, over(from.pace, unix.NFT_DYNSET_OP_UPDATE, key, limit(b.pace, b.burst)), verdict(expr.VerdictDrop))
		c.rule(chain, of, first, over(from.flows, unix.NFT_DYNSET_OP_ADD, key, &expr.Connlimit{Count: b.flows, Flags: expr.NFT_CONNLIMIT_F_INV}), verdict(expr.VerdictDrop))
	}
	asked := conn.AddObj(&nftables.NamedObj{Table: t, Name: "asked", Type: nftables.ObjTypeCtTimeout, Obj: &expr.CtTimeout{
		L3Proto: unix.NFPROTO_IPV4, L4Proto: unix.IPPROTO_UDP,
		Policy: expr.CtStatePolicyTimeout{expr.CtStateUDPUNREPLIED: uint32(askedFor.Seconds()), expr.CtStateUDPREPLIED: uint32(spokenFor.Seconds())},
	}}).(*nftables.NamedObj)
	soon := slices.Concat(first, protocol(unix.IPPROTO_UDP), []expr.Any{&expr.Objref{Type: int(asked.Type), Name: asked.Name}})
	from := c.chain("from", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	inside := iif(ours, expr.CmpOpEq)
	take(from, inside, expr.MetaKeyIIFNAME, begun)
	c.rule(from, inside, toPort(dnsPort), soon)
	to := c.chain("to", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityMangle)
	// What else comes from outside leads to no container, and leaves no flow.
	calls := slices.Concat(iif(ours, expr.CmpOpNeq), oif(ours, expr.CmpOpEq), ct(expr.CtKeySTATUS, statusDNAT))
	take(to, calls, expr.MetaKeyOIFNAME, called)
	c.rule(to, calls, soon)
	// Whom nobody has answered yet may be nobody: each asks for one more neighbour.
	hop := []expr.Any{&expr.Rt{Register: 1, Key: expr.RtNexthop4}}
	out := slices.Concat(iif(ours, expr.CmpOpEq), oif(ours, expr.CmpOpNeq), asks, ct(expr.CtKeySTATE, expr.CtStateBitNEW))
	c.rule(to, out, hop, []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: hops.Name, SetID: hops.ID}}, verdict(expr.VerdictAccept))
	c.rule(to, out, over(seek, unix.NFT_DYNSET_OP_UPDATE, expr.MetaKeyIIFNAME, limit(b.seek, b.seekBurst)), verdict(expr.VerdictDrop))
	c.rule(to, out, hop, []expr.Any{&expr.Dynset{SrcRegKey: 1, SetName: hops.Name, SetID: hops.ID, Operation: unix.NFT_DYNSET_OP_ADD}})
	// What the node answers may lead to nobody, too.
	own := c.chain("own", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	if err := b.greet(c, own, nftables.TypeIPAddr, expr.MetaKeyOIFNAME, slices.Concat(oif(ours, expr.CmpOpNeq), asks), hop); err != nil {
		return err
	}
	return flush(conn)
}

func flush(conn *nftables.Conn) error {
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("make nftables table %s: %w", boundsTable, err)
	}
	return nil
}

// greet4 bounds who becomes a neighbour by asking for the node with ARP.
func (b bounds) greet4(conn *nftables.Conn) error {
	c := builder{conn: conn, table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyARP, Name: boundsTable})}
	in := c.chain("asked", nftables.ChainTypeFilter, nftables.ChainHookRef(0), nftables.ChainPriorityFilter) // NF_ARP_IN
	request := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 1}},
	}
	sender := []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: arpSender.addr, Len: 4}}
	if err := b.greet(c, in, nftables.TypeIPAddr, expr.MetaKeyIIFNAME, slices.Concat(iif(ours, expr.CmpOpNeq), request), sender); err != nil {
		return err
	}
	return flush(conn)
}

// neighbourSolicitation is the type of a question of IPv6's neighbour discovery (RFC 4861).
const neighbourSolicitation = 135

// greet6 bounds who becomes a neighbour by asking for the node with neighbour discovery, and
// whom it asks for to answer them. Containers have no IPv6.
func (b bounds) greet6(conn *nftables.Conn) error {
	c := builder{conn: conn, table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv6, Name: boundsTable})}
	in := c.chain("asked", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	question := slices.Concat(protocol(unix.IPPROTO_ICMPV6), []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{neighbourSolicitation}},
	})
	sender := []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16}}
	if err := b.greet(c, in, nftables.TypeIP6Addr, expr.MetaKeyIIFNAME, slices.Concat(iif(ours, expr.CmpOpNeq), question), sender); err != nil {
		return err
	}
	own := c.chain("own", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	// Questions for neighbours go to groups, which nobody has to find.
	toOne := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0xff}},
	}
	hop := []expr.Any{&expr.Rt{Register: 1, Key: expr.RtNexthop6}}
	if err := b.greet(c, own, nftables.TypeIP6Addr, expr.MetaKeyOIFNAME, slices.Concat(oif(ours, expr.CmpOpNeq), asks, toOne), hop); err != nil {
		return err
	}
	return flush(conn)
}

// asks matches what goes to a link on which the kernel asks for neighbours: one that leads to
// one other host alone has none.
var asks = []expr.Any{
	&expr.Meta{Key: expr.MetaKeyOIFTYPE, Register: 1},
	&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint16(unix.ARPHRD_ETHER)},
}

// greet drops what packets of make known too many new addresses of one link. Those that were
// heard of within a minute, which address loads, pass: nobody is in their way.
func (b bounds) greet(c builder, chain *nftables.Chain, kind nftables.SetDatatype, link expr.MetaKey, packets, address []expr.Any) error {
	known := &nftables.Set{Table: c.table, Name: chain.Name + "known", KeyType: kind, Dynamic: true, HasTimeout: true, Timeout: time.Minute}
	pace := &nftables.Set{Table: c.table, Name: chain.Name + "pace", KeyType: nftables.TypeIFName, Dynamic: true, HasTimeout: true, Timeout: time.Minute}
	for _, s := range []*nftables.Set{known, pace} {
		if err := c.conn.AddSet(s, nil); err != nil {
			return fmt.Errorf("nftables set %s: %w", s.Name, err)
		}
	}
	keep := []expr.Any{&expr.Dynset{SrcRegKey: 1, SetName: known.Name, SetID: known.ID, Operation: unix.NFT_DYNSET_OP_UPDATE}}
	limit := &expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(b.newcomers), Unit: expr.LimitTimeSecond, Burst: b.newcomers, Over: true}
	c.rule(chain, packets, address, []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: known.Name, SetID: known.ID}}, keep, verdict(expr.VerdictAccept))
	c.rule(chain, packets, []expr.Any{
		&expr.Meta{Key: link, Register: 1},
		&expr.Dynset{SrcRegKey: 1, SetName: pace.Name, SetID: pace.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{limit}},
	}, verdict(expr.VerdictDrop))
	c.rule(chain, packets, address, keep)
	return nil
}
