package main

import (
	"testing"

	"kogge.example/agent/workload"
)

// TestOwnerOf: the kernel's victim is told of by the name of its container, whichever of its
// instances that was in.
func TestOwnerOf(t *testing.T) {
	both := workload.Instances("shop.web")
	left := workload.Instances("shop.old")
	s := workload.Status{
		Units:   []workload.UnitStatus{{ID: "shop.web", Instance: both[0]}},
		Leaving: []workload.UnitStatus{{ID: "shop.old", Instance: left[0]}},
	}
	for instance, want := range map[string]string{
		both[0]: "shop.web", both[1]: "shop.web", left[0]: "shop.old", left[1]: "shop.old", "stranger": "stranger",
	} {
		if got := ownerOf(s, instance); got != want {
			t.Errorf("%s is of %s, want %s", instance, got, want)
		}
	}
}
