package mdns

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Twin is what a node has heard of another machine that announces the node's own key: a copy
// of its disk runs. The zero value has heard nothing. Anybody on the link can say so, so it is
// told for as long as the machine answers, and nothing is done about it.
type Twin struct {
	mu          sync.Mutex
	at          netip.Addr
	first, last time.Time
	asked       time.Time
}

const (
	// twinAgain lies between the two times that a twin has to be heard: an echo of what the
	// node said before its address changed comes at once, or never.
	twinAgain = 500 * time.Millisecond
	// twinAsk is how often it is asked for.
	twinAsk = time.Minute
	// twinRepeat is how soon it is asked for once more where it did not answer: a machine says
	// nothing to all twice in a second, and packets get lost.
	twinRepeat = 5 * time.Second
	// twinFor is how long a twin that does not answer is told of: packets get lost.
	twinFor = 5 * time.Minute
)

// hear notes that the twin at an address was heard. Another address counts only when the
// one before is forgotten: who makes them up changes nothing.
func (t *Twin) hear(at netip.Addr, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over(now) {
		t.at, t.first = at, now
	}
	if t.at == at {
		t.last = now
	}
}

func (t *Twin) over(now time.Time) bool { return now.Sub(t.last) > twinFor }

// ask says whether it is time to ask whether the twin is still there.
func (t *Twin) ask(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over(now) || now.Sub(t.last) < twinAsk || now.Sub(t.asked) < twinRepeat {
		return false
	}
	t.asked = now
	return true
}

// Problem says that there is a twin, and what to do; nil: none was heard.
func (t *Twin) Problem(now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over(now) || t.last.Sub(t.first) < twinAgain {
		return nil
	}
	return fmt.Errorf("the machine at %s says that it is this node, with the same key: if its disk is a copy of this one, kogge node reset makes one of the two a new node", t.at)
}

// twin is the address at which a message has another machine with a key. mine says of an address
// whether it is this machine's: a repeater may have carried the message here.
func twin(m *dns.Msg, link, key string, mine func(netip.Addr) bool) (netip.Addr, bool) {
	if key == "" {
		return netip.Addr{}, false
	}
	for _, found := range nodes(m, link) {
		own := slices.ContainsFunc(found.Addresses, func(a netip.Addr) bool { return mine(a.WithZone("")) })
		if found.Key == key && !own {
			return found.Addresses[0], true
		}
	}
	return netip.Addr{}, false
}
