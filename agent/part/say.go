package part

import (
	"cmp"
	"log"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/machine"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
)

// factsEvery is how often the node looks at itself for what it tells others, and wordsLast how
// long it calls a fault by the same words, though a number in them changes.
const (
	factsEvery = time.Minute
	wordsLast  = 15 * time.Minute
)

// say says how the node is now.
func (s *session) say() {
	state := s.taken.State()
	seat, listed := state.Roster.ByKey(s.seat.Key)
	key, err := document.ParseHash(s.part.node.Key())
	if !listed || err != nil {
		return
	}
	s.says.Say(notice.TLSKeyKind, notice.TLSKey{Version: 1, Seat: seat.Number, Key: key}.Encode())
	facts := s.talk.machine.Status(s.ctx)
	boot, _ := control.ReadBoot(s.talk.machine.Folder())
	s.sayRecord(seat.Name, facts, boot)
	s.sayStatus(state, facts, boot)
}

// sayRecord says what the node is, by these facts.
func (s *session) sayRecord(name string, facts *apiv1.StatusResponse, boot control.Boot) {
	is := recordOf(name, facts, boot, roster.OwnAddresses(addressesOf(s.talk.machine.Folder())), s.port)
	if a, _, ok := s.part.papers().Accepted(s.seat.Key); ok {
		is.Attested = a.Attested
	}
	record := is.Encode()
	if _, err := notice.ParseNode(record); err != nil {
		log.Printf("agent: what the node says of itself: %v", err)
		return
	}
	s.says.Say(notice.NodeKind, record)
}

// sayStatus says how far its ledger goes, and what is wrong with it.
func (s *session) sayStatus(state ledger.State, facts *apiv1.StatusResponse, boot control.Boot) {
	wrong := faults(facts)
	note := func(what string, err error) {
		if err != nil {
			wrong = append(wrong, notice.Fault{What: what, Why: err.Error()})
		}
	}
	note("gossip", s.numbers.Problem())
	note("gossip", s.says.Problem())
	note("vote", s.voting.Load().wrong())
	done, err := s.part.settle(boot, facts.GetBoot().GetAssessment())
	note("deeds", err)
	note("orders", s.part.book().Problem())
	status := notice.Status{Version: 1, Height: state.Height, Head: state.Record, Deeds: done, Wrong: s.words.same(wrong, time.Now())}
	s.says.Say(notice.StatusKind, status.Fit(s.engine.Limit(notice.StatusKind)).Encode())
}

// recordOf is the record of a node with these facts.
func recordOf(name string, s *apiv1.StatusResponse, boot control.Boot, addresses []netip.Addr, port int) notice.Node {
	n := notice.Node{
		Version: 1, Name: name, Arch: runtime.GOARCH, Board: cmp.Or(boot.Board, "unknown"), Model: model(), Kernel: cmp.Or(s.Kernel, "unknown"),
		Capacity: notice.Capacity{CPUs: runtime.NumCPU(), Memory: max(1, int64(s.GetMemory().GetTotal())), Disk: int64(s.GetState().GetTotal())},
	}
	for _, a := range addresses {
		n.Addresses = append(n.Addresses, netip.AddrPortFrom(a, uint16(port)))
	}
	if boot.Slot == "A" || boot.Slot == "B" {
		root, _ := document.ParseHash(boot.RootHash) // none: it is not known
		running := notice.Slot{Name: boot.Slot, Release: boot.Version, Root: root, Running: true}
		if a := s.GetBoot().GetAssessment(); a == "good" || a == "bad" || a == "pending" {
			running.Boot = a
		}
		n.Slots = []notice.Slot{running}
	}
	return n
}

// model is the machine's, as its firmware calls it; "": it does not say.
func model() string {
	for _, file := range []string{"/proc/device-tree/model", "/sys/class/dmi/id/product_name"} {
		if text := strings.TrimRight(machine.ReadLine(file), "\x00"); text != "" {
			return notice.Text(text)
		}
	}
	return ""
}

// faults are what is wrong with the node, by its facts.
func faults(s *apiv1.StatusResponse) (all []notice.Fault) {
	for _, d := range s.Degraded {
		all = append(all, notice.Fault{What: d.What, Why: d.Why})
	}
	for _, one := range s.Services {
		if one.Failing {
			all = append(all, notice.Fault{What: "service " + one.Name, Why: cmp.Or(one.LastExit, one.Text, "it fails")})
		}
	}
	return all
}

// spoken are the words by which faults were called.
type spoken struct {
	faults []notice.Fault
	at     time.Time
}

// same is the list as it was called before, if it is about the same things and that was not
// long ago: a number that changes each minute is no news to a fleet.
func (s *spoken) same(now []notice.Fault, at time.Time) []notice.Fault {
	about := func(a, b notice.Fault) bool { return a.What == b.What }
	if !slices.EqualFunc(s.faults, now, about) || at.Sub(s.at) >= wordsLast {
		s.faults, s.at = now, at
	}
	return s.faults
}
