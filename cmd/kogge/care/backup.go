package care

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

// A backup of a fleet is a tar of three files, in this order:
//
//	backup.json   what it is of: a BackupInfo
//	ledger.txt    the ledger, as kogge ledger export writes it
//	etcd.db       a snapshot of etcd, which ends with the SHA-256 of what is before
const (
	infoName     = "backup.json"
	ledgerName   = "ledger.txt"
	snapshotName = "etcd.db"

	backupVersion = 1
	maxInfo       = 16 << 10
	maxLedger     = 256 << 20
	maxSnapshot   = 1 << 30
	// maxGeneration is more than a fleet comes to, and leaves numbers for many above it.
	maxGeneration = 1 << 20
	// sumSize is the SHA-256 at the end of a snapshot, behind pages of 512 bytes and more.
	sumSize  = sha256.Size
	pageSize = 512
)

// ErrBackup is of a file that is no backup of a fleet, or not a whole one.
var ErrBackup = errors.New("not a backup of a fleet")

// ErrNoEtcd is of a node that runs no etcd now.
var ErrNoEtcd = errors.New("the node runs no etcd now")

// BackupInfo is what a backup says of itself. None of it is believed that can be computed.
type BackupInfo struct {
	Version    int           `json:"version"` // of this document: 1
	Fleet      string        `json:"fleet"`   // id
	Node       string        `json:"node"`    // whose etcd it is
	Made       time.Time     `json:"made"`
	Height     int64         `json:"height"`     // of the ledger
	Generation int64         `json:"generation"` // of etcd: each restore begins another one
	Revision   int64         `json:"revision"`
	Bytes      int64         `json:"bytes"`    // of the snapshot
	Snapshot   document.Hash `json:"snapshot"` // SHA-256 of all its bytes
}

// Backup writes a backup of the node that r names into a file that is not there yet. The snapshot
// comes as etcd makes it, and is checked at its end. An error leaves no file.
func Backup(ctx context.Context, r operate.Remote, file string) (info BackupInfo, err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return info, err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(file))
		}
	}()
	snapshot, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.new")
	if err != nil {
		return info, err
	}
	defer os.Remove(snapshot.Name())
	defer snapshot.Close()
	var text bytes.Buffer
	err = r.Call(ctx, func(ctx context.Context, c *api.Client) error {
		info, err = fetchBackup(ctx, r, c, &text, snapshot)
		return err
	})
	if err != nil {
		return info, err
	}
	if _, err := snapshot.Seek(0, io.SeekStart); err != nil {
		return info, err
	}
	if err := writeBackup(f, info, text.Bytes(), snapshot); err != nil {
		return info, err
	}
	return info, f.Sync()
}

// fetchBackup reads what a backup consists of from a node.
func fetchBackup(ctx context.Context, r operate.Remote, c *api.Client, text, snapshot io.Writer) (BackupInfo, error) {
	is, err := c.Etcd(ctx, connect.NewRequest(&apiv1.EtcdRequest{}))
	if err != nil {
		return BackupInfo{}, err
	}
	if !is.Msg.Running {
		return BackupInfo{}, ErrNoEtcd
	}
	l, entries, err := operate.Fetch(ctx, r.Keys, c, r.Name)
	if err == nil {
		err = operate.Agrees(r.Keys, "node "+r.Name, l)
	}
	if err == nil {
		err = operate.Export(text, r.Keys.Genesis, entries)
	}
	if err != nil {
		return BackupInfo{}, err
	}
	info := BackupInfo{
		Version: backupVersion, Fleet: r.Keys.Genesis.ID(), Node: r.Name, Made: time.Now().UTC().Truncate(time.Second),
		Height: l.State().Height, Generation: int64(is.Msg.Generation), Revision: is.Msg.Revision,
	}
	stream, err := c.Backup(ctx, connect.NewRequest(&apiv1.BackupRequest{}))
	if err != nil {
		return BackupInfo{}, err
	}
	defer stream.Close()
	sums := newSums()
	for stream.Receive() {
		if sums.Write(stream.Msg().Data); sums.size > maxSnapshot {
			return BackupInfo{}, fmt.Errorf("its etcd sends more than %d bytes", int64(maxSnapshot))
		}
		if _, err := snapshot.Write(stream.Msg().Data); err != nil {
			return BackupInfo{}, err
		}
	}
	if err := stream.Err(); err != nil {
		return BackupInfo{}, err
	}
	if err := sums.whole(); err != nil {
		return BackupInfo{}, err
	}
	info.Bytes, info.Snapshot = sums.size, sums.of()
	return info, nil
}

// sums are the two sums of a snapshot: the one at its end, of what is before, and that of all.
type sums struct {
	inner, all hash.Hash
	last       []byte // what may be the sum at its end
	size       int64
}

func newSums() *sums { return &sums{inner: sha256.New(), all: sha256.New()} }

func (s *sums) Write(p []byte) (int, error) {
	s.all.Write(p)
	s.size += int64(len(p))
	s.last = append(s.last, p...)
	if n := len(s.last) - sumSize; n > 0 {
		s.inner.Write(s.last[:n])
		s.last = append(s.last[:0], s.last[n:]...)
	}
	return len(p), nil
}

// whole wants a snapshot to end with its sum.
func (s *sums) whole() error {
	if s.size < pageSize+sumSize || s.size%pageSize != sumSize || !bytes.Equal(s.inner.Sum(nil), s.last) {
		return fmt.Errorf("%w: the snapshot of etcd does not end with the sum of its %d bytes", ErrBackup, s.size)
	}
	return nil
}

func (s *sums) of() document.Hash { return document.Hash(s.all.Sum(nil)) }

func writeBackup(w io.Writer, info BackupInfo, text []byte, snapshot io.Reader) error {
	raw, err := document.Encode(info)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, part := range []struct {
		name string
		size int64
		from io.Reader
	}{{infoName, int64(len(raw)), bytes.NewReader(raw)}, {ledgerName, int64(len(text)), bytes.NewReader(text)}, {snapshotName, info.Bytes, snapshot}} {
		if err := t.WriteHeader(&tar.Header{Name: part.name, Mode: 0o600, Size: part.size, ModTime: info.Made, Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		if _, err := io.Copy(t, part.from); err != nil {
			return err
		}
	}
	return t.Close()
}

// Copy is a backup that was read, and checked.
type Copy struct {
	Info BackupInfo

	log     *ledger.Log
	entries []ledger.Entry
	file    io.ReaderAt
	at      int64 // where the snapshot begins
}

// Snapshot is etcd's part of it.
func (c *Copy) Snapshot() io.Reader { return io.NewSectionReader(c.file, c.at, c.Info.Bytes) }

// OpenBackup reads a backup and checks all of it: that it is of the fleet, that its ledger is
// correct from the genesis on, and that the snapshot is whole. The error wraps [ErrBackup].
func OpenBackup(f interface {
	io.ReadSeeker
	io.ReaderAt
}, g *fleet.Genesis) (*Copy, error) {
	c, err := openBackup(f, f, g)
	if err != nil && !errors.Is(err, ErrBackup) {
		err = fmt.Errorf("%w: %w", ErrBackup, err)
	}
	return c, err
}

func openBackup(r io.ReadSeeker, at io.ReaderAt, g *fleet.Genesis) (*Copy, error) {
	t := tar.NewReader(r)
	next := func(name string, most int64) (int64, error) {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return 0, fmt.Errorf("it ends before %s", name)
		case err != nil:
			return 0, err
		case h.Name != name || h.Typeflag != tar.TypeReg:
			return 0, fmt.Errorf("%.40q is where %s should be", h.Name, name)
		case h.Size > most:
			return 0, fmt.Errorf("%s has %d bytes: %d at most", name, h.Size, most)
		}
		return h.Size, nil
	}
	if _, err := next(infoName, maxInfo); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(t)
	if err != nil {
		return nil, err
	}
	c := &Copy{file: at}
	if c.Info, err = document.DecodeExact[BackupInfo](raw, backupVersion); err != nil {
		return nil, fmt.Errorf("%s: %w", infoName, err)
	}
	if c.Info.Fleet != g.ID() {
		return nil, fmt.Errorf("it is of fleet %.12q, and this one is %s", c.Info.Fleet, fleet.Short(g.ID()))
	}
	if g := c.Info.Generation; g < 0 || g > maxGeneration {
		return nil, fmt.Errorf("%s: it is of generation %d of etcd", infoName, g)
	}
	if _, err := next(ledgerName, maxLedger); err != nil {
		return nil, err
	}
	if c.log, c.entries, err = ledger.Read(t, g); err != nil {
		return nil, fmt.Errorf("%s: %w", ledgerName, err)
	}
	if got := c.log.State().Height; got != c.Info.Height {
		return nil, fmt.Errorf("%s has %d records, and %s says %d", ledgerName, got, infoName, c.Info.Height)
	}
	size, err := next(snapshotName, maxSnapshot)
	if err != nil {
		return nil, err
	}
	if c.at, err = r.Seek(0, io.SeekCurrent); err != nil {
		return nil, err
	}
	all := newSums()
	if _, err := io.Copy(all, io.NewSectionReader(at, c.at, size)); err != nil {
		return nil, err
	}
	if err := all.whole(); err != nil {
		return nil, err
	}
	if size != c.Info.Bytes || all.of() != c.Info.Snapshot {
		return nil, fmt.Errorf("%s is another one than %s says", snapshotName, infoName)
	}
	return c, nil
}

// ErrUnsure is of a node that did not answer to the end: its etcd may begin anew, or not.
var ErrUnsure = errors.New("whether its etcd begins anew is not known")

// ErrNotMember is of a node that the roster does not have run etcd.
var ErrNotMember = errors.New("the fleet's roster does not have this node run etcd")

// restoring is what the owner signs, and by which state of the ledger.
type restoring struct {
	state ledger.State
	leave ledger.Restore
}

// Restore has the node that r names begin etcd anew, from a backup, or with nil from what is on
// its own disk. First this computer, the backup and the node tell each other the records of the
// ledger that they lack: no record is lost by that, and none is taken back. open gives the owner's
// keys. With its etcd the node takes the order by which all others give up what they have of another
// one, and passes it on, whatever becomes of this computer then. For speed all nodes are told from
// here, too; it returns how each took that. The error wraps [operate.ErrFork] where the backup has
// another history, [ErrNotMember], or [ErrUnsure].
func Restore(ctx context.Context, r operate.Remote, from *Copy, open func() (keyring.OwnerKeys, error)) (ledger.State, []operate.Told, error) {
	if from != nil {
		if err := from.bring(ctx, r); err != nil {
			return ledger.State{}, nil, err
		}
	}
	command, err := Prepare(ctx, r.Keys, order.RestoringKind, r.Name, r.Tell)
	if errors.Is(err, ErrNoSeat) {
		return ledger.State{}, nil, ErrNotMember
	}
	if err != nil {
		return ledger.State{}, nil, err
	}
	var s ledger.State
	err = r.Call(ctx, func(ctx context.Context, c *api.Client) error {
		plan, err := planRestore(ctx, r, c, from, command.generation)
		if err != nil {
			return err
		}
		s = plan.state
		owner, err := open()
		if err != nil {
			return err
		}
		plan.leave.Owners = owner.Sign(plan.leave.Bytes(s.Fleet()), s.Genesis.Threshold)
		command.State, command.Number = s, uint64(plan.leave.Generation)+1
		o := order.Restoring{Seat: command.Seat.Number, Key: command.Seat.Key, Leave: plan.leave.Encode()}
		if err := command.Seal(o, time.Now()); err != nil {
			return err
		}
		return sendRestore(ctx, c, command.sealed, from)
	})
	if err != nil {
		return s, nil, err
	}
	told, err := command.Give(ctx, r.Tell)
	return s, told, err
}

// bring gives the node the records that the backup has, if these are more than this computer knows.
func (c *Copy) bring(ctx context.Context, r operate.Remote) error {
	if err := operate.Agrees(r.Keys, "the backup", c.log); err != nil {
		return err
	}
	mine, _, err := operate.Ledger(r.Keys)
	if err != nil || mine.State().Height >= c.log.State().Height {
		return err
	}
	told, err := operate.Give(ctx, r.Keys, []string{r.Name}, c.entries, r.Tell)
	for _, n := range told {
		err = errors.Join(err, n.Err)
	}
	return err
}

func planRestore(ctx context.Context, r operate.Remote, c *api.Client, from *Copy, newest int64) (restoring, error) {
	l, a, err := operate.Level(ctx, r.Keys, c, r.Name)
	if err != nil {
		return restoring{}, err
	}
	s := l.State()
	seat, ok := s.Roster.ByName(r.Name)
	switch {
	case !ok || !seat.Member && !seat.Spare:
		return restoring{}, ErrNotMember
	case seat.Key != a.Key:
		return restoring{}, operate.ErrNotTheSeat
	case a.Height != s.Height:
		return restoring{}, fmt.Errorf("it has %d of %d records of the ledger", a.Height, s.Height)
	}
	is, err := c.Etcd(ctx, connect.NewRequest(&apiv1.EtcdRequest{}))
	if err != nil {
		return restoring{}, err
	}
	if !is.Msg.Wanted {
		return restoring{}, ErrNoEtcd
	}
	p := restoring{s, ledger.Restore{Version: 1, Node: seat.Key, Generation: max(newest, int64(is.Msg.Generation)), Height: s.Height}}
	if from != nil { // of an etcd that none may know who answers
		p.leave.Snapshot, p.leave.Generation = from.Info.Snapshot, max(p.leave.Generation, from.Info.Generation)
	}
	return p, nil
}

// sendRestore brings a node the order, and the snapshot that it is to begin from. The error wraps
// [ErrUnsure] where the node may have taken both.
func sendRestore(ctx context.Context, c *api.Client, sealed signed.Envelope, from *Copy) error {
	stream := c.Restore(ctx)
	err := stream.Send(&apiv1.RestoreRequest{Order: sealed.Bytes()})
	if from != nil && err == nil {
		snapshot, buffer := from.Snapshot(), make([]byte, api.PartSize)
		for err == nil {
			var n int
			if n, err = io.ReadFull(snapshot, buffer); n > 0 {
				if sent := stream.Send(&apiv1.RestoreRequest{Data: buffer[:n]}); sent != nil {
					break // the node has answered, and says why
				}
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
	}
	_, answered := stream.CloseAndReceive()
	switch connect.CodeOf(answered) {
	case connect.CodeUnavailable, connect.CodeCanceled, connect.CodeDeadlineExceeded, connect.CodeUnknown, connect.CodeInternal:
		if answered != nil {
			return fmt.Errorf("%w: %w", ErrUnsure, answered)
		}
	}
	return cmp.Or(answered, err)
}
