package workload

import "testing"

func TestProgress(t *testing.T) {
	for want, p := range map[string]Progress{
		"pulling":                 {},
		"pulling 0.0 of 99.1 MB":  {Total: 99_100_000},
		"pulling 45.2 of 99.1 MB": {Done: 45_200_000, Total: 99_100_000},
		"unpacking 99.1 MB":       {Done: 99_100_000, Total: 99_100_000},
	} {
		if p.String() != want {
			t.Errorf("%#v is %q, want %q", p, p.String(), want)
		}
	}
}
