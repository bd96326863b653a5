package main

import (
	"strings"
	"testing"
	"time"
)

// TestTellWhile: what is quick is not talked about; what takes long is, while it lasts and
// when it is over.
func TestTellWhile(t *testing.T) {
	said := make(chan string, 100)
	say := func(line string) { said <- line }
	tellWhile(say, time.Hour, "STATE grows", func() {})
	if len(said) != 0 {
		t.Errorf("said %q of nothing", <-said)
	}
	tellWhile(say, time.Millisecond, "STATE grows", func() {
		for range 3 { // it lasts until it was said three times
			if line := <-said; !strings.HasPrefix(line, "kogge: STATE grows: ") || !strings.HasSuffix(line, " so far") {
				t.Errorf("said %q", line)
			}
		}
	})
	var last string
	for len(said) > 0 {
		last = <-said
	}
	if !strings.HasPrefix(last, "kogge: STATE grows: done after ") {
		t.Errorf("at last %q", last)
	}
}
