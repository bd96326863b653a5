package memory

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"kogge.example/update/golden"
)

func over(v Verdict, why string) Conclusion {
	return Conclusion{Stage: TrialOver, Verdict: v, Why: why, Boots: 3}
}

// TestFailures is the file as this version writes it, which later ones have to read.
func TestFailures(t *testing.T) {
	dir := t.TempDir()
	fs, err := ReadFailures(In(dir))
	if err != nil || fs != nil {
		t.Fatalf("no file: %v, %v", fs, err)
	}
	one := Trial{Release: "1.1", Digest: "sha256:11", Number: 7}
	fs = fs.Add(one, over(Unproven, "its tries ran out"), noon)
	fs = fs.Add(one, over(Unproven, "its tries ran out"), noon) // the power failed in between
	if f, found := fs.Find("1.1", "sha256:11"); !found || f.Refused() {
		t.Errorf("unproven once: %+v, %v", f, found)
	}
	one.Number++
	fs = fs.Add(one, over(Unproven, "its tries ran out"), noon)
	if f, _ := fs.Find("1.1", ""); !f.Refused() || f.Times != 2 {
		t.Errorf("unproven twice: %+v", f)
	}
	c := over(Failed, "agent not ready")
	c.Log = "the last words\nof the trial\n"
	fs = fs.Add(Trial{Release: "1.2", Digest: "sha256:12"}, c, noon)
	if _, found := fs.Find("1.2", "sha256:another"); found {
		t.Error("another release of the same version is taken for it")
	}
	if err := WriteFailures(In(dir), fs); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, failuresName))
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "failures-1.json", string(text))
	again, err := ReadFailures(In(dir))
	if err != nil || !reflect.DeepEqual(again, fs) {
		t.Errorf("read back: %+v, %v", again, err)
	}
	if got := fs[1].String(); got != "release 1.2 failed: agent not ready (3 boots)" {
		t.Error(got)
	}
	left, gone := fs.Forget("1.2")
	if len(left) != 1 || len(gone) != 1 || gone[0].Release != "1.2" {
		t.Errorf("forget 1.2: left %+v, gone %+v", left, gone)
	}
	if left, gone := fs.Forget(""); len(left) != 2 || gone != nil {
		t.Errorf("forget nothing: left %+v, gone %+v", left, gone)
	}
	for i := range 2 * maxFailures {
		fs = fs.Add(Trial{Release: fmt.Sprint(i)}, over(Failed, "x"), noon)
	}
	if len(fs) != maxFailures || fs[maxFailures-1].Release != fmt.Sprint(2*maxFailures-1) {
		t.Errorf("%d failures", len(fs))
	}
}

func TestReadFailuresRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "unexpected end",
		`{"version":2}`:                  "version 2; this release reads version 1",
		`{"version":1,"more":1}`:         "unknown field",
		`{"version":1,"failures":[]} {}`: "after top-level value",
		`{"version":1,"failures":[{"release":"1","verdict":"cursed"}]}`: `verdict "cursed" is unknown`,
	} {
		if _, err := parseFailures([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, failuresName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// What is damaged is forgotten; what another release wrote is not ours to.
		if fs, err := ReadFailures(In(dir)); len(fs) > 0 || (err != nil) != strings.HasPrefix(want, "version") {
			t.Errorf("%s: loads as %v, %v", text, fs, err)
		}
	}
}

func FuzzFailures(f *testing.F) {
	f.Add([]byte(`{"version":1,"failures":[{"release":"1","verdict":"failed","last":"2026-03-01T12:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		fs, err := parseFailures(text)
		if err != nil {
			return
		}
		again, err := parseFailures(fs.Text())
		if err != nil || len(again) != len(fs) {
			t.Fatalf("own text: %v", err)
		}
	})
}
