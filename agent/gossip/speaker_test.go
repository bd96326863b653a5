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
