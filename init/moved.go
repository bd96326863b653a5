package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"kogge.example/update/durable"
)

// machineRecord says which machine STATE was last used in.
const machineRecord = ownDir + "/machine"

// serials are the files in which firmware says which machine this is: of PCs, of boards with
// a device tree, and of some chips. Many leave some of them empty, or as they got them.
//
// Source: Documentation/ABI/testing/{sysfs-firmware-dmi-tables,sysfs-devices-soc} and
// devicetree/bindings in the kernel tree.
var serials = []string{
	"sys/class/dmi/id/product_uuid", "sys/class/dmi/id/product_serial", "sys/class/dmi/id/board_serial",
	"proc/device-tree/serial-number", "sys/devices/soc0/serial_number",
}

// facts are what is known of a machine, by the name of the file that says it; under macs are
// the hardware addresses of its wired links, of which one is enough to know it by.
type facts map[string]string

const (
	macs    = "mac"
	maxMACs = 16 // of a record
)

// machineOf is what the files below root say of the machine, on one line; "" where they say
// nothing that tells it from others.
func machineOf(root string) string {
	all := facts{}
	for _, name := range serials {
		data, err := os.ReadFile(filepath.Join(root, name))
		text := strings.Join(strings.Fields(strings.Trim(string(data), "\x00")), " ")
		if err == nil && !placeholder(text) {
			all[filepath.Base(name)] = text[:min(100, len(text))]
		}
	}
	if found := wired(filepath.Join(root, "sys/class/net")); len(found) > 0 {
		all[macs] = strings.Join(found, " ")
	}
	return all.String()
}

// wired are the addresses that hardware brought along: not of what can be unplugged, as on
// USB, and none that software made up, as some boot loaders do at each boot.
//
// Source: Documentation/ABI/testing/sysfs-class-net in the kernel tree.
func wired(class string) []string {
	var all []string
	entries, _ := os.ReadDir(class) // without it there are none
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		bus, err := os.Readlink(filepath.Join(dir, "device/subsystem"))
		if err != nil || filepath.Base(bus) == "usb" {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, "phy80211")); err == nil {
			continue // wireless
		}
		mac, err := net.ParseMAC(attribute(dir, "address"))
		const group, local = 1, 2 // bits of the first byte
		if err != nil || len(mac) != 6 || mac[0]&(group|local) != 0 || placeholder(mac.String()) {
			continue
		}
		if attribute(dir, "type") != "1" || attribute(dir, "addr_assign_type") != "0" { // no Ethernet, or not of the hardware
			continue
		}
		all = append(all, mac.String())
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(maxMACs, len(all))]
}

func attribute(dir, name string) string {
	return strings.TrimSpace(string(readOptional(filepath.Join(dir, name))))
}

// String is a line of a record.
func (f facts) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		all = append(all, fmt.Sprintf("%s=%q", name, f[name]))
	}
	return strings.Join(all, " ")
}

var fact = regexp.MustCompile(`([\w-]+)=("(?:[^"\\]|\\.)*")`)

// parseFacts reads a record. What says nothing, as releases before noted it too, is left out.
func parseFacts(line string) facts {
	all := facts{}
	for _, m := range fact.FindAllStringSubmatch(line, -1) {
		if text, err := strconv.Unquote(m[2]); err == nil && !placeholder(text) {
			all[m[1]] = text
		}
	}
	return all
}

// another says whether facts are of two machines: a serial number that both have is another
// one, or no link of the one is in the other.
func (f facts) another(now facts) bool {
	for name, text := range f {
		other, both := now[name]
		switch {
		case !both:
		case name == macs:
			links := strings.Fields(other)
			if !slices.ContainsFunc(strings.Fields(text), func(mac string) bool { return slices.Contains(links, mac) }) {
				return true
			}
		case text != other:
			return true
		}
	}
	return false
}

// with is what is known of the machine by both: a driver may come up too late for one boot.
func (f facts) with(now facts) facts {
	all := maps.Clone(f)
	maps.Copy(all, now)
	if links := append(strings.Fields(now[macs]), strings.Fields(f[macs])...); len(links) > 0 {
		var known []string
		for _, mac := range links {
			if !slices.Contains(known, mac) && len(known) < maxMACs {
				known = append(known, mac)
			}
		}
		slices.Sort(known)
		all[macs] = strings.Join(known, " ")
	}
	return all
}

// placeholder says whether a text of firmware is what a maker leaves there that has no
// number for each machine.
func placeholder(text string) bool {
	text = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, text)
	different := map[rune]bool{}
	for _, r := range text {
		different[r] = true
	}
	const count = "012345678901234567890123456789012345678901234567890"
	return len(different) <= 2 || len(text) < 4 || slices.Contains(placeholders, text) ||
		strings.HasPrefix(count, text) || strings.HasPrefix(count[1:], text) ||
		slices.ContainsFunc(phrases, func(p string) bool { return strings.Contains(text, p) })
}

// Source: what vendors and users report of such texts, among them the quirks of fwupd,
// systemd and dmidecode, in small letters without anything else.
var (
	placeholders = []string{
		"none", "null", "empty", "unknown", "invalid", "undefined", "oemserial", "system", "serial", "sample", "standard", "123456789abcdef", "0123456789abcdef", "1234567890abcdef", "1a2b3c4d5e6f",
		// UUIDs: of AMI and its bytes swapped, of Dell, and of makers who count.
		"03000200040005000006000700080009", "00020003000400050006000700080009",
		"4c4c454400002010802080c04f202020", "0102030405060708090a0b0c0d0e0f10", "000102030405060708090a0b0c0d0e0f",
		"00010203040506070809101112131415", "12345678123456781234567812345678", "12345678123412341234123456789012",
		"123456781234567890abcddeefaabbcc", "12345678123412341234123456789abc", "11111111222233334444555555555555",
		"11223344556677889900aabbccddeeff", "00112233445566778899aabbccddeeff", "deadbeefdeadbeefdeadbeefdeadbeef",
		// MACs.
		"001122334455", "888888888788",
	}
	phrases = []string{
		"defaultstring", "filledby", "notspecified", "notapplicable", "notavailable", "notdefined", "notset", "notprovided", "notsettable",
		"serialnumber", "boardserial", "systemserial", "chassisserial", "productserial", "systemuuid", "productuuid", "oemstring", "setbyoem",
	}
)

// errMoved is said of a STATE that comes from another machine. A copied card and one that
// was moved look the same, so nothing is decided.
var errMoved = errors.New("this disk was last used in another machine: if it is a copy, and the other one still runs, both are the same node to everybody; kogge node reset makes this one a new node")

// compareMachine compares this machine, as machineOf said, with the one that STATE was last
// used in, as file says, and notes this one: so it is said during one boot. No record, or
// nothing that both have, is no other machine. After a cut the old record is there, or the
// new one.
func compareMachine(file, line string) error {
	now := parseFacts(line)
	if len(now) == 0 {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("which machine this is: %w", err)
	}
	before := parseFacts(string(text))
	moved := before.another(now)
	if !moved {
		now = before.with(now)
	}
	if string(text) == now.String()+"\n" {
		return nil
	}
	if err := durable.Replace(file, []byte(now.String()+"\n"), 0o600); err != nil {
		return fmt.Errorf("which machine this is: %w", err)
	}
	if moved {
		return errMoved
	}
	return nil
}
