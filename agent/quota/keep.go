package quota

import (
	"context"
	"errors"
	"log"
	"time"
)

// every is how often the bound follows how full the file system is.
const every = 5 * time.Second

// Keep sees to it that containers leave a reserve of the file system that folder is on until
// ctx ends, and begins with that before it returns. Where there are no quotas it says so
// and does nothing. wait returns when it has ended.
func Keep(ctx context.Context, folder string) (wait func()) {
	last := ""
	bind := func() (bound bool) {
		err, text := Bind(folder), ""
		switch {
		case errors.Is(err, ErrNone):
			text = folder + " has no project quotas, as an older release made it or has to read it: containers can use all of it up"
		case err != nil:
			text = err.Error()
		}
		if text != "" && text != last {
			log.Print("agent: " + text)
		}
		last = text
		return !errors.Is(err, ErrNone)
	}
	done := make(chan struct{})
	if !bind() {
		close(done)
		return func() {}
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				bind()
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { <-done }
}
