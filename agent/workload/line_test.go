package workload

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "",
		"exit code 1":        "exit code 1",
		" a\tb  c \n\n d \n": "a b c; d",
		"x\r\nshop.db\texample.org/db:1\trunning\u2028y\u0085z\v\f": "x; shop.db example.org/db:1 running; y; z",
		"größe \xff": "größe \uFFFD",
	} {
		if got := Line(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// FuzzLine: whatever comes, it is one line, valid, and no longer than anybody reads.
func FuzzLine(f *testing.F) {
	f.Add("a\nb")
	f.Add(strings.Repeat("ä\n", 3000))
	f.Add(strings.Repeat("\x80", 5000))
	f.Fuzz(func(t *testing.T, text string) {
		got := Line(text)
		if strings.ContainsFunc(got, breaks) || !utf8.ValidString(got) || len(got) > maxLine || Line(got) != got {
			t.Errorf("%q", got)
		}
	})
}
