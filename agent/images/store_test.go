package images

import (
	"strings"
	"testing"
)

func TestPlatform(t *testing.T) {
	for _, p := range []string{"", "linux"} {
		if err := RunsHere(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	for _, p := range []string{"linux/s390x", "windows/amd64", "linux/amd64/v2/x", "/"} {
		if err := RunsHere(p); err == nil || !strings.Contains(err.Error(), "platform") || !strings.Contains(err.Error(), p) {
			t.Errorf("%q: %v", p, err)
		}
	}
}
