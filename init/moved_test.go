package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ami is the UUID that very many PCs have.
const ami = "03000200-0400-0500-0006-000700080009"

// machineAt makes files below a new root: names as in sysfs, "@" before a text for a link.
func machineAt(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if target, link := strings.CutPrefix(text, "@"); link {
			err = errors.Join(err, os.Symlink(target, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(text), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// card is a network card on a bus, as sysfs shows it.
func card(name, bus, mac string) map[string]string {
	dir := "sys/class/net/" + name + "/"
	return map[string]string{dir + "address": mac + "\n", dir + "addr_assign_type": "0\n", dir + "type": "1\n", dir + "device/subsystem": "@../../../../bus/" + bus}
}

// TestMachineOf: what tells machines apart, and what firmware writes instead.
func TestMachineOf(t *testing.T) {
	dmi := func(uuid, serial, board string) map[string]string {
		return map[string]string{"sys/class/dmi/id/product_uuid": uuid + "\n", "sys/class/dmi/id/product_serial": serial + "\n", "sys/class/dmi/id/board_serial": board + "\n"}
	}
	with := func(all ...map[string]string) map[string]string {
		sum := map[string]string{}
		for _, one := range all {
			for name, text := range one {
				sum[name] = text
			}
		}
		return sum
	}
	const own = "a8:a1:59:12:34:56"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, ""},
		{"a real one", dmi("4c4c4544-0038-4a10-8058-b7c04f4d5932", " 8XJ  MY2 ", ""), `product_serial="8XJ MY2" product_uuid="4c4c4544-0038-4a10-8058-b7c04f4d5932"`},
		{"zeros", dmi("00000000-0000-0000-0000-000000000000", "", "FFFFFFFF"), ""},
		{"a cheap PC", dmi(ami, "Default string", "Default string"), ""},
		{"another", dmi(strings.ToUpper(ami), "To be filled by O.E.M.", "To Be Filled By O.E.M."), ""},
		{"and more", dmi("00020003-0004-0005-0006-000700080009", "System Serial Number", "Not Specified"), ""},
		{"who counts", dmi("12345678-1234-5678-1234-567812345678", "0123456789", "123456789"), ""},
		{"a few words", dmi("fefefefe-fefe-fefe-fefe-fefefefefefe", "N/A", "Base Board Serial Number"), ""},
		{"a cheap PC with a link", with(dmi(ami, "Default string", "Default string"), card("enp1s0", "pci", own)), `mac="a8:a1:59:12:34:56"`},
		{"a board", map[string]string{"proc/device-tree/serial-number": "10000000b1a2c3d4\x00"}, `serial-number="10000000b1a2c3d4"`},
		{"a board without one", map[string]string{"proc/device-tree/serial-number": "0000000000000000\x00"}, ""},
		{"a chip", map[string]string{"sys/devices/soc0/serial_number": "0A1B2C3D4E5F6071\n"}, `serial_number="0A1B2C3D4E5F6071"`},
		{"control characters", map[string]string{"sys/class/dmi/id/board_serial": "a\x1b[2Jb\nc"}, `board_serial="a\x1b[2Jb c"`},
		{"two links", with(card("eth1", "platform", own), card("eth0", "pci", "a8:a1:59:00:00:01")), `mac="a8:a1:59:00:00:01 a8:a1:59:12:34:56"`},
		{"USB", card("eth0", "usb", own), ""},
		{"made up by a boot loader", card("eth0", "platform", "aa:a1:59:12:34:56"), ""},
		{"made up by the kernel", with(card("eth0", "platform", own), map[string]string{"sys/class/net/eth0/addr_assign_type": "1\n"}), ""},
		{"wireless", with(card("wlan0", "pci", own), map[string]string{"sys/class/net/wlan0/phy80211/name": "phy0"}), ""},
		{"a bridge", map[string]string{"sys/class/net/br0/address": own, "sys/class/net/br0/addr_assign_type": "0\n", "sys/class/net/br0/type": "1\n"}, ""},
		{"no card at all", card("eth0", "pci", "00:00:00:00:00:00"), ""},
	} {
		if got := machineOf(machineAt(t, c.files)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestMoved: a disk that comes to another machine says so there, for one boot.
func TestMoved(t *testing.T) {
	const a, b = `product_uuid="4c4c4544-0038-4a10-8058-b7c04f4d5932"`, `product_uuid="4c4c4544-0038-4a10-8058-b7c04f4d5933"`
	const one, two, three = `mac="a8:a1:59:00:00:01"`, `mac="a8:a1:59:00:00:02"`, `mac="a8:a1:59:00:00:03"`
	const both = `mac="a8:a1:59:00:00:01 a8:a1:59:00:00:02"`
	const dummy = `product_uuid="` + ami + `" product_serial="Default string"`
	type boot struct {
		now  string
		want error
	}
	for name, boots := range map[string][]boot{
		"serial numbers":                          {{"", nil}, {a, nil}, {a, nil}, {"", nil}, {b, errMoved}, {b, nil}, {a, errMoved}},
		"links":                                   {{one, nil}, {one, nil}, {two, errMoved}, {two, nil}},
		"a card more and less":                    {{one, nil}, {both, nil}, {two, nil}, {one, nil}, {three, errMoved}, {one, errMoved}},
		"a driver that is late":                   {{a + " " + one, nil}, {a, nil}, {a + " " + one, nil}, {a + " " + two, errMoved}},
		"a number that many have, unknown to us":  {{a + " " + one, nil}, {a + " " + two, errMoved}},
		"a link in another machine":               {{a + " " + one, nil}, {b + " " + one, errMoved}},
		"firmware that learnt its number":         {{one, nil}, {a + " " + one, nil}, {b + " " + one, errMoved}},
		"what says nothing, by an older release":  {{dummy, nil}, {dummy, nil}, {a, nil}, {dummy, nil}, {a, nil}},
		"what says nothing, and what says enough": {{dummy + " " + one, nil}, {dummy + " " + two, errMoved}},
	} {
		file := filepath.Join(t.TempDir(), "machine")
		for n, step := range boots {
			if err := compareMachine(file, step.now); !errors.Is(err, step.want) || err != nil && step.want == nil {
				t.Errorf("%s: boot %d in %q: %v", name, n, step.now, err)
			}
		}
	}
	if err := compareMachine(filepath.Join(t.TempDir(), "none", "machine"), a); err == nil {
		t.Error("a record that cannot be written is no problem")
	}
	file := filepath.Join(t.TempDir(), "machine")
	for record, want := range map[string]error{ // of a release before, in its order
		`product_uuid="` + ami + `" product_serial="Default string" board_serial="x1y2"` + "\n": nil,
		`product_uuid="4c4c4544-0038-4a10-8058-b7c04f4d5933"` + "\n":                            errMoved,
		"": nil, "\x00\x00": nil, `product_uuid="`: nil,
	} {
		if err := os.WriteFile(file, []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := compareMachine(file, a); !errors.Is(err, want) || err != nil && want == nil {
			t.Errorf("record %q: %v", record, err)
		}
	}
}

// FuzzFacts: any record; what is read of it is read again as the same.
func FuzzFacts(f *testing.F) {
	f.Add(`mac="a8:a1:59:00:00:01" product_serial="8XJ MY2"`)
	f.Add(`a="\x1b\"" b=`)
	f.Fuzz(func(t *testing.T, line string) {
		first := parseFacts(line)
		if again := parseFacts(first.String()); again.String() != first.String() || first.another(first) && first[macs] == "" {
			t.Errorf("%q: %s, then %s", line, first, again)
		}
	})
}
