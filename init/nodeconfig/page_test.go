package nodeconfig

import (
	"os"
	"strings"
	"testing"
)

// TestPage holds the example of kogge help node-yaml to what a node accepts: people
// copy it.
func TestPage(t *testing.T) {
	const page = "../../cmd/kogge/pages/node-yaml.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begins := strings.Cut(string(text), "```yaml\n")
	example, _, ends := strings.Cut(rest, "```\n")
	if !begins || !ends {
		t.Fatal(page + " has no example")
	}
	if _, err := Parse("node-yaml.md", []byte(example)); err != nil {
		t.Error(err)
	}
}
