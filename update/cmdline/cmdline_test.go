package cmdline

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/update/gpt"
	"kogge.example/update/verity"
)

var hash = strings.Repeat("ab", 32) + ":" + strings.Repeat("cd", 32) + ":7"

func TestParse(t *testing.T) {
	params, err := verity.ParseParams(hash)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line string
		want Words
		err  string
	}{
		{line: "quiet kogge.board=b kogge.version=1.0 kogge.verity=" + hash + "\n", want: Words{Verity: params, Version: "1.0", Board: "b"}},
		{line: "kogge.verity=" + hash + " kogge.trial=1", want: Words{Verity: params, Trial: true}},
		{line: "kogge.trial=0 kogge.verity=" + hash, want: Words{Verity: params}},
		{line: "kogge.trial kogge.verity=" + hash, want: Words{Verity: params}},
		{line: "kogge.version=a=b kogge.verity=" + hash, want: Words{Verity: params, Version: "a=b"}},
		{line: "kogge.verity=" + hash + " kogge.bootpart=C12A7328-f81f-11d2-ba4b-00a0c93ec93b", want: Words{Verity: params, BootPart: gpt.EFISystem}},
		{line: "kogge.verity=" + hash + " kogge.bootpart=c12a7328", want: Words{Verity: params}},
		// As everywhere in the kernel, the last word counts.
		{line: "kogge.verity=x kogge.version=1 kogge.version=2 kogge.verity=" + hash, want: Words{Verity: params, Version: "2"}},
		{line: "kogge.verity.x=1 xkogge.verity=2 KOGGE.VERITY=3", err: "kogge.verity is missing"},
		{line: "", err: "kogge.verity is missing"},
		{line: "kogge.verity=", err: "kogge.verity is missing"},
		{line: "kogge.verity", err: "kogge.verity is missing"},
		{line: "kogge.verity=x", err: `kogge.verity: verity parameters "x"`},
		{line: "kogge.verity=" + strings.ToUpper(hash), err: "not in the usual form"},
	} {
		got, err := Parse(c.line)
		if got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %+v, %v", c.line, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("quiet kogge.board=b kogge.version=1.0 kogge.trial=1 kogge.verity=" + hash)
	f.Add("kogge.verity== kogge.= =")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := Parse(line)
		if err != nil {
			if c != (Words{}) {
				t.Errorf("%v, and yet %+v", err, c)
			}
			return
		}
		if !strings.Contains(line, c.Verity.String()) {
			t.Errorf("%v is not in the line", c.Verity)
		}
	})
}

// TestString prints what each of those who write the words says, and reads it back.
func TestString(t *testing.T) {
	params, err := verity.ParseParams(hash)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		words Words
		want  string
	}{
		{Words{}, ""},
		{Words{Board: "b", Version: "1.0", Verity: params}, "kogge.board=b kogge.version=1.0 kogge.verity=" + hash},
		{Words{Board: "b", Version: "1.0", Verity: params, Fault: "agent-sick"}, "kogge.board=b kogge.version=1.0 kogge.verity=" + hash + " kogge.fault=agent-sick"},
		{Words{Board: "b", Version: "1.0", Verity: params, Marks: "unlocked,without-trixie-updates"}, "kogge.board=b kogge.version=1.0 kogge.verity=" + hash + " kogge.marks=unlocked,without-trixie-updates"},
		{Words{Trial: true, BootPart: gpt.EFISystem}, "kogge.trial=1 kogge.bootpart=c12a7328-f81f-11d2-ba4b-00a0c93ec93b"},
	} {
		got := c.words.String()
		if got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
		// What a boot loader says comes behind the words of a release.
		back, err := Parse("quiet kogge.verity=" + hash + " " + got)
		if c.words.Verity = params; err != nil || back != c.words {
			t.Errorf("%q: read back as %+v, %v", got, back, err)
		}
	}
}

// TestRead reads the line as the kernel shows it. Another system's has no root of ours.
func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cmdline")
	if _, err := Read(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	for line, want := range map[string]error{"quiet kogge.verity=" + hash + "\n": nil, "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet\n": ErrNoRoot} {
		if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if w, err := Read(file); !errors.Is(err, want) || (w.Verity.Blocks == 7) != (want == nil) {
			t.Errorf("%q: %+v, %v", line, w, err)
		}
	}
}
