package care

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	served "kogge.example/agent/serve/care"
	"kogge.example/agent/serve/records"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

// tended is a founded fleet whose nodes keep orders and run etcd.
type tended struct {
	*keyring.Keyring
	state ledger.State

	mu       sync.Mutex // guards what follows
	orders   []signed.Envelope
	given    map[string]int   // orders, by node
	refuse   map[string]error // what a node says to an order; nil: it takes it
	snapshot []byte
	permit   []byte
	restored []byte
	answer   func() error // to a restore; nil: it is well
}

var quiet = func(operate.Notice) {}

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
	for i := range n {
		f.serve(t, i)
	}
	names := []string{"n1", "n2", "n3", "n4"}[:n]
	applicants, err := operate.Applicants(t.Context(), k, names, quiet)
	if err != nil {
		t.Fatal(err)
	}
	operators, err := operate.Operators(k)
	if err != nil {
		t.Fatal(err)
	}
	v, err := operate.Plan(k.Genesis, operators, applicants, operate.Wish{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := operate.Draft(k.Genesis, v)
	if err == nil {
		d, err = operate.SignDraft(k, d, f.owner(t), document.Hash{})
	}
	if err != nil {
		t.Fatal(err)
	}
	e, err := operate.Begin(k, d)
	if err == nil {
		_, err = operate.Give(t.Context(), k, names, []ledger.Entry{e}, quiet)
	}
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := operate.Ledger(k)
	if err != nil {
		t.Fatal(err)
	}
	f.state = l.State()
	return f
}

// serve has a node of the fleet answer, adopted.
func (f *tended) serve(t *testing.T, i int) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	name, state := fmt.Sprintf("n%d", i+1), t.TempDir()
	node, err := identity.OpenNode(filepath.Join(state, "identity"))
	must(err)
	seat, err := identity.OpenSeat(filepath.Join(state, "identity"))
	must(err)
	token, err := f.NewToken(keyring.Terms{Node: name, Life: time.Hour}, time.Now())
	must(err)
	must(node.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token}))
	csr, err := node.Request()
	must(err)
	der, err := f.SignNode(csr, name, time.Now())
	must(err)
	must(node.Adopt(der))
	taken := pinned.Open(filepath.Join(state, "ledger"), f.Genesis)
	server, err := serve.Listen("127.0.0.1:0", serve.Config{
		Node: node, Machine: machine.Machine{Run: state, State: state}, ClockSure: func() bool { return true }, LogDir: state, Known: taken.Known,
		Containers: func() serve.Containers { return nil }, Projects: func() serve.Projects { return nil }, Images: func() serve.Images { return nil },
		Records: records.Records{
			Open:      func() (*identity.Seat, *pinned.Ledger, error) { return seat, taken, nil },
			Addresses: func() []netip.Addr { return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})} },
			Etcd: func(context.Context) (control.Etcd, error) {
				return control.Etcd{Running: name != "n3", Leader: 1, Generation: 2, Revision: 7, Members: []int{1, 2, 3}}, nil
			},
		},
		Care: f.care(name),
	})
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- server.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-over })
	must(operate.RememberNode(f.Keyring, name, operate.Node{Address: server.Address().String(), Adopted: time.Now(), Until: node.Certificate().Leaf.NotAfter}))
}

// care is what a node does for operators.
func (f *tended) care(name string) served.Care {
	return served.Care{
		Give: func(e signed.Envelope) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if err := cmp.Or(f.refuse[name], order.Check(f.state, e)); err != nil {
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
		Backup: func(_ context.Context, w io.Writer) error {
			_, err := w.Write(f.snapshot)
			return err
		},
		Restore: func(_ context.Context, _ string, e signed.Envelope, snapshot io.Reader) (err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			o, err := order.ParseRestoring(e.Body)
			if err == nil {
				err = order.Check(f.state, e)
			}
			if f.permit, f.restored = o.Leave, nil; snapshot != nil && err == nil {
				f.restored, err = io.ReadAll(snapshot)
			}
			if f.orders = append(f.orders, e); f.answer != nil {
				err = cmp.Or(err, f.answer())
			}
			return err
		},
	}
}

func (f *tended) owner(t *testing.T) keyring.OwnerKeys {
	t.Helper()
	sheet, err := os.ReadFile(f.Sheets()[0])
	if err != nil {
		t.Fatal(err)
	}
	keys, err := f.OwnerKeys(nil, sheet)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func (f *tended) remote(t *testing.T, name string) operate.Remote {
	nodes, err := operate.Nodes(f.Keyring)
	if err != nil {
		t.Fatal(err)
	}
	return operate.Remote{Keys: f.Keyring, Name: name, Address: nodes[name].Address, Tell: quiet}
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
	s, seen, err := operate.Survey(t.Context(), f.Keyring, quiet)
	if err != nil {
		t.Fatal(err)
	}
	h := operate.Judge(s, seen, time.Now())
	if len(h.Orders.Isolated) != 2 || h.Answering != 2 || h.Nodes[3].Standing != "isolated" || f.given["n2"] != 2 {
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

// TestRivals has commands be given at one time, of which each knows nothing of the others: whoever is
// told that his counts has the one that does.
func TestRivals(t *testing.T) {
	f := tend(t, 4)
	give := func(c *Command) error {
		told, err := c.Give(t.Context(), quiet)
		for _, n := range told {
			err = errors.Join(err, n.Err)
		}
		return errors.Join(err, c.Counts(time.Now()))
	}
	var rivals []*Command
	for i, node := range []string{"n3", "n3", "n4"} {
		c, err := Prepare(t.Context(), f.Keyring, order.IsolationKind, node, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Seal(order.Isolation{Seat: c.Seat.Number, Key: c.Seat.Key, Isolated: true, Why: fmt.Sprint(i)}, time.Now()); err != nil {
			t.Fatal(err)
		}
		rivals = append(rivals, c)
	}
	for i, c := range rivals {
		if err := give(c); i == 0 && err != nil {
			t.Errorf("the first one: %v", err)
		}
	}
	count := make(map[string]int)
	for i, c := range rivals { // and now all know of all
		switch err := give(c); {
		case err == nil:
			count["counts"]++
		case errors.Is(err, ErrNewer) && i < 2:
			count["newer"]++
		case errors.Is(err, ErrBeyond) && i == 2:
			count["beyond"]++
		default:
			t.Errorf("%d: %v", i, err)
		}
	}
	if len(count) != 3 {
		t.Error(count)
	}
	// A node is not believed that it knows a newer order and shows none.
	f.refuse = map[string]error{"n2": notice.ErrOlder, "n1": served.ErrUnkept}
	c, err := Prepare(t.Context(), f.Keyring, order.AbsenceKind, "n1", quiet)
	if err == nil {
		err = c.Seal(order.Absence{Seat: c.Seat.Number, Key: c.Seat.Key, State: order.Away}, time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	told, err := c.Give(t.Context(), quiet)
	if err != nil || !errors.Is(told[0].Err, ErrUnkept) || connect.CodeOf(told[1].Err) != connect.CodeAborted || told[2].Err != nil {
		t.Errorf("%+v, %v", told, err)
	}
	if err := c.Counts(time.Now()); err != nil {
		t.Errorf("n2 has shown no other order: %v", err)
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
	// Each begins an etcd above all that nodes run, that was ordered, and that the backup is of. All
	// nodes say that they run the second.
	old := *copied
	old.Info.Generation = 9
	for i, from := range []*Copy{copied, nil, &old, copied} {
		if _, told, err := Restore(t.Context(), f.remote(t, "n2"), from, owner); err != nil || len(told) != 3 {
			t.Fatal(err)
		}
		leave, err := ledger.ParseRestore(f.permit)
		if err == nil {
			err = f.state.PermitsRestore(leave, seat.Key)
		}
		if want := []int64{2, 3, 9, 10}[i]; err != nil || leave.Generation != want || leave.Snapshot.IsZero() != (from == nil) {
			t.Errorf("%+v, %v", leave, err)
		}
		if from != nil && !bytes.Equal(f.restored, f.snapshot) || from == nil && f.restored != nil {
			t.Errorf("%d bytes came", len(f.restored))
		}
	}
	if got := order.Decide(f.state, f.orders, time.Now()).Generation; got != 11 || f.given["n3"] != 4 {
		t.Errorf("all are told of generation %d, n3 %d times", got, f.given["n3"])
	}
	// An answer that does not say no may be that of a node which has taken the order: it passes it on.
	for _, lost := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		f.answer = func() error {
			if lost {
				cancel()
			}
			return ledger.ErrPermit
		}
		_, _, err := Restore(ctx, f.remote(t, "n1"), nil, owner)
		if cancel(); err == nil || errors.Is(err, ErrUnsure) != lost || f.given["n3"] != 4 {
			t.Errorf("the answer is lost: %v: %v, n3 is told %d times", lost, err, f.given["n3"])
		}
	}
	f.answer = nil
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
	whole := openCopy(t, f, file)
	var text bytes.Buffer
	if err := operate.Export(&text, f.Genesis, whole.entries); err != nil {
		t.Fatal(err)
	}
	for generation, taken := range map[int64]bool{-1: false, 0: true, maxGeneration: true, maxGeneration + 1: false} {
		info, bad := whole.Info, bytes.Buffer{}
		info.Generation = generation
		err := writeBackup(&bad, info, text.Bytes(), whole.Snapshot())
		if err == nil {
			_, err = OpenBackup(bytes.NewReader(bad.Bytes()), f.Genesis)
		}
		if (err == nil) != taken || err != nil && !errors.Is(err, ErrBackup) {
			t.Errorf("generation %d: %v", generation, err)
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
	err = operate.Export(&text, k.Genesis, nil)
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
