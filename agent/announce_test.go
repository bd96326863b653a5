package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"kogge.example/init/control"
)

// TestLinks announces a node where it is connected and may be, and nowhere before the
// network service has said so.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	if got := links(dir); got != nil {
		t.Errorf("without the file: %v", got)
	}
	for text, want := range map[string]string{
		`{"interfaces":[{"name":"eth0","carrier":true,"mdns":true,"addresses":["192.0.2.7/24","fe80::1/64"]},` +
			`{"name":"eth1","carrier":false,"mdns":true,"addresses":["198.51.100.7/24"]},{"name":"wan","carrier":true,"mdns":false,"addresses":["203.0.113.7/24"]}]}`: "[{eth0 [192.0.2.7/24 fe80::1/64]}]",
		`{"interfaces":null}`: "[]", `{"interf`: "[]", "": "[]",
	} {
		if err := os.WriteFile(filepath.Join(dir, control.NetworkFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(links(dir)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
