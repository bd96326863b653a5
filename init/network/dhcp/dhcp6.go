package dhcp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"github.com/insomniacslk/dhcp/iana"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// Mode is what a link asks of DHCPv6 servers.
type Mode int

const (
	NoDHCPv6  Mode = iota
	Stateless      // resolvers, search domains and time servers (O flag)
	Stateful       // those and an address (M flag)
)

// Flags are what the last router advertisement on a link asks for.
type Flags struct{ Managed, Other bool }

// ModeOf says what to ask for on a link. A flag that a router takes back changes nothing,
// as another router may have set it, unless the cable was plugged in a moment ago: then
// before is of the network where it was.
//
// Sources: RFC 4861, 4.2; RFC 2462, 5.5.3 for flags that are taken back.
func ModeOf(ipv6 nodeconfig.IPv6, f Flags, before Mode, settled bool) Mode {
	now := NoDHCPv6
	switch {
	case ipv6 != nodeconfig.IPv6Auto:
		return NoDHCPv6
	case f.Managed:
		now = Stateful
	case f.Other:
		now = Stateless
	}
	if settled {
		return max(now, before)
	}
	return now
}

// v6 is DHCPv6 on a link.
type v6 struct {
	name string
	mac  net.HardwareAddr
	mode Mode
	err  error

	broken broken
}

// NewV6 asks DHCPv6 servers for what mode says, Stateless or Stateful, on the link of that
// name and MAC address (52:54:00:12:34:56). What is wrong with the MAC address is each
// question's error.
func NewV6(name, mac string, mode Mode) Exchange { return newV6(name, mac, mode) }

func newV6(name, mac string, mode Mode) *v6 {
	parsed, err := net.ParseMAC(mac)
	if err == nil && len(parsed) != 6 {
		err = fmt.Errorf("%s is no Ethernet address", mac)
	}
	return &v6{name: name, mac: parsed, mode: mode, err: err}
}

// duid names this link to servers, the same at each boot.
//
// Source: RFC 8415, 11.4.
func (x *v6) duid() *dhcpv6.DUIDLL {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: x.mac}
}

// iaid names the one address that is asked for.
func (x *v6) iaid() (id [4]byte) {
	copy(id[:], x.mac[2:])
	return id
}

// message is one of type t, with what is known of the lease, or nil.
func (x *v6) message(t dhcpv6.MessageType, lease *control.Lease) (*dhcpv6.Message, error) {
	m, err := dhcpv6.NewMessage()
	if err != nil {
		return nil, err
	}
	m.MessageType = t
	m.AddOption(dhcpv6.OptClientID(x.duid()))
	m.AddOption(dhcpv6.OptElapsedTime(0))
	m.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList,
		dhcpv6.OptionNTPServer, dhcpv6.OptionSNTPServerList, dhcpv6.OptionInformationRefreshTime))
	if t == dhcpv6.MessageTypeInformationRequest {
		return m, nil
	}
	ia := &dhcpv6.OptIANA{IaId: x.iaid()}
	if lease != nil {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: lease.Address.Addr().AsSlice()})
	}
	m.AddOption(ia)
	if lease != nil && (t == dhcpv6.MessageTypeRenew || t == dhcpv6.MessageTypeDecline) {
		raw, err := hex.DecodeString(lease.ServerID)
		if err != nil {
			return nil, err
		}
		id, err := dhcpv6.DUIDFromBytes(raw)
		if err != nil {
			return nil, err
		}
		m.AddOption(dhcpv6.OptServerID(id))
	}
	return m, nil
}

// for us: an answer of that type, to this client, of a server that says which it is.
func (x *v6) answers(types ...dhcpv6.MessageType) nclient6.Matcher {
	right := nclient6.IsMessageType(types[0], types[1:]...)
	return func(m *dhcpv6.Message) bool {
		id := m.Options.ClientID()
		return right(m) && id != nil && bytes.Equal(id.ToBytes(), x.duid().ToBytes()) && m.Options.ServerID() != nil
	}
}

func (x *v6) Ask(ctx context.Context, a Action, lease *control.Lease) (*control.Lease, error) {
	if x.err != nil {
		return nil, x.err
	}
	if a == Discover {
		// An advertisement reaches all nodes at once (RFC 8415, 18.2.1).
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(rand.N(time.Second)):
		}
	}
	c, err := nclient6.New(x.name, nclient6.WithTimeout(2*time.Second), nclient6.WithRetry(3))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	switch {
	case x.mode == Stateless:
		return x.inform(ctx, c)
	case a == Discover:
		return x.discover(ctx, c)
	}
	return x.again(ctx, c, a, lease)
}

// inform asks for what servers say beside an address.
func (x *v6) inform(ctx context.Context, c *nclient6.Client) (*control.Lease, error) {
	question, err := x.message(dhcpv6.MessageTypeInformationRequest, nil)
	if err != nil {
		return nil, err
	}
	var got *control.Lease
	said := errSilent
	err = listen(ctx, patience, asking6(c, question), x.hearing(dhcpv6.MessageTypeReply, func(m *dhcpv6.Message, _ func(time.Duration)) bool {
		got, said = informed(m, time.Now()), nil
		return true
	}))
	return got, cmp.Or(err, said)
}

// discover asks all servers for an offer, and the one whose offer is chosen for the lease. That
// it then refuses it says nothing of a lease that we may have.
func (x *v6) discover(ctx context.Context, c *nclient6.Client) (*control.Lease, error) {
	question, err := x.message(dhcpv6.MessageTypeSolicit, nil)
	if err != nil {
		return nil, err
	}
	offers := choice[*dhcpv6.Message]{broken: x.broken.now(time.Now())}
	refused := errSilent
	err = listen(ctx, patience, asking6(c, question), x.hearing(dhcpv6.MessageTypeAdvertise, func(m *dhcpv6.Message, soon func(time.Duration)) bool {
		if _, err := lease6From(m, x.iaid(), time.Time{}); err != nil {
			refused = err
			return false
		}
		soon(otherPatience)
		return offers.offer(serverOf(m), m)
	}))
	switch {
	case err != nil:
		return nil, err
	case !offers.have:
		return nil, fmt.Errorf("no offer: %v", refused) // it is no ErrNak
	}
	lease, err := x.request(ctx, c, offers.spare)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	server := serverOf(offers.spare)
	if err != nil {
		x.broken = x.broken.with(server, time.Now())
		return nil, fmt.Errorf("%s does not keep its offer: %v", server, err)
	}
	return lease, nil
}

// request asks for the lease that a server has offered.
func (x *v6) request(ctx context.Context, c *nclient6.Client, offer *dhcpv6.Message) (*control.Lease, error) {
	offered, err := lease6From(offer, x.iaid(), time.Time{})
	if err != nil {
		return nil, err
	}
	question, err := x.message(dhcpv6.MessageTypeRequest, offered)
	if err != nil {
		return nil, err
	}
	question.AddOption(dhcpv6.OptServerID(offer.Options.ServerID()))
	var lease *control.Lease
	said := errSilent
	err = listen(ctx, requestPatience, asking6(c, question), x.hearing(dhcpv6.MessageTypeReply, func(m *dhcpv6.Message, _ func(time.Duration)) bool {
		if serverOf(m) != serverOf(offer) {
			return false
		}
		lease, said = lease6From(m, x.iaid(), time.Now())
		return true
	}))
	return lease, cmp.Or(err, said)
}

// again asks for an address that we have, or had.
func (x *v6) again(ctx context.Context, c *nclient6.Client, a Action, lease *control.Lease) (*control.Lease, error) {
	kind := map[Action]dhcpv6.MessageType{Confirm: dhcpv6.MessageTypeConfirm, Renew: dhcpv6.MessageTypeRenew, Rebind: dhcpv6.MessageTypeRebind}[a]
	question, err := x.message(kind, lease)
	if err != nil {
		return nil, err
	}
	said := verdict{err: errSilent}
	err = listen(ctx, patience, asking6(c, question), x.hearing(dhcpv6.MessageTypeReply, func(m *dhcpv6.Message, soon func(time.Duration)) bool {
		var got *control.Lease
		var err error
		if a == Confirm {
			// It says whether the address fits the link, and no more.
			if got, err = lease, refusal(m.Options.Status()); errors.Is(err, ErrNak) {
				soon(nakPatience)
			}
		} else {
			got, err = lease6From(m, x.iaid(), time.Now())
		}
		return said.hear(serverOf(m) == lease.ServerID, got, err)
	}))
	if err = cmp.Or(err, said.err); err != nil {
		return nil, err
	}
	return said.lease, nil
}

// asking6 sends a question to all servers.
func asking6(c *nclient6.Client, question *dhcpv6.Message) func(context.Context, func(*dhcpv6.Message) bool) (*dhcpv6.Message, error) {
	return func(ctx context.Context, match func(*dhcpv6.Message) bool) (*dhcpv6.Message, error) {
		return c.SendAndRead(ctx, nclient6.AllDHCPRelayAgentsAndServers, question, match)
	}
}

// hearing passes on what are answers of a type to this client, of a server that says which it is.
func (x *v6) hearing(t dhcpv6.MessageType, hear func(*dhcpv6.Message, func(time.Duration)) bool) func(*dhcpv6.Message, func(time.Duration)) bool {
	right := x.answers(t)
	return func(m *dhcpv6.Message, soon func(time.Duration)) bool { return right(m) && hear(m, soon) }
}

// serverOf is the identifier of an answer's server, as a lease has it.
func serverOf(m *dhcpv6.Message) string { return hex.EncodeToString(m.Options.ServerID().ToBytes()) }

func (x *v6) Decline(ctx context.Context, lease *control.Lease) error {
	if x.err != nil || x.mode != Stateful {
		return x.err
	}
	x.broken = x.broken.with(lease.ServerID, time.Now())
	c, err := nclient6.New(x.name, nclient6.WithTimeout(time.Second), nclient6.WithRetry(2))
	if err != nil {
		return err
	}
	defer c.Close()
	m, err := x.message(dhcpv6.MessageTypeDecline, lease)
	if err != nil {
		return err
	}
	_, err = c.SendAndRead(ctx, nclient6.AllDHCPRelayAgentsAndServers, m, x.answers(dhcpv6.MessageTypeReply))
	return err
}

// informed is what a server says beside an address. It is good until the next answer.
//
// Source: RFC 8415, 21.23 (refresh time).
func informed(m *dhcpv6.Message, now time.Time) *control.Lease {
	l := &control.Lease{Since: now, Valid: longest, Rebind: longest - 1}
	l.Renew = min(max(m.Options.InformationRefreshTime(24*time.Hour), 10*time.Minute), 7*24*time.Hour)
	others(l, m)
	return l
}

// others reads resolvers, domains and time servers; what makes no sense is left out.
func others(l *control.Lease, m *dhcpv6.Message) {
	l.DNS = addresses(m.Options.DNS(), 3)
	l.NTP = addresses(append(m.Options.NTPServers(), m.Options.SNTP()...), 4)
	if labels := m.Options.DomainSearchList(); labels != nil {
		l.Search = searchDomains(labels.Labels)
	}
	if id := m.Options.ServerID(); id != nil {
		l.ServerID = hex.EncodeToString(id.ToBytes())
	}
}

// refusal is the error of a status that is no success. Some take the lease back; with
// others it lasts as long as it was given for.
func refusal(s *dhcpv6.OptStatusCode) error {
	switch {
	case s == nil || s.StatusCode == iana.StatusSuccess:
		return nil
	case s.StatusCode == iana.StatusNoBinding || s.StatusCode == iana.StatusNotOnLink:
		return fmt.Errorf("%w: %s", ErrNak, s.StatusCode)
	}
	return fmt.Errorf("server says %s", s.StatusCode)
}

// lease6From checks a server's offer or reply. ErrNak says that the server takes back what
// we had.
//
// Source: RFC 8415, sections 18.2.10 and 21.4 to 21.6.
func lease6From(m *dhcpv6.Message, iaid [4]byte, now time.Time) (*control.Lease, error) {
	if err := refusal(m.Options.Status()); err != nil {
		return nil, err
	}
	l := &control.Lease{Since: now}
	var t1, t2 time.Duration
	over := false
	for _, ia := range m.Options.IANA() {
		if ia.IaId != iaid {
			continue
		}
		if err := refusal(ia.Options.Status()); err != nil {
			return nil, err
		}
		for _, a := range ia.Options.Addresses() {
			addr := addrOf(a.IPv6Addr)
			if !addr.Is6() || !Usable(addr) || addr.IsLinkLocalUnicast() || a.PreferredLifetime > a.ValidLifetime || refusal(a.Options.Status()) != nil {
				continue
			}
			if a.ValidLifetime <= 0 {
				over = true
				continue
			}
			// Of several, the one that is good for longest: others are being phased out.
			if l.Address.IsValid() && a.PreferredLifetime <= l.Preferred {
				continue
			}
			l.Address, l.Preferred, l.Valid, t1, t2 = netip.PrefixFrom(addr, 128), a.PreferredLifetime, a.ValidLifetime, ia.T1, ia.T2
		}
	}
	switch {
	case l.Address.IsValid():
	case over:
		return nil, ErrNak
	default:
		return nil, errors.New("server's answer has no address")
	}
	l.Valid = min(max(l.Valid, shortest), longest)
	l.Preferred = min(max(l.Preferred, 0), l.Valid)
	// Without times of the server's, a part of the preferred lifetime (RFC 8415, 21.4).
	base := l.Preferred
	if base < shortest {
		base = l.Valid
	}
	l.Renew, l.Rebind = t1, t2
	if l.Renew < shortest/2 || l.Renew >= l.Rebind || l.Rebind >= l.Valid {
		l.Renew, l.Rebind = base/2, base*4/5
	}
	others(l, m)
	return l, nil
}
