package nodeconfig

import (
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A file may hold secrets: in the environment of a container, in a file that it gets, in a
// line that was not meant to be there. Who hands it in is told what is wrong with his own
// words beside it. What a node keeps of it, in logs, on its console and in its state, more
// people read: that has the place, the key and the reason, and no value.

// hidden stands for what the file says there.
const hidden = "(not shown)"

// NewProblem is a problem with a file of these lines, at a place in it. value is the text
// there, if it is known. format's arguments that have words of the file in them are left out
// of what [Public] shows, but for keys.
func NewProblem(at Problem, lines []string, value, format string, args ...any) Problem {
	at.Message = fmt.Sprintf(format, args...)
	at.made = &made{lines, value, format, args}
	return at
}

// made is how a message was made: what it shows to everybody is found out once that is
// wanted, which is rare.
type made struct {
	lines         []string
	value, format string
	args          []any
}

func (m *made) public() string {
	public := make([]any, len(m.args))
	file := strings.Join(m.lines, "\n") + "\n" + m.value
	for i, arg := range m.args {
		switch arg := arg.(type) {
		case int, int64, uint, uint16, uint32, uint64, float64, bool, rune:
			public[i] = arg
		case Prose:
			public[i] = quoted.ReplaceAllString(string(arg), hidden)
		default:
			if public[i] = fmt.Sprint(arg); ofFile(fmt.Sprint(arg), file) {
				public[i] = hidden
			}
		}
	}
	text := fmt.Sprintf(strings.ReplaceAll(m.format, "%s", "%v"), public...)
	return strings.ReplaceAll(text, strconv.Quote(hidden), hidden)
}

// Prose is an argument of [NewProblem] in somebody else's words, which has words of the file
// only in quotes.
type Prose string

var quoted = regexp.MustCompile("'[^']*[\\pL\\pN_-]{3,}[^']*'|`[^`]*`|\"[^\"]*\"")

// words are what texts are compared by, and keys what ours or those of people look like.
// Secrets stand behind a colon, and not before one.
var (
	words = regexp.MustCompile(`[\pL\pN_-]{3,}`)
	keys  = regexp.MustCompile(`(?m)([A-Za-z_][A-Za-z0-9_-]*)["']?[ \t]*:(?:[ \t{\[]|$)`)
)

// ofFile says whether text has a word that a file of ours says, and that is no key there.
func ofFile(text, file string) bool {
	text, file = strings.ToLower(text), strings.ToLower(file)
	known := map[string]bool{}
	for _, found := range keys.FindAllStringSubmatch(file, -1) {
		known[found[1]] = true
	}
	said := func(word string) bool { return word != "" && !known[word] && strings.Contains(file, word) }
	if said(text) || strings.HasPrefix(text, "the text ") || strings.HasPrefix(text, "the number ") { // see describe
		return true
	}
	return slices.ContainsFunc(words.FindAllString(text, -1), said)
}

// Public is err without what a file says: for logs, consoles, and whatever somebody may
// read who may not read the file.
func Public(err error) string {
	text := err.Error()
	for err := range tree(err) {
		switch err := err.(type) {
		case *Problems:
			text = strings.ReplaceAll(text, err.Error(), err.public())
		case Problem:
			text = strings.ReplaceAll(text, err.Error(), err.shown())
		}
	}
	return text
}

// Hide is err with what [Public] shows as its text, for a file that was handed in long ago:
// whoever hears of it now may read neither the file nor the log. It wraps err; nil stays nil.
func Hide(err error) error {
	if err == nil {
		return nil
	}
	return hiding{err, Public(err)}
}

type hiding struct {
	error
	text string
}

func (h hiding) Error() string { return h.text }
func (h hiding) Unwrap() error { return h.error }

// tree is err and all that it wraps.
func tree(err error) iter.Seq[error] {
	return func(yield func(error) bool) { walk(err, yield) }
}

func walk(err error, yield func(error) bool) bool {
	if !yield(err) {
		return false
	}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		if inner := err.Unwrap(); inner != nil {
			return walk(inner, yield)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range err.Unwrap() {
			if !walk(inner, yield) {
				return false
			}
		}
	}
	return true
}

func (p *Problems) public() string {
	var all []string
	for _, one := range p.List {
		all = append(all, one.shown())
	}
	if p.More > 0 {
		all = append(all, fmt.Sprintf("and %d more", p.More))
	}
	return strings.Join(all, "\n")
}

// shown is the problem without the line, and without its words.
func (p Problem) shown() string {
	message := p.Message // of somebody who hides by himself
	if p.made != nil {
		message = p.made.public()
	}
	if p.Line == 0 {
		return p.File + ": " + message
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, message)
}
