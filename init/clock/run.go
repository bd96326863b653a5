package clock

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/beevik/ntp"
	"github.com/coreos/go-systemd/v22/daemon"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// Paths says which files the service uses.
type Paths struct {
	Saved  string // last saved time, on STATE, and beside it the floor; "" or a missing folder: nothing is saved
	Run    string // folder for control.Clock, and of control.Network with the servers of DHCP
	Socket string // where people's words for the time come in; "": nowhere
}

// NodePaths are the paths on a node.
var NodePaths = Paths{Saved: "/state/kogge/clock", Run: control.RunDir, Socket: control.ClockPath}

// Options are what Run needs to know beside the settings.
type Options struct {
	Floor Floor // as SetFloor returned it
	Clock Clock // zero: System
	Paths Paths // zero: NodePaths

	port  int           // of the servers; zero: 123
	first time.Duration // first pause between polls; zero: firstPause
}

const (
	firstPause = 8 * time.Second
	longPause  = 1024 * time.Second // 17 minutes
	retryPause = 64 * time.Second   // the longest while nothing answers
	savePause  = time.Hour          // flash wears out
	askTimeout = 3 * time.Second
	// lookUpTimeout has two dead name servers be waited for, see init/network. The answers of
	// other time servers wait for it.
	lookUpTimeout = 5 * time.Second
	// familyTimeout is how long a look-up may take before each family is asked for by itself, and
	// how long one of them is waited for once there are addresses of the other.
	familyTimeout = time.Second
)

// SetFloor is for PID 1, early: it reads the saved time, and sets the clock to the
// floor if it is below. certain are the times that have passed for sure (zero:
// unknown). A saved file that cannot be read is an error, and the floor is good
// without it; so is a clock that cannot be set.
func SetFloor(c Clock, saved string, certain ...time.Time) (Floor, error) {
	t, err := load(saved)
	f := NewFloor(t, certain...)
	for file, at := range f.kept(saved) {
		read, loadErr := load(file)
		*at = read
		err = errors.Join(err, loadErr)
	}
	if to, wrong := Start(c.Now(), f); wrong {
		if setErr := c.Set(to); setErr != nil {
			return f, setErr
		}
	}
	return f, err
}

// Run keeps the clock right until ctx ends, and then saves the time. It tells the
// supervisor READY at once: nothing waits for the time. The error is about the
// machinery; silent or lying servers are none.
func Run(ctx context.Context, cfg nodeconfig.Config, o Options) error {
	if o.Clock == nil {
		o.Clock = System{}
	}
	if o.Paths == (Paths{}) {
		o.Paths = NodePaths
	}
	s := newService(cfg, o, time.Now())
	s.begin()
	s.ran()
	if err := s.publish(); err != nil {
		return err
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Printf("clock: tell supervisor: %v", err)
	}
	var alive <-chan time.Time
	if every, err := daemon.SdWatchdogEnabled(false); err == nil && every > 0 {
		t := time.NewTicker(every / 2)
		defer t.Stop()
		alive = t.C
	}
	saves := time.NewTicker(savePause)
	defer saves.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	answers := make(chan poll)
	hands := make(chan hand)
	if o.Paths.Socket != "" {
		l, err := listenHands(o.Paths.Socket, hands)
		if err != nil {
			return err
		}
		defer l.Close()
	}
	for {
		select {
		case <-ctx.Done():
			s.save()
			return nil
		case <-alive:
			if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
				log.Printf("clock: ping supervisor: %v", err)
			}
		case <-saves.C:
			s.save()
		case <-next.C:
			network, _ := control.ReadNetwork(s.o.Paths.Run) // without facts there is none yet
			s.status.Servers = servers(s.cfg.Time.Servers, network)
			s.moved(placeOf(s.status.Servers, network, carrierChanges))
			servers, wait := s.due(s.status.Servers, time.Now())
			if len(servers) == 0 && len(s.status.Servers) > 0 {
				next.Reset(wait)
				break
			}
			// Not waited for at the end: a name that does not resolve may take a while,
			// and the answer goes nowhere then.
			go func() {
				select {
				case answers <- askAll(servers, o):
				case <-ctx.Done():
				}
			}()
		case p := <-answers:
			s.told(p, time.Now())
			s.polled(p)
			next.Reset(s.pause(time.Now()))
		case h := <-hands:
			h.answer <- s.setByHand(h.SetClock)
		}
		s.ran()
		if err := s.publish(); err != nil {
			return err
		}
	}
}

// begin notes what the clock says now: the node runs on from there.
func (s *service) begin() { s.since = s.o.Clock.Now() }

// ran raises the floor by the time for which the node ran. The clock of a machine counts
// that apart from what it is set to; where ours sets it, [service.begin] follows.
func (s *service) ran() {
	now := s.o.Clock.Now()
	s.state.Floor = s.state.Floor.Run(now.Sub(s.since))
	s.since = now
	if floor := s.state.Floor.Certain(); floor.Before(s.status.Floor) || floor.Sub(s.status.Floor) >= time.Minute {
		s.status.Floor = floor.UTC().Truncate(time.Second) // each word of it is a file written
	}
}

// service is the state of Run. One goroutine owns it.
type service struct {
	cfg     nodeconfig.Config
	o       Options
	state   State
	status  control.Clock
	last    control.Clock // as written
	polls   int           // good ones in a row
	silent  int           // those without agreement in a row
	good    bool          // whether the time may be saved
	since   time.Time     // by the clock: the floor is that of then
	savedOK bool          // whether this run saved a synced time already
	began   time.Time     // by a clock that nobody sets
	place   place
	manners map[string]manners
}

func newService(cfg nodeconfig.Config, o Options, now time.Time) *service {
	return &service{cfg: cfg, o: o, state: State{Floor: o.Floor}, began: now, manners: make(map[string]manners)}
}

// servers are those of node.yaml, else those that the network names. A link-local one
// that names no link is on the first that is connected.
func servers(set []string, network control.Network) []string {
	names := slices.Clone(set)
	if len(set) == 0 {
		for _, a := range network.NTP {
			names = append(names, a.String())
		}
	}
	up := slices.IndexFunc(network.Interfaces, func(i control.Interface) bool { return i.Carrier })
	for n, name := range names {
		a, err := netip.ParseAddr(name)
		switch {
		case err != nil:
			names[n] = strings.ToLower(strings.TrimSuffix(name, "."))
			continue
		case up >= 0 && a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
			a = a.WithZone(network.Interfaces[up].Name)
		}
		names[n] = a.Unmap().String()
	}
	// Twice the same one are not two that agree.
	var once []string
	for _, name := range names {
		if !slices.Contains(once, name) {
			once = append(once, name)
		}
	}
	return once
}

// pause is how long to wait for the next poll: short at first, long once the clock
// is right, and not past the time at which a server may be asked again.
func (s *service) pause(now time.Time) time.Duration {
	first, n, most := s.o.first, s.polls, longPause
	if first == 0 {
		first = firstPause
	}
	if s.polls == 0 {
		n, most = s.silent, retryPause
	}
	if s.polls == 0 && s.state.Lone.waits() {
		n = 0 // the others have their chance
	}
	pause := min(first<<min(n, 16), most)
	for _, m := range s.manners {
		if left := m.next - now.Sub(s.began); left > 0 {
			pause = min(pause, max(left, first))
		}
	}
	return pause
}

// polled acts on the answers of one poll.
func (s *service) polled(p poll) {
	s.ran()
	samples := p.samples
	now := s.o.Clock.Now()
	s.status.Received, s.status.Answers = len(samples), nil
	for _, a := range samples {
		s.status.Answers = append(s.status.Answers, control.ClockAnswer{
			Server: a.Server, Stratum: a.Stratum,
			Offset: a.Offset.Round(time.Microsecond).String(), Error: a.Error.Round(time.Microsecond).String(),
		})
	}
	if s.partial(p) {
		if s.polls > 0 {
			s.polls++ // the next pause is longer, as after any other
		} else {
			s.silent++
		}
		s.status.Synced = s.state.IsSynced(now)
		return
	}
	welcome := slices.DeleteFunc(slices.Clone(s.status.Servers), func(name string) bool { return s.manners[name].denied() })
	next, a := s.state.Step(now, len(welcome), samples)
	if a.Verb == Nothing && a.Why == "" {
		a.Why = s.unwelcome()
	}
	s.state, s.good = next, a.Save
	err := s.carryOut(a)
	if err != nil {
		log.Printf("clock: %v", err)
		a.Why = err.Error()
	} else if a.Why != "" && a.Why != s.status.Problem {
		log.Printf("clock: %s", a.Why)
	}
	now = s.o.Clock.Now()
	if err != nil || a.Verb == Nothing || a.Verb == Refuse {
		s.polls, s.status.Problem = 0, a.Why
		s.silent++
		s.status.Synced = s.state.IsSynced(now)
		return
	}
	s.polls, s.silent, s.status.Problem = s.polls+1, 0, ""
	s.status.Synced, s.status.Single = true, s.state.Single
	s.status.Source, s.status.Offset = a.Source, a.Offset.Round(time.Microsecond).String()
	s.status.Polled = now.UTC().Truncate(time.Second)
	if a.Verb == Set {
		s.status.Jump, s.status.JumpAt = s.status.Offset, s.status.Polled
	}
	// A node that is switched off without a word shall not lose the first good time.
	if !s.savedOK || a.Verb == Set {
		s.save()
	}
}

func (s *service) carryOut(a Action) error {
	defer s.begin()
	switch a.Verb {
	case Set:
		if err := s.o.Clock.Set(s.o.Clock.Now().Add(a.Offset)); err != nil {
			return err
		}
	case Slew:
		if err := s.o.Clock.Slew(a.Offset); err != nil {
			return err
		}
	default:
		return nil
	}
	if !a.Save {
		return nil // a doubtful time is not for the next boot, in neither place
	}
	// Once a poll: every 8 seconds at first, every 17 minutes later.
	if err := s.o.Clock.SaveRTC(s.o.Clock.Now()); err != nil {
		log.Printf("clock: %v", err)
	}
	return nil
}

// save writes the time to STATE, if it may be the next floor and STATE is there.
func (s *service) save() {
	s.ran()
	now := s.o.Clock.Now()
	if s.polls == 0 {
		s.good = s.state.saves(now)
	}
	if !s.good {
		now = time.Time{}
	}
	if s.write(now) {
		s.savedOK = s.savedOK || s.polls > 0
	}
}

// write writes to STATE, if that is there, what has passed for sure, and the time, unless it
// is zero. It says whether the time is there.
//
// They are files of their own, each old or new after a cut. What a person takes back is
// doubted (1) before it is not witnessed any more (2): in between it still counts.
func (s *service) write(now time.Time) bool {
	if s.o.Paths.Saved == "" {
		return false
	}
	if _, err := os.Stat(filepath.Dir(s.o.Paths.Saved)); err != nil {
		return false // no STATE: PID 1 says so
	}
	for file, at := range s.state.Floor.kept(s.o.Paths.Saved) {
		if old, err := load(file); at.IsZero() || err == nil && old.Equal(at.Truncate(time.Second)) {
			continue // flash wears out
		}
		if err := save(file, *at); err != nil {
			log.Printf("clock: %v", err)
			break
		}
	}
	if now.IsZero() {
		return false
	}
	if err := save(s.o.Paths.Saved, now); err != nil {
		log.Printf("clock: %v", err)
		return false
	}
	s.status.SavedAt = now.UTC().Truncate(time.Second)
	return true
}

// publish writes the facts if they say something new.
func (s *service) publish() error {
	if fmt.Sprint(s.status) == fmt.Sprint(s.last) {
		return nil
	}
	if err := s.status.Write(s.o.Paths.Run); err != nil {
		return err
	}
	s.last = s.status
	return nil
}

// poll is what servers said that were asked at once.
type poll struct {
	asked   []string
	samples []Sample          // good answers
	kisses  map[string]string // what else some said, by server: see [manners]
}

// askAll asks all servers at once.
func askAll(servers []string, o Options) poll {
	type result struct {
		server, kiss string
		*Sample
	}
	results := make(chan result)
	for _, server := range servers {
		go func() {
			s, kiss := ask(server, o)
			results <- result{server, kiss, s}
		}()
	}
	p := poll{asked: servers, kisses: make(map[string]string)}
	for range servers {
		one := <-results
		if one.Sample != nil {
			p.samples = append(p.samples, *one.Sample)
		}
		if one.kiss != "" {
			p.kisses[one.server] = one.kiss
		}
	}
	return p
}

// era is how long the seconds of NTP run before they start again (RFC 5905, 6).
const era = (1 << 32) * time.Second

// mostAddresses bounds how many addresses of a name are tried, each for askTimeout: the
// answers of other servers wait for it.
const mostAddresses = 4

// addresses are those of a server, in the order in which to try them: its name may have
// several, and one of them may be dead, or the node may have no way to a family.
func addresses(server string) []string {
	if _, err := netip.ParseAddr(server); err == nil {
		return []string{server}
	}
	return inTurns(slices.DeleteFunc(lookUp(server), func(a netip.Addr) bool {
		c, err := net.Dial("udp", netip.AddrPortFrom(a, 123).String()) // sends nothing
		if err == nil {
			c.Close()
		}
		return err != nil // there is no way
	}))
}

// lookUp are the addresses of a name. There are name servers that leave questions for IPv6
// unanswered: after a second each family is asked for by itself as well, and what they say of
// the other one counts without. By itself, a family's question is about that very name: a
// search domain may have addresses of one family for every name.
func lookUp(name string) []netip.Addr {
	ctx, cancel := context.WithTimeout(context.Background(), lookUpTimeout)
	defer cancel()
	ask := func(network, name string) chan []netip.Addr {
		answer := make(chan []netip.Addr, 1)
		go func() {
			all, _ := net.DefaultResolver.LookupNetIP(ctx, network, name) // best first, by RFC 6724
			answer <- all
		}()
		return answer
	}
	whole := ask("ip", name)
	select {
	case all := <-whole:
		return all
	case <-time.After(familyTimeout):
	}
	if !strings.Contains(name, ".") {
		return <-whole
	}
	itself := strings.TrimSuffix(name, ".") + "."
	six, four := ask("ip6", itself), ask("ip4", itself)
	var found []netip.Addr
	var over <-chan time.Time // for the other family
	for whole != nil || six != nil || four != nil {
		select {
		case all := <-whole:
			if whole = nil; len(all) > 0 {
				return all
			}
		case all := <-six:
			six, found = nil, append(all, found...)
		case all := <-four:
			four, found = nil, append(found, all...)
		case <-over:
			return found
		}
		if len(found) > 0 && six == nil && four == nil {
			return found
		}
		if len(found) > 0 && over == nil {
			over = time.After(familyTimeout)
		}
	}
	return found
}

// inTurns are the addresses to try: one of each family in turn, as the way of a whole family
// may lead nowhere.
func inTurns(all []netip.Addr) (order []string) {
	var families [2][]string // that of the first address, and the other
	for _, a := range all {
		a = a.Unmap()
		family := 0
		if a.Is4() != all[0].Unmap().Is4() {
			family = 1
		}
		families[family] = append(families[family], a.String())
	}
	for i := range all {
		for _, f := range families {
			if i < len(f) && len(order) < mostAddresses {
				order = append(order, f[i])
			}
		}
	}
	return order
}

// ask asks one server, at its addresses until one answers; nil is no answer, or one that no
// clock may follow. kiss is what a server says to clients that it does not want.
func ask(server string, o Options) (s *Sample, kiss string) {
	for _, address := range addresses(server) {
		if s, kiss = askAt(address, server, o); s != nil || kiss != "" {
			break
		}
	}
	return s, kiss
}

// askAt asks a server at one of its addresses.
func askAt(address, server string, o Options) (s *Sample, kiss string) {
	r, err := ntp.QueryWithOptions(address, ntp.QueryOptions{Timeout: askTimeout, Port: o.port})
	now := o.Clock.Now()
	if err != nil {
		return nil, ""
	}
	if r.Validate() != nil {
		return nil, r.KissCode // of none that is a time
	}
	// The offset of the library is wrong if our clock is in another era, 1970 or
	// 2090 say. The server's time is right but for the era, and that is the one
	// nearest to the floor.
	truth := r.Time.Add(r.RTT / 2)
	for truth.Before(o.Floor.Hard.Add(-era / 2)) {
		truth = truth.Add(era)
	}
	return &Sample{
		Server: server, Stratum: int(r.Stratum), Offset: truth.Sub(now.Round(0)), Error: r.RootDistance + r.RTT/2,
		Clock: reference(r.ReferenceID, r.ReferenceTime),
	}, ""
}

// reference is what an answer says of it. A time that is not said, or a whole second, which
// radio clocks have in common, is no mark of one server.
func reference(id uint32, at time.Time) Reference {
	if at.Nanosecond() == 0 {
		return Reference{}
	}
	return Reference{ID: id, Time: at.UnixNano()}
}
