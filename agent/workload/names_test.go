package workload

import (
	"errors"
	"strings"
	"testing"
)

// TestInstances: whatever a project and a service are called, containerd takes the
// names of its instances, and no two containers have one in common.
func TestInstances(t *testing.T) {
	seen := make(map[string]string)
	long := strings.Repeat("x", 63)
	for _, project := range []string{"", "shop", "shop_2", "my-shop", "a--b", "a__b", "a_-b", "end-", "end_", long} {
		for _, service := range []string{"web", "web-2", "a--b", "0", long, long[:62] + "y"} {
			id := Join(project, service)
			if p, s := Split(id); p != project || s != service {
				t.Errorf("%s is %q and %q", id, p, s)
			}
			for _, name := range Instances(id) {
				if len(name) > maxInstance || !instanceName.MatchString(name) {
					t.Errorf("%s: containerd takes no %s", id, name)
				}
				if other := seen[name]; other != "" {
					t.Errorf("%s and %s are both %s", id, other, name)
				}
				seen[name] = id
			}
		}
	}
	for id, want := range map[string]string{"web": "web", "shop.web": "shop.web", "a--b.web": "a-b-web_"} {
		if got := Instances(id)[0]; !strings.HasPrefix(got, want) || len(got) > len(want) && want[len(want)-1] != '_' {
			t.Errorf("%s is called %s", id, got)
		}
	}
}

func TestFind(t *testing.T) {
	s := Status{Units: []UnitStatus{{ID: "web"}, {ID: "blog.db"}, {ID: "blog.web"}, {ID: "shop.db"}, {ID: "shop.cache"}}}
	for name, want := range map[string]string{"web": "web", "blog.web": "blog.web", "cache": "shop.cache", "shop.db": "shop.db"} {
		if u, err := s.Find(name); err != nil || u.ID != want {
			t.Errorf("%s: %s, %v", name, u.ID, err)
		}
	}
	for name, want := range map[string]error{"": ErrUnknown, "shop": ErrUnknown, "shop.web": ErrUnknown, "db": ErrAmbiguous} {
		if _, err := s.Find(name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Find("db"); !strings.Contains(err.Error(), "blog.db, shop.db") {
		t.Errorf("%v", err)
	}
}
