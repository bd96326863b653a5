package roster

import (
	"net/netip"
	"slices"
	"testing"
)

func TestCheckAddress(t *testing.T) {
	var all, good []netip.Addr
	for text, want := range map[string]bool{
		"192.0.2.1": true, "10.0.0.1": true, "2001:db8::1": true, "fd00::1": true,
		"127.0.0.1": false, "127.255.0.1": false, "::1": false, "0.0.0.0": false, "::": false, "169.254.1.1": false, "fe80::1": false,
		"fe80::1%eth0": false, "2001:db8::1%eth0": false, "::%eth0": false, "fe80::1%\x1b[2J": false, "fe80::1%\xff": false,
		"::ffff:192.0.2.1": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false,
	} {
		a, err := netip.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckAddress(a); (err == nil) != want {
			t.Errorf("%q: %v", text, err)
		}
		if all = append(all, a, a); want {
			good = append(good, a)
		}
	}
	if CheckAddress(netip.Addr{}) == nil {
		t.Error("none is one")
	}
	got := OwnAddresses(all)
	slices.SortFunc(got, netip.Addr.Compare)
	slices.SortFunc(good, netip.Addr.Compare)
	if !slices.Equal(got, good) { // the one in IPv6's spelling is there already
		t.Errorf("%v: want %v", got, good)
	}
	for i := range byte(200) {
		all = append(all, netip.AddrFrom4([4]byte{192, 0, 2, i}))
	}
	if got := OwnAddresses(all); len(got) != MaxAddresses {
		t.Errorf("%d addresses", len(got))
	}
}
