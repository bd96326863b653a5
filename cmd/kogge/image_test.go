package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/image/disk"
	"kogge.example/image/medium"
)

// kogge runs one command line and returns what it says went wrong.
func kogge(t *testing.T, cmd *cobra.Command, args ...string) error {
	t.Helper()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(""))
	return cmd.ExecuteContext(t.Context())
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBadInput types what does not work: each time the error names the object, and
// the hint, where there is one, says what to do.
func TestBadInput(t *testing.T) {
	t.Setenv("KOGGE_CACHE", t.TempDir())
	bad, good := file(t, "node.yaml", "hostnam: x\n"), file(t, "good.yaml", "hostname: x\n")
	text := file(t, "kogge.img", "no image")
	qcow2 := file(t, "kogge.qcow2", "QFI\xfb"+strings.Repeat("\x00", 4096))
	out := filepath.Join(t.TempDir(), "out.img")
	for _, c := range []struct {
		args       []string
		want, hint string
	}{
		{[]string{"build"}, "no output file", "-o kogge.img"},
		{[]string{"build", "-o", out, "--format", "vmdk"}, `unknown format "vmdk"`, ""},
		{[]string{"build", "-o", out, "--board", "toaster"}, `board "toaster" is unknown; there are: qemu-x86_64`, "kogge boards list"},
		{[]string{"build", "-o", out, "--slot-size", "big"}, `"big" is not a size`, ""},
		{[]string{"build", "-o", out, "--config", bad}, "node.yaml:1:1: unknown key", ""},
		{[]string{"build", "-o", out, "--config", "/no/such.yaml"}, "configuration: open /no/such.yaml", ""},
		{[]string{"seed", text}, "image seed: nothing to write", "--config node.yaml"},
		{[]string{"seed", text, "--config", bad}, "^^^^^^^", ""},
		{[]string{"seed", text, "--config", good}, "this is not a Kogge image", "kogge image build"},
		{[]string{"seed", qcow2, "--config", good}, "this is a qcow2 file", "qemu-img convert"},
		{[]string{"seed", "/no/such.img", "--config", good}, "no such file", ""},
		{[]string{"write", text, out, "--yes"}, "this is not a Kogge image", "kogge image build"},
		{[]string{"write", qcow2, out, "--yes"}, "this is a qcow2 file", "qemu-img convert"},
		{[]string{"write", "/no/such.img", out}, "open image: open /no/such.img", ""},
		{[]string{"write", text, out, "--config", bad}, "unknown key", ""},
		{[]string{"lock", "no-such-set"}, "there is no set no-such-set", ""},
	} {
		err := kogge(t, imageCommand(), c.args...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("kogge image %v: got %v, want %q", c.args, err, c.want)
		}
		var h hinted
		if errors.As(err, &h); !strings.Contains(h.hint, c.hint) || c.hint == "" && h.hint != "" {
			t.Errorf("kogge image %v: hint %q, want %q", c.args, h.hint, c.hint)
		}
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an output was made (%v)", err)
	}
	if err := kogge(t, boardsCommand(), "show", "toaster"); err == nil {
		t.Error("an unknown board was shown")
	}
}

func TestMediumHint(t *testing.T) {
	for _, sentinel := range []error{
		disk.ErrQcow2, disk.ErrNoImage, disk.ErrDamaged, medium.ErrBusy, medium.ErrSystem, medium.ErrTooSmall, medium.ErrKind, medium.ErrReadOnly, medium.ErrReadBack,
	} {
		var h hinted
		if err := mediumHint(fmt.Errorf("x: %w", sentinel)); !errors.As(err, &h) || h.hint == "" || !errors.Is(err, sentinel) {
			t.Errorf("%v has no hint", sentinel)
		}
	}
	if err := errors.New("other"); mediumHint(err) != err {
		t.Error("a hint out of nothing")
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{"sdb\n": true, "/dev/sdb\n": true, " sdb ": true, "sda\n": false, "y\n": false, "": false, "\n": false} {
		if err := confirm(strings.NewReader(answer), "/dev/sdb"); (err == nil) != want {
			t.Errorf("%q: %v", answer, err)
		}
	}
}

func TestProgress(t *testing.T) {
	now := time.Unix(0, 0)
	clock := func() time.Time { now = now.Add(50 * time.Millisecond); return now }
	run := func(tty bool) string {
		var b bytes.Buffer
		p := progress{tty: tty, w: &b, now: clock}
		for _, step := range []medium.Step{medium.Writing, medium.Reading} {
			for done := int64(1); done <= 100; done++ {
				p.show(step, done*1e6, 100e6)
			}
		}
		p.end()
		return b.String()
	}
	plain := run(false)
	if n := strings.Count(plain, "\n"); n != 20 || strings.Contains(plain, "\r") {
		t.Errorf("%d lines without a terminal:\n%s", n, plain)
	}
	bar := run(true)
	if n := strings.Count(bar, "\n"); n != 2 || !strings.Contains(bar, "["+strings.Repeat("#", 30)+"] 100 %") {
		t.Errorf("%d lines on a terminal:\n%q", n, bar)
	}
	// Nothing to do is done at once.
	var b bytes.Buffer
	p := progress{w: &b, now: clock}
	p.show(medium.Writing, 0, 0)
	p.end()
}

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{"768MiB": 768 << 20, "1GiB": 1 << 30, "": 0, "1": 0, "1MB": 0, "-1GiB": 0, "0MiB": 0, "9999999999GiB": 0, "1.5GiB": 0} {
		var s size
		if err := s.Set(text); (err == nil) != (want > 0) || int64(s) != want {
			t.Errorf("%q: %d, %v", text, s, err)
		}
	}
}

func TestCommitTime(t *testing.T) {
	for text, want := range map[string]int64{"1700000000": 1700000000, "x": 0, "-5": 0, "0": 0} {
		t.Setenv("SOURCE_DATE_EPOCH", text)
		got, err := commitTime(context.Background(), t.TempDir())
		if (err == nil) != (want > 0) || err == nil && got.Unix() != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "")
	if _, err := commitTime(context.Background(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("a folder without git: %v", err)
	}
	if v := gitVersion(context.Background(), t.TempDir()); v != "unversioned" {
		t.Errorf("version %q", v)
	}
}
