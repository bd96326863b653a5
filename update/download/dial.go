package download

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// headStart is what IPv6 has before IPv4 is tried as well.
//
// Source: RFC 8305, section 5.
const headStart = 250 * time.Millisecond

// Dial connects to a name as d does, but each family's addresses are looked up and tried
// beside the other's. There are name servers that leave questions for IPv6 unanswered, and d
// waits for them though it has had IPv4 addresses for long. The error is of one family,
// and of a connection where there is an address.
func Dial(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if _, notLiteral := netip.ParseAddr(host); network != "tcp" || err != nil || notLiteral == nil {
			return d.DialContext(ctx, network, address)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		type result struct {
			net.Conn
			err error
		}
		results := make(chan result, 2)
		try := func(network string) {
			conn, err := d.DialContext(ctx, network, address)
			results <- result{conn, err}
		}
		go try("tcp6")
		head := time.After(headStart)
		tried, failed := 1, error(nil)
		for ended := 0; ended < 2; {
			select {
			case r := <-results:
				if ended++; r.err == nil {
					go func() { // the other one may connect as well
						for range tried - ended {
							if r := <-results; r.err == nil {
								r.Close()
							}
						}
					}()
					return r.Conn, nil
				}
				if !tells(failed) {
					failed = r.err
				}
			case <-head:
			}
			if tried == 1 {
				tried = 2
				go try("tcp4")
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
