package workload

import (
	"fmt"
	"syscall"

	"github.com/moby/sys/signal"
)

// LastSignal is the highest number that a signal has.
const LastSignal = 64

// ParseSignal is the signal of a name, with or without SIG, or of a number.
func ParseSignal(text string) (syscall.Signal, error) {
	s, err := signal.ParseSignal(text)
	if err != nil || s < 1 || s > LastSignal {
		return 0, fmt.Errorf("unknown signal %.20q: expected a name such as SIGINT, or a number from 1 to %d", text, LastSignal)
	}
	return s, nil
}
