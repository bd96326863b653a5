package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"connectrpc.com/connect"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/compose"
	"kogge.example/agent/compose/project"
	"kogge.example/agent/wanted"
	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
	"kogge.example/init/rights"
)

// applyFlags are what kogge apply is told.
type applyFlags struct {
	target
	files, envFiles, profiles []string
	project                   string
	check, noWait             bool
	stdin                     []byte // the file -
}

func applyCommand() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "apply", Short: "Run the containers of a Compose file on a node",
		Long: `Runs the containers of a Compose file on a node, as a project.

--project names the project; without it, the name is the file's name: or its folder.
Only containers that changed are replaced, and those whose image's name stands for
another image on the node by now. Containers that are no longer in the file are
removed; their volumes stay. What somebody stopped (kogge stop) stays so. kogge rm
PROJECT removes all of them.

It waits until the containers run, or have ended with code 0. One that has ended is not
run again while it is unchanged: kogge start NAME does that.

--check needs no node. It lists what would be done, what is warned of because it
means nothing on a node, what the node's own node.yaml has to allow, and what is
refused. It exits with 1 if anything is refused, else with 0.

Variables come from the environment, then from --env-file, or else from .env beside
the first file.`,
		Example: "  kogge apply -f compose.yaml --node n1\n  docker compose config | kogge apply -f - --node n1\n  kogge apply --check -f compose.yaml -f prod.yaml --profile debug --json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.target.register(cmd)
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "file", "f", nil, "Compose `FILE`, or - for standard input; later files override earlier ones (default: compose.yaml or docker-compose.yml)")
	flags.StringArrayVar(&f.envFiles, "env-file", nil, "`FILE` with variables, instead of .env")
	flags.StringArrayVar(&f.profiles, "profile", nil, "also the services of profile `NAME`; * is all")
	flags.StringVarP(&f.project, "project", "p", "", "`NAME` of the project (default: name: of the file, or its folder)")
	flags.BoolVar(&f.check, "check", false, "only list what would be done, warned of and refused")
	flags.BoolVar(&f.noWait, "no-wait", false, "return once the node has accepted the file")
	return cmd
}

func (f *applyFlags) run(cmd *cobra.Command) error {
	files, err := f.composeFiles()
	if err != nil {
		return err
	}
	if cmd.Flags().Changed("project") && !wanted.ValidName(f.project) {
		return usage{fmt.Errorf("apply: --project %q: %w", f.project, wanted.ErrName)}
	}
	if slices.Contains(files, "-") {
		if f.stdin, err = readInput(cmd.Context(), "-", project.MaxFile); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
	}
	name, nameless := f.projectName(files[0])
	answer, refused, err := f.load(cmd, name, files)
	if err != nil {
		return err
	}
	var wrong *nodeconfig.Problems
	if errors.As(nameless, &wrong) {
		answer.Containers, refused.List = nil, append(wrong.List, refused.List...)
	}
	show := showAnswer
	if f.json {
		show = jsonAnswer
	}
	if f.check || len(refused.List) > 0 {
		if err := show(cmd.OutOrStdout(), answer, refused); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		if err := f.verdict(files, refused); err != nil {
			return err
		}
		return nameless
	}
	for _, w := range answer.Warnings {
		say("warning: %v", w)
	}
	if nameless != nil {
		return nameless
	}
	return f.target.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
		return f.send(ctx, c, name, answer, cmd.OutOrStdout())
	})
}

// projectName is what the project is called: by flag, by the first file, or by the
// folder that it lies in. The error is a *[nodeconfig.Problems] where the file says it wrong.
func (f *applyFlags) projectName(file string) (string, error) {
	if f.project != "" {
		return f.project, nil
	}
	text := f.stdin
	if file != "-" {
		var err error
		if text, err = project.Contents(file, file); err != nil {
			return "", fmt.Errorf("apply: %w", err)
		}
	}
	var top struct {
		Name string `yaml:"name"`
	}
	if err := yaml.Unmarshal(text, &top); err == nil && top.Name != "" && !strings.Contains(top.Name, "$") {
		if wanted.ValidName(top.Name) {
			return top.Name, nil
		}
		var place struct {
			Name yaml.Node `yaml:"name"`
		}
		_ = yaml.Unmarshal(text, &place) // it was read above
		at := compose.Origin{File: file, Lines: strings.Split(string(text), "\n"), Node: &place.Name}
		return "", &nodeconfig.Problems{List: []nodeconfig.Problem{at.Problem("name: %v", wanted.ErrName)}}
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("apply: %w", err)
	}
	name := loader.NormalizeProjectName(filepath.Base(filepath.Dir(path)))
	if !wanted.ValidName(name) {
		return "", hinted{fmt.Errorf("apply: the folder of %s cannot name a project", file), "add: --project NAME"}
	}
	return name, nil
}

// settleLimit is how long apply waits for the containers: images may be pulled.
const settleLimit = 15 * time.Minute

// send gives the project to the node, and waits until its containers run.
func (f *applyFlags) send(ctx context.Context, c *api.Client, name string, answer *project.Answer, out io.Writer) error {
	short, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	taken, err := c.Apply(short, connect.NewRequest(&apiv1.ApplyRequest{Project: name, Text: string(answer.Text)}))
	if err != nil {
		return err
	}
	if err := f.target.print(out, taken.Msg, func(w io.Writer) { printSteps(w, name, taken.Msg.Steps) }); err != nil || f.noWait {
		return err
	}
	waits, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	return awaitSteps(waits, c, taken.Msg.Steps)
}

// printSteps shows what becomes of each container.
func printSteps(w io.Writer, project string, steps []*apiv1.Step) {
	tw := newTable(w)
	tw.row("project %s:\n", project)
	for _, s := range steps {
		tw.row("  %s\t%s\t%s\n", s.Container, s.Change, s.Image)
	}
	tw.Flush()
}

func removeCommand() *cobra.Command {
	var t target
	var noWait bool
	cmd := &cobra.Command{
		Use: "rm PROJECT", Short: "Remove a project's containers from a node", Args: exactly("PROJECT"),
		Example: "  kogge rm shop", ValidArgsFunction: t.completeWith(projectNames),
		Long: "Stops and removes the containers of a project that kogge apply made, and waits until they are gone. Their volumes stay.\nWhat a project has left that is stopping already is killed at once.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
				ctx, cancel := context.WithTimeout(ctx, runLimit)
				defer cancel()
				answer, err := c.RemoveProject(ctx, connect.NewRequest(&apiv1.RemoveProjectRequest{Project: args[0]}))
				if connect.CodeOf(err) == connect.CodeNotFound {
					answer, err = endProject(ctx, c, args[0], err)
				}
				if err != nil {
					return err
				}
				err = t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) { printSteps(w, args[0], answer.Msg.Steps) })
				if err != nil || noWait {
					return err
				}
				err = awaitGone(ctx, c, args[0])
				if ctx.Err() != nil {
					err = hinted{errors.New("rm: the containers have not all stopped yet"), "kogge ps says when they are killed; kogge rm " + args[0] + " once more does it now"}
				}
				return err
			})
		},
	}
	t.register(cmd)
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is done")
	return cmd
}

// endProject has no more patience with what is left of a project that was removed before;
// where there is nothing, once the node has looked, the error is that it does not know it.
func endProject(ctx context.Context, c *api.Client, project string, unknown error) (*connect.Response[apiv1.ApplyResponse], error) {
	for {
		list, err := c.List(ctx, connect.NewRequest(&apiv1.ListRequest{}))
		if err != nil {
			return nil, err
		}
		gone := &apiv1.ApplyResponse{}
		for _, left := range list.Msg.Containers {
			if left.Project != project {
				continue
			}
			_, err := c.Run(ctx, connect.NewRequest(&apiv1.RunRequest{Container: left.Name, Action: apiv1.Action_ACTION_STOP}))
			if err != nil && connect.CodeOf(err) != connect.CodeNotFound { // else it has just gone
				return nil, err
			}
			gone.Steps = append(gone.Steps, &apiv1.Step{Container: left.Name, Change: string(wanted.Gone)})
		}
		switch {
		case len(gone.Steps) > 0:
			return connect.NewResponse(gone), nil
		case !list.Msg.Behind:
			return nil, hinted{unknown, "kogge projects lists them"}
		}
		seen := func(*apiv1.ListResponse) arrival { return arrival{there: true} }
		if err := awaitList(ctx, c, vainLimit, seen); err != nil {
			return nil, err
		}
	}
}

func projectsCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "projects [NODE]", Short: "List the projects that were applied to a node", Args: cobra.MaximumNArgs(1),
		Example: "  kogge projects n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.ListProjects(ctx, connect.NewRequest(&apiv1.ListProjectsRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) {
					for _, name := range answer.Msg.Projects {
						fmt.Fprintln(w, name)
					}
				})
			})
		},
	}
	t.register(cmd)
	return cmd
}

// load reads the files; what is refused in them is no error of load, and leaves the
// answer with its warnings alone.
func (f *applyFlags) load(cmd *cobra.Command, name string, files []string) (*project.Answer, *nodeconfig.Problems, error) {
	// compose-go logs what is said below with file and line, or better.
	logrus.SetOutput(io.Discard)
	answer, err := project.Load(cmd.Context(), files, project.Options{
		Project: name, EnvFiles: f.envFiles, Profiles: f.profiles, Stdin: f.stdin, Environ: os.Environ(),
	})
	if answer == nil {
		answer = &project.Answer{}
	}
	refused := &nodeconfig.Problems{}
	if err != nil && !errors.As(err, &refused) {
		return nil, nil, err
	}
	return answer, refused, nil
}

// verdict is the error of a file that is refused.
func (f *applyFlags) verdict(files []string, refused *nodeconfig.Problems) error {
	n := len(refused.List) + refused.More
	reasons := fmt.Sprintf("%d reasons", n)
	switch n {
	case 0:
		return nil
	case 1:
		reasons = "1 reason"
	}
	err := fmt.Errorf("apply: %s: refused for %s", strings.Join(files, ", "), reasons)
	return hinted{err, "kogge help compose-keys lists every key"}
}

// composeFiles are those that are named, or the one that Compose looks for.
func (f *applyFlags) composeFiles() ([]string, error) {
	if len(f.files) > 0 {
		return f.files, nil
	}
	names := []string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}
	for _, name := range names {
		if _, err := os.Stat(name); err == nil {
			return []string{name}, nil
		}
	}
	return nil, hinted{fmt.Errorf("apply: there is no %s here", strings.Join(names, ", no ")), "kogge apply --check -f FILE"}
}

// showAnswer prints for people.
func showAnswer(out io.Writer, a *project.Answer, refused *nodeconfig.Problems) error {
	var b strings.Builder
	if len(a.Containers) > 0 {
		b.WriteString("done:\n")
		w := newTable(&b)
		w.head("CONTAINER\tIMAGE\tPORTS\tVOLUMES\tAFTER")
		for _, c := range a.Containers {
			var ports, volumes, after []string
			for _, p := range c.Ports {
				ports = append(ports, portOf(p))
			}
			for _, v := range c.Volumes {
				volumes = append(volumes, v.Name)
			}
			for _, d := range c.After {
				after = append(after, fmt.Sprintf("%s %s", d.ID, d.Condition))
			}
			w.row("%s\t%s\t%s\t%s\t%s\n", c.ID, c.Image, dash(ports), dash(volumes), dash(after))
		}
		w.Flush() // into memory
	}
	if entries := neededEntries(a.Containers); len(entries) > 0 {
		fmt.Fprintf(&b, "needs a node whose node.yaml has:\nallow:\n  %s\n", strings.Join(entries, "\n  "))
	}
	if len(a.Warnings) > 0 {
		b.WriteString("warned:\n")
		for _, w := range a.Warnings {
			fmt.Fprintf(&b, "%v\n", w)
		}
	}
	if len(refused.List) > 0 {
		fmt.Fprintf(&b, "refused:\n%v\n", refused)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// neededEntries are the lines that a node.yaml needs under allow: for the containers.
func neededEntries(all []workload.Container) (entries []string) {
	for _, c := range all {
		if needs := c.Needs(); !needs.None() {
			entries = append(entries, "- "+rights.Allow{Container: c.ID, Rights: needs}.String())
		}
	}
	return entries
}

// portOf is a published port in Compose's short form.
func portOf(p workload.Port) string {
	text := fmt.Sprintf("%d:%d/%s", p.HostPort, p.Container, p.Protocol)
	if p.HostIP.IsValid() {
		text = p.HostIP.String() + ":" + text
	}
	return text
}

func dash(all []string) string {
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ", ")
}

// finding is a warning or a refusal for programs.
type finding struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

func findings(all []nodeconfig.Problem) []finding {
	out := []finding{}
	for _, p := range all {
		out = append(out, finding{p.File, p.Line, p.Column, p.Message})
	}
	return out
}

// jsonAnswer prints for programs: every list is there, and empty rather than null.
func jsonAnswer(out io.Writer, a *project.Answer, refused *nodeconfig.Problems) error {
	answer := struct {
		Done        []any     `json:"done"` // see [spoken]
		Warned      []finding `json:"warned"`
		Needs       []string  `json:"needs"` // lines of a node.yaml, under allow:
		Refused     []finding `json:"refused"`
		RefusedMore int       `json:"refusedMore,omitempty"`
	}{[]any{}, findings(a.Warnings), neededEntries(a.Containers), findings(refused.List), refused.More}
	if answer.Needs == nil {
		answer.Needs = []string{}
	}
	for _, c := range a.Containers {
		one, err := spoken(c)
		if err != nil {
			return err
		}
		answer.Done = append(answer.Done, one)
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(answer)
}

// spoken is a container for programs: a field is called as other tables would call it
// (hostIP), and a time is text (10s). The container itself keeps the names by which nodes
// know it again, and says of its secrets no more than it wants to.
func spoken(c workload.Container) (any, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var fields any
	from := json.NewDecoder(bytes.NewReader(text))
	from.UseNumber()
	err = from.Decode(&fields)
	return renamed(reflect.TypeOf(c), fields), err
}

// renamed is the JSON of something of type t with other names for its fields. The keys of
// a map are no names of ours, and stay.
func renamed(t reflect.Type, value any) any {
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := value.(type) {
	case map[string]any:
		if t != nil && t.Kind() == reflect.Map {
			return v
		}
		all := make(map[string]any, len(v))
		for name, one := range v {
			var of reflect.Type // nil: of something that marshals itself
			if t != nil && t.Kind() == reflect.Struct {
				if f, ok := t.FieldByName(name); ok {
					of = f.Type
				}
			}
			all[camel(name)] = renamed(of, one)
		}
		return all
	case []any:
		if t == nil || t.Kind() != reflect.Slice {
			return v
		}
		for i, one := range v {
			v[i] = renamed(t.Elem(), one)
		}
	case json.Number:
		if n, err := v.Int64(); err == nil && t == reflect.TypeFor[time.Duration]() {
			return time.Duration(n).String()
		}
	}
	return value
}

// camel is the name of a Go field as JSON has it: ID is id, CPUs is cpus, HostIP is hostIP,
// DNSOptions is dnsOptions, SHA256 is sha256.
func camel(name string) string {
	n := strings.IndexFunc(name, unicode.IsLower)
	switch {
	case n < 0 || name[n:] == "s":
		return strings.ToLower(name)
	case n > 1:
		n--
	}
	return strings.ToLower(name[:n]) + name[n:]
}
