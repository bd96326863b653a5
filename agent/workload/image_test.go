package workload

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestVolumesOf: what becomes of the VOLUMEs of an image.
func TestVolumesOf(t *testing.T) {
	for _, c := range []struct {
		name string
		Container
		paths  []string
		want   string
		cannot []string
	}{
		{"without", Container{ID: "shop.db"}, nil, "[]", nil},
		{"of a project", Container{ID: "shop.db"}, []string{"/var/lib/db", "/data"}, "[{shop.db+data /data false false} {shop.db+var-lib-db /var/lib/db false false}]", nil},
		{"of node.yaml", Container{ID: "db"}, []string{"/data/"}, "[{db+data /data false false}]", nil},
		{"that is one of the file's", Container{ID: "db", Volumes: []Volume{{Name: "mine", Target: "/data"}}}, []string{"/data/"}, "[]", nil},
		{"in one of the file's", Container{ID: "db", Volumes: []Volume{{Name: "mine", Target: "/data/"}}, Rights: Rights{Binds: []Bind{{Path: "/state/data/c", Target: "/c"}}}},
			[]string{"/data/deep", "/database", "/c/d"}, "[{db+database /database false false}]", nil},
		{"in one that is empty at each start", Container{ID: "db", Tmpfs: []Tmpfs{{Target: "/a"}}}, []string{"/a/b"}, "[{db+a-b /a/b false false}]", nil},
		{"of two services whose names would be one", Container{ID: "web-data"}, []string{"/x"}, "[{web-data+x /x false false}]", nil},
		{"with something else on it", Container{
			ID: "db", Tmpfs: []Tmpfs{{Target: "/a/"}}, Files: []File{{Target: "/b"}}, Rights: Rights{Binds: []Bind{{Path: "/state/data/c", Target: "/c"}}},
		}, []string{"/a", "/b", "/c"}, "[]", nil},
		{"twice", Container{ID: "db"}, []string{"/data", "/data/", "//data", "data"}, "[{db+data /data false false}]", nil},
		{"that climbs", Container{ID: "db"}, []string{"/../../data"}, "[{db+data /data false false}]", nil},
		{"whose names would be one", Container{ID: "db"}, []string{"/a/b", "/a-b", "/a b"}, "[{db+a-b-73c9c45d /a b false false} {db+a-b-590bb8f6 /a-b false false} {db+a-b /a/b false false}]", nil},
		{"that none can be", Container{ID: "db"}, []string{"/", "", ".", "/proc/x", "/sys", "/dev", "/etc/hosts", "/a\x00b", "/ok"}, "[{db+ok /ok false false}]",
			[]string{"", ".", "/", "/a\x00b", "/dev", "/etc/hosts", "/proc/x", "/sys"}},
	} {
		got, cannot := VolumesOf(c.Container, c.paths)
		if fmt.Sprint(got) != c.want || !slices.Equal(cannot, c.cannot) {
			t.Errorf("a volume %s: %v %q, want %s %q", c.name, got, cannot, c.want, c.cannot)
		}
	}
	long := strings.Repeat("/long", 100)
	if got, _ := VolumesOf(Container{ID: "db"}, []string{long, long + "er"}); len(got) != 2 || got[0].Name == got[1].Name || len(got[0].Name) > 60 {
		t.Errorf("long ones: %v", got)
	}
}

// TestWith: what an image adds makes no other container of the one that was wanted.
func TestWith(t *testing.T) {
	c := Container{ID: "db", Image: "example.org/db:1", Volumes: []Volume{{Name: "a", Target: "/a"}}}
	more := c.With(FromImage{Volumes: []Volume{{Name: "db-b", Target: "/b"}}})
	if more.Hash() != c.Hash() || len(more.Volumes) != 2 || len(c.Volumes) != 1 {
		t.Errorf("%v with more is %v", c, more)
	}
	if other := (Container{ID: "db", Image: "example.org/db:1", Volumes: more.Volumes}); other.Hash() == c.Hash() {
		t.Error("what the file says of volumes does not count")
	}
}

// TestEnvironment: what Docker gives a container, whatever its image leaves out.
func TestEnvironment(t *testing.T) {
	const path = "PATH=" + defaultPath
	for _, c := range []struct {
		name             string
		image, own, want []string
	}{
		{"of an image that says nothing", nil, nil, []string{path, "HOSTNAME=web"}},
		{"of an image without PATH", []string{"FOO=bar"}, nil, []string{path, "HOSTNAME=web", "FOO=bar"}},
		{"of an image with PATH", []string{"PATH=/opt/bin", "A=1"}, nil, []string{"PATH=/opt/bin", "HOSTNAME=web", "A=1"}},
		{"of an image with an empty PATH", []string{"PATH="}, nil, []string{"PATH=", "HOSTNAME=web"}},
		{"of an image with PATHS alone", []string{"PATHS=x"}, nil, []string{path, "HOSTNAME=web", "PATHS=x"}},
		{"of an image with a host name", []string{"HOSTNAME=image"}, nil, []string{path, "HOSTNAME=image"}},
		{"of a file", []string{"A=1", "B=2"}, []string{"A=3", "PATH=/bin", "HOSTNAME=own"}, []string{"PATH=/bin", "HOSTNAME=own", "A=3", "B=2"}},
		{"of a file that takes away", []string{"A=1"}, []string{"A", "PATH", "C"}, []string{"HOSTNAME=web"}},
		{"of a file that gives nothing", []string{"A=1"}, []string{"A="}, []string{path, "HOSTNAME=web", "A="}},
		{"twice", []string{"A=1", "A=2"}, nil, []string{path, "HOSTNAME=web", "A=2"}},
	} {
		if got := (Container{Hostname: "web", Env: c.own}).Environment(c.image); !slices.Equal(got, c.want) {
			t.Errorf("environment %s: %q, want %q", c.name, got, c.want)
		}
	}
}
