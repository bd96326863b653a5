package main

import (
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

// TestRest reads the collector's percentage, which is all that shows of a rest.
func TestRest(t *testing.T) {
	usual := debug.SetGCPercent(400)
	defer debug.SetGCPercent(usual)
	percent := func() int {
		now := debug.SetGCPercent(400)
		debug.SetGCPercent(now)
		return now
	}
	synctest.Test(t, func(t *testing.T) {
		restWith(roomy - 1)
		time.Sleep(2 * settled)
		if got := percent(); got != 400 {
			t.Errorf("with little memory: %d", got) // hurry has set its own
		}
		restWith(roomy)
		time.Sleep(settled - time.Second)
		if got := percent(); got != 400 {
			t.Errorf("while containers start: %d", got)
		}
		time.Sleep(2 * time.Second)
		if got := percent(); got != idle {
			t.Errorf("later: %d", got)
		}
	})
}
