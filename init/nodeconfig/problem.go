package nodeconfig

import (
	"fmt"
	"strconv"
	"strings"
)

// maxProblems is how many problems of one file are kept and shown: the first ten
// tell what is wrong, and a file of garbage is no reason for a screen of it.
const maxProblems = 10

// Problem is one thing that is wrong with a file.
type Problem struct {
	File    string // as given to Parse
	Line    int    // counted from 1; 0: the file as a whole
	Column  int    // in characters, counted from 1
	Width   int    // characters that the caret underlines, at least 1
	Source  string // the line as it stands in the file
	Message string // what is wrong, and what would be right

	made *made // how Message was made; nil: there are no words of the file in it
}

// Same says whether p and other say the same of the same place.
func (p Problem) Same(other Problem) bool {
	p.made, other.made = nil, nil
	return p == other
}

// Problems is what Parse returns for a file it refuses: never empty, in the order
// of the file.
type Problems struct {
	List []Problem // at most ten
	More int       // how many others there were
}

// Error shows every problem with its line and a caret under the offending text.
func (p *Problems) Error() string {
	var b strings.Builder
	for i, problem := range p.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		problem.write(&b)
	}
	if p.More > 0 {
		fmt.Fprintf(&b, "\nand %d more", p.More)
	}
	return b.String()
}

// Error shows the problem with its line and a caret under the offending text.
func (p Problem) Error() string {
	var b strings.Builder
	p.write(&b)
	return b.String()
}

func (p Problem) write(b *strings.Builder) {
	if p.Line == 0 {
		fmt.Fprintf(b, "%s: %s", p.File, p.Message)
		return
	}
	fmt.Fprintf(b, "%s:%d:%d: %s\n", p.File, p.Line, p.Column, p.Message)
	line, start, width := p.excerpt()
	number := strconv.Itoa(p.Line)
	fmt.Fprintf(b, "  %s | %s\n", number, line)
	fmt.Fprintf(b, "  %s | %s%s", strings.Repeat(" ", len(number)), strings.Repeat(" ", start), strings.Repeat("^", width))
}

// excerpt cuts a long line down to what surrounds the caret, and replaces what a
// terminal would not print as one character.
func (p Problem) excerpt() (line string, start, width int) {
	const before, whole = 40, 76
	runes := []rune(p.Source)
	for i, r := range runes {
		switch {
		case r == '\t':
			runes[i] = ' '
		case !strconv.IsPrint(r):
			runes[i] = '\uFFFD'
		}
	}
	start = min(max(p.Column-1, 0), len(runes))
	width = max(p.Width, 1)
	if len(runes) > whole {
		from := max(0, min(start-before, len(runes)-whole))
		to := min(from+whole, len(runes))
		head, tail := "", ""
		if from > 0 {
			head = "…"
		}
		if to < len(runes) {
			tail = "…"
		}
		runes = []rune(head + string(runes[from:to]) + tail)
		start = start - from + len([]rune(head))
	}
	width = max(1, min(width, len(runes)-start))
	return strings.TrimRight(string(runes), " "), start, width
}
