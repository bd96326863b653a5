package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// helpWidth is how long a line of help may be.
const helpWidth = 100

// teach gives the whole tree its pages of help.
func teach(root *cobra.Command) {
	cobra.EnableCommandSorting = false // a group shows its commands in the order in which one needs them
	cobra.AddTemplateFunc("fill", func(text string) string { return fill(text, width()) })
	cobra.AddTemplateFunc("flags", func(f *pflag.FlagSet) string { return f.FlagUsagesWrapped(width()) })
	root.SetHelpTemplate(`{{if .IsAdditionalHelpTopicCommand}}{{.Long}}{{else}}{{fill (or .Long .Short)}}{{end}}{{if or .Runnable .HasSubCommands}}

{{.UsageString}}{{else}}
{{end}}`)
	root.SetUsageTemplate(`Usage:
  {{if .HasAvailableSubCommands}}{{if .HasExample}}{{.UseLine}}
  {{end}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$all := .Commands}}{{if not .Groups}}

Commands:{{range $all}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{range $group := .Groups}}

{{.Title}}:{{range $all}}{{if and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{flags .LocalFlags | trimTrailingWhitespaces}}{{end}}{{if .HasHelpSubCommands}}

Pages (kogge help PAGE):{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableSubCommands}}

{{.CommandPath}} COMMAND --help explains a command.{{end}}
`)
}

// width is that of the terminal, and no more than is pleasant to read.
func width() int {
	if w, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && w > 20 {
		return min(w, helpWidth)
	}
	return helpWidth
}

// fill breaks the paragraphs of text into lines of at most so many characters. One
// that has an indented line stays as it is.
func fill(text string, width int) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if !strings.HasPrefix(p, " ") && !strings.Contains(p, "\n ") {
			paragraphs[i] = fillOne(p, width)
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

func fillOne(paragraph string, width int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(paragraph) {
		n := len([]rune(word))
		switch {
		case column == 0:
		case column+1+n > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

// section adds commands to root under a heading of kogge help.
func section(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, cmd := range commands {
		cmd.GroupID = title
	}
	root.AddCommand(commands...)
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND|PAGE]", Short: "Show help for a command, or a page",
		Example: "  kogge help\n  kogge help vm run\n  kogge help first-steps",
		Args:    cobra.ArbitraryArgs,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			at, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, below := range at.Commands() {
				if below.IsAvailableCommand() || below.IsAdditionalHelpTopicCommand() {
					names = append(names, cobra.CompletionWithDesc(below.Name(), below.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			at, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				err := fmt.Errorf("help: there is no command or page %q", strings.Join(args, " "))
				return usage{hinted{err, "kogge help lists the commands and pages"}}
			}
			at.InitDefaultHelpFlag()
			at.SetOut(cmd.OutOrStdout())
			return at.Help()
		},
	}
}
