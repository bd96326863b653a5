package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kogge.example/image/example"
)

// ask runs the CLI once, with the script's own folder of fleets.
func ask(ctx context.Context, ts *testscript.TestScript, args ...string) (out, said string, err error) {
	program, err := cli()
	ts.Check(err)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), os.Environ()
	for _, name := range []string{"KOGGE_CONFIG", "KOGGE_CACHE", "KOGGE_FLEET"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// askPause is between two looks of await.
const askPause = time.Second

// await is the command of the scripts that asks the CLI again and again until it says what is
// wanted, as an operator does; doc.go describes it.
func await(ts *testscript.TestScript, neg bool, args []string) {
	b := ts.Value(benchKey{}).(*bench)
	if len(args) < 3 || args[1] != "kogge" {
		ts.Fatalf("usage: await RE kogge ARG...")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var out string
	var found []string
	b.until(ts, "await "+args[0], func(ctx context.Context) (bool, string) {
		var said string
		var err error
		out, said, err = ask(ctx, ts, args[2:]...)
		// It may have failed: of a fleet with problems the status is told all the same.
		found = re.FindStringSubmatch(out)
		return (found != nil) != neg && out != "", fmt.Sprintf("(%v)\n%s%s", err, out, said)
	})
	for i, name := range re.SubexpNames() {
		if name != "" && !neg {
			ts.Setenv(name, found[i])
		}
	}
	_, err = fmt.Fprint(ts.Stdout(), out)
	ts.Check(err)
}

// until looks again and again, until look says that it is as it is to be. Else it shows the answer
// that look gave last.
func (b *bench) until(ts *testscript.TestScript, what string, look func(context.Context) (done bool, answer string)) {
	ctx, cancel := context.WithTimeoutCause(b.ctx, b.limit, fmt.Errorf("nothing within %s", b.limit))
	defer cancel()
	began, tick := time.Now(), time.NewTicker(askPause)
	defer tick.Stop()
	last := "none"
	for {
		done, answer := look(ctx)
		if done {
			ts.Logf("%.1f s after the first look", time.Since(began).Seconds())
			return
		}
		if ctx.Err() == nil {
			last = answer
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("%s: %v: the last answer: %s", what, context.Cause(ctx), last)
		}
	}
}

// fleetMachine are the flags of vm start that the nodes of a fleet have.
var fleetMachine = []string{"-test", "-port", "8080", "-port", "7443", "-disk", "4096", "-memory", "512", "-cpus", "1"}

// foundFleet is the command fleet of the scripts: a fleet of so many nodes, founded as form.txt
// does it by hand.
func foundFleet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fleet NAME N [FLAG...]")
	}
	name := args[0]
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := ts.Value(benchKey{}).(*bench)
	ts.Setenv("KOGGE_FLEET", name)
	kogge(ts, false, []string{"fleet", "create", name, "--trial", "--no-passphrase", "--operator", "ada"})
	var machine, rules, nodes []string // flags of vm start, and of kogge fleet found
	for _, arg := range args[2:] {
		if strings.HasPrefix(arg, "--") {
			rules = append(rules, arg)
		} else {
			machine = append(machine, arg)
		}
	}
	for i := 1; i <= n; i++ {
		node := fmt.Sprintf("n%d", i)
		nodes = append(nodes, node)
		kogge(ts, false, []string{"fleet", "token", name, "--node", node, "-o", node + ".join"})
		ts.Check(os.WriteFile(ts.MkAbs(node+".yaml"), []byte(fleetSeed(i)), 0o644))
		image := []string{ts.Getenv("BASE"), "-seed", node + ".yaml", "-join", node + ".join"}
		ts.Check(b.start(ts, node, slices.Concat(image, fleetMachine, machine)))
	}
	for i, node := range nodes {
		await(ts, false, []string{"^node " + node + " (has joined|is in) ", "kogge", "node", "adopt", ts.Getenv(node + "_7443")})
		await(ts, false, []string{fmt.Sprintf(`^link +eth1 up .*10\.77\.0\.%d`, i+1), "kogge", "node", "status", node})
	}
	if len(rules) == 0 {
		rules = []string{"--member", strings.Join(nodes, ",")} // no disk is taken for a slow one because this machine is busy
	}
	found := slices.Concat([]string{"fleet", "found"}, nodes, []string{"--sheet", "config/" + name + "/recovery-2.txt"}, rules)
	b.until(ts, "kogge fleet found", func(ctx context.Context) (bool, string) {
		out, said, _ := ask(ctx, ts, found...) // nobody to ask: it shows the record, and signs nothing
		if record := regexp.MustCompile(`--record ([0-9a-f]{12})`).FindStringSubmatch(said); record != nil {
			out, said, _ = ask(ctx, ts, append(slices.Clone(found), "--record", record[1])...)
		}
		return strings.Contains(out, "The node CA's key is with "), out + said
	})
	await(ts, false, []string{"All is well", "kogge", "fleet", "status"})
}

// fleetSeed is the node.yaml of node i: the example's, with an address on the private network.
func fleetSeed(i int) string {
	return strings.Replace(example.NodeYAML, "hostname: kogge\n", fmt.Sprintf(
		"hostname: n%d\nnetwork:\n  - match: eth0\n  - {match: eth1, addresses: [10.77.0.%d/24], ipv6: \"off\"}\n", i, i), 1)
}
