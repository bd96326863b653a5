package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestAddLine: the history keeps its last lines, whole.
func TestAddLine(t *testing.T) {
	for text, want := range map[string]string{
		"":           "new\n",
		"one\n":      "one\nnew\n",
		"one\ntorn":  "one\ntorn\nnew\n",
		"\n\n":       "\n\nnew\n",
		"a\r\nb\x00": "a\r\nb\x00\nnew\n",
	} {
		if got := string(addLine([]byte(text), "new")); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	var history []byte
	for i := range 2 * maxBoots {
		history = addLine(history, fmt.Sprint(i))
	}
	lines := strings.Split(strings.TrimSuffix(string(history), "\n"), "\n")
	if len(lines) != maxBoots || lines[0] != fmt.Sprint(maxBoots) || lines[maxBoots-1] != fmt.Sprint(2*maxBoots-1) {
		t.Errorf("%d lines, %s to %s", len(lines), lines[0], lines[len(lines)-1])
	}
	if got := addLine(nil, strings.Repeat("x", 5000)); len(got) != 513 {
		t.Errorf("a line of %d bytes", len(got))
	}
}
