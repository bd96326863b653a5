package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// flows sends a packet to ever new addresses and ports: each is a flow that the kernel
// remembers. The addresses are those for measuring networks (RFC 2544).
func flows(string) error {
	return sendTo(func() netip.AddrPort {
		a := netip.AddrFrom4([4]byte{198, 18 + byte(rand.N(2)), byte(rand.N(256)), byte(rand.N(256))})
		return netip.AddrPortFrom(a, uint16(1+rand.N(65535)))
	})
}

// neighbours sends a packet to ever new machines on the link: the kernel asks for each,
// and remembers that it did.
func neighbours(string) error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 {
			return sendTo(func() netip.AddrPort {
				a := [16]byte{0: 0xfe, 1: 0x80}
				for i := 8; i < 16; i++ {
					a[i] = byte(rand.N(256))
				}
				return netip.AddrPortFrom(netip.AddrFrom16(a).WithZone(l.Name), 9)
			})
		}
	}
	return fmt.Errorf("no link to fill")
}

// sendTo sends to one address after the other. What is refused is tried on: the next one
// may be let through.
func sendTo(next func() netip.AddrPort) error {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	var refused error
	for range 1 << 20 {
		if _, err := conn.WriteToUDPAddrPort([]byte("hog"), next()); err != nil {
			refused = err
		}
	}
	return fmt.Errorf("of a million packets the last refused: %v", refused)
}
