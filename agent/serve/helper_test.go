package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/api"
	"kogge.example/agent/door"
	"kogge.example/agent/engine"
	"kogge.example/agent/identity"
	"kogge.example/agent/images"
	"kogge.example/agent/machine"
	"kogge.example/agent/registry"
	"kogge.example/agent/workload"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
)

var now = time.Now()

// newFleet makes a fleet with its folder, which was founded four years ago.
func newFleet(t testing.TB, name string) *keyring.Keyring {
	t.Helper()
	f, err := keyring.Create(name, "ada", now.AddDate(-4, 0, 0))
	if err == nil {
		err = f.Save(filepath.Join(t.TempDir(), name), "")
	}
	if err == nil {
		err = f.RenewOperator(now)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// operator makes a certificate of a role, as it was signed at a time.
func operator(t testing.TB, f *keyring.Keyring, role fleet.Role, at time.Time) tls.Certificate {
	t.Helper()
	return certificate(t, func(csr []byte) ([]byte, error) { return f.SignOperator(csr, "op-"+string(role), role, at) })
}

func certificate(t testing.TB, sign func(csr []byte) ([]byte, error)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := fleet.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := sign(csr)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// newNode makes a node; with a fleet it has that fleet's join.yaml.
func newNode(t testing.TB, f *keyring.Keyring) *identity.Node {
	t.Helper()
	n, err := identity.OpenNode(filepath.Join(t.TempDir(), "identity"))
	if err != nil {
		t.Fatal(err)
	}
	if f == nil {
		return n
	}
	token, err := f.NewToken(keyring.Terms{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token}); err != nil {
		t.Fatal(err)
	}
	return n
}

// adoptNode has the node join its fleet without a server.
func adoptNode(t testing.TB, f *keyring.Keyring, n *identity.Node, name string) {
	t.Helper()
	nonce := make([]byte, api.NonceSize)
	csr, mac, err := n.Answer(nonce)
	if err != nil {
		t.Fatal(err)
	}
	der, err := f.AdoptNode(csr, nonce, mac, name, "", now)
	if err == nil {
		err = n.Adopt(der)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// keeper is the keeper of two containers, beside one that nobody wants and that stops.
type keeper struct {
	mu    sync.Mutex
	asked []string
}

func (k *keeper) Snapshot() workload.Status {
	return workload.Status{Units: []workload.UnitStatus{
		{ID: "db", Instance: "db", State: workload.Running, Image: "registry.example/db:1"},
		{ID: "shop.web", Instance: "shop.web", State: workload.Backoff, Exits: 3, Reason: "exit status 1"},
	}, Leaving: []workload.UnitStatus{{ID: "shop.old", Instance: "shop.old", State: workload.Stopping}}}
}

func (k *keeper) Request(_ context.Context, id string, want workload.Want) error {
	if id != "db" && id != "shop.web" {
		return workload.ErrUnknown
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, string(want)+" "+id)
	return nil
}

// store is the store of images: it takes every tar and counts its bytes.
type store struct{}

func (s *store) Images(context.Context) ([]images.Image, error) {
	return []images.Image{
		{Name: "registry.example/db:1", Digest: "sha256:0123", Size: 42, Disk: 100, Created: now, Used: now, By: []string{"db", "web"}},
		{Name: "registry.example/own:1", Preload: true, Created: now},
	}, nil
}

func (s *store) Load(_ context.Context, tar io.Reader) ([]string, error) {
	n, err := io.Copy(io.Discard, tar)
	if err == nil && n == 0 {
		err = errors.New("it has no image with a name")
	}
	return []string{fmt.Sprintf("registry.example/of:%d", n)}, err
}

// Pull is of an image with two layers, of which a mirror sends one.
func (s *store) Pull(ctx context.Context, name, platform string, report func(workload.Progress)) error {
	layers := []workload.LayerProgress{{Digest: "sha256:a", Size: 100, Before: 100, Done: 100}, {Digest: "sha256:b", Size: 200}}
	report(workload.Progress{})
	report(workload.Progress{Total: 300, Done: 100, Layers: layers})
	report(workload.Progress{Total: 300, Done: 100, Layers: layers})
	layers[1].Done, layers[1].From = 200, "m.example"
	report(workload.Progress{Total: 300, Done: 300, Layers: layers})
	switch {
	case platform != "":
		return fmt.Errorf("%w: %s", registry.ErrPlatform, platform)
	case strings.HasPrefix(name, "slow"):
		<-ctx.Done()
		return ctx.Err()
	case !strings.HasPrefix(name, "registry.example/db"):
		return fmt.Errorf("registry.example: %w", registry.ErrMissing)
	}
	return nil
}

func (s *store) Digest(context.Context, string) (string, error) { return "sha256:0123", nil }

func (s *store) Prune(_ context.Context, check bool) ([]images.Image, int64, error) {
	return []images.Image{{Name: "registry.example/old:1", Size: 7}}, map[bool]int64{false: 42}[check], nil
}

func (s *store) ListVolumes(context.Context) ([]engine.NamedVolume, error) {
	return []engine.NamedVolume{{Name: "own", Size: 4096, By: []string{"db"}}, {Name: "shop.data", Size: 1 << 40, Least: true}}, nil
}

func (s *store) RemoveVolume(_ context.Context, name string) error {
	switch name {
	case "own":
		return fmt.Errorf("volume own: %w: by db", engine.ErrInUse)
	case "shop.data":
		return nil
	}
	return fmt.Errorf("volume %q: %w", name, engine.ErrNoVolume)
}

func (s *store) Forget(_ context.Context, name string) error {
	if name != "registry.example/db:1" {
		return workload.ErrNoImage
	}
	return nil
}

// start serves a node's API on loopback until the test ends. edit may change its
// configuration.
func start(t testing.TB, n *identity.Node, edit func(*Config)) string {
	t.Helper()
	dir := t.TempDir()
	err := errors.Join(
		control.Boot{
			Slot: "A", Version: "1.0", Board: "qemu-x86_64", Disk: "vda", Trial: true, Loader: "systemd-boot", TriesLeft: 2, Parts: map[string]string{"ESP": "/dev/vda1"},
		}.Write(dir),
		control.Assessment{State: "pending", Why: "web is unhealthy", Since: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}.Write(dir),
		control.Network{Interfaces: []control.Interface{
			{Name: "eth0", Carrier: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}, {Name: "eth1"},
		}}.Write(dir),
		control.Clock{Synced: true, Source: "192.0.2.1"}.Write(dir),
	)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Node: n, Machine: machine.Machine{Run: dir, State: dir, Control: filepath.Join(dir, "init.sock"), Kmsg: filepath.Join(dir, "kmsg")},
		LogDir: dir, Containers: func() Containers { return &keeper{} },
		Projects: func() Projects { return nil }, Images: func() Images { return nil },
		Volumes:    func() Volumes { return nil },
		Registries: newRegistries(t),
		Commands:   func() Commands { return nil },
	}
	c.ClockSure = c.Machine.ClockSure
	if edit != nil {
		edit(&c)
	}
	listener, err := door.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(listener, c)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s.Address().String()
}

// has fails unless err says all of it.
func has(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		err = errors.New("no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
