package workload

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"kogge.example/init/nodeconfig"
	"kogge.example/init/rights"
	"kogge.example/update/golden"
)

// TestDenied: what is refused, with the entry of node.yaml that would allow it, which is
// then enough.
func TestDenied(t *testing.T) {
	asks := []struct {
		name string
		Rights
	}{
		{"nothing", Rights{}},
		{"privileged", Rights{Privileged: true}},
		{"privileged, and what that includes", Rights{
			Privileged: true, Capabilities: []string{"CAP_NET_ADMIN"},
			Devices: []Device{{"/dev/ttyUSB0", "/dev/ttyUSB0", "rwm"}}, Unconfined: []rights.Profile{rights.Seccomp},
		}},
		{"privileged on the node's network", Rights{Privileged: true, Host: []rights.Namespace{rights.HostNetwork}}},
		{"two capabilities", Rights{Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_TIME"}}},
		{"all capabilities", Rights{Capabilities: []string{"ALL"}}},
		{"a device twice", Rights{Devices: []Device{{"/dev/ttyUSB0", "/dev/a", "rw"}, {"/dev/ttyUSB0", "/dev/b", "r"}}}},
		{"a device in an allowed folder", Rights{Devices: []Device{{"/dev/snd/timer", "/dev/snd/timer", "rw"}}}},
		{"a bind to read", Rights{Binds: []Bind{{"/state/data/media", "/media", true}}}},
		{"a bind to write", Rights{Binds: []Bind{{"/state/data/media", "/media", false}}}},
		{"a bind below an allowed one", Rights{Binds: []Bind{{"/state/data/media/x", "/media", true}}}},
		{"namespaces", Rights{Host: []rights.Namespace{rights.HostNetwork, rights.HostPID}}},
		{"profiles", Rights{Unconfined: rights.Profiles}},
	}
	allows := []struct{ name, text string }{
		{"nothing", ""},
		{"all of it to another", `- {container: db, privileged: true, capabilities: [ALL], host: [network, pid]}`},
		{"privileged", `- {container: shop.web, privileged: true}`},
		{"some", `- {container: shop.web, capabilities: [NET_ADMIN], devices: [/dev/ttyUSB0, /dev/snd], host: [network],
    binds: [{path: /state/data/media, readOnly: true}], unconfined: [seccomp]}`},
		{"some to everybody", "- {container: db, host: [network]}\n  - {container: '*', capabilities: [ALL], binds: [/state/data/media], host: [pid]}"},
	}
	var b strings.Builder
	for _, a := range allows {
		fmt.Fprintf(&b, "allow: %s\n", a.text)
		for _, ask := range asks {
			c := Container{ID: "shop.web", Rights: ask.Rights}
			err := Denied(c, allow(t, a.text))
			if err == nil {
				fmt.Fprintf(&b, "  %s: allowed\n", ask.name)
				continue
			}
			if !errors.Is(err, ErrNotAllowed) {
				t.Errorf("%s: %v", ask.name, err)
			}
			fmt.Fprintf(&b, "  %s: %v\n", ask.name, err)
			_, entry, _ := strings.Cut(err.Error(), "the line ")
			more := append(allow(t, a.text), allow(t, entry)...)
			if err := Denied(c, more); err != nil {
				t.Errorf("%s, allowed what was asked for: %v", ask.name, err)
			}
		}
		b.WriteString("\n")
	}
	golden.Compare(t, "allow.txt", b.String())
}

// TestDeniedIDs: no number of a user or a group is a way into the node's user namespace past
// what node.yaml allows; as many as can be mapped need none.
func TestDeniedIDs(t *testing.T) {
	var groups, many []string
	var few, ids []uint32
	for i := range MaxBeyond + 1 {
		ids = append(ids, uint32(IDs+i))
		many = append(many, fmt.Sprint(IDs+i))
	}
	groups, few = many[:MaxBeyond], ids[:MaxBeyond]
	line := allow(t, "- {container: shop.web, host: [user]}")
	for _, c := range []struct {
		Container
		apart bool
	}{
		{Container{User: "65536"}, true},
		{Container{User: "0:65536"}, true},
		{Container{User: "app:4294967294"}, true},
		{Container{GroupAdd: groups}, true},
		{Container{}.With(FromImage{IDs: few}), true},
		{Container{User: "70000"}.With(FromImage{IDs: few}), false},
		{Container{GroupAdd: many}, false},
		{Container{}.With(FromImage{IDs: ids}), false},
	} {
		c.ID = "shop.web"
		err := Denied(c.Container, nil)
		if (err == nil) != c.apart || c.Apart() != c.apart {
			t.Errorf("%q %q: %v, apart %v", c.User, c.GroupAdd, err, c.Apart())
		}
		const want = "it has more user and group IDs above 65535 than a node can map: 300, and fewer where they are far apart: not allowed by the node's node.yaml, which would need under \"allow:\" the line - {container: shop.web, host: [user]}"
		if err != nil && err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		if err := Denied(c.Container, line); err != nil || c.Apart() != c.apart {
			t.Errorf("allowed: %v, apart %v", err, c.Apart())
		}
		c.Rights.Privileged = true
		if needs := c.Needs(); needs.Host != nil {
			t.Errorf("privileged needs %v", needs)
		}
	}
}

// allow parses entries of node.yaml.
func allow(t *testing.T, entries string) []rights.Allow {
	t.Helper()
	if entries == "" {
		return nil
	}
	c, err := nodeconfig.Parse("node.yaml", []byte("allow:\n  "+entries+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return c.Allow
}
