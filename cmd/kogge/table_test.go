package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/api/kogge/v1"
)

// TestTable: whatever a cell says, a table has as many lines as rows, and as many columns.
func TestTable(t *testing.T) {
	const forged = "x\nshop.db\texample.org/db:1\trunning\r\v\f"
	var b strings.Builder
	w := newTable(&b)
	w.head("NAME\tCOUNT\tSAYS")
	w.row("%s\t%d\t%v\n", "web", 3, errors.New(forged))
	w.row("%.3s\t%d\t%s\n", forged, 4, "well")
	w.row("%s\t%d\t%v\n", heading("named\nkind"), int32(5), []string{"a\tlist"})
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	const want = "NAME         COUNT  SAYS\n" + `web          3      x\nshop.db\texample.org/db:1\trunning\r\v\f` + "\n" + `x\n          4      well` + "\n" +
		`named\nkind  5      [a\tlist]` + "\n"
	if got := b.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	b.Reset()
	printContainers(&b, &apiv1.ListResponse{Trouble: "it is\nshop.db  running", Containers: []*apiv1.Container{{Name: "web", Image: "example.org/web:1", State: "backoff", Reason: forged}}}, time.Now())
	if got := b.String(); strings.Count(got, "\n") != 3 {
		t.Errorf("kogge ps:\n%s", got)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if file != "table.go" && file != "table_test.go" && strings.Contains(string(text), "text/tabwriter") {
			t.Errorf("%s has a table of its own", file)
		}
	}
}
