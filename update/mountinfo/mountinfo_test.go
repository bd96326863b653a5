package mountinfo

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const good = "22 1 254:0 / / ro,relatime shared:1 - erofs /dev/dm-0 ro\n" +
		"30 22 259:4 / /a\\040b\\134 rw - ext4 /dev/a\\011b rw\n" +
		"31 22 0:44 / /empty rw shared:2 master:1 - tmpfs  rw\n"
	want := []Mount{{"254:0", "/", "/dev/dm-0"}, {"259:4", `/a b\`, "/dev/a\tb"}, {"0:44", "/empty", ""}}
	if got, err := Parse(good); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q: %+v, %v", good, got, err)
	}
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(string(own)); err != nil || len(got) != strings.Count(string(own), "\n") {
		t.Errorf("our own: %+v, %v", got, err)
	}
	for _, bad := range []string{"x\n", " - \n", "1 2 3 4 5 6 - \n", "\n"} {
		for _, text := range []string{bad + good, good + strings.TrimSpace(bad) + "\n"} {
			if got, err := Parse(text); err == nil || !slices.Equal(got, want) {
				t.Errorf("%q: %+v, %v", text, got, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("22 1 254:0 / / ro - erofs /dev/dm-0 ro\n")
	f.Add("30 22 259:4 / /a\\04 rw a b c - ext4\n\\")
	f.Add("22 1 8:1 / /a\\040b rw - ext4 /dev/\\0 rw\n- \n - - -\n")
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := Parse(text)
		for _, m := range mounts {
			if m.Device == "" || m.Target == "" {
				t.Errorf("%q gives %+v", text, m)
			}
		}
		if lines := slices.Collect(strings.Lines(text)); err == nil && len(mounts) != len(lines) {
			t.Errorf("%q: %d mounts of %d lines", text, len(mounts), len(lines))
		}
	})
}
