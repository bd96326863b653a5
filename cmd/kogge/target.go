package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"kogge.example/agent/api"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
)

// target is which node of which fleet a command is for: by flag, by environment, or
// the only one there is.
type target struct {
	fleet, node string
	via         string // the node through which that one is called; "": none
	json        bool
}

// register adds the flags of a command that prints what a node answers.
func (t *target) register(cmd *cobra.Command) {
	t.nodeFlags(cmd)
	jsonFlag(cmd, &t.json)
}

// nodeFlags adds the flags of a command that has a node do something.
func (t *target) nodeFlags(cmd *cobra.Command) {
	t.fleetFlag(cmd)
	cmd.Flags().StringVar(&t.node, "node", os.Getenv("KOGGE_NODE"), "`NODE` of the fleet (default: KOGGE_NODE, or the only one)")
	completeFlag(cmd, "node", t.completeNodeFlag)
	t.viaFlag(cmd)
}

// viaFlag adds the flag of a command that calls the node that its argument names.
func (t *target) viaFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.via, "via", "", "call the node through another `NODE`, where this computer does not reach it")
	completeFlag(cmd, "via", t.completeNodeFlag)
}

// jsonFlag is for every command that prints a table; see TestJSON.
func jsonFlag(cmd *cobra.Command, on *bool) {
	cmd.Flags().BoolVar(on, "json", false, "print JSON")
}

// fleetFlag adds the flag for a command that is for no node.
func (t *target) fleetFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.fleet, "fleet", os.Getenv("KOGGE_FLEET"), "`FLEET` to use (default: KOGGE_FLEET, or the only one)")
	completeFlag(cmd, "fleet", completeFleetFlag)
}

// openFleet opens the fleet that t names, or the only one.
func (t *target) openFleet() (*keyring.Keyring, error) {
	if t.fleet == "" {
		root, err := configDir()
		if err != nil {
			return nil, err
		}
		names, err := keyring.List(root)
		if err != nil {
			return nil, err
		}
		switch len(names) {
		case 0:
			return nil, hinted{errors.New("there is no fleet on this computer"), "kogge fleet create NAME"}
		case 1:
			t.fleet = names[0]
		default:
			return nil, hinted{fmt.Errorf("which fleet? this computer knows %s", strings.Join(names, ", ")), "add: --fleet " + names[0] + ", or set KOGGE_FLEET"}
		}
	}
	return loadFleet(t.fleet)
}

// dial makes a client for the node that t names, or the only one.
func (t *target) dial(ctx context.Context) (*api.Client, string, error) {
	remote, err := t.remote()
	if err != nil {
		return nil, "", err
	}
	c, err := remote.Dial(ctx)
	return c, t.node, err
}

// remote is the node that t names, or the only one, to be called.
func (t *target) remote() (operate.Remote, error) {
	ring, known, err := t.resolve()
	return operate.Remote{Keys: ring, Name: t.node, Address: known.Address, Via: t.via, Tell: notice}, err
}

// callLimit bounds a call that is answered at once.
const callLimit = 30 * time.Second

// ask dials the node that the flags name and calls do.
func (t *target) ask(cmd *cobra.Command, args []string, do func(context.Context, *api.Client) error) error {
	if len(args) > 0 {
		t.node = args[0]
	}
	remote, err := t.remote()
	if err != nil {
		return err
	}
	return nodeError(t.node, overHint(t.node, remote.Call(cmd.Context(), do)))
}

// asks is ask with a limit.
func (t *target) asks(cmd *cobra.Command, args []string, do func(context.Context, *api.Client) error) error {
	return t.ask(cmd, args, func(ctx context.Context, c *api.Client) error {
		ctx, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		return do(ctx, c)
	})
}

// resolve finds the node that t names, or the only one, which t names then.
func (t *target) resolve() (*keyring.Keyring, operate.Node, error) {
	var none operate.Node
	ring, err := t.openFleet()
	if err != nil {
		return nil, none, err
	}
	nodes, err := operate.Nodes(ring)
	if err != nil {
		return nil, none, err
	}
	if t.node == "" {
		switch names := slices.Sorted(maps.Keys(nodes)); len(names) {
		case 0:
			return nil, none, hinted{fmt.Errorf("fleet %s has no node yet", t.fleet), "kogge node adopt ADDRESS; kogge node find looks for one"}
		case 1:
			t.node = names[0]
		default:
			return nil, none, hinted{fmt.Errorf("which node? this computer knows %s", strings.Join(names, ", ")), "add: --node " + names[0] + ", or set KOGGE_NODE"}
		}
	}
	if t.via == t.node {
		return nil, none, usage{hinted{fmt.Errorf("--via %s: it is the node that is to be called", t.via), "leave --via out, or name another node"}}
	}
	known, ok := nodes[t.node]
	if !ok && t.via != "" { // whoever is in between knows where it is
		known.Address, ok = withPort(t.node), true
	}
	if !ok {
		return nil, none, hinted{fmt.Errorf("fleet %s has no node %s", t.fleet, t.node), "kogge node list --fleet " + t.fleet}
	}
	return ring, known, nil
}

// answerJSON is how what a node answers is written for programs: every list and every plain
// value is there, and nothing is null.
var answerJSON = protojson.MarshalOptions{EmitDefaultValues: true}

// print writes m as JSON or as text does.
func (t *target) print(w io.Writer, m proto.Message, text func(io.Writer)) error {
	if !t.json {
		text(w)
		return nil
	}
	data, err := answerJSON.Marshal(m)
	if err != nil {
		return err
	}
	return printJSON(w, json.RawMessage(data))
}

// withPort adds the API's port to an address that has none.
func withPort(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), strconv.Itoa(api.Port))
}

func printJSON(out io.Writer, value any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(value)
}
