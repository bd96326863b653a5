package imageref

import (
	"strings"
	"testing"
)

func TestPin(t *testing.T) {
	sum := "sha256:" + strings.Repeat("a", 64)
	for name, want := range map[string]string{"docker.io/library/a@" + sum: sum, "a:1@" + sum: sum, "a:1": "", "a@sha256:abc": "", "": ""} {
		if got := Pin(name); got.String() != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestFull(t *testing.T) {
	for name, want := range map[string]string{
		"hello":                         "docker.io/library/hello:latest",
		"kogge.example/hello:1":         "kogge.example/hello:1",
		"registry.example:5000/a/b":     "registry.example:5000/a/b:latest",
		"UPPER":                         "",
		strings.Repeat("a/", 512) + "b": "",
		"":                              "",
	} {
		got, err := Full(name)
		if (err == nil) != (want != "") || got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}
