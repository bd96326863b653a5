package main

import (
	"context"
	"fmt"
	"time"

	"kogge.example/init/guard"
	"kogge.example/init/mount"
	"kogge.example/init/supervise"
	"kogge.example/update/blank"
)

// Somebody at the console takes a boot for dead that says nothing: what takes longer than
// sayAfter is said, and that it goes on, at longer and longer intervals.
const (
	sayAfter = 5 * time.Second
	sayMost  = time.Minute
)

// telling does something that takes long on a large or slow disk, and says so.
func (n *node) telling(what string, do func()) { tellWhile(n.say, sayAfter, what, do) }

// tellWhile is telling with its clock and its mouth.
func tellWhile(say func(string), after time.Duration, what string, do func()) {
	began, over, silent := time.Now(), make(chan struct{}), make(chan bool)
	guard.Go("progress of "+what, func() {
		told := false
		defer func() { silent <- told }()
		for pause := after; ; pause = min(2*pause, max(after, sayMost)) {
			select {
			case <-over:
				return
			case <-time.After(pause):
			}
			told = true
			say(fmt.Sprintf("kogge: %s: %s so far", what, time.Since(began).Round(time.Second)))
		}
	})
	do()
	close(over)
	if told := <-silent; told {
		say(fmt.Sprintf("kogge: %s: done after %s", what, time.Since(began).Round(time.Second)))
	}
}

// check is the check of STATE, which says how long it takes.
func (n *node) check(ctx context.Context, path string, args ...string) (output []byte, status int, err error) {
	n.telling("the file system STATE is being checked", func() { output, status, err = supervise.Command(ctx, path, args...) })
	return output, status, err
}

// reformat makes a new STATE, and says how long that takes. beside is as in [reset.Wish].
func (n *node) reformat(beside string) (err error) {
	from := n.blankFor(beside)
	if from == blank.PlainFile {
		n.say("kogge: the new STATE has no quotas: the release in the other slot may be one that cannot mount it with them")
	}
	n.telling("STATE is being formatted", func() { err = mount.Reformat(n.disk, from) })
	return err
}
