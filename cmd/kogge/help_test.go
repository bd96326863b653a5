package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kogge.example/update/golden"
)

// everyCommand calls f for each command that people see, and for each page.
func everyCommand(root *cobra.Command, f func(*cobra.Command)) {
	root.InitDefaultHelpFlag()
	f(root)
	for _, cmd := range root.Commands() {
		everyCommand(cmd, f)
	}
}

// plain takes what this user has set out of the defaults that help shows.
func plain(t *testing.T) {
	t.Helper()
	for _, name := range []string{"KOGGE_FLEET", "KOGGE_NODE", "USER"} {
		t.Setenv(name, "")
	}
}

// TestHelp holds the help of every command, so that a change of its words is read, and
// that no line is too long for a terminal. [TestPages] does so for the pages.
func TestHelp(t *testing.T) {
	plain(t)
	var all strings.Builder
	everyCommand(rootCommand(), func(cmd *cobra.Command) {
		if cmd.IsAdditionalHelpTopicCommand() {
			return
		}
		var b bytes.Buffer
		cmd.SetOut(&b)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > helpWidth {
				t.Errorf("help of %s: %d characters: %s", cmd.CommandPath(), n, line)
			}
		}
		fmt.Fprintf(&all, "$ kogge help %s\n%s\n", strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "kogge"), " "), b.String())
	})
	golden.Compare(t, "help.txt", all.String())
}

// TestHelpIsWhole: no command without a word for what it does and an example, and no
// flag without one for what it means.
func TestHelpIsWhole(t *testing.T) {
	everyCommand(rootCommand(), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short is %q: want some words, without a full stop", path, cmd.Short)
		}
		if cmd.Runnable() && !cmd.HasSubCommands() && !strings.HasPrefix(cmd.Example, "  ") {
			t.Errorf("%s: Example is %q: want indented lines", path, cmd.Example)
		}
		if parent := cmd.Parent(); parent != nil && parent.Parent() == nil && cmd.Runnable() && cmd.GroupID == "" {
			t.Errorf("%s: in no section of kogge help", path)
		}
		if cmd.Runnable() && cmd.Args == nil {
			t.Errorf("%s: does not say which arguments it takes", path)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: no word about --%s", path, f.Name)
			}
		})
	})
}

// gap is what stands before an explanation in an example.
var gap = regexp.MustCompile(` {2,}| # `)

// TestExamples has the command line take every example of help: the command is there,
// its flags are, and its arguments are as many as it wants.
func TestExamples(t *testing.T) {
	found := 0
	everyCommand(rootCommand(), func(cmd *cobra.Command) {
		if cmd.IsAdditionalHelpTopicCommand() {
			return // see TestPages
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if !strings.HasPrefix(line, "  ") {
				continue
			}
			_, text, ok := strings.Cut(line, "kogge ")
			if before := strings.TrimSpace(line[:len(line)-len(text)]); !ok || strings.HasPrefix(before, "#") || strings.Contains(before, "~") {
				continue
			}
			text = gap.Split(strings.TrimSpace(text), 2)[0]
			text, _, _ = strings.Cut(text, " > ")
			text, _, _ = strings.Cut(text, " >> ")
			words := strings.Fields(text)
			if words[0] == "…" {
				continue
			}
			found++
			if err := accepts(words); err != nil {
				t.Errorf("help of %s: kogge %s: %v", cmd.CommandPath(), text, err)
			}
		}
	})
	if found < 60 {
		t.Errorf("only %d examples were found", found)
	}
}

// accepts says what the command line has against words. It carries nothing out.
func accepts(words []string) error {
	cmd, rest, err := rootCommand().Find(words)
	if err != nil {
		return err
	}
	if cmd.Name() == "help" {
		if at, rest, err := cmd.Root().Find(rest); err != nil || len(rest) > 0 {
			return fmt.Errorf("%s has no %v, %v", at.CommandPath(), rest, err)
		}
		return nil
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if !cmd.Runnable() {
		return fmt.Errorf("%s does nothing", cmd.CommandPath())
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}
