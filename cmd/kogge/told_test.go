package main

import (
	"strings"
	"testing"

	"kogge.example/update/fleet"
)

// TestToldKey has keys that a liar made up to begin like another one's let nobody in by mistake.
func TestToldKey(t *testing.T) {
	bob, eve := fleet.KeyID([]byte("bob")), fleet.KeyID([]byte("eve"))
	alike := bob[:12] + strings.Repeat("0", 52)
	told := []string{alike, bob, eve}
	for typed, want := range map[string]string{bob: bob, eve[:12]: eve, bob[:12]: "", bob[:16]: bob, alike: alike, strings.Repeat("f", 12): ""} {
		if got, err := toldKey(told, typed); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", typed, got, err)
		}
	}
	if got := apart(told, eve); got != fleet.Short(eve) {
		t.Errorf("%s stands for itself", got)
	}
	if apart(told, bob) != bob || apart(told, alike) != alike {
		t.Error("two keys are shown alike")
	}
}
