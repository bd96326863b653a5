package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/images"
	"kogge.example/agent/workload"
)

// completers have each shell print what it offers for a line, $LINE, by the script
// that kogge prints for it.
var completers = map[string][]string{
	"bash": {"bash", "--norc", "-c", `
. /usr/share/bash-completion/bash_completion
. <(kogge completion bash)
read -ra COMP_WORDS <<<"$LINE"
[ "${LINE% }" = "$LINE" ] || COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$LINE COMP_POINT=${#LINE} COMP_TYPE=9
__start_kogge
printf '%s\n' "${COMPREPLY[@]}"`},
	"fish": {"fish", "--no-config", "-c", `kogge completion fish | source; complete -C "$LINE"`},
	// Outside of its line editor zsh has no _describe, which drops what does not begin
	// as was typed.
	"zsh": {"zsh", "-f", "-c", `
compdef() {}
_describe() { print -rl -- $completions }
. <(kogge completion zsh)
words=(${=LINE})
[[ $LINE = *' ' ]] && words+=('')
CURRENT=$#words
_kogge`},
}

// description is what a shell shows behind a name.
var description = regexp.MustCompile(`(\t|  +\(|:).*`)

// TestCompletion types lines in true shells, and wants what their users are offered:
// words of the command line, and what a node answers.
func TestCompletion(t *testing.T) {
	w := &world{
		units:  []workload.UnitStatus{{ID: "db", State: workload.Running}, {ID: "web", State: workload.Stopped}},
		images: []images.Image{{Name: "registry.example/db", Size: 42, Created: time.Now()}, {Name: "registry.example/web", Created: time.Now()}},
	}
	w.open(t)
	for shell, command := range completers {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				t.Skipf("%s is not installed: make test installs it", shell)
			}
			for line, want := range map[string]string{
				"kogge node st":                 "status",
				"kogge vm run --acc":            "--accel",
				"kogge vm run --accel ":         "auto kvm tcg",
				"kogge boards show p":           "pc-x86_64",
				"kogge help first-s":            "first-steps",
				"kogge logs ":                   "db web",
				"kogge restart w":               "web",
				"kogge images rm ":              "registry.example/db registry.example/web",
				"kogge node status ":            "n1",
				"kogge ps --fleet ":             "hanse",
				"kogge fleet show ":             "hanse",
				"kogge operator invite --role ": "admin operator reader",
			} {
				cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
				cmd.Env = append(os.Environ(), "LINE="+line, "HOME="+t.TempDir(), "TERM=dumb")
				out, err := cmd.Output() // bash complains that this is no line being typed
				if err != nil {
					t.Fatalf("%q: %v\n%s", line, err, out)
				}
				typed := line[strings.LastIndexByte(line, ' ')+1:]
				var got []string
				for text := range strings.Lines(string(out)) {
					if text = strings.TrimSpace(description.ReplaceAllString(text, "")); text != "" && strings.HasPrefix(text, typed) {
						got = append(got, text)
					}
				}
				slices.Sort(got)
				if strings.Join(got, " ") != want {
					t.Errorf("%q: offers %q, want %q", line, got, want)
				}
			}
		})
	}
}

// TestCompletionWithoutNode: nobody who types has to wait for a node that is off, or
// to read about it.
func TestCompletionWithoutNode(t *testing.T) {
	w := &world{}
	w.open(t)
	must(t, os.WriteFile(filepath.Join(os.Getenv("KOGGE_CONFIG"), "hanse", "nodes.json"), []byte(`{"n1": {"address": "192.0.2.1:7443"}}`), 0o600))
	began := time.Now()
	out, err := exec.Command("kogge", "__complete", "logs", "").Output()
	if err != nil || !strings.HasPrefix(string(out), ":4\n") {
		t.Errorf("offers %q, %v", out, err)
	}
	if took := time.Since(began); took > 20*completeLimit { // a busy machine; the dial alone would take as long as it likes
		t.Errorf("took %s", took)
	}
}

// TestPowershell is for a shell that Debian lacks: its script calls the program as the
// others do.
func TestPowershell(t *testing.T) {
	out, err := exec.Command("kogge", "completion", "powershell").Output()
	if err != nil || !strings.Contains(string(out), "__complete") || !strings.Contains(string(out), "Register-ArgumentCompleter -CommandName 'kogge'") {
		t.Errorf("%v\n%.300s", err, out)
	}
}
