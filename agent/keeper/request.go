package keeper

import (
	"context"
	"errors"
	"fmt"
	"log"

	"kogge.example/agent/workload"
)

var wants = map[workload.Want]Event{workload.WantStopped: StopAsked, workload.WantStarted: StartAsked, workload.WantRestarted: RestartAsked}

// ErrAway means that containerd does not answer at the moment.
var ErrAway = errors.New("containerd does not answer")

// ErrOver means that Run has returned: the agent stops.
var ErrOver = errors.New("the node's agent is stopping")

// request is what somebody asks of the Keeper's goroutine.
type request struct {
	id     string
	kind   Event
	answer chan<- error
}

// Request asks for something of the container id and returns once the Keeper has
// taken it down, not once it is so: [Keeper.Snapshot] shows what becomes of it. To stop
// what is stopping already, or leaves because nobody wants it, ends its grace, and so does to
// restart what is being restarted by request. Any goroutine may ask, also before Run. The error is [workload.ErrUnknown], [ErrAway] (then a
// container that may be there cannot be started), or that of ctx.
func (k *Keeper) Request(ctx context.Context, id string, want workload.Want) error {
	kind, ok := wants[want]
	if !ok {
		return fmt.Errorf("container %s: unknown request %q", id, want)
	}
	k.init()
	answer := make(chan error, 1)
	select {
	case k.requests <- request{id: id, kind: kind, answer: answer}:
		return <-answer // at once: it is in the hands of the one goroutine
	case <-k.over:
		return fmt.Errorf("container %s: %w", id, ErrOver)
	case <-ctx.Done():
		return fmt.Errorf("container %s: %w", id, ctx.Err())
	}
}

// take carries out a request. ctx is that of the session, or of Run while there is
// none: then nothing can be done at once, but a stop or start is remembered.
func (k *Keeper) take(ctx context.Context, r request, session bool) {
	u := k.units[r.id]
	more := r.kind == StopAsked && (u == nil || u.Held) || r.kind == RestartAsked && u != nil && u.again
	hurried := k.hurry(r.id) // somebody waits
	switch {
	case more && (k.hasten(r.id, 0) || hurried):
		log.Printf("container %s: %s once more: it has no more time", r.id, r.kind)
		r.answer <- nil
		return
	case u == nil:
		r.answer <- fmt.Errorf("container %s: %w", r.id, workload.ErrUnknown)
		return
	case !session && (r.kind == RestartAsked || u.State != workload.Waiting):
		r.answer <- fmt.Errorf("container %s: %w", r.id, ErrAway)
		return
	}
	r.answer <- nil
	log.Printf("container %s: %s", r.id, r.kind)
	k.handle(ctx, event{id: r.id, kind: r.kind})
	u.again = r.kind == RestartAsked && u.State == workload.Starting
}
