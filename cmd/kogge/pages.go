package main

import (
	"embed"
	"strings"

	"github.com/spf13/cobra"
)

// pageFiles are the texts of kogge help PAGE: Markdown that reads well on a terminal as
// it is. Its first line is the title, and no line is longer than pageWidth.
//
//go:embed pages/*.md
var pageFiles embed.FS

// pageWidth is how long a line of a page may be.
const pageWidth = 80

// pageNames are the pages in the order in which one reads them.
var pageNames = []string{
	"first-steps", "operating", "compose", "compose-keys", "image-keys", "limits", "node-yaml", "contexts", "roles", "first-fleet", "first-vote", "fleets", "members-lost", "cut-off",
	"disk-images", "releases", "updates", "boot",
	"files", "json", "ledger-file", "exit-codes",
}

// pages are commands that do nothing: kogge help shows their texts.
func pages() []*cobra.Command {
	var all []*cobra.Command
	for _, name := range pageNames {
		text, err := pageFiles.ReadFile("pages/" + name + ".md")
		if err != nil {
			panic(err) // a name without its file: every test of this package finds it
		}
		title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		all = append(all, &cobra.Command{Use: name, Short: title, Long: strings.TrimRight(string(text), "\n")})
	}
	return all
}
