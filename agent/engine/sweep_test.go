package engine

import (
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
)

func TestUpperOf(t *testing.T) {
	for want, mounts := range map[string][]mount.Mount{
		"/s/7/fs": {{Type: "overlay", Options: []string{"index=off", "workdir=/s/7/work", "upperdir=/s/7/fs", "lowerdir=/s/1/fs"}}},
		"/s/8/fs": {{Type: "bind", Source: "/s/8/fs", Options: []string{"rw", "rbind"}}},
		"":        {{Type: "bind", Source: "/s/1/fs", Options: []string{"ro", "rbind"}}},
	} {
		if got := upperOf(mounts); got != want {
			t.Errorf("%v: %q", mounts, got)
		}
	}
}
