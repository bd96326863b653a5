package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	rpc "connectrpc.com/connect"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/namespace"
	"kogge.example/update/golden"
)

// reachTable is written inside, compared outside.
const reachTable = "reach.txt"

// TestReplace applies Compose files to a node with real containers: services that know
// each other by name and nobody else, and a service that is replaced under load.
func TestReplace(t *testing.T) {
	bin := os.Getenv(binEnv)
	if bin == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root: makes containers")
		}
		if testing.Short() {
			t.Skip("builds agent, shim and runc: left out by -short")
		}
		bin = programs(t)
	}
	if !namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWPID, binEnv+"="+bin) {
		text, err := os.ReadFile(filepath.Join(bin, reachTable))
		must(t, err)
		golden.Compare(t, reachTable, string(text))
		return
	}
	n := newNode(t, bin)
	n.imageOf(t, filepath.Join(n.folder, "state", "preload"), "prober", "prober")
	n.config(t, "\n  services: {}\n")
	e := &execs{node: n, fleet: n.invite(t)}
	n.start(t, "containerd")
	n.start(t, "agent")
	e.ada = e.adopt(t)
	t.Cleanup(e.ada.Close)
	nameServer(t)
	must(t, os.WriteFile(filepath.Join(n.folder, "run", "etc", "resolv.conf"), []byte("nameserver 127.0.0.53\n"), 0o644))
	e.testNetworks(t)
	e.testReplace(t)
	e.testStopLasts(t)
	e.testVolumeAfterProject(t)
	n.kill(t, "agent")
	n.kill(t, "containerd")
}

// apply gives the node a project, services: in the short form of YAML.
func (e *execs) apply(t *testing.T, project, text string) {
	t.Helper()
	_, err := e.ada.Apply(t.Context(), rpc.NewRequest(&apiv1.ApplyRequest{Project: project, Text: text}))
	must(t, err)
}

// list returns the containers by name, none while the agent is away.
func (e *execs) list(t *testing.T) map[string]*apiv1.Container {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answer, err := e.ada.List(ctx, rpc.NewRequest(&apiv1.ListRequest{}))
	if err != nil {
		return nil
	}
	all := make(map[string]*apiv1.Container)
	for _, c := range answer.Msg.Containers {
		all[c.Name] = c
	}
	return all
}

// testNetworks: names, aliases and both networks of a project, from a container on each
// side, and from one of another project.
func (e *execs) testNetworks(t *testing.T) {
	server := "image: example.invalid/prober:1, command: [/app, serve, hello], stop_grace_period: 1s"
	asks := func(names string) string {
		return "image: example.invalid/prober:1, command: [/app, reach, /data/reach.txt, " + names + "]"
	}
	e.apply(t, "shop", `
services:
  web: {`+server+`, container_name: shop_web, networks: {front: {aliases: [www.shop.test]}}}
  db: {`+server+`, networks: {back: {aliases: [sql]}}}
  app: {`+asks("web, shop_web, www.shop.test, db, sql, app, spy, example.org")+`, networks: [front, back], depends_on: [web, db], volumes: [app:/data]}
  job: {`+asks("db, sql, job, web, 10.88.1.3, 10.88.0.1")+`, networks: [back], depends_on: [web, db], volumes: [job:/data]}
  alone: {`+asks("alone, web, 10.88.0.3")+`, network_mode: none, depends_on: [web, db], volumes: [alone:/data]}
networks: {front: , back: {internal: true}}
volumes: {app: , job: , alone: {name: node-wide}}
`)
	var b strings.Builder
	until(t, "the project to run", func() bool {
		all := e.list(t)
		return all["shop.app"].GetState() == "ended" && all["shop.job"].GetState() == "ended" && all["shop.alone"].GetState() == "ended"
	})
	e.apply(t, "other", "services: {spy: {"+asks("spy, web, db, www.shop.test, example.org, 10.88.0.3, 10.88.1.3")+", volumes: [data:/data]}}\nvolumes: {data: }\n")
	until(t, "the other project", func() bool { return e.list(t)["other.spy"].GetState() == "ended" })
	for _, c := range []struct{ name, volume string }{
		{"shop.app", "shop.app"}, {"shop.job", "shop.job"}, {"shop.alone", "node-wide"}, {"other.spy", "other.data"},
	} {
		text, err := os.ReadFile(filepath.Join(e.node.folder, "state", "volumes", c.volume, "reach.txt"))
		must(t, err)
		fmt.Fprintf(&b, "%s\n%s\n", c.name, text)
	}
	must(t, os.WriteFile(filepath.Join(e.node.bin, reachTable), []byte(b.String()), 0o644))
	for _, project := range []string{"shop", "other"} {
		_, err := e.ada.RemoveProject(t.Context(), rpc.NewRequest(&apiv1.RemoveProjectRequest{Project: project}))
		must(t, err)
	}
	until(t, "all to go", func() bool { return len(processes(t, "/app")) == 0 && len(e.list(t)) == 0 })
}

// testStopLasts: what an operator stopped stays stopped whatever else is applied, and what
// failed is as far in its pauses as it was.
func (e *execs) testStopLasts(t *testing.T) {
	const image = "image: example.invalid/prober:1, stop_grace_period: 0s, "
	e.apply(t, "shop", "services:\n  web: {"+image+"command: [/app, hang]}\n  bad: {"+image+"command: [/app, nonsense], restart: always}\n")
	until(t, "web to run and bad to fail", func() bool {
		all := e.list(t)
		return all["shop.web"].GetState() == "running" && all["shop.bad"].GetExits() >= 2
	})
	_, err := e.ada.Run(t.Context(), rpc.NewRequest(&apiv1.RunRequest{Container: "shop.web", Action: apiv1.Action_ACTION_STOP}))
	must(t, err)
	until(t, "web to stop", func() bool { return e.list(t)["shop.web"].GetState() == "stopped" })
	exits := e.list(t)["shop.bad"].GetExits()
	for i := range 5 {
		e.apply(t, "other", fmt.Sprintf("services: {job%d: {%scommand: [/app, hang]}}\n", i, image))
		until(t, "the other project to run", func() bool {
			all := e.list(t)
			return len(all) == 3 && all[fmt.Sprintf("other.job%d", i)].GetState() == "running"
		})
		all := e.list(t)
		if all["shop.web"].GetState() != "stopped" || all["shop.bad"].GetExits() < exits {
			t.Fatalf("apply %d: web is %s, bad has %d exits of %d", i, all["shop.web"].GetState(), all["shop.bad"].GetExits(), exits)
		}
	}
	for _, project := range []string{"shop", "other"} {
		_, err := e.ada.RemoveProject(t.Context(), rpc.NewRequest(&apiv1.RemoveProjectRequest{Project: project}))
		must(t, err)
	}
	until(t, "all to go", func() bool { return len(processes(t, "/app")) == 0 && len(e.list(t)) == 0 })
}

// testVolumeAfterProject: a volume goes as soon as its project was removed, and not before.
func (e *execs) testVolumeAfterProject(t *testing.T) {
	for range 3 {
		e.apply(t, "shop", "services: {web: {image: example.invalid/prober:1, command: [/app, hang], volumes: [data:/data]}}\nvolumes: {data: }\n")
		until(t, "web to run", func() bool { return e.list(t)["shop.web"].GetState() == "running" })
		_, err := e.ada.RemoveVolume(t.Context(), rpc.NewRequest(&apiv1.RemoveVolumeRequest{Name: "shop.data"}))
		if err == nil || !strings.Contains(err.Error(), "in use: by shop.web") {
			t.Fatalf("a volume in use: %v", err)
		}
		_, err = e.ada.RemoveProject(t.Context(), rpc.NewRequest(&apiv1.RemoveProjectRequest{Project: "shop"}))
		must(t, err)
		_, err = e.ada.RemoveVolume(t.Context(), rpc.NewRequest(&apiv1.RemoveVolumeRequest{Name: "shop.data"}))
		must(t, err)
	}
	until(t, "all to go", func() bool { return len(processes(t, "/app")) == 0 && len(e.list(t)) == 0 })
}

// load asks a published port 200 times a second, each second time by a new connection.
type load struct {
	stop    func()
	mu      sync.Mutex // guards what follows
	answers map[string]int
	lost    []string
}

func newLoad(t *testing.T, url string) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{answers: make(map[string]int)}
	var asking sync.WaitGroup
	kept := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 50}}
	fresh := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	asking.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			client := kept
			if i%2 == 0 {
				client = fresh
			}
			asking.Go(func() { l.ask(client, url) })
		}
	})
	l.stop = sync.OnceFunc(func() {
		cancel()
		asking.Wait()
		kept.CloseIdleConnections()
	})
	t.Cleanup(l.stop)
	return l
}

func (l *load) ask(client *http.Client, url string) {
	began := time.Now()
	r, err := client.Get(url)
	var text []byte
	if err == nil {
		text, err = io.ReadAll(r.Body)
		r.Body.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.lost = append(l.lost, fmt.Sprintf("after %s: %v", time.Since(began).Round(time.Millisecond), err))
		return
	}
	l.answers[strings.TrimSpace(string(text))]++
}

// count is how often text was answered so far.
func (l *load) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[text]
}

// testReplace replaces a service under 200 requests a second: by one that works, by one
// that does not, and while the agent is killed. No request is lost.
func (e *execs) testReplace(t *testing.T) {
	version := func(text, check string) string {
		return `services:
  web:
    image: example.invalid/prober:1
    command: [/app, serve, ` + text + `]
    ports: ["8080:80"]
    restart: always
    stop_grace_period: 10s
    healthcheck: {test: [CMD, /app, get, "` + check + `"], interval: 500ms, timeout: 5s, retries: 2}
`
	}
	const good = "http://127.0.0.1/"
	serves := func() (all int) { return len(serving(t)) }
	e.apply(t, "shop", version("one", good))
	until(t, "the first one to be healthy", func() bool { return e.list(t)["shop.web"].GetHealth() == "healthy" })
	l := newLoad(t, "http://127.0.0.1:8080/")
	until(t, "answers of it", func() bool { return l.count("one") > 200 })

	began := time.Now()
	e.apply(t, "shop", version("two", good))
	until(t, "answers of the second one", func() bool { return l.count("two") > 200 })
	until(t, "the first one to go", func() bool { return serves() == 1 })
	t.Logf("replaced in %s: %v", time.Since(began).Round(time.Millisecond), l.answers)

	e.apply(t, "shop", version("sick", "http://127.0.0.1:81/"))
	until(t, "the third one to be found unhealthy", func() bool {
		c := e.list(t)["shop.web"]
		return c.GetState() == "backoff" && strings.HasPrefix(c.Reason, "unhealthy: ") && strings.HasSuffix(c.Reason, "; the old one keeps running") && c.OldServes
	})
	before := l.count("two")
	until(t, "answers of the second one still", func() bool { return l.count("two") > before+400 })
	if n := l.count("sick"); n > 0 {
		t.Errorf("%d answers of one that is not healthy", n)
	}

	e.apply(t, "shop", version("four", good))
	until(t, "the fourth one to be started", func() bool { return strings.Contains(strings.Join(serving(t), " "), "four") })
	e.node.kill(t, "agent")
	before = l.count("two") + l.count("four")
	until(t, "answers without an agent", func() bool { return l.count("two")+l.count("four") > before+200 })
	e.node.start(t, "agent")
	until(t, "answers of the fourth one", func() bool { return l.count("four") > 200 })
	until(t, "the second one to go", func() bool { return strings.Join(serving(t), " ") == "four" })
	l.stop()
	sent := len(l.lost)
	for _, n := range l.answers {
		sent += n
	}
	t.Logf("%d requests, %d lost: %v", sent, len(l.lost), l.answers)
	for i, why := range l.lost {
		if i < 10 {
			t.Errorf("lost: %s", why)
		}
	}
	until(t, "the other network namespaces to go", func() bool {
		spaces, err := os.ReadDir(filepath.Join(e.node.folder, "netns"))
		return err == nil && len(spaces) == 1
	})
	until(t, "the other shims to go", func() bool { return len(processes(t, filepath.Join(e.node.bin, "containerd-shim-runc-v2"))) == 1 })
	if c := e.list(t)["shop.web"]; c.GetState() != "running" || c.OldServes || len(c.Ports) != 1 {
		t.Errorf("at the end: %v", c)
	}
}

// nameServer is the node's: the world has one name.
func nameServer(t *testing.T) {
	t.Helper()
	packets, err := net.ListenPacket("udp4", "127.0.0.53:53")
	must(t, err)
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		switch one := q.Question[0]; {
		case one.Name != "example.org.":
			a.Rcode = dns.RcodeNameError
		case one.Qtype == dns.TypeA:
			head := dns.RR_Header{Name: one.Name, Rrtype: one.Qtype, Class: dns.ClassINET}
			a.Answer = []dns.RR{&dns.A{Hdr: head, A: net.IPv4(192, 0, 2, 80)}}
		}
		_ = w.WriteMsg(a)
	})}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { _ = server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown() })
}

// serving are the texts that containers serve.
func serving(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pid := range processes(t, "/app") {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if words := strings.Split(string(line), "\x00"); err == nil && len(words) > 2 && words[1] == "serve" {
			all = append(all, words[2])
		}
	}
	return all
}
