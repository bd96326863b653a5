package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kogge.example/agent/workload"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
)

// TestPages: kogge help PAGE prints the file as it is, every file is a page, and its
// lines fit on a terminal.
func TestPages(t *testing.T) {
	files, err := fs.Glob(pageFiles, "pages/*.md")
	must(t, err)
	if len(files) != len(pageNames) {
		t.Errorf("%d files in pages/, %d names in pageNames", len(files), len(pageNames))
	}
	for _, name := range pageNames {
		want := content(t, "pages/"+name+".md")
		if !strings.HasPrefix(want, "# ") {
			t.Errorf("%s: the first line is not a title", name)
		}
		for line := range strings.Lines(want) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > pageWidth {
				t.Errorf("%s: %d characters: %s", name, n, line)
			}
		}
		var got bytes.Buffer
		root := rootCommand()
		root.SetOut(&got)
		root.SetArgs([]string{"help", name})
		if err := root.Execute(); err != nil {
			t.Errorf("kogge help %s: %v", name, err)
		}
		if got.String() != want {
			t.Errorf("kogge help %s prints\n%s", name, &got)
		}
	}
}

// texts are what the repository tells people in Markdown: README and the pages.
func texts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{"../../README.md": content(t, "../../README.md")}
	for _, name := range pageNames {
		path := "pages/" + name + ".md"
		found[path] = content(t, path)
	}
	return found
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

var (
	inlineCode = regexp.MustCompile("`([^`\n]+(?:\n[^`\n]+)?)`") // may be broken once
	koggeCall  = regexp.MustCompile(`(?:^|[;|(]\s*|\bdo |[A-Z]=\S+ )(?:bin/)?kogge ([^;|)>#]+)`)
	makeCall   = regexp.MustCompile(`(?:^|[;&]\s*)make ([a-z][a-z0-9-]*)`)
	oneFlag    = regexp.MustCompile(`^--([a-z-]+)`)
	prompt     = regexp.MustCompile(`^([a-z]*\$ )`)
	mdLink     = regexp.MustCompile(`\]\(([^)#:]+)\)`)
)

// code is what a text shows as code: each indented line that is a command (a line that
// ends in a backslash with the next one), and what stands between backticks.
func code(text string) (lines, inline []string) {
	var prose strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
		if !strings.HasPrefix(line, "    ") {
			prose.WriteString(line)
			continue
		}
		line = strings.TrimSpace(line)
		if at := prompt.FindString(line); at != "" || commandBegins.MatchString(line) {
			lines = append(lines, strings.TrimPrefix(line, at))
		}
	}
	for _, found := range inlineCode.FindAllStringSubmatch(prose.String(), -1) {
		inline = append(inline, strings.Join(strings.Fields(found[1]), " "))
	}
	return lines, inline
}

// commandBegins tells a command from the output that stands below it.
var commandBegins = regexp.MustCompile(`^(bin/)?(kogge |make |for |source |export |go |git |cd |curl |mkdir )`)

// TestPagesCommands has the command line take every kogge command of README and the
// pages, finds each make target in the Makefile, and each flag that stands alone at
// some command.
func TestPagesCommands(t *testing.T) {
	flags := map[string]bool{}
	everyCommand(rootCommand(), func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
	})
	makefile := content(t, "../../Makefile")
	commands, targets, alone := 0, 0, 0
	for path, text := range texts(t) {
		lines, inline := code(text)
		for _, line := range slices.Concat(lines, inline) {
			for _, call := range koggeCall.FindAllStringSubmatch(line, -1) {
				commands++
				if err := shown(strings.Fields(call[1])); err != nil {
					t.Errorf("%s: kogge %s: %v", path, call[1], err)
				}
			}
			before, _, _ := strings.Cut(line, "#")
			for _, call := range makeCall.FindAllStringSubmatch(before, -1) {
				targets++
				if !strings.Contains(makefile, "\n"+call[1]+":") {
					t.Errorf("%s: make %s: the Makefile has no such target", path, call[1])
				}
			}
		}
		for _, line := range inline {
			if f := oneFlag.FindStringSubmatch(line); f != nil {
				alone++
				if !flags[f[1]] {
					t.Errorf("%s: no command has --%s", path, f[1])
				}
			}
		}
	}
	if commands < 120 || targets < 10 || alone < 15 {
		t.Errorf("found only %d commands, %d targets, %d flags: are they still shown as code?", commands, targets, alone)
	}
}

// shown is [accepts] for a command that people read: PAGE and COMMAND stand for any,
// and a word about a command need not have all its arguments.
func shown(words []string) error {
	switch {
	case words[0] == "COMMAND", words[0] == "help" && len(words) > 1 && words[1] == "PAGE":
		return nil
	}
	err := accepts(words)
	if err == nil || errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	cmd, rest, at := rootCommand().Find(words)
	if at != nil || cmd.HasSubCommands() && len(rest) > 0 || !cmd.Runnable() {
		return err
	}
	if given := cmd.ParseFlags(rest); given != nil || cmd.Flags().NArg() > 0 {
		return err
	}
	return nil // the name alone, and flags
}

// TestPagesLinks: what README and the pages link to is there.
func TestPagesLinks(t *testing.T) {
	found := 0
	for path, text := range texts(t) {
		for _, link := range mdLink.FindAllStringSubmatch(text, -1) {
			found++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), link[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		for _, file := range inSource.FindAllString(text, -1) {
			if _, err := os.Stat(filepath.Join("../..", file)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if found < len(pageNames) {
		t.Errorf("only %d links were found", found)
	}
	for _, name := range pageNames {
		if !strings.Contains(texts(t)["../../README.md"], "(cmd/kogge/pages/"+name+".md)") {
			t.Errorf("README.md does not link to page %s", name)
		}
	}
}

// inSource are the files of the source tree that a text names by their path.
var inSource = regexp.MustCompile(`\b(?:agent|init|image|update|qemu|boards|cmd)/[\w./-]+\.(?:md|go)\b`)

// TestPagesNodePorts: page compose lists the node's own ports, and no others.
func TestPagesNodePorts(t *testing.T) {
	_, text, _ := strings.Cut(content(t, "pages/compose.md"), "node's own ports cannot be published:\n\n")
	text, _, _ = strings.Cut(text, "\n\n")
	var want strings.Builder
	for _, p := range workload.NodePorts {
		fmt.Fprintf(&want, "    %-8s  %s\n", fmt.Sprintf("%d/%s", p.Port, p.Protocol), p.What)
	}
	if got := text + "\n"; got != want.String() {
		t.Errorf("the page says\n%swant\n%s", got, &want)
	}
}

// TestPageLedgerFile: whatever a genesis, a ledger and its evidence hold stands on page ledger-file, field by
// field, and is read by the verifier that was written from it.
func TestPageLedgerFile(t *testing.T) {
	page, verifier := content(t, "pages/ledger-file.md"), content(t, "../../update/fleet/ledger/testdata/verify.py")
	var genesis map[string]any
	must(t, json.Unmarshal(ledgertest.Begun(t, 1).Genesis.Bytes(), &genesis))
	fields := slices.Collect(maps.Keys(genesis))
	for _, v := range []any{ledger.Record{}, ledger.Value{}, ledger.Certificate{}, proposal.Proposal{}, proposal.Answer{}, proposal.Opinion{}, roster.Request{}} {
		fields = append(fields, fieldsOf(reflect.TypeOf(v))...)
	}
	for _, name := range fields {
		if !regexp.MustCompile(`(?m)^ +(?:[a-zA-Z ]+ )?` + name + `\b`).MatchString(page) {
			t.Errorf("the page has no field %s", name)
		}
		if !regexp.MustCompile(`"` + name + `\??"`).MatchString(verifier) {
			t.Errorf("verify.py reads no field %s", name)
		}
	}
	if len(fields) < 100 {
		t.Errorf("only %d fields were found", len(fields))
	}
	for _, tag := range []string{"kogge/founding/v1", "kogge/precommit/v1", "kogge/break-glass/v1", "kogge/double-vote/v1", "kogge/answer/v1", proposal.Kind, proposal.OpinionKind, roster.RequestKind} {
		if !strings.Contains(page, tag) || !strings.Contains(verifier, tag) {
			t.Errorf("%s is not on the page, or not in verify.py", tag)
		}
	}
}

// fieldsOf are the names of a document's fields, and of those within.
func fieldsOf(of reflect.Type) (names []string) {
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice:
		return fieldsOf(of.Elem())
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(of) {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				names = append(append(names, name), fieldsOf(f.Type)...)
			}
		}
	}
	return names
}
