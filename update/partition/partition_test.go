package partition

import (
	"slices"
	"testing"
)

// TestNames holds the names that lie on every disk since the first release: a node that
// is updated must find its parts.
func TestNames(t *testing.T) {
	if want := []string{"ESP", "ROOT-A", "ROOT-B", "STATE"}; !slices.Equal(All(), want) {
		t.Errorf("%q, want %q", All(), want)
	}
	for slot, want := range map[string]string{"A": RootA, "B": RootB, "a": RootA, "b": RootB} {
		if got := Root(slot); got != want {
			t.Errorf("slot %q: %q, want %q", slot, got, want)
		}
	}
}
