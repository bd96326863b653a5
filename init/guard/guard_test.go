package guard

import (
	"strings"
	"sync"
	"testing"
)

// TestGo asks for a reboot once, whatever number of goroutines panic.
func TestGo(t *testing.T) {
	var wg sync.WaitGroup
	wg.Add(3)
	for _, name := range []string{"first", "second"} {
		Go(name, func() {
			defer wg.Done()
			panic(name + " has had enough")
		})
	}
	Go("third", wg.Done)
	if why := <-Broken(); !strings.HasPrefix(why, "panic in ") || !strings.HasSuffix(why, " has had enough") {
		t.Errorf("Broken: %s", why)
	}
	wg.Wait()
	func() {
		defer Recover("main")
	}()
}
