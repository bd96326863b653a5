// Package serve answers the node's API: a handler for each call of the contract, on the
// port that package door guards, and what operators did becomes events (see audit).
//
// In come requests of callers who may make them; out go answers from PID 1, the kernel's
// files, the keeper, the engine and the installer, each by an interface that is declared
// here. The package decides nothing about workloads and stores nothing but what adoption
// brings. Handlers lie in the files of what they are about: kogge apply sends a Compose file
// (cmd/kogge/project_apply.go), Apply in projects.go gives it to wanted.Store.Apply, which
// keeps it on STATE and tells the agent's keep (agent/node.go), and that the keeper.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/door"
	"kogge.example/agent/events"
	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/serve/care"
	"kogge.example/agent/serve/records"
	"kogge.example/agent/serve/votes"
	"kogge.example/update/fleet"
)

// Limits of the server: what is beyond one waits or is refused, and the node lives.
const (
	maxStreams  = 32 // of one connection
	maxHeader   = 16 << 10
	headerLimit = 10 * time.Second // for the TLS handshake too
)

// Server answers on one port.
type Server struct {
	http     *http.Server
	listener *door.Listener
}

// Config is what a server stands on.
type Config struct {
	Node *identity.Node
	// ClockSure says whether the node's clock may refuse a certificate by its dates.
	ClockSure func() bool
	Now       func() time.Time // the node's clock; nil: time.Now
	// Known is what the fleet's ledger makes of a caller; nil: what his certificate says.
	Known func(fleet.Peer) (fleet.Peer, error)
	// Seen hears since when verified callers' certificates count. It returns at once. nil: nobody does.
	Seen    func(notBefore time.Time)
	Machine machine.Machine
	// Containers returns the keeper of the containers; nil while there is none.
	Containers func() Containers
	// What these return is nil until containerd serves.
	Projects func() Projects
	Images   func() Images
	Volumes  func() Volumes
	Commands func() Commands
	// Updates is what is done to the slots; nil where there are none.
	Updates Updates
	// Registries are the settings of image registries.
	Registries Registries
	// Records answers for the node as a part of its fleet, Care for what operators do for that.
	Records records.Records
	Care    care.Care
	// Docket is what people have said before the fleet decides; nil: this node keeps none.
	Docket func() votes.Docket
	// Events is what happens on the node; default: what operators do by this server.
	Events *events.Ring
	// LogDir holds the containers' output, a file NAME.log each.
	LogDir string
	// Protocols are spoken on the port besides the API, by ALPN's name. Each takes a connection after
	// the handshake until it is over, and bounds its callers once it has had [door.LetGo] it.
	Protocols map[string]func(*tls.Conn)
}

// Listen opens address ("[::]:7443"); calls wait until [Server.Serve].
func Listen(address string, c Config) (*Server, error) {
	listener, err := door.Listen(address)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return newServer(listener, c), nil
}

func newServer(listener net.Listener, c Config) *Server {
	mux, guard := http.NewServeMux(), door.NewGuard(c.Node, c.ClockSure)
	if c.Now != nil {
		guard.Now = c.Now
	}
	guard.Refuses = c.Records.Refuses
	if guard.Floor = c.Machine.ClockFloor; c.Seen != nil {
		guard.Seen = c.Seen
	}
	if c.Known != nil {
		guard.Known = c.Known
	}
	if c.Events == nil {
		c.Events = new(events.Ring)
	}
	options := []connect.HandlerOption{connect.WithReadMaxBytes(door.MaxRequest), connect.WithRecover(recovered), connect.WithConditionalHandlerOptions(plain),
		connect.WithInterceptors(&audit{c.Events, guard.Changes})}
	mux.Handle(apiv1connect.NewNodeServiceHandler(&nodeService{c.Node, c.Machine, guard.End}, options...))
	mux.Handle(apiv1connect.NewWorkloadServiceHandler(&workloadService{c.Containers, c.Projects, c.Commands, c.LogDir}, options...))
	mux.Handle(apiv1connect.NewImageServiceHandler(&imageService{c.Images}, options...))
	mux.Handle(apiv1connect.NewRegistryServiceHandler(&registryService{c.Registries}, options...))
	mux.Handle(apiv1connect.NewConfigServiceHandler(&configService{c.Machine, c.Projects}, options...))
	mux.Handle(apiv1connect.NewUpkeepServiceHandler(&upkeepService{node: c.Node, machine: c.Machine, containers: c.Containers, images: c.Images, output: c.LogDir}, options...))
	mux.Handle(apiv1connect.NewObserveServiceHandler(&observeService{c.Events, c.Machine, c.Containers}, options...))
	mux.Handle(apiv1connect.NewVolumeServiceHandler(&volumeService{c.Volumes}, options...))
	mux.Handle(apiv1connect.NewUpdateServiceHandler(&updateService{c.Updates}, options...))
	mux.Handle(records.Handler(c.Node, c.Records, options...))
	mux.Handle(care.Handler(c.Care, options...))
	mux.Handle(votes.Handler(c.Docket, options...))
	mux.Handle(door.MetricsPath, metricsHandler(c.Machine, c.Node, c.Containers))
	conns := door.NewListener(listener)
	s := &http.Server{
		Handler:           guard.Wrap(mux),
		ConnContext:       door.WithConn,
		ConnState:         conns.ConnState,
		ReadHeaderTimeout: headerLimit, // and no IdleTimeout: the door ends idle connections
		MaxHeaderBytes:    maxHeader,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReadFrameSize: 64 << 10, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 64 << 10,
			// Nothing else tells that a caller's machine has gone, with a command still running for it.
			SendPingTimeout: time.Minute, PingTimeout: time.Minute},
		// It says much about every scanner that cannot speak TLS: in a bounded log it would push out what counts.
		ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: door.TLS(&tls.Config{
			MinVersion: tls.VersionTLS13,
			// Asked for, not demanded: who has none gets an answer that says so.
			ClientAuth: tls.RequestClientCert,
			// Adoption changes the certificate while the server runs.
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				certificate := c.Node.Certificate()
				return &certificate, nil
			},
			// A resumed session would keep the certificate of a caller from before a renewal.
			SessionTicketsDisabled: true,
		}),
	}
	door.Speak(s, c.Protocols)
	return &Server{s, conns}
}

// Address is where the server listens.
func (s *Server) Address() net.Addr { return s.listener.Addr() }

// Port is the number of the port that the server listens on.
func (s *Server) Port() int { return s.Address().(*net.TCPAddr).Port }

// Serve answers until ctx ends; then running calls have a moment to end.
func (s *Server) Serve(ctx context.Context) error {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		limited, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.http.Shutdown(limited) != nil {
			s.http.Close() // streams that follow a log never end by themselves
		}
	})
	err := s.http.ServeTLS(s.listener, "", "")
	if !stop() {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("api: %w", err)
}

// plain leaves the output of commands, and the steps of updates, as they are: to
// compress each key stroke costs more than it saves.
func plain(spec connect.Spec) []connect.HandlerOption {
	switch spec.Procedure {
	case apiv1connect.WorkloadServiceExecProcedure, apiv1connect.UpdateServiceUpdateProcedure, apiv1connect.CareServiceRelayProcedure:
		return []connect.HandlerOption{connect.WithCompressMinBytes(door.MaxRequest)}
	}
	return nil
}

// recovered turns a panic of one call into its error.
func recovered(_ context.Context, spec connect.Spec, _ http.Header, v any) error {
	log.Printf("api: %s: panic: %v", spec.Procedure, v)
	return connect.NewError(connect.CodeInternal, errors.New("internal error of the node; its agent's log says more"))
}
