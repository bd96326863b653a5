package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func nodeServicesCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "services [NODE]", Short: "List a node's services", Args: cobra.MaximumNArgs(1),
		Example: "  kogge node services n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
				if err != nil {
					return err
				}
				if t.json {
					return printServices(cmd.OutOrStdout(), answer.Msg.Services)
				}
				tw := newTable(cmd.OutOrStdout())
				tw.head("NAME\tSTATE\tFOR\tPID\tSTARTS\tSAYS")
				for _, s := range answer.Msg.Services {
					says := s.Text
					if s.Failing || s.State != "running" {
						says = strings.TrimSpace(s.LastExit + " " + says)
					}
					tw.row("%s\t%s\t%s\t%d\t%d\t%s\n", s.Name, s.State,
						age(answer.Msg.Time.AsTime().Sub(s.Since.AsTime())), s.Pid, s.Starts, says)
				}
				return tw.Flush()
			})
		},
	}
	t.register(cmd)
	return cmd
}

// printServices prints for programs the part of a node's status that was asked for.
func printServices(w io.Writer, services []*apiv1.Service) error {
	list := struct {
		Services []json.RawMessage `json:"services"`
	}{[]json.RawMessage{}}
	for _, s := range services {
		data, err := answerJSON.Marshal(s)
		if err != nil {
			return err
		}
		list.Services = append(list.Services, data)
	}
	return printJSON(w, list)
}
