package download

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"
)

// unanswered is how long the look-up of a name and a connection to it may take until each
// family is tried by itself as well.
const unanswered = time.Second

// Dial connects to a name as d does. If nothing has come of that in a second, it looks up and
// tries each family's addresses beside it: there are name servers that leave questions for
// IPv6 unanswered, and d waits for them though it has had IPv4 addresses for long. By itself,
// a family's question is about that very name: a search domain that has addresses of one
// family for every name would answer for those that have only the other. The error is of
// a connection where there is an address.
func Dial(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if _, notLiteral := netip.ParseAddr(host); network != "tcp" || err != nil || notLiteral == nil || !strings.Contains(host, ".") {
			return d.DialContext(ctx, network, address)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		type result struct {
			net.Conn
			err error
		}
		results, running := make(chan result, 3), 0
		try := func(network, address string) {
			running++
			go func() {
				conn, err := d.DialContext(ctx, network, address)
				results <- result{conn, err}
			}()
		}
		try("tcp", address)
		var failed error
		for slow := time.After(unanswered); running > 0; {
			select {
			case r := <-results:
				running--
				if r.err == nil {
					go func(others int) { // they may connect as well
						for range others {
							if r := <-results; r.err == nil {
								r.Close()
							}
						}
					}(running)
					return r.Conn, nil
				}
				if !tells(failed) {
					failed = r.err
				}
			case <-slow:
				itself := net.JoinHostPort(strings.TrimSuffix(host, ".")+".", port)
				try("tcp6", itself)
				try("tcp4", itself)
			}
		}
		return nil, failed
	}
}

// tells says whether an error is of an address, and not of the look-up of the name.
func tells(err error) bool {
	var unknown *net.DNSError
	var none *net.AddrError // of those in /etc/hosts
	return err != nil && !errors.As(err, &unknown) && !errors.As(err, &none)
}
