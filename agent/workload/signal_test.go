package workload

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]int{
		"SIGINT": 2, "int": 2, "TERM": 15, "9": 9, "1": 1, "64": 64, "RTMIN+3": 37, "SIGRTMAX": 64,
		"": 0, "0": 0, "-1": 0, "65": 0, "999": 0, "99999999999999999999": 0, "SIG": 0, "SIGNOTHING": 0, "9 ": 0,
	} {
		got, err := ParseSignal(text)
		if int(got) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	if got, err := ParseSignal("kill"); got != unix.SIGKILL || err != nil {
		t.Errorf("kill: %v, %v", got, err)
	}
}
