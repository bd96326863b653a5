package operate

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/serve"
	"kogge.example/agent/serve/care"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/init/control"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

// tended is a founded fleet whose nodes keep orders, run etcd and lead to each other.
type tended struct {
	*keyring.Keyring
	state ledger.State

	mu       sync.Mutex // guards what follows
	orders   []signed.Envelope
	given    map[string]int // orders, by node
	snapshot []byte
	permit   []byte
	restored []byte
	hidden   string // n3's address, which this computer does not know
}

var quiet = func(Notice) {}

func tend(t *testing.T, n int) *tended {
	t.Helper()
	k, err := keyring.Create("hanse", "ada", time.Now())
	if err == nil {
		err = k.Save(filepath.Join(t.TempDir(), "hanse"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	f := &tended{Keyring: k, given: make(map[string]int), snapshot: snapshotOf("etcd")}
	serving(t, k, n, nil, f.care)
	names := []string{"n1", "n2", "n3", "n4"}[:n]
	applicants, err := Applicants(t.Context(), k, names, quiet)
	if err != nil {
		t.Fatal(err)
	}
	operators, err := Operators(k)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Plan(k.Genesis, operators, applicants, Wish{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Found(k, v, f.owner(t))
	if err == nil {
		_, err = Give(t.Context(), k, names, []ledger.Entry{e}, quiet)
	}
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := Ledger(k)
	if err != nil {
		t.Fatal(err)
	}
	f.state = l.State()
	return f
}

// care is what each node does for operators.
func (f *tended) care(i int, c *serve.Config) {
	name := []string{"n1", "n2", "n3", "n4"}[i]
	c.Records.Etcd = func() (control.Etcd, error) {
		return control.Etcd{Running: name != "n3", Leader: 1, Generation: 2, Revision: 7, Members: []int{1, 2, 3}}, nil
	}
	c.Care = care.Care{
		Give: func(e signed.Envelope) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if err := order.Check(f.state, e); err != nil {
				return err
			}
			f.orders, f.given[name] = append(f.orders, e), f.given[name]+1
			return nil
		},
		Given: func() []signed.Envelope {
			f.mu.Lock()
			defer f.mu.Unlock()
			return slices.Clone(f.orders)
		},
		Reach: func(ctx context.Context, node string) (net.Conn, error) {
			nodes, err := Nodes(f.Keyring)
			f.mu.Lock()
			address := cmp.Or(nodes[node].Address, map[string]string{"n3": f.hidden}[node])
			f.mu.Unlock()
			if err != nil || address == "" {
				return nil, errors.Join(care.ErrNoNode, err)
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
		Backup: func(_ context.Context, w io.Writer) error {
			_, err := w.Write(f.snapshot)
			return err
		},
		Restore: func(_ context.Context, _ string, permit []byte, snapshot io.Reader) (err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.permit, f.restored = permit, nil; snapshot != nil {
				f.restored, err = io.ReadAll(snapshot)
			}
			return err
		},
	}
}

func (f *tended) owner(t *testing.T) keyring.OwnerKeys {
	t.Helper()
	keys, err := f.OwnerKeys(nil, sheets(t, f.Keyring)[0])
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func (f *tended) remote(t *testing.T, name string) Remote {
	nodes, err := Nodes(f.Keyring)
	if err != nil {
		t.Fatal(err)
	}
	return Remote{Keys: f.Keyring, Name: name, Address: nodes[name].Address, Tell: quiet}
}

// snapshotOf is bytes as etcd sends them: pages, and the sum of these.
func snapshotOf(text string) []byte {
	pages := bytes.Repeat([]byte(text), 4*pageSize)
	sum := sha256.Sum256(pages)
	return append(pages, sum[:]...)
}

// TestCommand orders what operators may order, in a row, and gives it to all nodes.
func TestCommand(t *testing.T) {
	f := tend(t, 4)
	isolate := func(node string, on, owners bool) error {
		c, err := Prepare(t.Context(), f.Keyring, order.IsolationKind, node, quiet)
		if err != nil {
			return err
		}
		o := order.Isolation{Seat: c.Seat.Number, Key: c.Seat.Key, Isolated: on}
		if owners {
			o.Owners = f.owner(t).Sign(order.OwnersBytes(c.Fleet(), c.Seat.Key, c.Number), f.Genesis.Threshold)
		}
		if err := c.Seal(o, time.Now()); err != nil {
			return err
		}
		told, err := c.Give(t.Context(), quiet)
		for _, n := range told {
			err = errors.Join(err, n.Err)
		}
		return err
	}
	if err := isolate("n9", true, false); !errors.Is(err, ErrNoSeat) {
		t.Errorf("a node without a seat: %v", err)
	}
	if err := isolate("n4", true, false); err != nil {
		t.Fatal(err)
	}
	if err := isolate("n3", true, false); !errors.Is(err, ErrBeyond) {
		t.Errorf("a second one of four: %v", err)
	}
	if err := isolate("n3", true, true); err != nil {
		t.Errorf("and the owner permits it: %v", err)
	}
	s, seen, err := Survey(t.Context(), f.Keyring, quiet)
	if err != nil {
		t.Fatal(err)
	}
	h := Judge(s, seen, time.Now())
	if len(h.Orders.Isolated) != 2 || h.Answering != 2 || h.Nodes[3].Standing != StandingOut || f.given["n2"] != 2 {
		t.Errorf("%+v", h)
	}
	for _, name := range []string{"n4", "n3"} {
		if err := isolate(name, false, false); err != nil {
			t.Errorf("%s is let back in: %v", name, err)
		}
	}
	if st := order.Decide(f.state, f.orders, time.Now()); len(st.Isolated)+len(st.Beyond) != 0 {
		t.Errorf("%+v", st)
	}
}

// TestBackup writes a backup, reads it, and has a node restore it, with the owner's leave for just
// that; and once from its own disk.
func TestBackup(t *testing.T) {
	f := tend(t, 3)
	file := filepath.Join(t.TempDir(), "hanse.tar")
	if _, err := Backup(t.Context(), f.remote(t, "n3"), file); !errors.Is(err, ErrNoEtcd) {
		t.Errorf("a node that runs no etcd: %v", err)
	}
	info, err := Backup(t.Context(), f.remote(t, "n1"), file)
	if err != nil || info.Height != 1 || info.Revision != 7 || info.Generation != 2 || info.Bytes != int64(len(f.snapshot)) {
		t.Fatalf("%+v, %v", info, err)
	}
	if _, err := Backup(t.Context(), f.remote(t, "n1"), file); !errors.Is(err, os.ErrExist) {
		t.Errorf("over another file: %v", err)
	}
	copied := openCopy(t, f, file)
	owner := func() (keyring.OwnerKeys, error) { return f.owner(t), nil }
	seat, _ := f.state.Roster.ByName("n2")
	for _, from := range []*Copy{copied, nil} {
		if _, err := Restore(t.Context(), f.remote(t, "n2"), from, owner); err != nil {
			t.Fatal(err)
		}
		leave, err := ledger.ParseRestore(f.permit)
		if err == nil {
			err = f.state.PermitsRestore(leave, seat.Key)
		}
		if err != nil || leave.Generation != 2 || leave.Snapshot.IsZero() != (from == nil) {
			t.Errorf("%+v, %v", leave, err)
		}
		if from != nil && !bytes.Equal(f.restored, f.snapshot) || from == nil && f.restored != nil {
			t.Errorf("%d bytes came", len(f.restored))
		}
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Errorf("%v is left, %v", left, err)
	}
	f.snapshot = f.snapshot[:len(f.snapshot)-1]
	if _, err := Backup(t.Context(), f.remote(t, "n1"), file+"2"); !errors.Is(err, ErrBackup) {
		t.Errorf("a snapshot without its end: %v", err)
	}
	if _, err := os.Stat(file + "2"); err == nil {
		t.Error("half a backup is left")
	}
}

func openCopy(t *testing.T, f *tended, file string) *Copy {
	t.Helper()
	r, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	c, err := OpenBackup(r, f.Genesis)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestOpenBackup refuses a backup with a byte changed, and one that was cut off.
func TestOpenBackup(t *testing.T) {
	f := tend(t, 1)
	file := filepath.Join(t.TempDir(), "hanse.tar")
	if _, err := Backup(t.Context(), f.remote(t, "n1"), file); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := io.ReadAll(openCopy(t, f, file).Snapshot())
	if err != nil || !bytes.Equal(want, f.snapshot) {
		t.Errorf("%d bytes, %v", len(want), err)
	}
	for at := 0; at < len(raw); at += 61 {
		for what, bad := range map[string][]byte{"changed": slices.Clone(raw), "cut": raw[:at]} {
			if what == "changed" {
				bad[at] ^= 1
			}
			c, err := OpenBackup(bytes.NewReader(bad), f.Genesis)
			if err != nil {
				if !errors.Is(err, ErrBackup) {
					t.Errorf("byte %d %s: %v", at, what, err)
				}
				continue
			}
			got, err := io.ReadAll(c.Snapshot()) // it was a byte that fills up
			if err != nil || !bytes.Equal(got, want) || c.Info.Height != 1 {
				t.Errorf("byte %d %s: taken: %v", at, what, err)
			}
		}
	}
	other, err := keyring.Create("other", "eve", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBackup(bytes.NewReader(raw), other.Genesis); !errors.Is(err, ErrBackup) {
		t.Errorf("another fleet's: %v", err)
	}
}

// FuzzOpenBackup reads what somebody calls a backup.
func FuzzOpenBackup(f *testing.F) {
	k, err := keyring.Create("hanse", "ada", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	var text, file bytes.Buffer
	snapshot, all := snapshotOf("x"), newSums()
	all.Write(snapshot)
	err = Export(&text, k.Genesis, nil)
	if err == nil {
		err = writeBackup(&file, BackupInfo{Version: 1, Fleet: k.Genesis.ID(), Bytes: all.size, Snapshot: all.of()}, text.Bytes(), bytes.NewReader(snapshot))
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := OpenBackup(bytes.NewReader(raw), k.Genesis)
		if err != nil && !errors.Is(err, ErrBackup) {
			t.Error(err)
		}
		if err == nil {
			all := newSums()
			if n, err := io.Copy(all, c.Snapshot()); err != nil || n != c.Info.Bytes || all.of() != c.Info.Snapshot {
				t.Errorf("%d bytes, %v", n, err)
			}
		}
	})
}

// TestVia calls a node through another one, also one that this computer does not know, and renews
// nothing but what is the node's own.
func TestVia(t *testing.T) {
	f := tend(t, 3)
	status := func(r Remote) (string, error) {
		var node string
		err := r.Call(t.Context(), func(ctx context.Context, c *api.Client) error {
			answer, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
			if err == nil {
				node = answer.Msg.Node
			}
			return err
		})
		return node, err
	}
	r := f.remote(t, "n2")
	r.Via, r.Address = "n1", "192.0.2.1:1" // where nobody is
	if node, err := status(r); err != nil || node != "n2" {
		t.Errorf("%q, %v", node, err)
	}
	if _, err := r.Renew(t.Context()); err != nil {
		t.Error(err)
	}
	r.Via, r.Name = "n9", "n2"
	if _, err := status(r); !errors.Is(err, keyring.ErrNoNode) {
		t.Errorf("through a node that nobody knows: %v", err)
	}
	r.Via, r.Name = "n1", "n7"
	if _, err := status(r); err == nil {
		t.Error("a node that has no seat answers")
	}
	// The way to a node that this computer does not know: n1 does.
	if err := ChangeNodes(f.Keyring, func(nodes map[string]Node) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hidden = nodes["n3"].Address
		delete(nodes, "n3")
	}); err != nil {
		t.Fatal(err)
	}
	r.Name = "n3"
	if node, err := status(r); err != nil || node != "n3" {
		t.Errorf("%q, %v", node, err)
	}
}
