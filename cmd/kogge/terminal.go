package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
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
	asIs bool   // see [data]
	err  error  // the first of a write
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
	if err := h.pass(text[:end]); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (h *harmless) pass(text []byte) error {
	shown := string(text)
	if !h.asIs {
		shown = clean(shown)
	}
	_, err := io.WriteString(h.w, shown)
	if h.err == nil {
		h.err = err
	}
	return err
}

// flush writes what was held: its end does not come.
func (h *harmless) flush() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.pass(h.held) // end tells of it
	h.held = nil
}

// end is err, or why not all that was written has arrived, as on a disk that is full. A
// reader who has enough and goes, like head, is no reason.
func (h *harmless) end(err error) error {
	h.flush()
	if err != nil || h.err == nil || errors.Is(h.err, syscall.EPIPE) {
		return err
	}
	return fmt.Errorf("the output is not complete: %w", h.err)
}

// data has w pass on what follows as it is, for it is a file's text; but not to a terminal.
func data(w io.Writer) io.Writer {
	if h, ok := w.(*harmless); ok && isTerminal(w) == nil {
		h.flush()
		h.asIs = true
	}
	return w
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

// standardOutput is where a program shows what it was asked for.
func standardOutput() *harmless { return &harmless{w: os.Stdout} }

// errorOutput is where a program speaks that has nothing to show.
func errorOutput() io.Writer { return &harmless{w: os.Stderr} }

// tame has every command write through [harmless].
func tame(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			out, ok := cmd.OutOrStdout().(*harmless)
			if !ok {
				out = &harmless{w: cmd.OutOrStdout()}
			}
			errs := &harmless{w: raw(cmd.ErrOrStderr())}
			cmd.SetOut(out)
			cmd.SetErr(errs)
			defer errs.flush()
			return out.end(run(cmd, args))
		}
	}
	for _, below := range cmd.Commands() {
		tame(below)
	}
}
