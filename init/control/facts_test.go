package control

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

// TestFacts writes each of the facts with every key, and reads it back. The texts are what
// people find in an archive of kogge node support.
func TestFacts(t *testing.T) {
	at := time.Date(2026, 11, 25, 22, 0, 0, 0, time.UTC)
	prefix, address := netip.MustParsePrefix("192.0.2.7/24"), netip.MustParseAddr("192.0.2.1")
	boot := Boot{
		Slot: "A", Version: "1.0", Board: "pc-x86_64", Trial: true, Disk: "sda", Alone: "disks sda and sdb are alike", Loader: "systemd-boot", TriesLeft: 2,
		Parts: map[string]string{"ESP": "/dev/sda1"}, RootHash: "00ff", Marks: "unlocked,without-trixie-security",
	}
	assessment := Assessment{State: "pending", Why: "web is unhealthy", Since: at}
	network := Network{
		Interfaces: []Interface{{
			Name: "eth0", MAC: "52:54:00:12:34:56", Match: "eth*", Carrier: true, MTU: 1400, Addresses: []netip.Prefix{prefix}, Gateway: []netip.Addr{address},
			Lease: &Lease{
				Address: prefix, Server: address, Routes: []nodeconfig.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: address}}, DNS: []netip.Addr{address},
				Search: []string{"lan.example"}, NTP: []netip.Addr{address}, MTU: 1400, Since: at, Renew: time.Hour, Rebind: 2 * time.Hour, Valid: 3 * time.Hour,
			},
			Problem: "add route: no such device", MDNS: true, FirstMTU: 1500,
		}},
		DNS: []netip.Addr{address}, Search: []string{"lan.example"}, NTP: []netip.Addr{address}, Problem: `no link matches "eth9" of node.yaml`,
	}
	clock := Clock{
		Synced: true, Source: "192.0.2.1", Single: true, Offset: "-1.5ms", Polled: at, Floor: at, Jump: "720h0m0s", JumpAt: at, Problem: "the servers disagree, half against half",
		Servers: []string{"192.0.2.1"}, SavedAt: at, Received: 1, Answers: []ClockAnswer{{Server: "192.0.2.1", Stratum: 2, Offset: "-1.5ms", Error: "20ms"}}, ByHand: at,
	}
	dir := filepath.Join(t.TempDir(), "run")
	if _, err := ReadBoot(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before anybody wrote it: %v", err)
	}
	if err := errors.Join(boot.Write(dir), assessment.Write(dir), network.Write(dir), clock.Write(dir)); err != nil {
		t.Fatal(err)
	}
	gotBoot, err1 := ReadBoot(dir)
	gotAssessment, err2 := ReadAssessment(dir)
	gotNetwork, err3 := ReadNetwork(dir)
	gotClock, err4 := ReadClock(dir)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ wrote, read any }{{boot, gotBoot}, {assessment, gotAssessment}, {network, gotNetwork}, {clock, gotClock}} {
		if !reflect.DeepEqual(c.wrote, c.read) {
			t.Errorf("wrote %+v, read %+v", c.wrote, c.read)
		}
		v := reflect.ValueOf(c.wrote)
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("%T: this test leaves %s out", c.wrote, v.Type().Field(i).Name)
			}
		}
	}
	var all strings.Builder
	for _, name := range []string{BootFile, AssessmentFile, NetworkFile, ClockFile} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(name + "\n" + string(text))
	}
	golden.Compare(t, "facts.txt", all.String())
	if left, err := os.ReadDir(dir); err != nil || len(left) != 4 {
		t.Errorf("left %v, %v", left, err)
	}
	for _, text := range []string{"", "{", `{"slot":7}`, strings.Repeat(" ", maxFacts) + "{}"} {
		if err := os.WriteFile(filepath.Join(dir, BootFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := ReadBoot(dir); err == nil || !strings.Contains(err.Error(), BootFile) || !reflect.DeepEqual(b, Boot{}) {
			t.Errorf("%.20q: %+v, %v", text, b, err)
		}
	}
}

// TestBootString is what people are told of a boot.
func TestBootString(t *testing.T) {
	b := Boot{Slot: "A", Version: "1.0", Board: "pc-x86_64", Disk: "sda"}
	if got, want := b.String(), "slot A, release 1.0, board pc-x86_64"; got != want {
		t.Errorf("%q", got)
	}
	b.Trial = true
	if got, want := b.String(), "slot A, release 1.0, board pc-x86_64, on trial"; got != want {
		t.Errorf("%q", got)
	}
}

// TestFleetString is how people are told of a node's place, on its screen.
func TestFleetString(t *testing.T) {
	const id = "0123456789abcdef"
	for _, c := range []struct {
		is   Fleet
		want string
	}{
		{Fleet{Name: "hanse", ID: id}, "hanse (0123456789ab), not founded"},
		{Fleet{Name: "hanse", ID: id, Seat: 2, Key: "ba9876543210", Height: 1, Votes: 3, Quorum: 2}, "hanse (0123456789ab), seat 2, key ba9876543210, 1 record, 2 of 3 votes decide"},
		{Fleet{Name: "hanse", ID: id, New: true, Key: "ba9876543210", Height: 4}, "hanse (0123456789ab), new: it waits to be accepted, key ba9876543210, 4 records"},
		{Fleet{Name: "hanse", ID: id, Height: 4, Problem: "it is damaged"}, "hanse (0123456789ab), no seat, 4 records: it is damaged"},
		{Fleet{Name: "hanse", ID: id, Waits: "the token is used up"}, "hanse (0123456789ab), not in it yet: the token is used up"},
	} {
		if got := c.is.String(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.is, got, c.want)
		}
	}
}
