// Command agent is the node agent: it turns what the node is told to run into
// running containers. One file on disk, several processes by role:
//
//	agent agent        node.yaml and preloaded images in, running containers out
//	agent containerd   the container engine, serving on its socket
//	agent etcd         this node's part in the fleet's etcd, where it has one
//	agent remove       a folder that a container filled → gone; the first starts it
//
// PID 1 starts, watches and restarts each by itself (sd_notify, watchdog), and
// containers outlive both. An unknown role exits 2 and touches nothing.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"kogge.example/agent/trees"
	"kogge.example/agent/workload"
)

func main() {
	log.SetFlags(0) // PID 1 stamps every line
	log.SetOutput(lines{os.Stderr})
	os.Exit(run(os.Args, os.Stderr))
}

// lines writes each message of a log as one line: images and registries have words in them,
// and PID 1 takes every line for a message of ours.
type lines struct{ w io.Writer }

func (l lines) Write(message []byte) (int, error) {
	if _, err := io.WriteString(l.w, workload.Line(string(message))+"\n"); err != nil {
		return 0, err
	}
	return len(message), nil
}

// run is the choice of a role. It comes before anything else that costs time.
func run(args []string, stderr io.Writer) int {
	role := ""
	if len(args) > 1 {
		role = args[1]
	}
	var start func(context.Context, []string) error
	switch role {
	case "agent":
		start = runAgent
	case "containerd":
		start = runContainerd
	case "etcd":
		start = runEtcd
	case trees.Role:
		start = trees.Helper
	default:
		fmt.Fprintf(stderr, "agent: unknown role %q: expected agent, containerd, etcd or remove\n", role)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	hurry()
	broken, err := fault(ctx, role)
	if !broken {
		err = start(ctx, args[2:])
	}
	if err != nil {
		log.Printf("%s: %v", role, err)
		return 1
	}
	return 0
}
