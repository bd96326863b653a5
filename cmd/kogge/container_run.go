package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/workload"
)

// runCommand is start, stop or restart of a container.
func runCommand(verb string, action apiv1.Action) *cobra.Command {
	var t target
	var noWait bool
	cmd := &cobra.Command{
		Use: verb + " CONTAINER", Short: strings.ToUpper(verb[:1]) + verb[1:] + " a container", Args: exactly("CONTAINER"),
		Long: map[string]string{
			"start":   "Starts a container that was stopped, or has ended, and waits until it runs, or has ended with code 0.",
			"stop":    "Stops a container, and waits until it has stopped. It stays stopped until kogge start, until the node's agent restarts, as at a reboot, or until its project is removed and applied again. A container that is stopping already is killed at once.",
			"restart": "Stops a container, starts it again, and waits until it runs. One that a restart has told to stop already is killed at once.",
		}[verb],
		Example: "  kogge " + verb + " web\n  kogge " + verb + " web --node n1 --no-wait", ValidArgsFunction: t.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
				ctx, cancel := context.WithTimeout(ctx, runLimit)
				defer cancel()
				before, err := find(ctx, c, args[0])
				if err != nil {
					return err
				}
				if _, err := c.Run(ctx, connect.NewRequest(&apiv1.RunRequest{Container: before.Name, Action: action})); err != nil || noWait {
					return err
				}
				return await(ctx, c, action, before)
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is done")
	return cmd
}

// runLimit is for containers that take their time to stop.
const runLimit = 5 * time.Minute

// find returns the container of the node that people call name.
func find(ctx context.Context, c *api.Client, name string) (*apiv1.Container, error) {
	answer, err := c.List(ctx, connect.NewRequest(&apiv1.ListRequest{}))
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(answer.Msg.Containers))
	for i, one := range answer.Msg.Containers {
		ids[i] = one.Name
	}
	i, err := workload.Choose(ids, name)
	switch unknown := errors.Is(err, workload.ErrUnknown); {
	case unknown && answer.Msg.Behind:
		err = hinted{notSeen(name), "kogge ps says what the node waits for"}
	case unknown:
		err = hinted{noContainer(name), "kogge ps lists them"}
	}
	if err != nil {
		return nil, err
	}
	return answer.Msg.Containers[i], nil
}

// noContainer is the error of a node that has none of that name.
type noContainer string

func (name noContainer) Error() string { return "there is no container " + string(name) }

// notSeen is the error of a node that knows of none of that name, and has not looked yet.
type notSeen string

func (name notSeen) Error() string {
	return "nobody has looked yet whether there is a container " + string(name)
}

// await waits until the container is as the action wants it.
func await(ctx context.Context, c *api.Client, action apiv1.Action, before *apiv1.Container) error {
	name, asked, last := before.Name, time.Now(), before
	for {
		now, err := find(ctx, c, name)
		_, gone := errors.AsType[noContainer](err)
		_, unseen := errors.AsType[notSeen](err)
		switch {
		case gone && action == apiv1.Action_ACTION_STOP:
			return nil // nobody wants it any more
		case unseen: // it may be there
		case err != nil:
			return err
		default:
			last = now
			if now.State == string(workload.Ended) && time.Since(asked) > endedLimit {
				before = &apiv1.Container{}
			}
			if done, err := settled(action, before, now); done {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return still(action, last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// endedLimit is when one that is ended has ended anew, whatever it was before: a job may be
// done between two looks, and the node's agent forgets how often it started it.
const endedLimit = 3 * time.Second

// settled says whether the action on a container, as it was before, has come to its
// end, and if that is a bad one, why.
func settled(action apiv1.Action, before, now *apiv1.Container) (bool, error) {
	if action == apiv1.Action_ACTION_STOP {
		return now.State == string(workload.Stopped), nil
	}
	again := now.Started.GetSeconds() != before.Started.GetSeconds() || now.Started.GetNanos() != before.Started.GetNanos()
	switch workload.State(now.State) {
	case workload.Running:
		return again || action == apiv1.Action_ACTION_START, nil
	case workload.Backoff, workload.Ended:
		// What it was before it was asked is no answer.
		if now.State == before.State && now.Exits == before.Exits && now.Restarts == before.Restarts && now.ExitCode == before.ExitCode {
			break
		}
		if now.State == string(workload.Backoff) || now.ExitCode != 0 { // else it has done its work
			return true, fmt.Errorf("container %s does not run: %s", now.Name, now.Reason)
		}
		return true, nil
	}
	return false, nil
}

// still is the error of an action that has not come to its end in time.
func still(action apiv1.Action, now *apiv1.Container) error {
	err := fmt.Errorf("container %s is still %s", now.Name, now.State)
	if now.Reason != "" {
		err = fmt.Errorf("%w: %s", err, now.Reason)
	}
	told := strings.Contains(now.Reason, workload.ToldAt)
	switch {
	case now.State == string(workload.Stopping):
		return hinted{err, "kogge stop " + now.Name + " once more kills it"}
	case now.State == string(workload.Starting) && told && action == apiv1.Action_ACTION_RESTART:
		return hinted{err, "kogge restart " + now.Name + " once more kills it, and starts it again"}
	}
	return err
}
