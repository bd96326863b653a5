package dhcp

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"

	"kogge.example/init/control"
)

// This file is what becomes of several servers' answers to one question: nobody can tell an
// office's server from one that somebody brought along.

const (
	// patience is how long a question is asked, with all its repetitions after 2 and 6 seconds.
	// Whoever floods us with answers puts those off, but not its end.
	patience = 14 * time.Second
	// requestPatience is how long a server has for the lease that it has just offered: the
	// request is repeated once.
	requestPatience = 6 * time.Second
	// otherPatience is how long another server than a doubtful one has to make itself heard.
	otherPatience = 2 * time.Second
	// nakPatience is how long the lease's server has in Confirm after another has said no. The
	// question is repeated in that time. With the cable in another network, it is how long the
	// old address stays.
	nakPatience = 3 * time.Second
)

// errSilent means that nobody has answered, or not with what is of use.
var errSilent = errors.New("no answer")

// listen sends a question by ask, which repeats it, and has hear judge the answers: until one
// ends it, or for as long as limit, or once soon has been called for that long. The error is
// of ctx or of the sending.
func listen[M any](ctx context.Context, limit time.Duration, ask func(context.Context, func(M) bool) (M, error), hear func(m M, soon func(time.Duration)) (end bool)) error {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var once sync.Once
	soon := func(d time.Duration) { once.Do(func() { time.AfterFunc(d, cancel) }) }
	_, err := ask(within, func(m M) bool { return hear(m, soon) })
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case within.Err() != nil, errors.Is(err, nclient4.ErrNoResponse), errors.Is(err, nclient6.ErrNoResponse):
		return nil
	}
	return err
}

// broken are the servers that offered something and did not give it, or nothing of use, or an
// address that somebody has: by their identifiers, the newest last. They are asked again once they are forgotten, or where
// nobody else offers anything.
type broken []promise

type promise struct {
	server string
	when   time.Time
}

const (
	mostBroken   = 4 // anybody can make up more
	brokenExpiry = 10 * time.Minute
)

// with are those and server, as of now.
func (b broken) with(server string, now time.Time) broken {
	rest := slices.DeleteFunc(slices.Clone(b), func(p promise) bool { return p.server == server || now.Sub(p.when) >= brokenExpiry })
	return append(rest[max(0, len(rest)-mostBroken+1):], promise{server, now})
}

// now are those that still count.
func (b broken) now(now time.Time) broken {
	return slices.DeleteFunc(slices.Clone(b), func(p promise) bool { return now.Sub(p.when) >= brokenExpiry })
}

func (b broken) has(server string) bool {
	return slices.ContainsFunc(b, func(p promise) bool { return p.server == server })
}

// choice is one of the offers of servers, as they come. That of a server which is not broken
// is taken at once. Where as many are broken as are kept, there may be somebody who makes up
// ever new ones, and is quicker than all others: then chance decides among those that come.
type choice[M any] struct {
	broken broken
	spare  M // what is taken if there is no better one in time
	have   bool
	good   int // offers of servers that are not broken
}

// offer says whether to take this one at once.
func (c *choice[M]) offer(server string, m M) (take bool) {
	if c.broken.has(server) {
		if !c.have {
			c.spare, c.have = m, true
		}
		return false
	}
	c.good++
	if rand.N(c.good) == 0 {
		c.spare, c.have = m, true
	}
	return len(c.broken) < mostBroken
}

// complaints are what has been logged since a question was last answered: a silent network is
// one line, and not one a minute. Whoever finds ever new words is heard for so long.
type complaints []string

const mostComplaints = 8

// after are the complaints after a question with that error; news says whether to log it.
func (c complaints) after(err error) (next complaints, news bool) {
	switch {
	case err == nil:
		return nil, false
	case len(c) >= mostComplaints || slices.Contains(c, err.Error()):
		return c, false
	}
	return append(c, err.Error()), true
}

// verdict is what servers say about a lease that we have. The word of its own one holds. Of
// others a yes is as good, but a no counts only as long as nobody says yes: a second server
// of the same network says it to whatever is not of its own.
type verdict struct {
	lease *control.Lease
	err   error // why there is none; at first errSilent
}

// hear says whether no further answer counts.
func (v *verdict) hear(own bool, lease *control.Lease, err error) (end bool) {
	if err == nil || own || !errors.Is(v.err, ErrNak) {
		v.lease, v.err = lease, err
	}
	return err == nil || own
}
