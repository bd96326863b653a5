package seed

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/golden"
)

// TestChoose shows the choice for every seed, copy and record of an import.
func TestChoose(t *testing.T) {
	const good, bad = "hostname: from-%s\n", "hostnam: from-%s\n"
	texts := func(place string) map[string][]byte {
		return map[string][]byte{"none": nil, "empty": {}, "good": fmt.Appendf(nil, good, place), "bad": fmt.Appendf(nil, bad, place)}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%-6s %-6s %-12s → %-17s %-12s %-7s %-12s %s\n", "seed", "copy", "imported", "runs with", "host name", "import", "record", "problem")
	for _, s := range []string{"none", "empty", "good", "bad"} {
		for _, c := range []string{"none", "empty", "good", "bad", "unread"} {
			for _, imported := range []string{"nothing", "this seed", "another seed", "unread"} {
				if s == "none" && imported == "this seed" {
					continue // there is none
				}
				in := Input{Seed: texts("seed")[s], From: "the seed", Copy: texts("copy")[c]}
				records := map[string]string{"nothing": "", "this seed": hashOf(in.Seed), "another seed": hashOf([]byte("another"))}
				in.Imported = records[imported]
				if c == "unread" {
					in.CopyErr = errRead
				}
				if imported == "unread" {
					in.ImportedErr = errRead
				}
				got := Choose(in)
				record := "none"
				for name, hash := range records {
					if got.Imported != "" && got.Imported == hash {
						record = name
					}
				}
				problem := ""
				if got.Problem != nil {
					problem = problemText(got.Problem)
				}
				line := fmt.Sprintf("%-6s %-6s %-12s → %-17s %-12s %-7v %-12s %s", s, c, imported, got.Source, got.Config.Hostname, got.Import, record, problem)
				fmt.Fprintln(&out, strings.TrimRight(line, " "))
				if got.Import && (in.CopyErr != nil && imported != "another seed" || in.ImportedErr != nil) {
					t.Errorf("%s, %s, %s: what cannot be read is replaced", s, c, imported)
				}
				if c == "none" && imported != "nothing" && got.Problem == nil {
					t.Errorf("%s, %s, %s: nobody hears that the copy is lost", s, c, imported)
				}
				if got.Text == nil {
					t.Errorf("%s, %s, %s: nil instead of a text", s, c, imported)
				}
			}
		}
	}
	golden.Compare(t, "choose.txt", out.String())
}

var errRead = errors.New("input/output error")

// problemText is the places that a problem names.
func problemText(err error) string {
	var all []string
	for line := range strings.Lines(err.Error()) {
		if text, ok := strings.CutSuffix(line, " is not used:\n"); ok {
			all = append(all, text)
		}
		for _, end := range []string{" is lost", " cannot be read"} {
			if text, _, ok := strings.Cut(line, end); ok {
				all = append(all, text+end)
			}
		}
	}
	return strings.Join(all, " + ")
}

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
