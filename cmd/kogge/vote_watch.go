package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/votes"
	"kogge.example/cmd/kogge/votes/agenda"
)

// watchVote shows what waits until nobody wants to see it any more, or what was named does not wait.
func watchVote(ctx context.Context, ring *keyring.Keyring, names []string, interval time.Duration, out io.Writer) error {
	inPlace := term.IsTerminal(int(os.Stdout.Fd()))
	var last string
	for {
		b, err := votes.Look(ctx, ring, notice)
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is how one leaves
		case errors.Is(err, votes.ErrSilent):
			say("%v", err) // they may come back
		case err != nil:
			return voteHint(err)
		default:
			text, over, err := watched(b, names)
			if err != nil {
				return err
			}
			if text != last || inPlace {
				if inPlace {
					_, err = io.WriteString(raw(out), "\x1b[H\x1b[2J"+clean(time.Now().Format(time.TimeOnly)+"\n\n"+text))
				} else {
					_, err = io.WriteString(out, text+"\n")
				}
				last = text
			}
			if over || err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
	}
}

// watched is what is shown of a look, and whether it was the last one.
func watched(b votes.Board, names []string) (text string, over bool, err error) {
	items := b.Items
	var screen bytes.Buffer
	fmt.Fprintf(&screen, "fleet %s, %s\n\n", b.State.Genesis.Name, count(int(b.State.Height), "record"))
	if len(names) > 0 {
		one, err := b.Find(names[0])
		if err != nil {
			fmt.Fprintf(&screen, "Proposal %s does not wait: kogge ledger log lists what was decided.\n", names[0])
			return screen.String(), true, nil
		}
		items = []agenda.Item{one}
	}
	if len(items) == 0 {
		err = printAgenda(&screen, b.Agenda)
	}
	for _, i := range voteItems(b.Agenda, items) {
		err = errors.Join(err, printItem(&screen, i))
		fmt.Fprintln(&screen)
	}
	return screen.String(), false, err
}
