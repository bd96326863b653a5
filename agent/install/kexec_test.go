package install

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestKexecFallsBack: a kernel that cannot be loaded costs no try. The node reboots through
// its firmware, and says why. That one is loaded and starts, qemu/e2e shows with a real one.
func TestKexecFallsBack(t *testing.T) {
	next := makeRelease(t, "1.1", 2, wish{}) // whose kernel is none
	for _, c := range []struct {
		kexec func(kernel, initrd *os.File, cmdline string) error
		want  string
	}{
		{nil, "through the firmware: kexec: not here"},
		{func(_, _ *os.File, _ string) error { return errors.New("called") }, "through the firmware: kexec: "},
	} {
		m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
		m.have(next)
		m.Installer.Kexec = c.kexec
		last := Step{}
		err := m.Update(t.Context(), Order{Source: next.open(t), When: Kexec}, func(s Step) { last = s })
		if err != nil || last.Step != Rebooting || !strings.Contains(last.Text, c.want) || m.rebooted != 1 || m.stopped != 1 {
			t.Errorf("%+v, %v, %d reboots", last, err, m.rebooted)
		}
		if state := m.loaderState(); state.B.Left != 3 || state.B.Done != 0 {
			t.Errorf("%+v", state)
		}
	}
}
