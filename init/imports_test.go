package main

import (
	"os/exec"
	"strings"
	"testing"
)

// tooBig are packages that PID 1 must never contain: they would double its size,
// and each is code that could fail in the one process that must not. It does not write
// root partitions either, nor reads what a fleet has decided.
var tooBig = []string{
	"kogge.example/update/slot", "kogge.example/update/release", "kogge.example/update/fleet/", "golang.org/x/mod/",
	"net/http", "crypto/tls", "encoding/gob", "encoding/xml", "html/template", "text/template", "database/sql",
	"google.golang.org/", "github.com/compose-spec/", "github.com/containerd/", "go.opentelemetry.io/", "github.com/sirupsen/",
}

// TestImports lists everything that is linked into init.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		for _, bad := range tooBig {
			if pkg == bad || strings.HasSuffix(bad, "/") && strings.HasPrefix(pkg, bad) {
				t.Errorf("init contains %s", pkg)
			}
		}
	}
}
