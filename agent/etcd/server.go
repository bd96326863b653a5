package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3compactor"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/features"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"kogge.example/agent/etcd/membership"
)

// server is etcd while it runs.
type server struct {
	etcd    *etcdserver.EtcdServer
	client  *clientv3.Client // within the process
	handler http.Handler     // for peers

	mu   sync.Mutex // guards what follows
	grpc *grpc.Server
	done bool
	wait sync.WaitGroup
}

// begin is how etcd begins in a data folder that has no log yet.
type begin struct {
	fresh   bool // it begins with its founders; otherwise it joins others
	members []int
	token   string
}

// start starts etcd in a data folder. prepared is called when all is on the disk and nothing
// was said to anybody yet. It does not wait until etcd is ready, which takes a quorum.
func start(dir string, c Config, b begin, prepared func() error) (*server, error) {
	lg := logger(c.Log)
	cluster := make(types.URLsMap)
	for _, seat := range b.members {
		u, err := types.NewURLs([]string{peerURL(seat)})
		if err != nil {
			return nil, err
		}
		cluster[memberName(seat)] = u
	}
	own, err := types.NewURLs([]string{peerURL(c.Seat)})
	if err != nil {
		return nil, err
	}
	socket := ClientSocket(c.Run)
	gate := features.NewDefaultServerFeatureGate(memberName(c.Seat), lg)
	if err := gate.(interface{ Set(string) error }).Set(string(features.CompactHashCheck) + "=true"); err != nil {
		return nil, err
	}
	e, err := etcdserver.NewServer(config.ServerConfig{
		Name: memberName(c.Seat), DataDir: dir, Logger: lg, ServerFeatureGate: gate,
		PeerURLs: own, ClientURLs: types.URLs{url.URL{Scheme: "unix", Path: socket}},
		InitialPeerURLsMap: cluster, InitialClusterToken: b.token, NewCluster: b.fresh,
		TickMs: uint(tick.Milliseconds()), ElectionTicks: int(election / tick), InitialElectionTickAdvance: true, PreVote: true,
		SnapshotCount: snapshotEvery, SnapshotCatchUpEntries: catchUp, MaxSnapFiles: 2, MaxWALFiles: 2,
		BackendFreelistType: bolt.FreelistMapType, QuotaBackendBytes: quota(c),
		AutoCompactionMode: v3compactor.ModeRevision, AutoCompactionRetention: history,
		MaxTxnOps: 128, MaxRequestBytes: maxRequest, MaxConcurrentStreams: math.MaxInt32,
		StrictReconfigCheck: true, MaxLearners: membership.MaxLearners, BcryptCost: 10, Metrics: "basic",
		WarningApplyDuration: time.Second, WarningUnaryRequestDuration: 2 * time.Second,
		DowngradeCheckTime: time.Minute, CompactHashCheckTime: compare, V2Deprecation: config.V2DeprDefault,
	})
	if err != nil {
		return nil, fmt.Errorf("etcd in %s: %w", dir, err)
	}
	if err := prepared(); err != nil {
		e.Cleanup()
		return nil, err
	}
	e.Start()
	s := &server{etcd: e, client: v3client.New(e), handler: etcdhttp.NewPeerHandler(lg, e)}
	s.wait.Go(func() { s.serveClients(socket, c) })
	return s, nil
}

func quota(c Config) int64 {
	if c.Quota == 0 {
		return DefaultQuota
	}
	return c.Quota
}

// serveClients serves the client socket once there is a leader, or after a while in any case: what is
// here can be copied without one, and whoever needs one has a limit of his own. That etcd calls itself
// ready is later by seven seconds where it has just joined.
func (s *server) serveClients(socket string, c Config) {
	late := time.Now().Add(alone)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ready := false; !ready; {
		select {
		case <-s.etcd.StopNotify():
			return
		case <-s.etcd.ReadyNotify():
			ready = true
		case <-tick.C:
			ready = s.leader() != 0 || time.Now().After(late)
		}
	}
	l, err := listenUnix(socket)
	if err != nil {
		say(c, "clients: "+err.Error())
		return
	}
	g := v3rpc.Server(s.etcd, nil, nil, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}))
	s.mu.Lock()
	if s.done {
		s.mu.Unlock()
		l.Close()
		return
	}
	s.grpc = g
	s.mu.Unlock()
	if err := g.Serve(l); err != nil {
		say(c, "clients: "+err.Error())
	}
}

// listenUnix opens a socket for root alone, in the place of one that is left over.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path) // its folder is root's alone, too
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// stop ends etcd. A leader first hands over, so that the others do not wait for an election, but
// for one that ends at once.
func (s *server) stop(atOnce bool) {
	s.mu.Lock()
	s.done = true
	g := s.grpc
	s.mu.Unlock()
	if g != nil {
		g.Stop()
	}
	if atOnce {
		s.etcd.HardStop()
	} else {
		s.etcd.Stop()
	}
	s.wait.Wait()
	_ = s.client.Close()
}

// stopped says whether etcd has ended by itself: it was removed, or its disk failed.
func (s *server) stopped() bool {
	select {
	case <-s.etcd.StopNotify():
		return true
	default:
		return false
	}
}

// members is etcd's list as this member knows it, by seat.
func (s *server) members() (all []membership.Member) {
	for _, m := range s.etcd.Cluster().Members() {
		all = append(all, membership.Member{ID: uint64(m.ID), Seat: seatOf(m.PeerURLs), Learner: m.IsLearner, Started: m.Name != ""})
	}
	slices.SortFunc(all, func(a, b membership.Member) int { return a.Seat - b.Seat })
	return all
}

// leader is the seat that leads; 0: none does.
func (s *server) leader() int {
	if m := s.etcd.Cluster().Member(s.etcd.Leader()); m != nil {
		return seatOf(m.PeerURLs)
	}
	return 0
}

// alarm is one of etcd's.
type alarm struct {
	id   uint64
	kind pb.AlarmType
	seat int  // 0: of nobody who is listed
	gone bool // it is of a member that is not there any more, and etcd would keep it for ever
}

func (s *server) alarms() (all []alarm) {
	alone := len(s.etcd.Cluster().Members()) == 1 // its data differs from nobody's
	for _, a := range s.etcd.Alarms() {
		one := alarm{id: a.MemberID, kind: a.Alarm, gone: a.MemberID != 0 || alone}
		if m := s.etcd.Cluster().Member(types.ID(a.MemberID)); m != nil {
			one.seat, one.gone = seatOf(m.PeerURLs), false
		}
		all = append(all, one)
	}
	return all
}

// disarm takes alarms back that mean nothing any more: those of members that are gone, and with room
// those for want of it. A member that has none raises its alarm again.
func (s *server) disarm(ctx context.Context, room bool) error {
	for _, a := range s.alarms() {
		if !a.gone && !(room && a.kind == pb.AlarmType_NOSPACE) {
			continue
		}
		if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: a.id, Alarm: a.kind}); err != nil {
			return err
		}
	}
	return nil
}

// carryOut does one step about the list. Its errors are those of etcd, most of which say that
// it is too early: the next look asks again.
func (s *server) carryOut(ctx context.Context, step membership.Step) error {
	var err error
	switch step.Do {
	case membership.Add:
		_, err = s.client.MemberAddAsLearner(ctx, []string{peerURL(step.Seat)})
	case membership.Promote, membership.Remove, membership.Yield:
		i := slices.IndexFunc(s.members(), func(m membership.Member) bool { return m.Seat == step.Seat })
		if i < 0 {
			return fmt.Errorf("seat %d is not in etcd's list", step.Seat)
		}
		switch id := s.members()[i].ID; step.Do {
		case membership.Promote:
			_, err = s.client.MemberPromote(ctx, id)
		case membership.Remove:
			_, err = s.client.MemberRemove(ctx, id)
		case membership.Yield:
			_, err = s.client.MoveLeader(ctx, id)
		}
	default:
		return fmt.Errorf("%q is nothing that a leader does", step.Do)
	}
	if err != nil {
		return fmt.Errorf("%s seat %d: %w", step.Do, step.Seat, err)
	}
	return nil
}

// logger has etcd's warnings go where ours do.
func logger(log func(string)) *zap.Logger {
	if log == nil {
		return zap.NewNop()
	}
	encoder := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "m", EncodeDuration: zapcore.StringDurationEncoder, ConsoleSeparator: " "})
	core := zapcore.NewCore(encoder, zapcore.AddSync(logWriter(log)), zapcore.WarnLevel)
	// It says the same thing many times a second while a peer is away.
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Minute, 2, 0))
}

type logWriter func(string)

func (w logWriter) Write(line []byte) (int, error) {
	w("etcd says: " + string(line[:max(0, len(line)-1)]))
	return len(line), nil
}

func say(c Config, line string) {
	if c.Log != nil {
		c.Log(line)
	}
}

// dataOf is etcd's folder of a generation below a folder Dir.
func dataOf(dir string, generation int) string {
	return filepath.Join(dir, fmt.Sprintf("data.%d", generation))
}
