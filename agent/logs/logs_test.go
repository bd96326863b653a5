package logs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/agent/api/kogge/v1"
)

// collect is a batch whose lines go to a channel.
func collect() (*Batch, chan string) {
	got := make(chan string, 1000)
	return &Batch{Send: func(m *apiv1.LogLines) error {
		for _, l := range m.Lines {
			got <- l
		}
		return nil
	}}, got
}

func drain(got chan string) (all []string) {
	for {
		select {
		case l := <-got:
			all = append(all, l)
		default:
			return all
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestOutputTail reads both parts of a container's output, and their last lines.
func TestOutputTail(t *testing.T) {
	for _, test := range []struct {
		name     string
		old, now string
		tail     int
		want     string
	}{
		{"all", "a\nb\n", "c\nd\n", 0, "a b c d"},
		{"a line over the seam", "a\nb", "c\nd\n", 0, "a bc d"},
		{"no newline at the end", "", "c\nd", 0, "c d"},
		{"the last", "a\nb\n", "c\nd\n", 1, "d"},
		{"the last three", "a\nb\n", "c\nd\n", 3, "b c d"},
		{"more than there are", "a\nb\n", "c\n", 9, "a b c"},
		{"the last without newline", "", "c\nd", 1, "d"},
		{"carriage returns", "", "c\r\nd\r\n", 0, "c d"},
		{"nothing", "", "", 2, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.log")
			if test.old != "" {
				write(t, file+".1", test.old)
			}
			write(t, file, test.now)
			b, got := collect()
			if err := (&Output{File: file, To: b}).Send(t.Context(), test.tail, false); err != nil {
				t.Fatal(err)
			}
			if s := strings.Join(drain(got), " "); s != test.want {
				t.Errorf("got %q, want %q", s, test.want)
			}
		})
	}
}

// TestOutputFollow goes on over a file that does not exist yet and over one that
// was put aside.
func TestOutputFollow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.log")
	b, got := collect()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- (&Output{File: file, To: b}).Send(ctx, 0, true) }()
	want := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			select {
			case l := <-got:
				if l != line {
					t.Errorf("got %q, want %q", l, line)
				}
			case err := <-over:
				t.Fatalf("ended: %v", err)
			}
		}
	}
	write(t, file, "first\nsec")
	want("first")
	write(t, file, "ond\n")
	want("second")
	write(t, file, "third\n")
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, file, "fourth\n")
	want("third", "fourth")
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// TestOutputLongLines cuts what never ends, and keeps no more than a line of it.
func TestOutputLongLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.log")
	write(t, file, strings.Repeat("x", 3*maxLine+5))
	b, got := collect()
	if err := (&Output{File: file, To: b}).Send(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	lines := drain(got)
	if len(lines) != 4 || len(lines[0]) != maxLine || len(lines[3]) != 5 {
		t.Errorf("%d lines", len(lines))
	}
}

// TestBatch sends bounded messages of valid text.
func TestBatch(t *testing.T) {
	var sizes []int
	b := &Batch{Send: func(m *apiv1.LogLines) error {
		n := 0
		for _, l := range m.Lines {
			n += len(l)
		}
		sizes = append(sizes, n)
		return nil
	}}
	for i := range 5000 {
		if err := b.Add(fmt.Sprintf("%030d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range sizes {
		total += n
		if n > maxBatch+maxLine {
			t.Errorf("a message of %d bytes", n)
		}
	}
	if total != 5000*30 || len(sizes) < 2 {
		t.Errorf("%d bytes in %d messages", total, len(sizes))
	}
	c, got := collect()
	if err := c.Add("a\xffb"); err != nil || c.Flush() != nil {
		t.Fatal(err)
	}
	if l := <-got; l != "a\uFFFDb" {
		t.Errorf("%q", l)
	}
}

func TestKernelLine(t *testing.T) {
	for record, want := range map[string]string{
		"6,339,5140900,-;NET: Registered protocol\n SUBSYSTEM=x\n": "[    5.140900] NET: Registered protocol",
		"30,1,0,-;kogge: slot A":                                   "[    0.000000] kogge: slot A",
		"nonsense":                                                 "",
		"1,2;x":                                                    "",
		"1,2,x,-;y":                                                "",
	} {
		got, ok := kernelLine(record)
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", record, got, ok, want)
		}
	}
}

func FuzzKernelLine(f *testing.F) {
	f.Add("6,339,5140900,-;NET: Registered protocol\n SUBSYSTEM=x\n")
	f.Fuzz(func(t *testing.T, record string) {
		if line, ok := kernelLine(record); ok && strings.Contains(line, "\n") {
			t.Errorf("%q", line)
		}
	})
}
