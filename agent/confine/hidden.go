package confine

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Memory of the kernel is counted as a container's where the kernel asks for it to be. Some is
// not: messages that wait in a socket of netlink or of ping, connections that nobody accepts,
// long access lists of files, filters of sockets. A container that holds much of that is below
// its limit, and so are all together: the kernel would take memory from the node, and then
// kill whoever has most that is counted, who is another one. So the agent looks, see [Shortage.Victim].

// Shortage is how much memory a node has left, in bytes.
type Shortage struct {
	Total     int64 // that programs and the kernel can have
	Available int64 // that is free, or can be freed at once
	Limit     int64 // of all containers together; what it leaves of Total is the node's reserve. 0: none
	Used      int64 // by all of them, of the limit, that cannot be freed
}

// lost is how many bytes the containers could not have, though their limit says so: what is
// used up elsewhere beyond the reserve.
func (s Shortage) lost() int64 { return s.Limit - s.Used - s.Available }

// short is the room that is left when it is time to look for the reason: half of the reserve.
func (s Shortage) short() int64 { return (s.Total - s.Limit) / 2 }

// Hidden says whether memory is short, and the containers' counted memory is not why. Where
// that is why, the kernel kills one of their processes at their limit, and the reserve stays.
func (s Shortage) Hidden() bool {
	return s.Limit > 0 && s.Available < s.short() && s.lost() > 0
}

// A hog in C gets a MiB of hidden memory in some 4 ms.
const (
	fastest = 512 << 20 // bytes that may get lost in a second
	soonest = 100 * time.Millisecond
	latest  = time.Second
)

// Settled is how long the kernel may take to give back what the sockets of a process held
// that has ended.
const Settled = time.Second

// Next is when to look again: the more room, the later.
func (s Shortage) Next() time.Duration {
	if s.Limit <= 0 {
		return latest
	}
	room := time.Duration(float64(s.Available-s.short()) / fastest * float64(time.Second))
	return min(max(room, soonest), latest)
}

// Holding is what an instance holds of the kernel, in bytes.
type Holding struct {
	Instance string
	Unread   int64 // that waits in its sockets, and counts as nobody's
	Objects  int64 // the kernel's objects that count as its own: what is hidden hangs on them
}

const (
	// An instance stands out whose sockets hold as much as this part of the reserve.
	unreadPart = 8
	// Where none does, and a quarter of the reserve is left, and this part of it is lost, it is
	// the one with most objects: if they are this part of what is lost. A file with long lists, a
	// socket with a filter and a terminal each hide up to 15 bytes for one that counts.
	lostPart, objectsPart = 4, 16
)

// Victim is the instance that has to end, and why, in words; "" is nobody. It is the one
// with the most hidden memory, if it has enough to be the reason.
func (s Shortage) Victim(all []Holding) (instance, why string) {
	if !s.Hidden() || len(all) == 0 {
		return "", ""
	}
	const mib = 1 << 20
	order := func(of func(Holding) int64) Holding {
		return slices.MaxFunc(all, func(a, b Holding) int { return cmp.Compare(of(a), of(b)) })
	}
	reserve := s.Total - s.Limit
	if h := order(func(h Holding) int64 { return h.Unread }); h.Unread >= max(reserve/unreadPart, 1) {
		return h.Instance, fmt.Sprintf("ended by the node: it held %d MiB of kernel memory that does not count against its limit, unread in its sockets", h.Unread/mib)
	}
	if h := order(func(h Holding) int64 { return h.Objects }); s.Available < s.short()/2 && s.lost() >= reserve/lostPart && h.Objects >= max(s.lost()/objectsPart, 1) {
		return h.Instance, fmt.Sprintf("ended by the node: %d MiB of kernel memory count against nobody's limit, and of what such memory hangs on (files, sockets) it held most, %d MiB", s.lost()/mib, h.Objects/mib)
	}
	return "", ""
}
