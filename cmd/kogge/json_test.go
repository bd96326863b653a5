package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/engine"
	"kogge.example/agent/identity"
	"kogge.example/agent/images"
	"kogge.example/agent/install"
	"kogge.example/agent/machine"
	"kogge.example/agent/papers"
	"kogge.example/agent/pinned"
	"kogge.example/agent/registry"
	"kogge.example/agent/serve"
	"kogge.example/agent/serve/care"
	"kogge.example/agent/serve/records"
	"kogge.example/agent/serve/votes"
	"kogge.example/agent/wanted"
	"kogge.example/agent/workload"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/votes/agenda"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/ledger"
	envelope "kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
	layout "kogge.example/update/release"
	"kogge.example/update/release/keys"
	"kogge.example/update/verity"
)

// tables are the commands that print JSON when asked, with arguments for TestJSON.
var tables = map[string]string{
	"apply":        "-f shop.yaml --no-wait",
	"boards list":  "",
	"boards show":  "pc-x86_64",
	"events":       "",
	"fleet events": "",
	"fleet list":   "",
	"fleet nodes":  "",
	"fleet show":   "hanse",
	"fleet status": "",

	"fleet members":    "",
	"fleet token list": "hanse",
	"ledger log":       "",
	"images load":      "images.tar",
	"images ls":        "",
	"images pull":      "registry.example/db:1",
	"images prune":     "",
	"node events":      "-n 3",
	"node top":         "--interval 200ms",
	"node find":        "--timeout 100ms",
	"node list":        "",

	"node config confirm": "",
	"node config get":     "",
	"node config set":     "n1.yaml --no-confirm",
	"node config undo":    "",

	"node history":      "",
	"node rollback":     "n1 --reboot manual",
	"node services":     "",
	"node slots":        "",
	"node update":       "n1 usb: --reboot window",
	"node status":       "",
	"operator list":     "",
	"projects":          "",
	"ps":                "n1",
	"registry ls":       "",
	"rm":                "shop --no-wait",
	"release inspect":   "shop.oci",
	"release keys list": "",
	"top":               "--interval 200ms",
	"version":           "--node n1",
	"vm list":           "",
	"volumes ls":        "",
	"vote list":         "",
	"vote show":         "",
}

// speechless are the commands that print no table: they say what they did, or show
// lines as somebody else wrote them.
var speechless = []string{
	"completion", "exec", "fleet accept", "fleet backup", "fleet create", "fleet found", "fleet isolate", "fleet rejoin", "fleet propose ca", "fleet propose isolate", "fleet propose members", "fleet propose operator", "fleet propose owners", "fleet propose policy", "fleet propose rule", "fleet propose seat", "fleet propose tuf-root", "fleet propose unseat", "fleet restore", "fleet recover", "fleet renew", "fleet sign", "fleet token create", "fleet token revoke", "fleet upgrade", "help",
	"image build", "image lock", "image seed", "image write", "images rm", "ledger export", "ledger fetch", "ledger show", "ledger verify", "logs",
	"node adopt", "node away", "node back", "node config edit", "node cordon", "node drain", "node dmesg", "node forget-failure", "node logs", "node poweroff", "node reboot", "node renew", "node revoke", "node reset", "node restart", "node support", "node time set",
	"operator install", "operator invite", "operator join", "operator renew", "operator revoke", "operator sign",
	"release create", "release keys add", "release keys create", "release keys make", "release keys rotate", "release pull", "release push", "release sign", "release verify",
	"registry login", "registry logout", "registry mirror add", "registry mirror rm", "registry set",
	"restart", "start", "stop", "volumes rm", "vm console", "vm fleet", "vm run", "vm start", "vm stop", "vote no", "vote watch", "vote yes",
}

// TestJSON asks every command that prints a table for JSON, of a node and a fleet
// that have something and of ones that have nothing, and holds the names of its
// fields: programs go by them.
func TestJSON(t *testing.T) {
	everyCommand(rootCommand(), func(cmd *cobra.Command) {
		if !cmd.Runnable() || cmd.HasSubCommands() {
			return
		}
		path := strings.TrimPrefix(cmd.CommandPath(), "kogge ")
		_, known := tables[path]
		if has := cmd.Flags().Lookup("json") != nil; has != known || known == slices.Contains(speechless, path) {
			t.Errorf("%s: --json is there: %v; it belongs into tables or speechless accordingly", path, has)
		}
	})
	worlds := map[string]*world{"something": {
		units: []workload.UnitStatus{
			{ID: "db", State: workload.Running, Image: "registry.example/db:1", StartedAt: time.Unix(1_700_000_000, 0),
				Ports: []workload.Port{{HostPort: 5432, Container: 5432, Protocol: "tcp"}}},
			{ID: "web", State: workload.Backoff, Exits: 3, Reason: "exit status 1"},
		},
		images: []images.Image{{Name: "registry.example/db:1", Digest: "sha256:0123", Size: 1 << 40, Created: time.Unix(1_700_000_000, 0),
			Used: time.Unix(1_700_000_000, 0), By: []string{"db"}}},
		volumes: []engine.NamedVolume{{Name: "shop.data", Size: 1 << 40, By: []string{"shop.db"}}},
	}, "nothing": {}}
	said := map[string]string{}
	for name, w := range worlds {
		t.Run(name, func(t *testing.T) {
			w.open(t)
			var all strings.Builder
			all.WriteString(w.ask(t, "node time", "n1"))
			for _, path := range slices.Sorted(maps.Keys(tables)) {
				if path == "rm" {
					continue // comes last: it takes away what others show
				}
				all.WriteString(w.ask(t, path))
			}
			all.WriteString(w.ask(t, "rm"))
			all.WriteString(w.ask(t, "apply", "--check", "-f", "shop.yaml"))
			said[name] = all.String()
		})
	}
	golden.Compare(t, "json.txt", said["something"])
}

// world is what there is to list: a node that serves the API over two lists and a
// true store of projects.
type world struct {
	identity map[string]string // files that the node has before it starts
	units    []workload.UnitStatus
	images   []images.Image
	volumes  []engine.NamedVolume
	// status is what the keeper says; nil: that there are these units.
	status func() workload.Status
	// unready says that there is no keeper yet.
	unready bool
	// pid1 answers at a socket; nil: settle.
	pid1 func(t *testing.T, socket string)
	disk care.Disk // what a probe says

	mu       sync.Mutex // guards what follows
	orders   []envelope.Envelope
	restored string // what etcd began anew from
	waiting  *waitingThere
}

// waitingThere is the node's docket, in memory.
type waitingThere struct {
	mu    sync.Mutex // guards what follows
	set   *docket.Set
	more  [][]byte // opinions of seats
	state func() ledger.State
}

func (w *waitingThere) Take(raw []byte) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change, err := w.set.Put(raw, w.state())
	return change.News, err
}

func (w *waitingThere) All() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set.Follow(w.state())
	return slices.Concat(w.set.All(), w.more)
}

// care is what the node does for operators: it keeps what it is given, and its etcd holds nothing.
func (w *world) care() care.Care {
	return care.Care{
		Probe: func() care.Disk { return w.disk },
		Give: func(e envelope.Envelope) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.orders = append(w.orders, e)
			return nil
		},
		Given: func() []envelope.Envelope {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.orders)
		},
		Backup: func(_ context.Context, to io.Writer) error {
			sum := sha256.Sum256(make([]byte, 4096))
			_, err := to.Write(append(make([]byte, 4096), sum[:]...))
			return err
		},
		Restore: func(_ context.Context, by string, _ envelope.Envelope, snapshot io.Reader) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.restored = by + ": its own"; snapshot == nil {
				return nil
			}
			size, err := io.Copy(io.Discard, snapshot)
			w.restored = fmt.Sprintf("%s: %d bytes", by, size)
			return err
		},
	}
}

func (w *world) Update(_ context.Context, o install.Order, report func(install.Step)) error {
	step := install.Step{Step: install.Staging, Slot: "B", Version: "1.1", Digest: "sha256:0123", Done: 1, Total: 2}
	report(step)
	step.Step, step.Text, step.At = install.Waiting, o.From, time.Unix(1_700_000_000, 0)
	report(step)
	return nil
}
func (w *world) Rollback(_ context.Context, o install.Order, report func(install.Step)) error {
	report(install.Step{Step: install.Armed, Slot: "B", Version: "1.1", Text: o.By})
	return nil
}
func (w *world) Slots(context.Context) (install.Slots, error) {
	if len(w.units) == 0 {
		return install.Slots{Slots: []install.Slot{{Slot: "A", Running: true}, {Slot: "B", State: install.Empty}}}, nil
	}
	return install.Slots{Assessment: "good", RebootAt: time.Unix(1_700_000_000, 0), Slots: []install.Slot{
		{Slot: "A", Running: true, State: install.Proven, Version: "1.0", RootHash: "0123", Number: 1},
		{Slot: "B", State: install.Failed, Version: "1.1", Digest: "sha256:0123", Counter: 7, Number: 2, Text: "agent not ready"},
	}}, nil
}
func (w *world) History(context.Context) ([]install.Boot, error) {
	if len(w.units) == 0 {
		return nil, nil
	}
	return []install.Boot{{Time: time.Unix(1_700_000_000, 0), Slot: "A", Version: "1.0", Verdict: "good", Took: time.Minute}}, nil
}
func (w *world) ForgetFailure(context.Context, string) ([]string, error) {
	return nil, install.ErrNoFailure
}

func (w *world) containers() serve.Containers {
	if w.unready {
		return nil
	}
	return w
}
func (w *world) Snapshot() workload.Status {
	s := workload.Status{Units: w.units}
	if w.status != nil {
		s = w.status()
	}
	s.Seen = true // the agent has looked
	return s
}
func (w *world) Request(context.Context, string, workload.Want) error { return workload.ErrUnknown }
func (w *world) Images(context.Context) ([]images.Image, error)       { return w.images, nil }
func (w *world) Digest(context.Context, string) (string, error)       { return "sha256:0123", nil }
func (w *world) Pull(_ context.Context, _, _ string, report func(workload.Progress)) error {
	report(workload.Progress{Total: 7, Layers: []workload.LayerProgress{{Digest: "sha256:4567", Size: 7}}})
	return nil
}
func (w *world) Prune(context.Context, bool) ([]images.Image, int64, error) {
	return w.images, 0, nil
}
func (w *world) ListVolumes(context.Context) ([]engine.NamedVolume, error) { return w.volumes, nil }
func (w *world) RemoveVolume(context.Context, string) error                { return engine.ErrNoVolume }
func (w *world) Forget(context.Context, string) error                      { return workload.ErrNoImage }
func (w *world) Load(_ context.Context, r io.Reader) ([]string, error) {
	_, err := io.Copy(io.Discard, r)
	var names []string
	for _, i := range w.images {
		names = append(names, i.Name)
	}
	return names, err
}

// open makes a fleet with a node, in a folder that the test works in.
func (w *world) open(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	plain(t)
	t.Setenv("KOGGE_CONFIG", filepath.Join(dir, "config"))
	t.Setenv("KOGGE_CACHE", filepath.Join(dir, "cache"))
	must(t, os.WriteFile("shop.yaml", []byte("name: shop\nservices:\n  web:\n    image: registry.example/web:1\n    ports: [\"80:8080\"]\n"), 0o600))
	must(t, os.WriteFile("n1.yaml", []byte("hostname: n1\n"), 0o600))
	must(t, os.WriteFile("images.tar", []byte("a tar"), 0o600))
	w.release(t, filepath.Join(dir, "config", "release", "default"))
	ring, err := keyring.Create("hanse", "ada", time.Now())
	must(t, err)
	must(t, ring.Save(filepath.Join(dir, "config", "hanse"), ""))
	if len(w.units) == 0 { // a VM that stopped is there in a world that has something
		must(t, os.MkdirAll(filepath.Join(dir, "cache", "vm"), 0o700))
	} else {
		must(t, os.MkdirAll(filepath.Join(dir, "cache", "vm", "broken"), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "cache", "vm", "broken", "vm.json"), []byte("{"), 0o600))
	}

	token, err := ring.NewToken(keyring.Terms{Node: "n1"}, time.Now())
	must(t, err)
	for name, text := range w.identity {
		must(t, os.MkdirAll(filepath.Join(dir, "identity"), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "identity", name), []byte(text), 0o600))
	}
	node, err := identity.OpenNode(filepath.Join(dir, "identity"))
	must(t, err)
	must(t, node.Join(&fleet.JoinFile{Genesis: ring.Genesis, Token: token.Token}))
	registries := registry.Open(filepath.Join(dir, "registries.age"), filepath.Join(dir, "identity", "registries.key"))
	store := wanted.Open(filepath.Join(dir, "projects"), nil)
	for name, text := range map[string]string{
		"boot.json":    `{"slot":"A","version":"1.0","board":"qemu-x86_64","disk":"vda"}`,
		"network.json": `{"interfaces":[{"name":"eth0","carrier":true,"addresses":["192.0.2.7/24"]}]}`,
		"clock.json":   `{"synced":true,"source":"192.0.2.1"}`,
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	must(t, os.WriteFile(filepath.Join(dir, "node.yaml"), nil, 0o600))
	pid1 := w.pid1
	if pid1 == nil {
		pid1 = settle
	}
	pid1(t, filepath.Join(dir, "init.sock"))
	for _, group := range []string{"init", "workload"} {
		must(t, os.MkdirAll(filepath.Join(dir, "cgroup", group), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "cgroup", group, "memory.current"), []byte("4096\n"), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "cgroup", group, "cpu.stat"), []byte("usage_usec 7\n"), 0o600))
	}
	must(t, os.MkdirAll(filepath.Join(dir, "cgroup", "system"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "cgroup", "cgroup.controllers"), nil, 0o600))
	pinnedHere := func() ledger.State { return pinned.Open(filepath.Join(dir, "ledger"), ring.Genesis).State() }
	w.waiting = &waitingThere{set: docket.New(), state: pinnedHere}
	signed, err := papers.Open(filepath.Join(dir, "papers"), pinnedHere)
	must(t, err)
	machine := machine.Machine{Run: dir, State: dir, Control: filepath.Join(dir, "init.sock"), Cgroups: filepath.Join(dir, "cgroup")}
	server, err := serve.Listen("127.0.0.1:0", serve.Config{
		Node: node, Machine: machine, ClockSure: func() bool { return true }, LogDir: dir,
		Known: func(who fleet.Peer) (fleet.Peer, error) {
			return pinned.Open(filepath.Join(dir, "ledger"), ring.Genesis).Known(who)
		},
		Containers: w.containers, Projects: func() serve.Projects { return store }, Images: func() serve.Images { return w },
		Volumes:    func() serve.Volumes { return w },
		Registries: registries, Updates: w, Docket: func() votes.Docket { return w.waiting },
		Care: w.care(),
		Records: records.Records{Open: func() (*identity.Seat, *pinned.Ledger, error) {
			seat, err := identity.OpenSeat(filepath.Join(dir, "identity"))
			return seat, pinned.Open(filepath.Join(dir, "ledger"), ring.Genesis), err
		}, Papers: func() *papers.Store { return signed }, Custody: func() (*identity.Custody, error) {
			seat, err := identity.OpenSeat(filepath.Join(dir, "identity"))
			must(t, err)
			return identity.OpenCustody(filepath.Join(dir, "identity"), pinnedHere().Fleet(), seat.Key)
		}, Addresses: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.7")} },
			Etcd: func(context.Context) (control.Etcd, error) {
				return control.Etcd{Seat: 1, Running: true, Leader: 1, Members: []int{1}, Revision: 7}, nil
			}},
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-over)
	})
	must(t, adopt(t.Context(), ring, server.Address().String(), "", io.Discard))
	if len(w.units) > 0 {
		f := foundFlags{all: true, owner: ownerFlags{sheets: ring.Sheets()}, consent: consent{given: true}}
		must(t, f.run(t.Context(), ring, nil, io.Discard))
		p := proposing{reason: "more time"}
		must(t, p.run(t.Context(), io.Discard, func(_ context.Context, _ *keyring.Keyring, s ledger.State) (ledger.Value, [][]byte, error) {
			v, err := agenda.PolicyValue(s, []string{"bake=2h"})
			return v, nil, err
		}))
	}
}

// release makes a release to be looked at, signed where there is something.
func (w *world) release(t *testing.T, dir string) {
	t.Helper()
	b, err := smallRelease()
	must(t, err)
	var roots [][]byte
	if len(w.units) > 0 {
		set, err := keys.Create(dir, keys.Plan{Root: keys.Quota{K: 1, N: 1}, Targets: keys.Quota{K: 1, N: 1}}, time.Now())
		must(t, err)
		roots = set.Roots
	}
	must(t, b.Prepare(time.Now().Add(time.Hour), roots))
	must(t, b.Write(t.Context(), "shop.oci"))
}

// smallRelease is release 1.1 for one board, with next to nothing in it.
func smallRelease() (*layout.Bundle, error) {
	part := func(name string, size int64) layout.File {
		return layout.File{Name: name, Size: size, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(make([]byte, size))), nil }}
	}
	return layout.New([]layout.Content{{
		Facts: layout.Facts{Version: "1.1", Counter: 7, Board: "pc-x86_64", Arch: "amd64", Created: time.Unix(1_700_000_000, 0), Schema: layout.StateSchema, Verity: verity.Params{Blocks: 1}.String()},
		Parts: []layout.File{part("uki", 7), part(layout.RootPart, verity.BlockSize)},
	}})
}

// settle is PID 1 to those who ask it about an empty node.yaml; to others it says no.
func settle(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	revision := serve.Revision(nil)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					answer := fmt.Sprintf(`{"config":{"state":"tried","running":%q,"kept":%q,"undo_seconds":90,"last":"changed","restarts":["network"],"warnings":["w"]}}`, revision, revision)
					if strings.Contains(lines.Text(), `"op":"status"`) {
						answer = `{"error":"there is no supervisor here"}`
					}
					fmt.Fprintln(conn, answer)
				}
			}()
		}
	}()
}

// ask runs a command with --json and returns the fields of its answer.
func (w *world) ask(t *testing.T, path string, more ...string) string {
	t.Helper()
	if more == nil {
		more = strings.Fields(tables[path])
	}
	args := append(append(strings.Fields(path), more...), "--json")
	root := rootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(args)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("kogge %s: %v", strings.Join(args, " "), err)
	}
	found := map[string]bool{}
	for values := json.NewDecoder(bytes.NewReader(out.Bytes())); ; { // reports are a value each
		var value any
		if err := values.Decode(&value); errors.Is(err, io.EOF) && len(found) > 0 {
			break
		} else if err != nil {
			t.Fatalf("kogge %s: %v in %s", strings.Join(args, " "), err, out.String())
		}
		fields(value, "", found)
	}
	for field := range found {
		if strings.HasSuffix(field, " null") {
			t.Errorf("kogge %s: %s in %s", strings.Join(args, " "), field, out.String())
		}
	}
	return fmt.Sprintf("$ kogge %s\n%s\n\n", strings.Join(args, " "), strings.Join(slices.Sorted(maps.Keys(found)), "\n"))
}

// fields notes where in a JSON value which types are.
func fields(value any, at string, found map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			fields(below, at+"."+key, found)
		}
	case []any:
		found[at+"[]"] = true
		for _, below := range v {
			fields(below, at+"[]", found)
		}
	case nil:
		found[at+" null"] = true
	default:
		found[fmt.Sprintf("%s %T", at, v)] = true
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
