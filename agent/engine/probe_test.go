package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/agent/workload"
)

func TestParseHealth(t *testing.T) {
	for config, want := range map[string]string{
		`{}`:                          "test [], off false",
		`{"config":{"Cmd":["/app"]}}`: "test [], off false",
		`{"config":{"Healthcheck":{"Test":["NONE"]}}}`:                                     "test [], off true",
		`{"config":{"Healthcheck":{"Test":["CMD","/app","-check"]}}}`:                      "test [/app -check], off false",
		`{"config":{"Healthcheck":{"Test":["CMD-SHELL","curl localhost || exit 1"]}}}`:     "test [/bin/sh -c curl localhost || exit 1], off false",
		`{"config":{"Shell":["/bin/ash","-ec"],"Healthcheck":{"Test":["CMD-SHELL","x"]}}}`: "test [/bin/ash -ec x], off false",
		`{"config":{"Healthcheck":{"Test":["/app"]}}}`:                                     `error`,
		`{"config":{"Healthcheck":{"Test":["CMD"]}}}`:                                      `error`,
		`no JSON`: `error`,
	} {
		h, err := parseHealth([]byte(config))
		got := fmt.Sprintf("test %v, off %v", h.Test, h.Off)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s (%v), want %s", config, got, err, want)
		}
	}
}

// FuzzParseHealth: what an image says may be anything, and is a check or an error.
func FuzzParseHealth(f *testing.F) {
	f.Add([]byte(`{"config":{"Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":1000000000,"Retries":3}}}`))
	f.Add([]byte(`{"config":{"Healthcheck":{"Test":["NONE"],"Interval":-1}}}`))
	f.Add([]byte(`{"config":{"Healthcheck":{"Interval":1e99}}}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		image, err := parseHealth(config)
		if err != nil {
			return
		}
		h, checked := workload.Health{}.Complete(image)
		if checked && (len(h.Test) == 0 || h.Interval <= 0 || h.Timeout <= 0 || h.StartPeriod < 0 || h.StartInterval <= 0 || h.Retries <= 0) {
			t.Errorf("%+v", h)
		}
	})
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "health")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := takeTail(path); got != "" {
		t.Errorf("%q of nothing", got)
	}
	put(path, "ok")
	if got := takeTail(path); got != "ok\n" {
		t.Errorf("%q", got)
	}
	if got := takeTail(path); got != "" {
		t.Errorf("%q, again", got)
	}
	put(path+".1", strings.Repeat("ä", kept))
	put(path, "\xff end\n")
	if got := takeTail(path); len(got) > kept+16 || !strings.HasPrefix(got, "…") || !strings.HasSuffix(got, "ä\uFFFD end\n") {
		t.Errorf("%d bytes: %.20q … %q", len(got), got, got[len(got)-20:])
	}
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
