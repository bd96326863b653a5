package nodeconfig

import (
	"os"
	"strings"
	"testing"
)

// TestReadme holds the example of the README to what a node accepts: people copy it.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "## node.yaml\n")
	_, rest, begins := strings.Cut(rest, "```yaml\n")
	example, _, ends := strings.Cut(rest, "```\n")
	if !found || !begins || !ends {
		t.Fatal("README.md has no example below its heading node.yaml")
	}
	if _, err := Parse("README.md", []byte(example)); err != nil {
		t.Error(err)
	}
}
