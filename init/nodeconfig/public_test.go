package nodeconfig

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// secretWord is what nobody may read but who wrote the file.
const secretWord = "hunter2-Zx9"

// TestPublic puts a secret into every kind of bad line: what everybody may read has the
// place, and not the secret.
func TestPublic(t *testing.T) {
	for _, text := range []string{
		"hostname: " + secretWord + ".x", "hostname: [" + secretWord + "]", "hostname: {a: " + secretWord + "}", "hostnam: " + secretWord,
		"password " + secretWord, secretWord, "- " + secretWord, "labels: {a: \"" + secretWord + "\n\n  x\", b: [" + secretWord + "]}", "labels: " + secretWord,
		"labels: {a: \"" + secretWord, "labels: {a: " + secretWord + ", a: x}", "a: b: " + secretWord, "\thostname: " + secretWord, "hostname: '" + secretWord,
		"hostname: *" + secretWord, "hostname: !!int " + secretWord, "hostname: !" + secretWord + " x", "hostname: &" + secretWord + " x\ntime: *" + secretWord, "hostname: @" + secretWord,
		"time: {servers: [" + secretWord + "/x]}", "time: {servers: [a.example, a.example, \"" + secretWord + " x\"]}", "network: [{match: " + secretWord + "-longer, addresses: [" + secretWord + "]}]",
		"network: [{match: e*, addresses: [192.0.2.7/24], gateway: " + secretWord + "}]", "network: [{match: e*, mtu: " + secretWord + "}]", "network: [{match: e*, mdns: " + secretWord + "}]",
		"state: {onCorrupt: " + secretWord + "}", "allow: [{container: \"" + secretWord + "/\"}]", "allow: [{container: a, devices: [" + secretWord + "]}]", "allow: [{container: a, binds: [{path: " + secretWord + "}]}]",
		"allow: [{container: a, capabilities: [" + secretWord + "]}]", "assess: {for: " + secretWord + "}", "assess: {peers: [" + secretWord + "]}", "assess: {checks: [{http: " + secretWord + "}]}",
		"assess: {checks: [{http: \"http://u:" + secretWord + "@h/\"}]}", "update: {window: " + secretWord + "}", "update: {zone: " + secretWord + "}", "update: {source: \"https://u:" + secretWord + "@h/x\"}", "update: {days: [" + secretWord + "]}",
		"workloads: " + secretWord, "workloads: {services: {a: {image: x, environment: {P: *" + secretWord + "}}}}", "? [" + secretWord + "]\n: x", "hostname: |\n  a\n  " + secretWord + " x\n", "hostname: \"caf\\u00e9 \\\"" + secretWord + "\"",
		"hostname: x\n---\nhostname: " + secretWord, "hostname: " + secretWord + "\x00", "hostname: " + secretWord + "\x07", "hostname: " + secretWord + "\xff",
	} {
		_, err := Parse("node.yaml", []byte(text))
		if err == nil {
			continue // not every text with a secret is wrong
		}
		public := Public(fmt.Errorf("of the boot partition: %w", errors.Join(errors.New("first"), err)))
		if strings.Contains(public, secretWord) || strings.Contains(public, "hunter2") || strings.Contains(public, "Zx9") {
			t.Errorf("%q: %s", text, public)
		}
		if !strings.Contains(public, "node.yaml:") || !strings.HasPrefix(public, "of the boot partition: first\n") {
			t.Errorf("%q: %s", text, public)
		}
	}
	for _, text := range []string{"state: {onCorrupt: \"p@#$!\"}", "hostname: \"!p@#$!\"", "update: {window: \"p@#$!\"}"} {
		if _, err := Parse("node.yaml", []byte(text)); err == nil || strings.Contains(Public(err), "p@#$!") {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, err := Parse("node.yaml", []byte("hostnam: n07"))
	if got, want := Public(err), `node.yaml:1:1: unknown key "hostnam": did you mean "hostname"?`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	var problems *Problems
	if hidden := Hide(fmt.Errorf("slot A: %w", err)); hidden.Error() != "slot A: "+Public(err) || !errors.As(hidden, &problems) || Public(hidden) != hidden.Error() || Hide(nil) != nil {
		t.Errorf("%v", hidden)
	}
	if got := Public(errors.New("plain")); got != "plain" {
		t.Errorf("%q", got)
	}
}
