package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
)

// table is columns of text for people. What a cell says stays in that cell, whoever wrote
// it: there is no other way to write to a table than row and head, and head takes constants.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)} }

// head writes a line of our own as it is, with tabs between its cells.
func (t table) head(line heading) { fmt.Fprintln(t.w, line) }

type heading string

// row writes cells: format has the tabs between them, and the end of the line.
func (t table) row(format string, args ...any) {
	for i, arg := range args {
		switch reflect.ValueOf(arg).Kind() {
		case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64, reflect.Float64:
			if _, ok := arg.(fmt.Stringer); !ok {
				continue // %d and %.1f want it as it is
			}
		}
		args[i] = cell(fmt.Sprint(arg))
	}
	fmt.Fprintf(t.w, format, args...)
}

func (t table) Flush() error { return t.w.Flush() }

// cell is text for one cell: it begins neither another one nor another line. What a terminal
// obeys beside that is left to [clean].
func cell(text string) string {
	return strings.NewReplacer("\n", `\n`, "\r", `\r`, "\t", `\t`, "\v", `\v`, "\f", `\f`).Replace(text)
}
