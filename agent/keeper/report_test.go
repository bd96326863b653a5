package keeper

import (
	"errors"
	"testing"
)

// TestExited: whoever looks at a container that ended for want of memory reads how much it
// could have, and that its file asks for more.
func TestExited(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		code         int
		wanted, most int64
		want         string
	}{
		{1, 0, 0, "exit code 1"},
		{1, 64 * mib, 108 * mib, "exit code 1"},
		{137, 0, 0, "exit code 137"},
		{137, 64 * mib, 0, "exit code 137: killed; its mem_limit is 64 MiB"},
		{137, 64 * mib, 108 * mib, "exit code 137: killed; its mem_limit is 64 MiB"},
		{137, 0, 108 * mib, "exit code 137: killed; it can have 108 MiB of memory on this node"},
		{137, 128 * mib, 108 * mib, "exit code 137; mem_limit 128 MiB lowered to the 108 MiB that one container can have on this node"},
		{1, 128 * mib, 108 * mib, "exit code 1; mem_limit 128 MiB lowered to the 108 MiB that one container can have on this node"},
	} {
		if got := exited(c.code, c.wanted, c.most); got != c.want {
			t.Errorf("code %d, %d of %d bytes: %q, want %q", c.code, c.wanted, c.most, got, c.want)
		}
	}
}

// TestReasonLine: a reason is one line, whatever an image has in it.
func TestReasonLine(t *testing.T) {
	var u unit
	u.explain(event{kind: StartFailed, err: errors.New("exec /x\npg.db  example.org/db:1\trunning\n")}, 0)
	if want := "exec /x; pg.db example.org/db:1 running"; u.reason != want {
		t.Errorf("%q, want %q", u.reason, want)
	}
}
