package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kogge.example/init/nodeconfig"
)

// This file is the switches of a link below /proc/sys.

// settings are the sysctls of a link by what IPv6 is to be. accept_ra 2 holds also
// on a node that forwards packets for its containers; ndisc_notify announces addresses.
// Routes that a router advertises may be to networks of up to 64 bits (RFC 4191), if the
// kernel was built for that.
func settings(link string, v nodeconfig.IPv6) [][2]string {
	const routeInformation = "accept_ra_rt_info_max_plen"
	switch v {
	case nodeconfig.IPv6Off:
		return [][2]string{{"disable_ipv6", "1"}}
	case nodeconfig.IPv6Static:
		return [][2]string{{"accept_ra", "0"}, {"autoconf", "0"}, {"ndisc_notify", "1"}, {"disable_ipv6", "0"}}
	}
	all := [][2]string{{"accept_ra", "2"}, {"autoconf", "1"}, {"ndisc_notify", "1"}, {"disable_ipv6", "0"}}
	if _, err := os.Stat(sysctl("ipv6", link, routeInformation)); err == nil {
		all = slices.Insert(all, 0, [2]string{routeInformation, "64"})
	}
	return all
}

// passOver are the files that say whether routes of a link without a carrier count.
// A kernel without IPv6 lacks the second.
//
// Source: Documentation/networking/ip-sysctl.rst in the kernel tree.
func passOver(link string) []string {
	return []string{sysctl("ipv4", link, "ignore_routes_with_linkdown"), sysctl("ipv6", link, "ignore_routes_with_linkdown")}
}

func readPassOver(link string) bool {
	return !slices.ContainsFunc(passOver(link), func(file string) bool {
		have, err := os.ReadFile(file)
		return !errors.Is(err, os.ErrNotExist) && strings.TrimSpace(string(have)) != "1"
	})
}

func writePassOver(link string) error {
	var all []error
	for _, file := range passOver(link) {
		if err := os.WriteFile(file, []byte("1"), 0); !errors.Is(err, os.ErrNotExist) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

func sysctl(family, link, name string) string {
	return filepath.Join("/proc/sys/net", family, "conf", link, name)
}

// readIPv6 returns which of the three a link is set to, or "" for none. A kernel
// without IPv6 has it off.
func readIPv6(link string) nodeconfig.IPv6 {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return nodeconfig.IPv6Off
	}
	have := make(map[string]string) // most are asked for by two of them
	read := func(name string) string {
		text, known := have[name]
		if !known {
			data, _ := os.ReadFile(sysctl("ipv6", link, name)) // no file, no setting
			text = strings.TrimSpace(string(data))
			have[name] = text
		}
		return text
	}
	for _, v := range []nodeconfig.IPv6{nodeconfig.IPv6Off, nodeconfig.IPv6Static, nodeconfig.IPv6Auto} {
		if !slices.ContainsFunc(settings(link, v), func(s [2]string) bool { return read(s[0]) != s[1] }) {
			return v
		}
	}
	return ""
}

func writeIPv6(link string, v nodeconfig.IPv6) error {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return fmt.Errorf("this kernel has no IPv6: %w", err)
	}
	for _, s := range settings(link, v) {
		if err := os.WriteFile(sysctl("ipv6", link, s[0]), []byte(s[1]), 0); err != nil {
			return err
		}
	}
	return nil
}
