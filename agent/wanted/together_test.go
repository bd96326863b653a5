package wanted

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestApplyTogether: of two projects that want one port at the same time one gets it,
// and of many versions of one project one is there as a whole.
func TestApplyTogether(t *testing.T) {
	s := store(t)
	var wait sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		text := strings.Replace(web, "  web:", fmt.Sprintf("  web%d:", i), 1)
		wait.Go(func() { _, _, errs[i] = s.Apply(fmt.Sprintf("shop%d", i), []byte(text), false) })
	}
	wait.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Errorf("shop%d and shop%d both have the port", won, i)
		case err == nil:
			won = i
		case !errors.Is(err, ErrConflict):
			t.Errorf("shop%d: %v", i, err)
		}
	}
	if got, want := ids(t, s), fmt.Sprintf("shop%d.web%d", won, won); got != want {
		t.Errorf("wanted %s, want %s", got, want)
	}
	for i := range errs {
		text := fmt.Sprintf("services:\n  a%d:\n    image: example.org/a:1\n  b%d:\n    image: example.org/b:1\n", i, i)
		wait.Go(func() { _, _, errs[i] = s.Apply("data", []byte(text), false) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	var n int
	if _, err := fmt.Sscanf(ids(t, s), "data.a%d ", &n); err != nil || ids(t, s) != fmt.Sprintf("data.a%d data.b%d shop%d.web%d", n, n, won, won) {
		t.Errorf("wanted %s: not one version as a whole", ids(t, s))
	}
}
