package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/bridge"
	"kogge.example/agent/workload"
)

// fakeEngine is a containerd in memory that goes away, fails and ends containers
// when a test says so.
type fakeEngine struct {
	mu      sync.Mutex
	there   map[string]*fakeContainer
	down    chan struct{} // closed while containerd is away; nil while it is there
	missing map[string]bool
	sick    map[string]bool
	// stubborn is how many removals are to fail.
	stubborn int
	images   map[string]string
	volumes  map[string][]workload.Volume // of images
	ids      map[string][]uint32
	log      []string        // what was done, in order
	graces   []time.Duration // of a deafEngine's removals, in order
}

type fakeContainer struct {
	workload.Found
	exit chan int
}

func newFake() *fakeEngine {
	return &fakeEngine{there: map[string]*fakeContainer{}, missing: map[string]bool{}, sick: map[string]bool{}, images: map[string]string{}, down: make(chan struct{})}
}

var errAway = errors.New("containerd does not answer")

func (f *fakeEngine) do(ctx context.Context, format string, args ...any) error {
	f.log = append(f.log, fmt.Sprintf(format, args...))
	select {
	case <-f.down:
		return errAway
	default:
		return ctx.Err()
	}
}

func (f *fakeEngine) List(ctx context.Context) ([]workload.Found, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.do(ctx, "list"); err != nil {
		return nil, err
	}
	var all []workload.Found
	for _, c := range f.there {
		all = append(all, c.Found)
	}
	return all, nil
}

func (f *fakeEngine) Lost(ctx context.Context) error {
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	select {
	case <-down:
		return errAway
	case <-ctx.Done():
		return nil
	}
}

func (f *fakeEngine) Digest(_ context.Context, image string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.missing[image] {
		return "", workload.ErrNoImage
	}
	return "sha256:" + image + f.images[image], nil
}

func (f *fakeEngine) Complete(_ context.Context, c workload.Container) (workload.Container, error) {
	return c.With(workload.FromImage{Volumes: f.volumes[c.Image], IDs: f.ids[c.Image]}), nil
}

func (f *fakeEngine) Start(ctx context.Context, c workload.Container, i workload.Instance, _ workload.Namespaces) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.do(ctx, "start %s%s", i.Name, places(i.At)); err != nil {
		return err
	}
	if f.missing[c.Image] {
		return workload.ErrNoImage
	}
	f.there[i.Name] = &fakeContainer{exit: make(chan int, 1), Found: workload.Found{
		Record: *workload.RecordOf(c, i), Started: time.Now(),
		Spec: c.Hash(), Image: "sha256:" + c.Image + f.images[c.Image], Task: workload.Alive,
	}}
	return nil
}

func (f *fakeEngine) Wait(ctx context.Context, id string) (int, error) {
	f.mu.Lock()
	c, down := f.there[id], f.down
	f.mu.Unlock()
	if c == nil {
		return 0, errors.New("no such container")
	}
	select {
	case code := <-c.exit:
		return code, nil
	case <-down:
		return 0, errAway
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (f *fakeEngine) Mark(ctx context.Context, id string, code int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.do(ctx, "mark %s %d", id, code); err != nil {
		return err
	}
	f.there[id].Task, f.there[id].Exit = workload.Over, code
	return nil
}

func (f *fakeEngine) Relieve(ctx context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.do(ctx, "relieve %s", name); err != nil {
		return err
	}
	if c := f.there[name]; c != nil {
		c.Relieved = true
	}
	return nil
}

func (f *fakeEngine) Remove(ctx context.Context, id, _ string, _ time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.there[id] == nil {
		return ctx.Err()
	}
	if err := f.do(ctx, "remove %s", id); err != nil {
		return err
	}
	if f.stubborn > 0 {
		f.stubborn--
		return errors.New("it clings")
	}
	select {
	case f.there[id].exit <- 137:
	default:
	}
	delete(f.there, id)
	return nil
}

// Health is c's own: these images have none.
func (f *fakeEngine) Health(_ context.Context, c workload.Container) (workload.Health, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.missing[c.Image] {
		return workload.Health{}, workload.ErrNoImage
	}
	if c.Health == nil {
		return workload.Health{}, nil
	}
	h, _ := c.Health.Complete(workload.Health{})
	return h, nil
}

func (f *fakeEngine) Test(_ context.Context, id string, _ workload.Health) (bool, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, "test "+id)
	if f.sick[id] {
		return false, "it hurts"
	}
	return true, "fine"
}

func (f *fakeEngine) Prepare(workload.Container, string) error                   { return nil }
func (f *fakeEngine) WriteFiles(workload.Container, string, workload.View) error { return nil }
func (f *fakeEngine) RemoveFiles(string) error                                   { return nil }

// exit ends a running container.
func (f *fakeEngine) exit(t *testing.T, id string, code int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.there[id]
	if c == nil {
		t.Fatalf("container %s is not there", id)
	}
	c.Task, c.Exit = workload.Exited, code
	c.exit <- code
}

// away lets containerd crash, and back lets it return; containers go on.
func (f *fakeEngine) away() { f.mu.Lock(); close(f.down); f.mu.Unlock() }
func (f *fakeEngine) back() { f.mu.Lock(); f.down = make(chan struct{}); f.mu.Unlock() }

func (f *fakeEngine) did(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, line := range f.log {
		if strings.HasPrefix(line, what) {
			n++
		}
	}
	return n
}

type fakeNetwork struct {
	mu       sync.Mutex
	made     map[string]workload.Subnet
	full     map[string]bool // networks that cannot be made
	attached map[string]bool
	ports    []workload.Publish
	counts   []int              // of the ports of each Publish
	broken   int                // so many calls of Publish fail
	follow   error              // what Follow says
	follows  int                // how often it was asked
	move     string             // this network is elsewhere when it is made the next time
	more     []workload.Extents // of each that was attached
}

func (n *fakeNetwork) Make(wanted []workload.Network) (map[string]workload.Subnet, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	made := make(map[string]workload.Subnet)
	for _, one := range wanted {
		if n.full[one.Name] {
			return nil, bridge.ErrNoSubnet
		}
		subnet, ok := n.made[one.Name]
		if n.move == one.Name {
			subnet.Prefix, n.move = netip.MustParsePrefix("172.29.0.0/24"), ""
		} else if !ok {
			subnet.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88, byte(len(n.made)), 0}), 24)
		}
		subnet.Network = one
		if n.made == nil {
			n.made = make(map[string]workload.Subnet)
		}
		n.made[one.Name], made[one.Name] = subnet, subnet
	}
	return made, nil
}

func (n *fakeNetwork) Prune(wanted []workload.Network) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name := range n.made {
		if !slices.ContainsFunc(wanted, func(one workload.Network) bool { return one.Name == name }) {
			delete(n.made, name)
		}
	}
	return nil
}

func (n *fakeNetwork) Attach(id string, _ []workload.Address, _ bool, more ...workload.Extents) (workload.Namespaces, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attached[id] = true
	n.more = append(n.more, more...)
	return workload.Namespaces{Net: "/netns/" + id}, nil
}

func (n *fakeNetwork) Detach(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.attached, id)
	return nil
}

func (n *fakeNetwork) Attached() ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ids []string
	for id := range n.attached {
		ids = append(ids, id)
	}
	return ids, nil
}

func (n *fakeNetwork) Publish(ports []workload.Publish) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken > 0 {
		n.broken--
		return errors.New("no nftables")
	}
	n.ports = ports
	n.counts = append(n.counts, len(ports))
	return nil
}

func (n *fakeNetwork) Follow() (moving map[string]string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.follows++
	if n.move != "" {
		moving = map[string]string{n.move: "somebody else has its subnet"}
	}
	return moving, n.follow
}

func (n *fakeNetwork) published() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.ports)
}

// bench is a Keeper that runs on fakes. Its clock is ahead by what a test adds.
type bench struct {
	engine  *fakeEngine
	network *fakeNetwork
	status  chan workload.Status
	first   workload.Status // the first one that was reported; there once status has had one
	told    sync.Once
	keeper  *Keeper
	end     func() // ends Run and waits for it
}

func run(t *testing.T, f *fakeEngine, wanted ...workload.Container) *bench {
	t.Helper()
	return runOn(t, f, &fakeNetwork{attached: map[string]bool{}}, wanted...)
}

func runOn(t *testing.T, f *fakeEngine, network *fakeNetwork, wanted ...workload.Container) *bench {
	t.Helper()
	b := &bench{engine: f, network: network, status: make(chan workload.Status, 1)}
	for id := range f.there {
		b.network.attached[id] = true
	}
	k := &Keeper{
		Engine: f, Network: b.network, Tick: 10 * time.Millisecond,
		Report: func(s workload.Status) {
			b.told.Do(func() { b.first = s })
			b.report(s)
		},
	}
	b.keeper = k
	b.end = sync.OnceFunc(keep(t, k, wanted...))
	t.Cleanup(b.end)
	return b
}

// keep has a Keeper run, and returns what ends that and waits for it.
func keep(t *testing.T, k *Keeper, wanted ...workload.Container) (end func()) {
	t.Helper()
	if err := k.Want(wanted, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// report keeps the newest status for until: only that counts.
func (b *bench) report(s workload.Status) {
	select {
	case <-b.status:
	default:
	}
	b.status <- s
}

// until waits for a status that ok likes.
func (b *bench) until(t *testing.T, what string, ok func(workload.Status) bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	var last workload.Status
	for {
		select {
		case last = <-b.status:
			if ok(last) {
				return
			}
		case <-limit:
			t.Fatalf("waited for %s; last status: %s\n%s", what, last, strings.Join(b.engine.log, "\n"))
		}
	}
}

// states is a condition: these units are in these states.
func unitStates(want ...string) func(workload.Status) bool {
	return func(s workload.Status) bool {
		var got []string
		for _, u := range s.Units {
			got = append(got, u.ID+" "+string(u.State))
		}
		return slices.Equal(got, want)
	}
}

func web(policy workload.Policy) workload.Container {
	return workload.Container{ID: "web", Image: "hello", Hostname: "web", Pids: 10, Restart: workload.Restart{Policy: policy}, Networks: []workload.Attachment{{Network: "default"}},
		Ports: []workload.Port{{Protocol: workload.TCP, HostPort: 80, Container: 8080}}}
}

func TestStartAndRestart(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := run(t, f, web(workload.Always), workload.Container{ID: "job", Image: "job"})
	b.until(t, "both running", unitStates("job running", "web running"))
	f.exit(t, "job", 0)
	f.exit(t, "web", 1)
	b.until(t, "web to pause", unitStates("job ended", "web backoff"))
	if n := b.network.published(); n != 0 {
		t.Errorf("%d ports lead to a container that does not run", n)
	}
	b.until(t, "web to run again", func(s workload.Status) bool {
		return unitStates("job ended", "web running")(s) && s.Settled && s.Units[1].Exits == 1
	})
	if n := f.did("start web"); n != 2 {
		t.Errorf("web was started %d times", n)
	}
	b.network.mu.Lock()
	defer b.network.mu.Unlock()
	if len(b.network.ports) != 1 || b.network.ports[0].To.String() != "10.88.0.2:8080" {
		t.Errorf("published %v", b.network.ports)
	}
}

// TestAdopt: an agent that comes back leaves alone what is as it should be.
func TestAdopt(t *testing.T) {
	t.Parallel()
	c := web(workload.Always)
	at := func(addr string) []workload.Address {
		return []workload.Address{{Network: "default", Addr: netip.MustParseAddr(addr)}}
	}
	good := workload.Found{Record: workload.Record{Instance: workload.Instance{Name: "web", At: at("10.88.0.9")}, ID: "web"}, Spec: c.Hash(), Image: "sha256:hello", Task: workload.Alive}
	for _, tc := range []struct {
		name    string
		want    workload.Container
		change  func(*workload.Found)
		state   string
		starts  int
		removes int
	}{
		{"running", c, func(*workload.Found) {}, "web running", 0, 0},
		{"ended while nobody looked", web(workload.No), func(f *workload.Found) { f.Task, f.Exit = workload.Exited, 3; f.Spec = web(workload.No).Hash() }, "web ended", 0, 0},
		{"ended in this boot", web(workload.No), func(f *workload.Found) { f.Task = workload.Over; f.Spec = web(workload.No).Hash() }, "web ended", 0, 0},
		{"of another boot", c, func(f *workload.Found) { f.Task = workload.Absent }, "web running", 1, 1},
		{"other settings", c, func(f *workload.Found) { f.Spec = "other" }, "web running", 1, 1},
		{"other image", c, func(f *workload.Found) { f.Image = "sha256:older" }, "web running", 1, 1},
		{"half made", c, func(f *workload.Found) { f.Task = workload.Strange }, "web running", 1, 1},
		{"address of another subnet", c, func(f *workload.Found) { f.At = at("10.99.0.2") }, "web running", 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			found := good
			tc.change(&found)
			f.there["web"] = &fakeContainer{Found: found, exit: make(chan int, 1)}
			f.there["old"] = &fakeContainer{Found: workload.Found{Record: workload.Record{Instance: workload.Instance{Name: "old"}, ID: "old"}, Task: workload.Alive}, exit: make(chan int, 1)}
			b := run(t, f, tc.want)
			b.until(t, tc.state, func(s workload.Status) bool {
				return unitStates(tc.state)(s) && s.Settled && f.did("remove old") == 1
			})
			if f.did("start web") != tc.starts || f.did("remove web") != tc.removes {
				t.Errorf("got:\n%s", strings.Join(f.log, "\n"))
			}
		})
	}
}

// TestContainerdGoesAway: containers that run are not touched when it is back, and
// one that ended meanwhile is started anew.
func TestContainerdGoesAway(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := run(t, f, web(workload.Always), workload.Container{ID: "db", Image: "db", Restart: workload.Restart{Policy: workload.Always}})
	b.until(t, "both running", unitStates("db running", "web running"))
	b.network.mu.Lock()
	b.network.counts = nil
	b.network.mu.Unlock()
	f.away()
	b.until(t, "trouble", func(s workload.Status) bool { return s.Trouble != "" })
	f.mu.Lock()
	f.there["db"].Task, f.there["db"].Exit = workload.Exited, 137
	f.mu.Unlock()
	f.back()
	b.until(t, "both running again", func(s workload.Status) bool {
		return unitStates("db running", "web running")(s) && s.Trouble == "" && f.did("start db") == 2
	})
	if f.did("start web") != 1 || f.did("remove web") != 0 {
		t.Errorf("web was touched:\n%s", strings.Join(f.log, "\n"))
	}
	b.network.mu.Lock()
	defer b.network.mu.Unlock()
	if slices.Contains(b.network.counts, 0) {
		t.Errorf("web was not to be reached for a while: %v ports, one after the other", b.network.counts)
	}
}

// TestMissingImage: it is clear what is wrong, and it heals.
func TestMissingImage(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.missing["hello"] = true
	b := run(t, f, web(workload.No), workload.Container{ID: "db", Image: "db"})
	b.until(t, "settled", func(s workload.Status) bool {
		return s.Settled && unitStates("db running", "web backoff")(s) && strings.Contains(s.String(), "web backoff: not on this node")
	})
	f.mu.Lock()
	f.missing["hello"] = false
	f.mu.Unlock()
	b.until(t, "both running", unitStates("db running", "web running"))
}

// TestPortsLater: a node that cannot publish yet says so, runs its containers, and
// publishes when it can.
func TestPortsLater(t *testing.T) {
	t.Parallel()
	network := &fakeNetwork{attached: map[string]bool{}, broken: 1 << 30}
	b := runOn(t, newFake(), network, web(workload.Always))
	b.until(t, "trouble", func(s workload.Status) bool {
		return unitStates("web running")(s) && strings.Contains(s.Trouble, "no nftables")
	})
	network.mu.Lock()
	network.broken = 2
	network.mu.Unlock()
	b.until(t, "no trouble", func(s workload.Status) bool { return s.Trouble == "" })
	network.mu.Lock()
	defer network.mu.Unlock()
	if len(network.ports) != 1 {
		t.Errorf("published %v", network.ports)
	}
}

func TestWantedTwice(t *testing.T) {
	f := newFake()
	b := run(t, f, web(workload.Always))
	b.until(t, "it to run", unitStates("web running"))
	if err := b.keeper.Want([]workload.Container{web(workload.No), web(workload.Always)}, 0); err == nil {
		t.Error("accepted")
	}
	b.until(t, "it to go on", unitStates("web running"))
}
