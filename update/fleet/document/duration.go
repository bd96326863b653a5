package document

import (
	"fmt"
	"time"
)

// Duration is a time in a document: "1h0m0s".
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the time as it stands in a document.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a time, in any of Go's spellings.
func (d *Duration) UnmarshalText(text []byte) error {
	t, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%.20q is no time: want one like 1h30m", text)
	}
	*d = Duration(t)
	return nil
}
