package nameserver

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// forgets is for how long a server that did not answer is asked after the others.
const forgets = 30 * time.Second

// way is how a container asks a server. What one container's questions say of a server is
// no reason to ask another one for the next container.
type way struct {
	from, server netip.Addr
	tcp          bool
}

// word is what was heard by a way.
type word struct {
	heard  time.Time // the last answer
	silent time.Time // since when there was none; zero: it answers
}

// old says whether w says nothing any more.
func (w word) old(now time.Time) bool {
	return now.Sub(w.heard) >= forgets && now.Sub(w.silent) >= forgets
}

// after is w once a question of that time was waited for in vain. Where another one was
// answered meanwhile, the question was at fault.
func (w word) after(asked, now time.Time) word {
	if w.heard.Before(asked) {
		w.silent = now
	}
	return w
}

// order is the order to ask servers in, each once: as they are named, but those that were
// silent a moment ago last.
func order(servers []netip.Addr, heard func(netip.Addr) word, now time.Time) []netip.Addr {
	var first, last []netip.Addr
	for _, a := range servers {
		switch {
		case slices.Contains(first, a) || slices.Contains(last, a):
		case now.Sub(heard(a).silent) < forgets:
			last = append(last, a)
		default:
			first = append(first, a)
		}
	}
	return append(first, last...)
}

// answered is what became of a question to one server.
type answered struct {
	server netip.Addr
	a      *dns.Msg // nil: there is none
}

// forward asks servers for the container at from, until ctx ends. Each has [Server.patience] before the
// next is asked beside it; the first answer counts, but an error of the server's own only
// where there is no other.
func (s *Server) forward(ctx context.Context, from netip.Addr, q *dns.Msg, servers []netip.Addr, tcp bool) *dns.Msg {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	to := func(a netip.Addr) way { return way{from, a, tcp} }
	s.mu.Lock()
	left := order(servers, func(a netip.Addr) word { return s.words[to(a)] }, time.Now())
	s.mu.Unlock()
	answers := make(chan answered, len(left))
	asked := make(map[netip.Addr]time.Time) // those without a word yet
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for a, at := range asked {
			if now := time.Now(); now.Sub(at) >= s.patience {
				s.words[to(a)] = s.words[to(a)].after(at, now)
			}
		}
	}()
	failed := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	next := time.NewTimer(0)
	defer next.Stop()
	for waiting := 0; waiting+len(left) > 0; {
		select {
		case <-ctx.Done():
			return failed
		case <-next.C:
			if len(left) == 0 {
				continue
			}
			server := left[0]
			left, waiting, asked[server] = left[1:], waiting+1, time.Now()
			next.Reset(s.patience)
			go func() {
				a, err := s.exchange(ctx, q, server, tcp)
				if err != nil {
					a = nil // the next one is asked: nobody could do more about it
				}
				answers <- answered{server, a}
			}()
		case one := <-answers:
			waiting--
			if one.a == nil {
				if time.Since(asked[one.server]) < s.patience {
					delete(asked, one.server) // it said no, and at once
				}
				next.Reset(0)
				continue
			}
			delete(asked, one.server)
			s.hear(to(one.server))
			one.a.Id, one.a.Question = q.Id, q.Question
			if one.a.Rcode != dns.RcodeServerFailure && one.a.Rcode != dns.RcodeRefused {
				return one.a
			}
			failed = one.a
			next.Reset(0)
			time.AfterFunc(s.patience, cancel) // who asks waits no longer than that for a better word
		}
	}
	return failed
}

// hear notes that there was an answer.
func (s *Server) hear(by way) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.words[by] = word{heard: time.Now()}
}

// forget drops what says nothing any more. Whoever calls it has the lock.
func (s *Server) forget(now time.Time) {
	maps.DeleteFunc(s.words, func(_ way, w word) bool { return w.old(now) })
}

// exchange asks one server until ctx ends, by a random port and number of its own. A packet
// may be lost: by UDP the question is sent again after each [Server.patience]. What does not
// fit the question is no answer, and waits for one.
func (s *Server) exchange(ctx context.Context, q *dns.Msg, server netip.Addr, tcp bool) (*dns.Msg, error) {
	network := "udp"
	if tcp {
		network = "tcp"
	}
	socket, err := new(net.Dialer).DialContext(ctx, network, netip.AddrPortFrom(server, port).String())
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	over := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) }) // also of what waits by now
	defer over()
	c := &dns.Conn{Conn: socket}
	mine := q.Copy()
	mine.Id = dns.Id()
	for {
		if err := c.WriteMsg(mine); err != nil {
			return nil, err
		}
		if !tcp {
			_ = socket.SetReadDeadline(time.Now().Add(s.patience)) // a socket that is open takes it
		}
		for {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			a, err := read(c)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break // ask again
			}
			if a != nil && a.Id == mine.Id {
				if err != nil {
					return nil, err // nobody can read what it says
				}
				if fits(q, a) {
					return a, nil
				}
			}
			if a == nil && err != nil && !errors.Is(err, dns.ErrShortRead) {
				return nil, err
			}
			if tcp {
				return nil, dns.ErrId
			}
		}
	}
}

// read reads a message. Of a packet it takes whatever length that has: servers send more
// than was asked for, and the client's answer is cut for it later.
func read(c *dns.Conn) (*dns.Msg, error) {
	if packets, ok := c.Conn.(*net.UDPConn); ok {
		size, err := arrived(packets)
		if err != nil {
			return nil, err
		}
		c.UDPSize = uint16(min(size, dns.MaxMsgSize))
	}
	return c.ReadMsg()
}

// arrived waits for a packet and is its length in bytes: room for the longest one of each
// question under way would be many MiB.
func arrived(packets *net.UDPConn) (size int, err error) {
	raw, err := packets.SyscallConn()
	if err != nil {
		return 0, err
	}
	waited := raw.Read(func(fd uintptr) bool {
		size, err = peek(int(fd))
		return !errors.Is(err, syscall.EAGAIN)
	})
	if waited != nil {
		return 0, waited
	}
	return size, err
}

// peek is the length of the packet that a socket has, which stays there.
func peek(fd int) (int, error) {
	size, _, err := unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
	return size, err
}

// fits says whether a answers q. Servers may write a name in letters of another case; an
// error may come without the question (RFC 1035, 4.1.1: who could not read it has none).
func fits(q, a *dns.Msg) bool {
	if !a.Response {
		return false
	}
	if len(a.Question) == 0 {
		return a.Rcode != dns.RcodeSuccess && len(a.Answer) == 0
	}
	one, other := q.Question[0], a.Question[0]
	return len(a.Question) == 1 && strings.EqualFold(one.Name, other.Name) && one.Qtype == other.Qtype && one.Qclass == other.Qclass
}
