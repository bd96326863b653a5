package bridge

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
	"kogge.example/update/golden"
)

// TestBoundsFor shows what nodes of some sizes grant, and wants the sum of what networks
// may use up to leave the node's own share, whatever they do.
func TestBoundsFor(t *testing.T) {
	text := "memory   flows  new/s  burst  share  neighbours  kernel's table with 0, 10, 100 networks\n"
	for _, mib := range []uint64{192, 256, 512, 1024, 2048, 4096, 65536} {
		b := boundsFor(mib << 20)
		text += fmt.Sprintf("%5d MiB %5d %6d %6d %6d %11d %9d %7d %7d\n", mib, b.flows, b.pace, b.burst, b.share, b.neighbours, b.table(0), b.table(10), b.table(100))
		most := int(b.flows) + int(b.burst) + int(b.pace)*int(closedFor.Seconds())
		if most > b.share {
			t.Errorf("%d MiB: an account can use up %d, and its share is %d", mib, most, b.share)
		}
		// What is asked for within the seconds until the kernel may forget it, of many networks.
		if asked := 20 * (int(b.seekBurst) + 5*int(b.seek)); asked > b.neighbours {
			t.Errorf("%d MiB: 20 networks can ask for %d neighbours, and the kernel knows %d", mib, asked, b.neighbours)
		}
		// Of two links, with each way to become known, within the seconds that the kernel keeps all.
		if known := 2 * 2 * int(b.newcomers) * (1 + 5); known > b.neighbours {
			t.Errorf("%d MiB: strangers make %d neighbours known, and the kernel knows %d", mib, known, b.neighbours)
		}
		if used := b.table(10) * 400; uint64(used) > mib<<20/8 {
			t.Errorf("%d MiB: ten networks can use up %d bytes", mib, used)
		}
	}
	golden.Compare(t, "bounds.txt", text)
	page, err := os.ReadFile(reachPage)
	must(t, err)
	small, middle, large, most := boundsFor(256<<20), boundsFor(512<<20), boundsFor(1<<30), boundsFor(4<<30)
	if most.share != boundsFor(1<<40).share {
		t.Error("4 GiB are not the most that counts")
	}
	for _, row := range []string{
		fmt.Sprintf("    open connections and UDP flows  %7d   %7d   %5d           %5d\n", small.flows, middle.flows, large.flows, most.flows),
		fmt.Sprintf("    new ones in a second            %7d   %7d   %5d           %5d\n", small.pace, middle.pace, large.pace, most.pace),
		fmt.Sprintf("a network sends to %d\nnew ones in a second", large.seek),
	} {
		if !strings.Contains(string(page), row) {
			t.Errorf("%s lacks %q", reachPage, row)
		}
	}
}

// TestBounds lets a container do its worst to the kernel's tables, and others beside it.
func TestBounds(t *testing.T) {
	if !alone(t) {
		return
	}
	lan := lan(t)
	neighbour(t, "wide", "198.18.0.1/16", "198.18.0.2/16")
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	b.bounds.flows, b.bounds.pace, b.bounds.burst, b.bounds.seek, b.bounds.seekBurst = 40, 1000, 1000, 1, 20
	_, err = b.Make([]workload.Network{{Name: "bad"}, {Name: "good"}})
	must(t, err)
	hogAddr, goodAddr := netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("10.88.1.2")
	hog := attach(t, b, "hog", []workload.Address{{Network: "bad", Addr: hogAddr}})
	good := attach(t, b, "good", []workload.Address{{Network: "good", Addr: goodAddr}})
	hold(t, hog)
	serve(t, hog, "hog")
	serve(t, good, "good")
	ports := []workload.Publish{
		{Protocol: workload.TCP, HostPort: 9000, To: netip.AddrPortFrom(hogAddr, 81)},
		{Protocol: workload.TCP, HostPort: 9001, To: netip.AddrPortFrom(hogAddr, 80)},
		{Protocol: workload.UDP, HostPort: 9001, To: netip.AddrPortFrom(hogAddr, 80)},
		{Protocol: workload.TCP, HostPort: 8080, To: netip.AddrPortFrom(goodAddr, 80)},
	}
	apply(t, b, ports)
	others := func(t *testing.T) {
		t.Helper()
		for _, c := range []struct{ from, to, want string }{
			{good, "192.0.2.2:80", "uplink"}, {lan, "192.0.2.1:8080", "good"}, {"", "192.0.2.2:80", "uplink"}, {"", "127.0.0.1:8080", "good"},
		} {
			if got, ok := first(t, c.from, 20*time.Second, packet{network: "tcp4", to: c.to}); !ok || got != c.want {
				t.Errorf("from %q to %s: %q", filepath.Base(c.from), c.to, got)
			}
		}
	}
	const most = 40 + 1 // the kernel counts those that were there before
	t.Run("to itself by its gateway, and held", func(t *testing.T) {
		closeAll := open(t, hog, "10.88.0.1:9000", 3*most)
		if n := tracked(t, hogAddr); n == 0 || n > most {
			t.Errorf("%d flows of the hog are tracked, %d may be", n, most)
		}
		others(t)
		// Another table of ports forgets nothing that was counted.
		apply(t, b, ports)
		defer open(t, hog, "192.0.2.1:9000", 2*most)()
		if n := tracked(t, hogAddr); n > most {
			t.Errorf("%d flows of the hog are tracked after another Publish, %d may be", n, most)
		}
		closeAll()
	})
	t.Run("from outside", func(t *testing.T) {
		defer open(t, lan, "192.0.2.1:9000", 3*most)()
		if n := called(t, hogAddr); n > most {
			t.Errorf("%d flows to the hog are tracked, %d may be", n, most)
		}
		others(t)
	})
	for _, c := range []struct {
		network  string
		protocol byte
	}{{"tcp4", unix.IPPROTO_TCP}, {"udp4", unix.IPPROTO_UDP}} {
		t.Run("from outside, by senders that nobody knows, "+c.network, func(t *testing.T) {
			for limit := time.Now().Add(20 * time.Second); ; { // what was closed just now may still count
				spoof(t, lan, c.protocol, "192.0.2.1:9001", 3*most)
				n := strangers(t, c.protocol)
				if n >= most-5 && n <= most {
					break
				}
				if n > most || time.Now().After(limit) {
					t.Fatalf("%d flows of strangers are tracked, about %d should be", n, most)
				}
			}
			// What it begins itself is another matter, and goes on meanwhile.
			if got, ok := first(t, hog, 4*time.Second, packet{network: c.network, to: "192.0.2.2:80"}); !ok || got != "uplink" {
				t.Errorf("the container to others: %q", got)
			}
			// And it is called again before the kernel would have forgotten them by itself.
			for limit := time.Now().Add(20 * time.Second); ; {
				if _, ok := first(t, lan, time.Second, packet{network: c.network, to: "192.0.2.1:9001"}); ok {
					break
				}
				if time.Now().After(limit) {
					t.Fatal("nobody gets to the container any more")
				}
			}
		})
	}
	t.Run("what is closed", func(t *testing.T) {
		// It is free for others soon, and the hog may begin anew.
		for limit := time.Now().Add(time.Minute); ; {
			if _, ok := first(t, hog, time.Second, packet{network: "tcp4", to: "192.0.2.2:80"}); ok {
				break
			}
			if time.Now().After(limit) {
				t.Fatal("the hog gets no flow any more")
			}
		}
	})
	t.Run("neighbours", func(t *testing.T) {
		c := datagrams(t, hog)
		begun := time.Now()
		for i := range 400 {
			_, err := c.WriteTo([]byte("?"), &net.UDPAddr{IP: net.IPv4(198, 18, byte(1+i/200), byte(1+i%200)), Port: 9})
			must(t, err)
		}
		asked := neighbours(t, "wide")
		if most := 20 + 2 + int(time.Since(begun).Seconds()+1); asked > most || asked == 0 {
			t.Errorf("the node asks for %d neighbours, and %d may be", asked, most)
		}
		if got, ok := first(t, good, 20*time.Second, packet{network: "tcp4", to: "198.18.0.2:80"}); !ok || got != "wide" {
			t.Errorf("another container to a neighbour: %q", got)
		}
	})
	t.Run("neighbours on its own network", func(t *testing.T) {
		before := neighbours(t, device("bad"))
		for i := range 50 {
			arp(t, hog, netip.AddrFrom4([4]byte{198, 51, byte(i), 1}), netip.MustParseAddr("10.88.0.1"))
		}
		arp(t, hog, netip.MustParseAddr("10.88.0.77"), netip.MustParseAddr("10.88.0.1")) // the node has heard the others by then
		limit := time.Now().Add(20 * time.Second)
		for !knows(t, device("bad"), "10.88.0.77") && time.Now().Before(limit) {
			time.Sleep(10 * time.Millisecond)
		}
		if n := neighbours(t, device("bad")) - before; n != 1 {
			t.Errorf("the node knows %d more neighbours, want one", n)
		}
	})
	t.Run("how long", func(t *testing.T) {
		c := datagrams(t, hog)
		for _, port := range []int{dnsPort, dnsPort + 1} {
			_, err := c.WriteTo([]byte("?"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: port})
			must(t, err)
		}
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		must(t, err)
		seen := 0
		for _, f := range flows {
			if own := int(f.Forward.SrcPort) == c.LocalAddr().(*net.UDPAddr).Port; own && f.Forward.DstPort == dnsPort {
				seen++
				if f.TimeOut > uint32(askedFor.Seconds()) {
					t.Errorf("a question to a name server is kept for %d s", f.TimeOut)
				}
			} else if own && f.Forward.DstPort == dnsPort+1 {
				seen += 2
				if f.TimeOut <= uint32(askedFor.Seconds()) {
					t.Errorf("what may be a tunnel is kept for %d s", f.TimeOut)
				}
			}
		}
		if seen != 3 {
			t.Error("the kernel does not know both flows")
		}
	})
	t.Run("settings", func(t *testing.T) {
		for file, want := range map[string]string{"time_wait": "2\n", "close": "2\n", "syn_recv": "5\n", "syn_sent": "10\n"} {
			text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_" + file)
			if err != nil || string(text) != want {
				t.Errorf("%s: %q, %v", file, text, err)
			}
		}
	})
	t.Run("a container that is started anew", func(t *testing.T) {
		end := open(t, hog, "10.88.0.1:9000", most)
		defer end()
		before := tracked(t, hogAddr)
		place, err := b.Attach("hog", []workload.Address{{Network: "bad", Addr: hogAddr}}, false)
		must(t, err)
		if n := tracked(t, hogAddr); before == 0 || n > 0 || place.Net != hog {
			t.Errorf("%d flows before, %d after, in %s", before, n, place.Net)
		}
		if _, ok := first(t, hog, 20*time.Second, packet{network: "tcp4", to: "192.0.2.2:80"}); !ok {
			t.Error("it gets no flow")
		}
	})
	t.Run("a container that is gone", func(t *testing.T) {
		if _, ok := first(t, good, 20*time.Second, packet{network: "udp4", to: "192.0.2.2:80"}); !ok || tracked(t, goodAddr) == 0 {
			t.Error("nothing of it was tracked")
		}
		must(t, b.Detach("good"))
		if n := tracked(t, goodAddr); n > 0 {
			t.Errorf("%d flows of it are left", n)
		}
	})
	t.Run("pace", func(t *testing.T) {
		// Bounds of another boot: those that are there do not change.
		conn, err := nftables.New()
		must(t, err)
		conn.DelTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: boundsTable})
		must(t, conn.Flush())
		b.bounds.flows, b.bounds.pace, b.bounds.burst = 1000, 1, 20
		apply(t, b, ports)
		// Neither what goes nowhere from outside, nor what gets in, is at its expense.
		spoof(t, lan, unix.IPPROTO_UDP, hogAddr.String()+":80", 200)
		for limit := time.Now().Add(20 * time.Second); strangers(t, unix.IPPROTO_UDP) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("flows of strangers stay")
			}
		}
		begun := time.Now()
		spoof(t, lan, unix.IPPROTO_UDP, "192.0.2.1:9001", 200)
		if n, most := strangers(t, unix.IPPROTO_UDP), 20+int(time.Since(begun).Seconds()+1); n < 20 || n > most {
			t.Errorf("%d new flows to the hog, 20 to %d may be", n, most)
		}
		c := datagrams(t, hog)
		begun = time.Now()
		for i := range 200 {
			_, err := c.WriteTo([]byte("?"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 1000 + i})
			must(t, err)
		}
		if n, most := sentBy(t, c), 20+int(time.Since(begun).Seconds()+1); n < 20 || n > most {
			t.Errorf("%d new flows of the hog, 20 to %d may be", n, most)
		}
	})
}

// hold takes all connections to port 81 and keeps them for as long as their other ends do.
func hold(t *testing.T, ns string) {
	t.Helper()
	var l net.Listener
	must(t, in(t, ns, func() (err error) { l, err = net.Listen("tcp4", ":81"); return err }))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c) // until the other end closes
				c.Close()
			}()
		}
	}()
}

// open begins n connections at a time, and returns what ends those that there are.
func open(t *testing.T, ns, to string, n int) (end func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var mu sync.Mutex
	var all []net.Conn
	var dials sync.WaitGroup
	for range n {
		dials.Go(func() {
			_ = in(t, ns, func() error {
				c, err := new(net.Dialer).DialContext(ctx, "tcp4", to)
				if err == nil {
					mu.Lock()
					all = append(all, c)
					mu.Unlock()
				}
				return err
			})
		})
	}
	dials.Wait()
	return func() {
		for _, c := range all {
			c.Close()
		}
	}
}

// tracked is how many flows the kernel knows that the container at addr began or answers.
func tracked(t *testing.T, addr netip.Addr) (n int) {
	t.Helper()
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	for _, f := range flows {
		from, _ := netip.AddrFromSlice(f.Forward.SrcIP.To4())
		to, _ := netip.AddrFromSlice(f.Reverse.SrcIP.To4())
		if from == addr || to == addr {
			n++
		}
	}
	return n
}

// called is how many flows the kernel knows that others began and addr answers.
func called(t *testing.T, addr netip.Addr) (n int) {
	t.Helper()
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	for _, f := range flows {
		from, _ := netip.AddrFromSlice(f.Forward.SrcIP.To4())
		to, _ := netip.AddrFromSlice(f.Reverse.SrcIP.To4())
		if from != addr && to == addr {
			n++
		}
	}
	return n
}

// sentBy is how many flows the kernel knows that c began.
func sentBy(t *testing.T, c *net.UDPConn) (n int) {
	t.Helper()
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	for _, f := range flows {
		if f.Forward.Protocol == unix.IPPROTO_UDP && int(f.Forward.SrcPort) == c.LocalAddr().(*net.UDPAddr).Port {
			n++
		}
	}
	return n
}

// strangers is how many flows the kernel knows that spoof began.
func strangers(t *testing.T, protocol byte) (n int) {
	t.Helper()
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	for _, f := range flows {
		if ip := f.Forward.SrcIP.To4(); f.Forward.Protocol == protocol && ip[2] == 2 && ip[3] >= 100 {
			n++
		}
	}
	return n
}

// spoof sends the first packets of n flows, in the name of hosts that are not there.
func spoof(t *testing.T, ns string, protocol byte, to string, n int) {
	t.Helper()
	dst := netip.MustParseAddrPort(to)
	must(t, in(t, ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) // with its own IP header
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for i := range n {
			src := netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i%100)})
			ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, uint16(20000+i)), dst.Port())
			body := slices.Concat(ports, []byte{0, 9, 0, 0, '?'}) // without a sum
			if protocol == unix.IPPROTO_TCP {
				body = slices.Concat(ports, make([]byte, 8), []byte{5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0}) // SYN
				pseudo := slices.Concat(src.AsSlice(), dst.Addr().AsSlice(), []byte{0, protocol, 0, byte(len(body))}, body)
				sum := uint32(0)
				for ; len(pseudo) > 0; pseudo = pseudo[2:] {
					sum += uint32(binary.BigEndian.Uint16(pseudo))
				}
				sum = sum>>16 + sum&0xffff
				binary.BigEndian.PutUint16(body[16:], ^uint16(sum>>16+sum))
			}
			head := slices.Concat([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0}, src.AsSlice(), dst.Addr().AsSlice())
			if err := unix.Sendto(fd, append(head, body...), 0, &unix.SockaddrInet4{Addr: dst.Addr().As4()}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// arp asks for one address under another.
func arp(t *testing.T, ns string, from, to netip.Addr) {
	t.Helper()
	eth, err := inside(t, ns).LinkByName("eth0")
	must(t, err)
	mac := eth.Attrs().HardwareAddr
	packet := slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac, from.AsSlice(), make([]byte, 6), to.AsSlice())
	all := unix.SockaddrLinklayer{Protocol: 0x0608, Ifindex: eth.Attrs().Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	must(t, in(t, ns, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, packet, 0, &all)
	}))
}

func knows(t *testing.T, link, addr string) bool {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	all, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_V4)
	must(t, err)
	return slices.ContainsFunc(all, func(n netlink.Neigh) bool { return n.IP.String() == addr })
}

func neighbours(t *testing.T, link string) int {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	all, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_V4)
	must(t, err)
	return len(all)
}

func datagrams(t *testing.T, ns string) (c *net.UDPConn) {
	t.Helper()
	must(t, in(t, ns, func() (err error) { c, err = net.ListenUDP("udp4", nil); return err }))
	t.Cleanup(func() { c.Close() })
	return c
}

// TestOptionMemory: the filters of a container's sockets take no more than they have to.
func TestOptionMemory(t *testing.T) {
	if !alone(t) {
		return
	}
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	ns := attach(t, b, "c", nil)
	must(t, in(t, ns, func() error {
		text, err := os.ReadFile("/proc/sys/net/core/optmem_max")
		if err != nil {
			return err
		}
		if got := strings.TrimSpace(string(text)); got != "20480" {
			t.Errorf("a socket's options can take %s bytes", got)
		}
		return nil
	}))
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited for %s", what)
		}
	}
}
