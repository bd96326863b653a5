package main

import (
	"cmp"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	fakeregistry "github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"

	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/registry"
	"kogge.example/agent/serve"
	"kogge.example/update/golden"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kogge": main})
}

// TestScript types command lines that need no virtual machine and no network. Each
// script has a cache and a configuration of its own, and beyond the commands of testscript:
//
//	hold VAR    takes a port of 127.0.0.1 until the script ends; its number is in VAR
//	untouched   fails if kogge has left anything in its cache
//	serve NODE [JOIN]  answers as a node that had that join.yaml; its address is in NODE, and stays
//	edit OLD NEW FROM TO  writes TO as FROM with OLD, which is in it, replaced
//	halt NODE   switches it off
//	registry VAR CA  serves a registry that wants user ada with password hunter2; its host and
//	            port are in VAR, and what it is to be believed by in the file CA
//	login HOST  lets ada in there, as docker login does below $DOCKER_CONFIG
//	release NAME  makes release 1.1 for pc-x86_64, small and unsigned
//
// $KOGGE is the program for scripts that take PATH away.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       golden.Updating(),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			program, err := exec.LookPath("kogge")
			if err != nil {
				return err
			}
			env.Setenv("KOGGE", program)
			env.Setenv("KOGGE_CACHE", filepath.Join(env.WorkDir, "cache"))
			env.Setenv("KOGGE_CONFIG", filepath.Join(env.WorkDir, "config"))
			env.Values[nodesKey{}] = make(nodes)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"hold": func(ts *testscript.TestScript, _ bool, args []string) {
				l, err := net.Listen("tcp4", "127.0.0.1:0")
				ts.Check(err)
				ts.Defer(func() { l.Close() })
				ts.Setenv(args[0], fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
			},
			"edit": func(ts *testscript.TestScript, _ bool, args []string) {
				text := ts.ReadFile(args[2])
				if !strings.Contains(text, args[0]) {
					ts.Fatalf("%s has no %q", args[2], args[0])
				}
				ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(strings.Replace(text, args[0], args[1], 1)), 0o600))
			},
			"serve":    serveNode,
			"halt":     haltNode,
			"registry": serveRegistry,
			"login": func(ts *testscript.TestScript, _ bool, args []string) {
				text := fmt.Sprintf(`{"auths":{%q:{"username":"ada","password":"hunter2"}}}`, args[0])
				ts.Check(os.MkdirAll(ts.Getenv("DOCKER_CONFIG"), 0o700))
				ts.Check(os.WriteFile(filepath.Join(ts.Getenv("DOCKER_CONFIG"), "config.json"), []byte(text), 0o600))
			},
			"release": func(ts *testscript.TestScript, _ bool, args []string) {
				b, err := smallRelease()
				ts.Check(err)
				ts.Check(b.Prepare(time.Now().Add(time.Hour), nil))
				ts.Check(b.Write(context.Background(), ts.MkAbs(args[0])))
			},
			"untouched": func(ts *testscript.TestScript, _ bool, _ []string) {
				left, err := os.ReadDir(ts.Getenv("KOGGE_CACHE"))
				if err == nil && len(left) > 0 {
					ts.Fatalf("the cache has %v", left)
				}
			},
		},
	})
}

// nodes are the nodes that a script serves: what switches them off.
type (
	nodes    map[string]func() error
	nodesKey struct{}
)

// serveNode is a node's API without the machine below it.
func serveNode(ts *testscript.TestScript, _ bool, args []string) {
	name := args[0]
	dir := ts.MkAbs(filepath.Join("nodes", name))
	ts.Check(os.MkdirAll(dir, 0o700))
	node, err := identity.OpenNode(filepath.Join(dir, "identity"))
	ts.Check(err)
	if len(args) > 1 {
		j, err := identity.ParseJoinFile(args[1], []byte(ts.ReadFile(args[1])))
		ts.Check(err)
		ts.Check(node.Join(j))
	}
	machine := machine.Machine{Run: dir, State: dir}
	server, err := serve.Listen(cmp.Or(ts.Getenv(name), "127.0.0.1:0"), serve.Config{
		Node: node, Machine: machine, ClockSure: func() bool { return true }, LogDir: dir,
		Containers: func() serve.Containers { return nil }, Projects: func() serve.Projects { return nil }, Images: func() serve.Images { return nil },
		Volumes:    func() serve.Volumes { return nil },
		Registries: registry.Open(filepath.Join(dir, "registries.age"), filepath.Join(dir, "identity", "registries.key")),
		Commands:   func() serve.Commands { return nil },
	})
	ts.Check(err)
	ts.Setenv(name, server.Address().String())
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- server.Serve(ctx) }()
	halt := sync.OnceValue(func() error {
		cancel()
		return <-over
	})
	ts.Value(nodesKey{}).(nodes)[name] = halt
	ts.Defer(func() { ts.Check(halt()) })
}

// serveRegistry is a registry behind TLS and a password.
func serveRegistry(ts *testscript.TestScript, _ bool, args []string) {
	quiet := log.New(io.Discard, "", 0)
	images := fakeregistry.New(fakeregistry.Logger(quiet))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ada" || password != "hunter2" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		images.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = quiet
	server.StartTLS()
	ts.Defer(server.Close)
	ts.Setenv(args[0], server.Listener.Addr().String())
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), ca, 0o600))
}

func haltNode(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Value(nodesKey{}).(nodes)[args[0]]())
}
