package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// What others wrote (nodes, containers, registries, releases, files, whoever answers on the
// local network) reaches a person's terminal as text and never as an order to it: the
// output of every command goes through [harmless], and what is written past that is
// written with [clean]. TestTerminal knows the places that do otherwise, and why.

// The most of one line that is shown of an error, and of a log on a terminal, in bytes.
const (
	maxErrorLine = 4 << 10
	maxLogLine   = 16 << 10
)

// clean is text with an escape for every character that a terminal might obey, or that lets
// a line look like another one: C0 and C1 controls but newline and tab, DEL, the marks of
// writing direction and other invisible ones, separators of lines, and bytes that are no
// UTF-8. Within a string of JSON the escapes mean what they stand for.
func clean(text string) string {
	if !strings.ContainsFunc(text, obeyed) && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case !obeyed(r):
			b.WriteRune(r)
		case r < 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		text = text[size:]
	}
	return b.String()
}

// obeyed says whether a character is more than a picture on a terminal.
func obeyed(r rune) bool {
	switch r {
	case '\n', '\t':
		return false
	case '\u00ad', '\u200c', '\u200d': // hyphens and joints within words of many languages
		return false
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// cut is a line, or as much of it as one may be long.
func cut(line string, most int) string {
	if len(line) <= most {
		return line
	}
	for most > 0 && !utf8.RuneStart(line[most]) {
		most--
	}
	return fmt.Sprintf("%s… (%d bytes more)", line[:most], len(line)-most)
}

// harmless writes what it is given with [clean]. Its methods may be called from any
// goroutine.
type harmless struct {
	mu   sync.Mutex // guards what follows
	w    io.Writer
	held []byte // of a character whose end has not come
}

func (h *harmless) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := append(h.held, p...)
	end := len(text)
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if at := len(text) - back; utf8.RuneStart(text[at]) {
			if !utf8.FullRune(text[at:]) {
				end = at
			}
			break
		}
	}
	h.held = append([]byte(nil), text[end:]...)
	if _, err := io.WriteString(h.w, clean(string(text[:end]))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what was held: its end does not come.
func (h *harmless) flush() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _ = io.WriteString(h.w, clean(string(h.held))) // who does not read it hears of it elsewhere
	h.held = nil
}

// raw is what is behind w: for bytes that are no text, and for what moves the cursor.
func raw(w io.Writer) io.Writer {
	if h, ok := w.(*harmless); ok {
		return h.w
	}
	return w
}

// isTerminal is the terminal behind w; nil: there is none.
func isTerminal(w io.Writer) *os.File {
	f, _ := raw(w).(*os.File)
	if f == nil || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return f
}

// errorOutput is where a program speaks that has nothing to show.
func errorOutput() io.Writer { return &harmless{w: os.Stderr} }

// tame has every command write through [harmless].
func tame(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			out, errs := &harmless{w: raw(cmd.OutOrStdout())}, &harmless{w: raw(cmd.ErrOrStderr())}
			cmd.SetOut(out)
			cmd.SetErr(errs)
			defer out.flush()
			defer errs.flush()
			return run(cmd, args)
		}
	}
	for _, below := range cmd.Commands() {
		tame(below)
	}
}
