// Package dhcp asks DHCP servers for addresses, of IPv4 and of IPv6.
//
// In come a link's name and MAC address, whether it has a carrier, an earlier lease if there
// is one, and servers' messages; out come questions on that link and, at each change, a
// checked [control.Lease]. Whether a link is asked for at all, and what becomes of a lease in
// the kernel and in resolv.conf, is init/network's to know: this package sets no address.
//
// [Client.Step] decides, a [Conversation] runs it on a link, an [Exchange] sends and receives.
package dhcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"golang.org/x/sys/unix"

	"kogge.example/init/control"
)

// Exchange is one question to DHCP servers on a link and its answer, see [NewV4] and [NewV6].
type Exchange interface {
	// Ask does Discover, Confirm, Renew or Rebind. It returns ErrNak if a server
	// refuses the lease.
	Ask(ctx context.Context, a Action, lease *control.Lease) (*control.Lease, error)
	// Decline tells the lease's server that somebody else has the address.
	Decline(ctx context.Context, lease *control.Lease) error
}

// ErrNak means that the server took the lease back.
var ErrNak = errors.New("the server refuses the lease")

// Conversation is a client that runs on one link, and what it hears from there. One goroutine
// owns it.
type Conversation struct {
	name    string // dhcp or dhcpv6, for the log
	carrier chan Carrier
	taken   chan netip.Addr // leased addresses that somebody else has
	cancel  context.CancelFunc
	done    chan struct{}
}

// Converse starts the client c, which asks by x; name is dhcp or dhcpv6, for the log. It tells
// every change of the lease, nil for none, as long as the context that comes with it lasts.
// Nothing is sent before TellCarrier has said that there is a carrier. The client ends with ctx
// or by Stop.
func Converse(ctx context.Context, name string, x Exchange, c Client, tell func(context.Context, *control.Lease)) *Conversation {
	v := &Conversation{name: name, carrier: make(chan Carrier, 1), taken: make(chan netip.Addr, 1), done: make(chan struct{})}
	ctx, v.cancel = context.WithCancel(ctx)
	go func() {
		defer close(v.done)
		v.run(ctx, x, c, tell)
	}()
	return v
}

// Stop ends the client and waits for it; nil has none.
func (v *Conversation) Stop() {
	if v != nil {
		v.cancel()
		<-v.done
	}
}

// Carrier is whether a link has one, and how often it has come.
type Carrier struct {
	Up    bool
	Plugs int
}

// TellCarrier has the newest fact count.
func (v *Conversation) TellCarrier(now Carrier) {
	select {
	case <-v.carrier:
	default:
	}
	v.carrier <- now
}

// TellTaken says that somebody else has the address; nil has no use for it. Only the newest one
// counts: the client may have been busy since an earlier one, and have another lease.
func (v *Conversation) TellTaken(a netip.Addr) {
	if v == nil {
		return
	}
	select {
	case <-v.taken:
	default:
	}
	v.taken <- a
}

// run runs the client until ctx ends. An address that taken brings is given back, if it is
// the lease's.
func (v *Conversation) run(ctx context.Context, x Exchange, c Client, tell func(context.Context, *control.Lease)) {
	// Nothing is sent before the link is known to have a carrier.
	c.Down = true
	c.Next = time.Now()
	if c.Lease != nil {
		c.Next = c.Lease.Expires()
	}
	var said complaints
	plugs := 0
	for {
		action := Wait
		// Up to a tenth more, or a street of nodes asks at once after a power cut.
		delay := max(time.Until(c.Next), 0)
		delay += time.Duration(rand.Int64N(int64(min(delay, 10*time.Minute)/10) + 1))
		var timer <-chan time.Time
		if !c.Down || c.Lease != nil {
			timer = time.After(delay)
		}
		select {
		case <-ctx.Done():
			return
		case now := <-v.carrier:
			if now.Up == !c.Down && now.Plugs == plugs {
				continue
			}
			// It may have been away while we waited for an answer.
			if c, action = c.Step(CarrierDown, nil, time.Now()); now.Up {
				c, action = c.Step(CarrierUp, nil, time.Now())
			}
			plugs = now.Plugs
		case a := <-v.taken:
			if c.Lease == nil || c.Lease.Address.Addr() != a {
				continue
			}
			if err := x.Decline(ctx, c.Lease); err != nil {
				log.Printf("network: %s: decline %s: %v", v.name, a, err)
			}
			c, action = c.Step(Declined, nil, time.Now())
		case <-timer:
			c, action = c.Step(Timer, nil, time.Now())
		}
		switch action {
		case Wait:
			continue
		case Drop:
			tell(ctx, nil)
			continue
		}
		// An address is not used past its end because nobody answers.
		within, done := ctx, context.CancelFunc(func() {})
		if c.Lease != nil {
			within, done = context.WithDeadline(ctx, c.Lease.Expires())
		}
		lease, err := x.Ask(within, action, c.Lease)
		done()
		if ctx.Err() != nil {
			return
		}
		event := Got
		switch {
		case errors.Is(err, ErrNak):
			event = Nak
		case err != nil:
			event = Failed
		}
		var news bool
		if said, news = said.after(err); news {
			log.Printf("network: %s: %s: %v", v.name, action, err)
		}
		c, action = c.Step(event, lease, time.Now())
		switch {
		case event == Got:
			if lease.Address.IsValid() {
				log.Printf("network: %s: %s from %s for %s", v.name, lease.Address, cmp.Or(lease.ServerID, lease.Server.String()), lease.Valid)
			}
			tell(ctx, lease)
		case action == Drop:
			tell(ctx, nil)
		}
	}
}

// v4 is DHCP for IPv4 on a link. It opens its sockets anew for each question: between
// them, hours may pass in which a socket would only collect other clients' noise.
type v4 struct {
	name     string
	mac      net.HardwareAddr
	hostname string
	err      error
	broken   broken
}

// NewV4 asks for IPv4 addresses on the link of that name and MAC address (52:54:00:12:34:56),
// and tells servers the hostname unless it is "". What is wrong with the MAC address is each
// question's error.
func NewV4(name, mac, hostname string) Exchange {
	parsed, err := net.ParseMAC(mac)
	return &v4{name: name, mac: parsed, hostname: hostname, err: err}
}

func (x *v4) Ask(ctx context.Context, a Action, lease *control.Lease) (*control.Lease, error) {
	if x.err != nil {
		return nil, x.err
	}
	to := nclient4.DefaultServers
	conn, err := net.PacketConn(nil), error(nil)
	if a == Renew {
		// The reply comes to our address; a packet socket would need the router's MAC.
		to = &net.UDPAddr{IP: lease.Server.AsSlice(), Port: nclient4.ServerPort}
		conn, err = x.unicast(ctx, lease.Address.Addr())
	} else {
		conn, err = nclient4.NewRawUDPConn(x.name, nclient4.ClientPort)
	}
	if err != nil {
		return nil, err
	}
	c, err := nclient4.NewWithConn(conn, x.mac, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	defer c.Close()
	want := []dhcpv4.Modifier{dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName,
		dhcpv4.OptionInterfaceMTU, dhcpv4.OptionNTPServers, dhcpv4.OptionDNSDomainSearchList,
		dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionStaticRoutingTable, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue)}
	if x.hostname != "" {
		want = append(want, dhcpv4.WithOption(dhcpv4.OptHostName(x.hostname)))
	}
	if a == Discover {
		return x.discover(ctx, c, want)
	}
	return x.again(ctx, c, a, to, lease, want)
}

// unicast is a socket at our own address, on this link alone: another link's router may have
// the server's address, too.
func (x *v4) unicast(ctx context.Context, from netip.Addr) (net.PacketConn, error) {
	bound := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), x.name) })
		return errors.Join(e, err)
	}}
	return bound.ListenPacket(ctx, "udp4", netip.AddrPortFrom(from, nclient4.ClientPort).String())
}

// discover asks all servers for an offer, and the one whose offer is chosen for the lease. That
// it then refuses it says nothing of a lease that we may have.
func (x *v4) discover(ctx context.Context, c *nclient4.Client, want []dhcpv4.Modifier) (*control.Lease, error) {
	want = append(want, dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)))
	question, err := dhcpv4.NewDiscovery(x.mac, want...)
	if err != nil {
		return nil, err
	}
	offers := choice[*dhcpv4.DHCPv4]{broken: x.broken.now(time.Now())}
	refused := errSilent
	err = listen(ctx, patience, x.asking(c, nclient4.DefaultServers, question), func(m *dhcpv4.DHCPv4, soon func(time.Duration)) bool {
		if m.MessageType() != dhcpv4.MessageTypeOffer {
			return false
		}
		server := addrOf(m.ServerIdentifier())
		if _, err := leaseFrom(m, time.Time{}); err != nil || !Usable(server) {
			refused = cmp.Or(err, fmt.Errorf("%v offers a lease, which is no server's address", m.ServerIdentifier()))
			return false
		}
		soon(otherPatience)
		return offers.offer(server.String(), m)
	})
	switch {
	case err != nil:
		return nil, err
	case !offers.have:
		return nil, refused
	}
	lease, err := x.request(ctx, c, offers.spare, want)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	server := addrOf(offers.spare.ServerIdentifier())
	if err != nil {
		x.broken = x.broken.with(server.String(), time.Now())
		return nil, fmt.Errorf("%s does not keep its offer of %v: %w", server, offers.spare.YourIPAddr, err)
	}
	return lease, nil
}

// request asks for the lease that a server has offered.
func (x *v4) request(ctx context.Context, c *nclient4.Client, offer *dhcpv4.DHCPv4, want []dhcpv4.Modifier) (*control.Lease, error) {
	question, err := dhcpv4.NewRequestFromOffer(offer, want...)
	if err != nil {
		return nil, err
	}
	var lease *control.Lease
	said := errSilent
	err = listen(ctx, requestPatience, x.asking(c, nclient4.DefaultServers, question), func(m *dhcpv4.DHCPv4, _ func(time.Duration)) bool {
		switch kind := m.MessageType(); {
		case !m.ServerIdentifier().Equal(offer.ServerIdentifier()):
			return false
		case kind == dhcpv4.MessageTypeAck:
			lease, said = leaseFrom(m, time.Now())
		case kind == dhcpv4.MessageTypeNak:
			said = errors.New("it refuses the lease")
		default:
			return false
		}
		return true
	})
	return lease, cmp.Or(err, said)
}

// asking sends a question to a server, or to all.
func (x *v4) asking(c *nclient4.Client, to *net.UDPAddr, question *dhcpv4.DHCPv4) func(context.Context, func(*dhcpv4.DHCPv4) bool) (*dhcpv4.DHCPv4, error) {
	return func(ctx context.Context, match func(*dhcpv4.DHCPv4) bool) (*dhcpv4.DHCPv4, error) {
		return c.SendAndRead(ctx, to, question, match)
	}
}

// Decline needs no answer, and there is none.
//
// Source: RFC 2131, section 4.4.4 and table 5.
func (x *v4) Decline(_ context.Context, lease *control.Lease) error {
	if x.err != nil {
		return x.err
	}
	x.broken = x.broken.with(lease.Server.String(), time.Now())
	c, err := nclient4.NewRawUDPConn(x.name, nclient4.ClientPort)
	if err != nil {
		return err
	}
	defer c.Close()
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(x.mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(lease.Address.Addr().AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(lease.Server.AsSlice())))
	if err != nil {
		return err
	}
	_, err = c.WriteTo(m.ToBytes(), nclient4.DefaultServers)
	return err
}

// again asks for an address that we have, or had.
func (x *v4) again(ctx context.Context, c *nclient4.Client, a Action, to *net.UDPAddr, lease *control.Lease, want []dhcpv4.Modifier) (*control.Lease, error) {
	address := net.IP(lease.Address.Addr().AsSlice())
	want = append(want, dhcpv4.WithHwAddr(x.mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest))
	if a == Confirm {
		want = append(want, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(address)))
	} else {
		want = append(want, dhcpv4.WithClientIP(address))
	}
	request, err := dhcpv4.New(want...)
	if err != nil {
		return nil, err
	}
	said := verdict{err: errSilent}
	err = listen(ctx, patience, x.asking(c, to, request), func(m *dhcpv4.DHCPv4, soon func(time.Duration)) bool {
		var got *control.Lease
		var err error
		switch m.MessageType() {
		case dhcpv4.MessageTypeAck:
			got, err = extended(m, lease, time.Now())
		case dhcpv4.MessageTypeNak:
			if err = ErrNak; a == Confirm {
				soon(nakPatience)
			}
		default:
			return false
		}
		server := addrOf(m.ServerIdentifier())
		return said.hear(server.IsValid() && server == lease.Server, got, err)
	})
	return said.lease, cmp.Or(err, said.err)
}

// extended checks an acknowledgement of a lease that we have, or had.
func extended(ack *dhcpv4.DHCPv4, lease *control.Lease, now time.Time) (*control.Lease, error) {
	got, err := leaseFrom(ack, now)
	if err != nil {
		return nil, err
	}
	if !got.Server.IsValid() {
		got.Server = lease.Server
	}
	if got.Address.Addr() != lease.Address.Addr() {
		return nil, fmt.Errorf("asked for %s, got %s", lease.Address.Addr(), got.Address.Addr())
	}
	return got, nil
}
