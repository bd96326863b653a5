package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	apiv1 "kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet/roster"
)

// probes is how often a disk is measured until it is called too slow: it may only have been busy.
// Between two it is left alone, for ten times what the last one took, and for probePause at most.
const (
	probes     = 3
	probePause = 5 * time.Second
)

// measured has a disk measured until it is fit, or was found too slow so often; unfit says why, and is
// "" if it is fit. That it is being measured for somebody else is no answer: it is asked again until ctx
// is done. What was measured until then counts. again hears why another try follows, of equal reasons in a
// row once.
func measured(ctx context.Context, measure func() (unfit string, err error), again func(why string)) (unfit string, err error) {
	figures, heard := "", ""
	for tries := 0; ; {
		began, pause := time.Now(), probePause
		why, err := measure()
		switch {
		case err == nil && why == "":
			return "", nil
		case err == nil:
			figures = why
			if tries++; tries == probes {
				return fmt.Sprintf("%s (measured %s)", figures, times(tries)), nil
			}
			pause = min(pause, 10*time.Since(began))
		case connect.CodeOf(err) == connect.CodeAborted:
			why = said(err)
		case ctx.Err() == nil || figures == "":
			return "", err
		}
		if why != heard && ctx.Err() == nil {
			again(why)
			heard = why
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			if figures != "" {
				return fmt.Sprintf("%s (measured %s, and then there was no time)", figures, times(tries)), nil
			}
			return "", errors.Join(ctx.Err(), err)
		}
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// Probe has the applicants measure their disks that are wished to run etcd, or that can if nobody
// is, all at once, and returns all of them with what that came to. It takes some seconds.
func (w Wish) Probe(ctx context.Context, k *keyring.Keyring, applicants []Applicant, tell func(Notice)) ([]Applicant, error) {
	nodes, err := Nodes(k)
	if err != nil {
		return nil, err
	}
	all := slices.Clone(applicants)
	each(len(all), func(i int) {
		a := &all[i]
		wished := slices.Contains(w.Members, a.Name) || slices.Contains(w.Spares, a.Name)
		if !roster.MayBeMember(a.Arch) || !wished && len(w.Members) > 0 {
			return
		}
		limited, cancel := context.WithTimeout(ctx, probes*callLimit)
		defer cancel()
		err := Remote{Keys: k, Name: a.Name, Address: nodes[a.Name].Address, Tell: tell}.Call(limited, func(ctx context.Context, c *api.Client) (err error) {
			a.Unfit, err = measured(ctx, func() (string, error) {
				answer, err := c.Probe(ctx, connect.NewRequest(&apiv1.ProbeRequest{}))
				if err != nil {
					return "", err
				}
				return answer.Msg.Unfit, nil
			}, func(why string) {
				if tell != nil {
					tell(Notice{Node: a.Name, Err: fmt.Errorf("node %s: %s; it is measured again", a.Name, why)})
				}
			})
			return err
		})
		if err != nil {
			a.Unfit = "its disk was not measured: " + said(err)
		}
	})
	return all, nil
}
