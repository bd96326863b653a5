package gossip

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/speaker"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
)

// counted are numbers that were given up to some one.
type counted struct{ notice.Numbers }

func (c *counted) Next() uint64 {
	number, _ := c.Numbers.Next()
	return number
}

func from(reserved uint64) *counted { return &counted{notice.Begin(reserved, 0)} }

// speaking starts a node's speaker together with its engine.
func (n *node) speaking(numbers speaker.Numbers) (*speaker.Speaker, context.CancelFunc) {
	s := speaker.New(n.key, numbers, func(kind string, sequence uint64, body []byte) (signed.Envelope, error) {
		return signed.Seal(kind, n.net.fleet, n.private, sequence, body)
	})
	n.config = func(c *Config) { c.News = s.Heard }
	n.start()
	engine := n.engine
	ctx, stop := context.WithCancel(context.Background())
	n.net.running.Go(func() { s.Run(ctx, engine) })
	return s, stop
}

func statusOf(deeds int64) []byte {
	s := notice.Status{Version: 1}
	if deeds > 0 {
		s.Deeds.Size, s.Deeds.Root[0] = deeds, 1
	}
	return s.Encode()
}

// TestSpeaker says what changes at once, and what does not once an hour.
func TestSpeaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := atRest(t, 4)
		s, stop := n.nodes[0].speaking(from(0))
		for _, one := range n.nodes[1:] {
			one.start()
		}
		number := func(i int) uint64 {
			e, _ := n.nodes[i].engine.Object(notice.StatusKind, n.nodes[0].key)
			return e.Sequence
		}
		s.Say(notice.StatusKind, statusOf(0))
		n.within(2*time.Second, "the first word", func() bool { return number(3) == 1 })
		for deeds := range int64(50) { // it flickers
			s.Say(notice.StatusKind, statusOf(deeds%3+1))
			time.Sleep(100 * time.Millisecond)
		}
		n.within(10*time.Second, "the last word", func() bool {
			e, _ := n.nodes[3].engine.Object(notice.StatusKind, n.nodes[0].key)
			got, err := notice.OpenStatus(e)
			return err == nil && got.Deeds.Size == 2
		})
		if got := number(3); got > 5 {
			t.Errorf("it has signed %d times in 5 s", got)
		}
		before := number(3)
		time.Sleep(10*time.Hour + 30*time.Minute)
		if got := number(3); got != before+10 {
			t.Errorf("it has signed %d times in ten hours and a half in which nothing happened", got-before)
		}
		if s.Problem() != nil {
			t.Error(s.Problem())
		}
		stop()
		n.endAll()
	})
}

// endAll ends what runs.
func (n *network) endAll() {
	for _, one := range n.alive() {
		one.end()
	}
	n.running.Wait()
}

// refusing is a carrier that takes nothing.
type refusing struct{ times int }

func (r *refusing) Publish(signed.Envelope) error { r.times++; return errDown }

func (r *refusing) Object(string, signed.Key) (e signed.Envelope, ok bool) { return e, false }

// TestSpeakerRefused tries again what nobody takes, ever more seldom, and says so.
func TestSpeakerRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := atRest(t, 4)
		s := speaker.New(n.nodes[0].key, from(0), func(kind string, sequence uint64, body []byte) (signed.Envelope, error) {
			return signed.Seal(kind, n.fleet, n.nodes[0].private, sequence, body)
		})
		s.Say(notice.StatusKind, statusOf(1))
		ctx, stop := context.WithCancel(t.Context())
		var nobody refusing
		n.running.Go(func() { s.Run(ctx, &nobody) })
		time.Sleep(10 * time.Hour)
		stop()
		n.running.Wait()
		if nobody.times < 10 || nobody.times > 30 || !errors.Is(s.Problem(), errDown) {
			t.Errorf("%d times, %v", nobody.times, s.Problem())
		}
	})
}

// TestRestoredDisk has a node come back with old numbers: what it said before does not win, and
// it is not mute.
func TestRestoredDisk(t *testing.T) {
	for name, online := range map[string]bool{"others are there": true, "others come later": false} {
		synctest.Test(t, func(t *testing.T) {
			n := atRest(t, 4)
			me := n.nodes[0]
			s, stop := me.speaking(from(5000))
			for _, one := range n.nodes[1:] {
				one.start()
			}
			s.Say(notice.StatusKind, statusOf(9))
			said := func() int64 {
				e, _ := n.nodes[3].engine.Object(notice.StatusKind, me.key)
				got, err := notice.OpenStatus(e)
				if err != nil {
					return -1
				}
				return got.Deeds.Size
			}
			n.within(2*time.Second, name+": the word before", func() bool { return said() == 9 })
			stop()
			me.end()
			if !online {
				n.cut(func(a, b int) bool { return a == 1 || b == 1 })
			}
			s, stop = me.speaking(from(0)) // the copy is from long ago
			s.Say(notice.StatusKind, statusOf(1))
			time.Sleep(time.Minute)
			n.cut(nil)
			limit := 10 * time.Second
			if !online {
				limit = time.Hour
			}
			n.within(limit, name+": the word of now", func() bool { return said() == 1 })
			e, _ := n.nodes[3].engine.Object(notice.StatusKind, me.key)
			if e.Sequence <= 5001 || s.Problem() != nil {
				t.Errorf("%s: number %d, %v", name, e.Sequence, s.Problem())
			}
			stop()
			n.endAll()
		})
	}
}

// TestTwin has two machines sign with one key. They do not talk for ever, and both say so.
func TestTwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := atRest(t, 4)
		me := n.nodes[0]
		twin := &node{net: n, number: 1, name: "twin", private: me.private, key: me.key, ledger: me.ledger, inbox: make(chan *memory)}
		s, stop := me.speaking(from(0))
		other, stopOther := twin.speaking(from(100))
		for _, one := range n.nodes[1:] {
			one.start()
		}
		s.Say(notice.StatusKind, statusOf(1))
		other.Say(notice.StatusKind, statusOf(2))
		n.within(2*time.Hour, "both see it", func() bool {
			return errors.Is(s.Problem(), speaker.ErrTwin) || errors.Is(other.Problem(), speaker.ErrTwin)
		})
		before, _ := n.nodes[3].engine.Object(notice.StatusKind, me.key)
		time.Sleep(10 * time.Hour)
		after, _ := n.nodes[3].engine.Object(notice.StatusKind, me.key)
		if signed := after.Sequence - before.Sequence; signed > 100 {
			t.Errorf("they have signed %d times in ten hours", signed)
		}
		stop()
		stopOther()
		twin.end()
		n.endAll()
	})
}

// cut sets who does not reach whom, and ends what sessions they have; nil: all reach all.
func (n *network) cut(apart func(a, b int) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if apart == nil {
		apart = func(a, b int) bool { return false }
	}
	n.apart = apart
}

// queueing is a carrier that knows a newer object of the seat, and has it heard before it
// answers anything else, as an engine does that works off one thing after the other.
type queueing struct {
	newer signed.Envelope
	heard func(signed.Envelope)
	stuck chan bool
}

func (q *queueing) Publish(e signed.Envelope) error {
	if e.Sequence < q.newer.Sequence {
		return notice.ErrOlder
	}
	return nil
}

func (q *queueing) Object(string, signed.Key) (signed.Envelope, bool) {
	done := make(chan bool)
	go func() { q.heard(q.newer); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Hour):
		q.stuck <- true
	}
	return q.newer, true
}

// TestSpeakerDoesNotWait: what is heard of a seat is taken while its speaker asks the engine, or
// both would wait for each other.
func TestSpeakerDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := atRest(t, 4)
		seal := func(kind string, sequence uint64, body []byte) (signed.Envelope, error) {
			return signed.Seal(kind, n.fleet, n.nodes[0].private, sequence, body)
		}
		s := speaker.New(n.nodes[0].key, from(0), seal)
		newer, err := seal(notice.StatusKind, 1000, statusOf(2))
		if err != nil {
			t.Fatal(err)
		}
		carrier := &queueing{newer: newer, heard: s.Heard, stuck: make(chan bool, 100)}
		ctx, stop := context.WithCancel(t.Context())
		n.running.Go(func() { s.Run(ctx, carrier) })
		s.Say(notice.StatusKind, statusOf(1))
		time.Sleep(2 * time.Hour)
		stop()
		n.running.Wait()
		if len(carrier.stuck) > 0 {
			t.Error("the speaker and its carrier wait for each other")
		}
	})
}
