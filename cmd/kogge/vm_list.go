package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/qemu"
)

// vmFacts are what kogge vm list says of a VM.
type vmFacts struct {
	Name    string         `json:"name"`
	State   string         `json:"state"` // running, stopped or unreadable
	PID     int            `json:"pid,omitempty"`
	Started *time.Time     `json:"started,omitempty"`
	Ports   []qemu.Forward `json:"ports"` // on 127.0.0.1
	Problem string         `json:"problem,omitempty"`
}

func newVMFacts(i qemu.Info) vmFacts {
	f := vmFacts{Name: i.Name, State: "stopped", Ports: []qemu.Forward{}}
	switch {
	case i.Err != nil:
		f.State, f.Problem = "unreadable", i.Err.Error()
	case i.Running:
		f.State, f.PID, f.Started = "running", i.PID, &i.Started
		f.Ports = append(f.Ports, i.Forwards...)
	}
	return f
}

func vmListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the VMs", Args: cobra.NoArgs,
		Example: "  kogge vm list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := vmDir("")
			if err != nil {
				return err
			}
			all, err := qemu.List(dir)
			if err != nil {
				return err
			}
			rows := []vmFacts{}
			for _, i := range all {
				rows = append(rows, newVMFacts(i))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			w := newTable(cmd.OutOrStdout())
			w.head("NAME\tSTATE\tPID\tSTARTED\tPORTS")
			for _, f := range rows {
				f.row(w)
			}
			return w.Flush()
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// row is one line of kogge vm list.
func (f vmFacts) row(w table) {
	if f.Started == nil {
		w.row("%s\t%s\t\t\t%s\n", f.Name, f.State, f.Problem)
		return
	}
	var ports []string
	for _, p := range f.Ports {
		ports = append(ports, fmt.Sprintf("127.0.0.1:%d→%d", p.Host, p.Guest))
	}
	w.row("%s\t%s\t%d\t%s\t%s\n", f.Name, f.State, f.PID, f.Started.Format(time.DateTime), strings.Join(ports, " "))
}
