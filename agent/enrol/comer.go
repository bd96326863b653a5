package enrol

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"kogge.example/agent/identity"
	"kogge.example/agent/pinned"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// Comer is a node that comes into its fleet by a token, or that visits members of it: for its
// acceptance, for records if it has no seat, and for its next certificate.
type Comer struct {
	Identity *identity.Node
	// Open gives the key for the node's seat, and its ledger.
	Open func() (*identity.Seat, *pinned.Ledger, error)
	// Seen is what of the fleet's ledger was verified on the way in; anew: it begins again. Settle has
	// that be the node's ledger, if there is something and the node is in.
	Seen   func(anew bool) (*pinned.Ledger, error)
	Settle func() error
	// Seated, New and Accepted say how the node stands in the fleet that it is in.
	Seated, New, Accepted func() bool
	// Take keeps a paper about the node.
	Take func(paper []byte) (news bool, err error)
	Name func() string    // the machine's, in a fleet that gives it none
	Now  func() time.Time // the earliest that the time can be, or the time if it is known
	// Contacts are where members may answer, of a node that is in.
	Contacts func(taken *pinned.Ledger, self signed.Key) []netip.AddrPort
	// Refuse says why a member is not to be asked, as one that is isolated.
	Refuse func(roster.Seat) error
	// Find looks for members where nobody has said that they are, once no contact has answered.
	Find func(ctx context.Context, taken *pinned.Ledger, self signed.Key) []netip.AddrPort
	// Own is this node's next certificate, in DER, if it signs such itself.
	Own func() ([]byte, error)
	// Changed hears that the node stands otherwise in its fleet, or that its ledger has grown, and
	// Waits why it has not come in yet.
	Changed func()
	Waits   func(why error)

	// Again has the node look again, when something comes.
	Again chan struct{}
}

// Times of one that comes.
const (
	soonest, seldom = 5 * time.Second, 5 * time.Minute // between two tries to come in
	askFirst        = time.Minute                      // after which one that is new asks again whether it is accepted
	askLast         = 15 * time.Minute
	checkEvery      = time.Hour     // whether a certificate is to be renewed
	followEvery     = 6 * time.Hour // for records, without a seat
)

// Run comes in, and visits, until ctx ends.
func (c *Comer) Run(ctx context.Context) {
	tries := 0
	for ctx.Err() == nil {
		wait, ok := c.Step(ctx, tries)
		if tries++; ok {
			tries = 0
		}
		select {
		case <-ctx.Done():
		case <-c.Again:
		case <-time.After(wait/2 + mathrand.N(wait/2+1)):
		}
	}
}

// Step does what is to be done now, and says when to look again; false: it did not succeed.
func (c *Comer) Step(ctx context.Context, tries int) (time.Duration, bool) {
	if e, waits := c.Identity.Enrolment(); waits {
		if err := c.Come(ctx, e); err != nil {
			c.Waits(err)
			if tries < 3 || tries%20 == 0 {
				log.Printf("agent: %v", err)
			}
			return min(soonest<<min(tries, 10), seldom), false
		}
		c.Changed()
		return soonest, true
	}
	if !c.Identity.Adopted() {
		return checkEvery, true
	}
	if err := c.Settle(); err != nil {
		log.Printf("agent: %v", err)
	}
	seated, fresh := c.Seated(), c.New()
	due := fleet.RenewDue(c.Identity.Certificate().Leaf, c.Identity.Genesis().NodeCA, c.Now())
	follows := fresh || c.Accepted()
	if seated && !due || !seated && !follows {
		return checkEvery, true
	}
	if seated && c.renewOwn() {
		return checkEvery, true
	}
	if err := c.Visit(ctx, due && !fresh); err != nil {
		if tries < 3 || tries%20 == 0 {
			log.Printf("agent: %v", err)
		}
		return min(askFirst<<min(tries, 10), askLast), false
	}
	switch {
	case c.New():
		return min(askFirst<<min(tries, 10), askLast), false
	case seated || due:
		return checkEvery, true
	}
	return followEvery, true
}

// renewOwn renews the certificate of a node that holds the key of the node CA: it may be the only one.
func (c *Comer) renewOwn() bool {
	der, err := c.Own()
	if err == nil {
		err = c.Identity.Renew(der)
	}
	if err != nil {
		return false // another member may
	}
	log.Printf("agent: this node has renewed its certificate itself: it is good until %s", c.Identity.Certificate().Leaf.NotAfter.UTC().Format(time.DateOnly))
	return true
}

// Come comes in by a token, at the first member that lets this node in.
func (c *Comer) Come(ctx context.Context, e identity.Enrolment) error {
	seat, taken, err := c.Open()
	if err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	if len(e.Members) == 0 {
		return errors.New("enrol: join.yaml names no member's address: an operator can adopt this node")
	}
	says, err := token.OpenRecord(e.Record)
	if err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	name := cmp.Or(says.Node, c.Name())
	seen, err := c.Seen(false)
	if err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	own := &Node{Genesis: c.Identity.Genesis(), Certificate: c.Identity.Certificate(), Key: seat.Key, Seal: seat.Seal, Ledger: taken, Seen: seen, Revoked: c.Identity.Revoked}
	var all error
	for _, address := range e.Members { // in their order: so the console says the same as long as nothing changes
		var proof []byte
		answer, err := own.Enrol(ctx, address, e.Token, e.Record, name, func(der, use []byte, revoked []string) error {
			proof = use
			return c.Identity.EnrolKnowing(revoked, use, der)
		})
		if err != nil {
			all = errors.Join(all, err)
			if errors.Is(err, token.ErrCheckpoint) && seen.State().Height >= says.Height { // it never will be
				if seen, err = c.Seen(true); err != nil {
					return errors.Join(all, err)
				}
				own.Seen = seen
			}
			continue
		}
		// It is in. What fails now is repeated, or comes with the next visit.
		err = c.Settle()
		if err == nil {
			_, err = c.Take(proof)
		}
		if err != nil {
			log.Printf("agent: enrolment: %v", err)
		}
		log.Printf("agent: %s let this node in: %s. It is new until an operator accepts it: kogge fleet accept %s", answer.Seat.Name, c.Identity, c.Identity.Name())
		return nil
	}
	return all
}

// Visit asks members, until one has answered all.
func (c *Comer) Visit(ctx context.Context, renew bool) error {
	seat, taken, err := c.Open()
	if err != nil {
		return err
	}
	own := &Node{Genesis: c.Identity.Genesis(), Certificate: c.Identity.Certificate(), Key: seat.Key, Seal: seat.Seal, Ledger: taken, Revoked: c.Identity.Revoked, Refuse: c.Refuse}
	if c.New() {
		own.Came = c.Identity.Use()
	}
	all := errors.New("no member's address is known")
	contacts := shuffled(c.Contacts(taken, seat.Key))
	for i, looked := 0, false; i < len(contacts) || !looked; i++ {
		if i == len(contacts) {
			looked = true
			for _, a := range c.Find(ctx, taken, seat.Key) {
				if !slices.Contains(contacts, a) {
					contacts = append(contacts, a)
				}
			}
			i--
			continue
		}
		if i == 0 {
			all = nil
		}
		address := contacts[i]
		before := taken.State().Height
		answer, err := own.Visit(ctx, address, renew)
		if taken.State().Height > before {
			c.Changed()
		}
		if err == nil && answer.Paper != nil {
			_, err = c.Take(answer.Paper)
			c.Changed()
		}
		if err == nil && renew {
			if err = c.Identity.Renew(answer.Certificate); err == nil {
				log.Printf("agent: %s has renewed the certificate of this node: it is good until %s", answer.Seat.Name, c.Identity.Certificate().Leaf.NotAfter.UTC().Format(time.DateOnly))
			}
		}
		if err == nil {
			return nil
		}
		all = errors.Join(all, err)
	}
	return all
}

func shuffled(all []netip.AddrPort) []netip.AddrPort {
	all = slices.Clone(all)
	mathrand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}
