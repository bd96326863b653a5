// Package nameserver is the name server that the containers of this node ask.
//
// In comes a [Table] of networks and of the names on them; out come answers to the
// containers, each about the networks that it is on: A and PTR. What no container is
// called goes to the servers that the container names, or to the node's, and their
// answer back as it is; nothing is kept. It listens on each network's gateway and hears
// its bridge alone, so nobody outside can use it. Whatever can be asked at a time is
// bounded.
//
// Containers have the same names in their /etc/hosts: the package is for programs that
// ask a server themselves, and may be away.
package nameserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// Limits. What is beyond them is answered with SERVFAIL, and asked again.
const (
	maxForwards  = 128 // at a time, of all containers: see turns
	maxOfOne     = 32  // of one of them
	maxConns     = 64  // TCP connections on one network
	forwardLimit = 5 * time.Second
	serverLimit  = 2 * time.Second // before another server is asked as well
	idleLimit    = 5 * time.Second // of a TCP connection
)

// retryPause is how often it tries again to listen where it could not.
const retryPause = 5 * time.Second

// ttl is how long an answer about containers may be kept, in seconds: for less than one
// that is replaced goes on.
const ttl = 1

// port of a name server.
const port = 53

// Server answers containers. Its methods may be called from any goroutine.
type Server struct {
	// upstream returns the node's own name servers.
	upstream func() []netip.Addr
	table    atomic.Pointer[Table]
	turns    turns

	limit    time.Duration // of a forward; forwardLimit
	patience time.Duration // with one of its servers; serverLimit
	again    time.Duration // until it is tried again to listen; retryPause

	mu        sync.Mutex // guards what follows
	listening map[string]*listener
	words     map[way]word // of the last minute or so
	retry     *time.Timer  // nil: nothing failed yet
	closed    bool
	ending    sync.WaitGroup
}

// listener is what answers on one network. Without servers it does not, because of err.
type listener struct {
	Network
	servers []*dns.Server
	err     error
	done    sync.WaitGroup
}

// New returns a server that listens nowhere yet. upstream is asked at each question
// for the servers of the node.
func New(upstream func() []netip.Addr) *Server {
	s := &Server{
		upstream: upstream, listening: make(map[string]*listener),
		limit: forwardLimit, patience: serverLimit, again: retryPause, words: make(map[way]word),
	}
	s.table.Store(&Table{})
	return s
}

// Set makes t what the server knows, and listens on its networks and no others. Where
// it cannot listen is a line in the log, once, and tried again, see [Server.Problem].
func (s *Server) Set(t Table) {
	s.table.Store(&t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.forget(time.Now())
	for name, l := range s.listening {
		now, ok := t.network(name)
		if !ok || now.Device != l.Device || now.Gateway != l.Gateway {
			s.end(l)
			delete(s.listening, name)
		}
	}
	s.tend()
}

// tend listens on the networks where nobody does, and has itself called again if there are
// such that it cannot. Whoever calls it has the lock.
func (s *Server) tend() {
	failed := false
	for _, n := range s.table.Load().Networks {
		l := s.listening[n.Name]
		if l != nil && len(l.servers) > 0 {
			continue
		}
		next := s.listen(n)
		switch {
		case next.err == nil && l != nil:
			log.Printf("names of network %s: answered again", n.Name)
		case next.err != nil && (l == nil || l.err.Error() != next.err.Error()):
			log.Printf("names of network %s: %v", n.Name, next.err)
		}
		s.listening[n.Name] = next
		failed = failed || next.err != nil
	}
	if failed {
		s.later()
	}
}

// later calls tend after a while. Whoever calls it has the lock.
func (s *Server) later() {
	if s.retry != nil {
		s.retry.Reset(s.again)
		return
	}
	s.retry = time.AfterFunc(s.again, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed {
			s.tend()
		}
	})
}

// lost is what one of l's servers calls that has ended by itself.
func (s *Server) lost(l *listener, err error) {
	log.Printf("names of network %s: %v", l.Name, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.listening[l.Name] != l {
		return
	}
	s.end(l)
	s.listening[l.Name] = &listener{Network: l.Network, err: err}
	s.later()
}

// Problem says on which networks containers cannot ask for names, and why; nil: they can.
func (s *Server) Problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	var why error
	for _, name := range slices.Sorted(maps.Keys(s.listening)) {
		if l := s.listening[name]; l.err != nil {
			names, why = append(names, name), l.err
		}
	}
	if len(names) == 0 {
		return nil
	}
	text := "containers cannot ask for names on network"
	if len(names) > 1 {
		text += "s"
	}
	if errors.Is(why, unix.EADDRINUSE) {
		text = "another program of the node has port 53, as a container with network_mode: host may: " + text
	}
	return fmt.Errorf("%s %s: %w", text, strings.Join(names, ", "), why)
}

// Close ends all listening.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	if s.retry != nil {
		s.retry.Stop()
	}
	for _, l := range s.listening {
		s.end(l)
	}
	s.mu.Unlock()
	s.ending.Wait()
}

// end closes l's sockets at once; who is being answered is so beside it.
func (s *Server) end(l *listener) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for _, one := range l.servers {
		_ = one.ShutdownContext(over) // it listens, or has ended
	}
	s.ending.Go(l.done.Wait)
}

// listen answers on the network's gateway, or says in the listener why not.
func (s *Server) listen(n Network) *listener {
	l := &listener{Network: n}
	on := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			// Also an address that is only about to come up; and no other way in.
			if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1); err == nil {
				err = unix.BindToDevice(int(fd), n.Device)
			}
		}); e != nil {
			return e
		}
		return err
	}}
	at := netip.AddrPortFrom(n.Gateway, port).String()
	packets, err := on.ListenPacket(context.Background(), "udp4", at)
	if err != nil {
		l.err = err
		return l
	}
	streams, err := on.Listen(context.Background(), "tcp4", at)
	if err != nil {
		packets.Close()
		l.err = err
		return l
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.serve(n.Name, w, q) })
	l.servers = []*dns.Server{
		{PacketConn: packets, Handler: handler},
		{
			Listener: netutil.LimitListener(streams, maxConns), Handler: handler, ReadTimeout: idleLimit,
			IdleTimeout: func() time.Duration { return idleLimit },
		},
	}
	for _, one := range l.servers {
		started := make(chan struct{})
		one.NotifyStartedFunc = sync.OnceFunc(func() { close(started) })
		l.done.Go(func() {
			if err := one.ActivateAndServe(); err != nil {
				s.lost(l, err)
			}
		})
		<-started // Shutdown is for what has started
	}
	return l
}

// serve answers one question that came in on a network.
func (s *Server) serve(network string, w dns.ResponseWriter, q *dns.Msg) {
	from, err := netip.ParseAddrPort(w.RemoteAddr().String())
	if err != nil {
		return
	}
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	a := s.answer(network, from.Addr().Unmap(), q, tcp)
	a.RecursionAvailable = true
	if !tcp {
		size := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		a.Truncate(size)
	}
	_ = w.WriteMsg(a) // whoever has gone asks again
}

// answer is what the container at from is told.
func (s *Server) answer(network string, from netip.Addr, q *dns.Msg, tcp bool) *dns.Msg {
	t := s.table.Load()
	c := t.client(network, from)
	a, ours := t.answer(c, q)
	switch {
	case ours:
		return a
	case !c.Outside:
		return a.SetRcode(q, dns.RcodeNameError)
	}
	turn, give, ok := s.turns.take(context.Background(), cmp.Or(c.Name, from.String()))
	if !ok {
		return a.SetRcode(q, dns.RcodeServerFailure)
	}
	defer give()
	servers := c.Servers
	if len(servers) == 0 {
		servers = s.upstream()
	}
	// A server of ours would ask itself.
	servers = slices.DeleteFunc(slices.Clone(servers), func(a netip.Addr) bool {
		return slices.ContainsFunc(t.Networks, func(n Network) bool { return n.Gateway == a })
	})
	return s.forward(turn, from, q, servers, tcp)
}

// answer is what the table knows about a question; false: nobody is called so here.
func (t Table) answer(c Client, q *dns.Msg) (*dns.Msg, bool) {
	a := new(dns.Msg)
	if len(q.Question) != 1 {
		return a.SetRcode(q, dns.RcodeFormatError), true
	}
	a.SetReply(q)
	one := q.Question[0]
	head := dns.RR_Header{Name: one.Name, Rrtype: one.Qtype, Class: dns.ClassINET, Ttl: ttl}
	name := strings.ToLower(strings.TrimSuffix(one.Name, "."))
	if one.Qclass != dns.ClassINET {
		return a, false
	}
	if addr, ok := reversed(name); ok && one.Qtype == dns.TypePTR {
		all, ours := t.named(c, addr)
		for _, name := range all {
			a.Answer = append(a.Answer, &dns.PTR{Hdr: head, Ptr: dns.Fqdn(name)})
		}
		if ours && len(all) == 0 {
			a.Rcode = dns.RcodeNameError
		}
		return a, ours
	}
	all := t.addresses(c, name)
	if one.Qtype == dns.TypeA {
		for _, addr := range all {
			a.Answer = append(a.Answer, &dns.A{Hdr: head, A: addr.AsSlice()})
		}
	}
	// Of another type there is none, which is an answer, too.
	return a, len(all) > 0
}

// reversed is the address of 2.0.88.10.in-addr.arpa.
func reversed(name string) (netip.Addr, bool) {
	rest, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(rest, ".")
	slices.Reverse(parts)
	addr, err := netip.ParseAddr(strings.Join(parts, "."))
	return addr, err == nil && addr.Is4()
}

// ReadServers are the name servers in the text of a resolv.conf.
func ReadServers(text string) []netip.Addr {
	var all []netip.Addr
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err == nil {
				all = append(all, a)
			}
		}
	}
	return all
}

// String names the networks that are listened to.
func (s *Server) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for name, l := range s.listening {
		if len(l.servers) > 0 {
			all = append(all, fmt.Sprintf("%s (%s)", name, l.Gateway))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
