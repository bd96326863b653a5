package workload

import (
	"strings"
	"unicode/utf8"
)

// maxLine is how many bytes of a text are of use in a table or a log. PID 1 makes several
// lines of one that is longer than 4096.
const maxLine = 3 << 10

// Line is text as one line of at most 3 KiB, for reasons, logs and errors: what an image, a
// registry or a program says in it cannot look like a line of ours.
func Line(text string) string {
	text = text[:min(len(text), 8*maxLine)]
	var parts []string
	for _, line := range strings.FieldsFunc(strings.ToValidUTF8(text, "\uFFFD"), breaks) {
		if words := strings.Fields(line); len(words) > 0 {
			parts = append(parts, strings.Join(words, " "))
		}
	}
	line := strings.Join(parts, "; ")
	if len(line) <= maxLine {
		return line
	}
	end := maxLine - len("…")
	for !utf8.RuneStart(line[end]) {
		end--
	}
	return line[:end] + "…"
}

// breaks says whether a line ends at r, for some reader or other.
func breaks(r rune) bool { return strings.ContainsRune("\n\r\v\f\u0085\u2028\u2029", r) }
