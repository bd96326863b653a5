package identity

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// flips are ways in which a file decays: empty, cut, and with one byte another one.
func flips(file string) map[string]string {
	all := map[string]string{"empty": "", "cut": file[:len(file)/2]}
	for i := 0; i < len(file); i += 1 + len(file)/37 {
		b := []byte(file)
		b[i] ^= 0x11
		all[fmt.Sprintf("byte %d", i)] = string(b)
	}
	return all
}

// TestNodeDamaged damages each of a node's files: the node opens all the same, says so or is what it
// was, believes nobody whom it did not believe, and changes nothing.
func TestNodeDamaged(t *testing.T) {
	f := savedFleet(t, "dev")
	eve := []string{fleet.KeyID([]byte("eve")), fleet.KeyID([]byte("mallory"))}
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	n, err := openNode(m)
	if err == nil {
		err = n.Join(invited(t, f))
	}
	if err == nil {
		err = n.Enrol(sign(t, f, n, "n1"))
	}
	if err == nil {
		err = n.Revoke(eve...)
	}
	if err != nil || n.Problem() != nil {
		t.Fatal(err, n.Problem())
	}
	for _, name := range slices.Sorted(maps.Keys(m.disk)) {
		for what, file := range flips(m.disk[name]) {
			disk := maps.Clone(m.disk)
			disk[name] = file
			now, err := openNode(&memoryFiles{disk: disk, left: 0})
			if err != nil {
				t.Errorf("%s, %s: %v", name, what, err)
				continue
			}
			if wrong := now.Problem(); wrong != nil && !strings.Contains(wrong.Error(), name) && !strings.Contains(wrong.Error(), "for another key") {
				t.Errorf("%s, %s: it says %v", name, what, wrong)
			}
			if disk[name] != file {
				t.Errorf("%s, %s: it is changed", name, what)
			}
			whole := now.Problem() == nil
			if (name == nodeKeyName || name == membershipName) && now.Adopted() == now.Lost() || now.Adopted() && now.Name() != "n1" {
				t.Errorf("%s, %s: adopted %v, lost %v as %q", name, what, now.Adopted(), now.Lost(), now.Name())
			}
			if now.Adopted() && !now.Came() {
				t.Errorf("%s, %s: it is not new any more", name, what)
			}
			lost := 0
			for _, key := range eve {
				if !now.Revoked(key) {
					lost++
				}
			}
			if name != revokedName && lost > 0 || name == revokedName && (whole && lost > 1 || !whole && !now.Forgets() || strings.HasPrefix(what, "byte") && lost > 1) {
				t.Errorf("%s, %s: it does not know any more who is revoked", name, what)
			}
		}
	}
}

// TestNodeRepaired has a node whose files are damaged get others in their place, with a cut at each
// write: what was there is kept beside them.
func TestNodeRepaired(t *testing.T) {
	f, other := savedFleet(t, "dev"), savedFleet(t, "hanse")
	j := invited(t, f)
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	n, err := openNode(m)
	if err == nil {
		err = n.Join(j)
	}
	if err == nil {
		err = n.Enrol(sign(t, f, n, "n1"))
	}
	if err == nil {
		err = n.Revoke(fleet.KeyID([]byte("eve")))
	}
	if err != nil {
		t.Fatal(err)
	}
	const junk = "junk"
	for name, repair := range map[string]func(n *Node) error{
		nodeKeyName:    func(n *Node) error { return again(t, f, n) },
		membershipName: func(n *Node) error { return again(t, f, n) },
		enrolmentName:  func(n *Node) error { return n.enrols(enrolmentFile{Came: true}) },
		revokedName:    func(n *Node) error { return n.RevokeAll() },
	} {
		for writes := 0; ; writes++ {
			done := false
			for _, lands := range []bool{false, true} {
				disk := maps.Clone(m.disk)
				disk[name] = junk
				n, err := openNode(&memoryFiles{disk: disk, left: writes, lands: lands})
				if err == nil {
					err = repair(n)
				}
				if done = err == nil; !done && !errors.Is(err, errCut) {
					t.Fatalf("%s: %v", name, err)
				}
				after := &memoryFiles{disk: maps.Clone(disk), left: 100}
				n, err = openNode(after)
				if err == nil && n.Problem() != nil {
					err = repair(n)
				}
				if err != nil || n.Problem() != nil || !n.Adopted() && !strings.Contains(after.disk[membershipName], "token") || after.disk[durable.AsideName(name, 1)] != junk {
					t.Errorf("%s, writes=%d lands=%v: %v, %v; %q", name, writes, lands, err, n.Problem(), after.disk[durable.AsideName(name, 1)])
				}
				if n, err = openNode(after); err != nil || n.Problem() != nil {
					t.Errorf("%s, writes=%d lands=%v: at the next start: %v, %v", name, writes, lands, err, n.Problem())
				}
			}
			if done {
				break
			}
		}
	}
	disk := maps.Clone(m.disk)
	disk[nodeKeyName] = junk
	n, err = openNode(&memoryFiles{disk: disk, left: 100})
	if err == nil {
		err = n.Join(&fleet.JoinFile{Genesis: other.Genesis, Token: fleet.NewToken()})
	}
	if !errors.Is(err, ErrOtherFleet) || disk[nodeKeyName] != junk {
		t.Errorf("another fleet takes it: %v", err)
	}
}

// again takes a node into its fleet once more, by a new token.
func again(t *testing.T, f *keyring.Keyring, n *Node) error {
	t.Helper()
	issued, err := f.NewToken(keyring.Terms{}, today)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: issued.Token}); err != nil || n.Adopted() {
		return err
	}
	return n.Adopt(sign(t, f, n, "n1"))
}

// unread is a disk that does not give one of its files.
type unread struct {
	*memoryFiles
	name string
}

var errDisk = errors.New("input/output error")

func (u unread) Read(name string) ([]byte, error) {
	if name == u.name {
		return nil, errDisk
	}
	return u.memoryFiles.Read(name)
}

// TestDiskGivesNone: a node opens when its disk does not give a file, and the key for secrets is
// not made anew for that; so it is when it is gone altogether.
func TestDiskGivesNone(t *testing.T) {
	f := savedFleet(t, "dev")
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	n, err := openNode(m)
	if err == nil {
		err = n.Join(invited(t, f))
	}
	if err == nil {
		err = n.Enrol(sign(t, f, n, "n1"))
	}
	if err == nil {
		err = n.Revoke(fleet.KeyID([]byte("eve")))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(m.disk)) {
		if now, err := openNode(unread{m, name}); err != nil || !errors.Is(now.Problem(), errDisk) || now.Unread() != (name == nodeKeyName || name == membershipName) || name == enrolmentName && !now.Came() {
			t.Errorf("%s: %v", name, err)
		}
	}
	delete(m.disk, nodeKeyName)
	if now, err := openNode(m); err != nil || !now.Lost() || !strings.Contains(fmt.Sprint(now.Problem()), "the certificate is for another key") {
		t.Errorf("without its key: %v", err)
	}
	id, seat := document.HashOf([]byte("fleet")), ledgertest.Key(t, "n1")
	c := ledgertest.Must[*Custody](t)(openCustody(m, id, seat))
	for range 2 {
		if _, err := openCustody(unread{m, wrapName}, id, seat); !errors.Is(err, errDisk) {
			t.Error(err)
		}
		if now, err := openCustody(m, id, seat); err != nil || string(now.Says(1).Key) != string(c.Says(1).Key) {
			t.Errorf("another key for secrets: %v", err)
		}
	}
}

// TestUnreadIsKept: a file that the disk does not give lies whole beside the one that takes its place,
// and the node that opens once it does is what it was. One of a later release stays where it is.
func TestUnreadIsKept(t *testing.T) {
	f, eve := savedFleet(t, "dev"), fleet.KeyID([]byte("eve"))
	m := &memoryFiles{disk: make(map[string]string), left: 1000}
	n, err := openNode(m)
	if err == nil {
		err = n.Join(invited(t, f))
	}
	if err == nil {
		err = n.Enrol(sign(t, f, n, "n1"))
	}
	if err == nil {
		err = n.Revoke(eve)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, repair := range map[string]func(n *Node) error{
		nodeKeyName:    func(n *Node) error { return again(t, f, n) },
		membershipName: func(n *Node) error { return again(t, f, n) },
		enrolmentName:  func(n *Node) error { return n.enrols(enrolmentFile{Came: true}) },
		revokedName:    func(n *Node) error { return n.RevokeAll(fleet.KeyID([]byte("mallory"))) },
	} {
		disk := maps.Clone(m.disk)
		files := &memoryFiles{disk: disk, left: 1000}
		if _, err := openNode(unread{files, name}); err != nil {
			t.Fatal(err)
		}
		if now, err := openNode(files); err != nil || now.Problem() != nil || now.Unread() || now.Name() != "n1" || !now.Revoked(eve) {
			t.Errorf("%s: the disk gives it again, and the node is %v: %v", name, now, err)
		}
		now, err := openNode(unread{files, name})
		if err == nil {
			err = repair(now)
		}
		if err != nil || disk[durable.AsideName(name, 1)] != m.disk[name] || disk[name] == m.disk[name] && name != enrolmentName || now.Unread() {
			t.Errorf("%s: %v: kept is %q", name, err, disk[durable.AsideName(name, 1)])
		}
		if name == nodeKeyName {
			continue // it has no version
		}
		disk = maps.Clone(m.disk)
		disk[name] = strings.Replace(disk[name], `"version": 1`, `"version": 2`, 1)
		later := disk[name]
		now, err = openNode(&memoryFiles{disk: disk, left: 1000})
		if err == nil {
			err = repair(now)
		}
		if !errors.Is(err, document.ErrNewer) || disk[name] != later || now.Unread() {
			t.Errorf("%s of a later release: %v", name, err)
		}
	}
}

// TestRevokedStaysPartial: nobody's own list mends one that could not be read, however often he sends it,
// and with a cut at each write; only who says that it is all does.
func TestRevokedStaysPartial(t *testing.T) {
	bob, carol, dora := fleet.KeyID([]byte("bob")), fleet.KeyID([]byte("carol")), fleet.KeyID([]byte("dora"))
	junk := `{"version": 1, "keys": ["` + bob + `"`
	for writes := range 8 {
		for _, lands := range []bool{false, true} {
			disk := map[string]string{revokedName: junk}
			m := &memoryFiles{disk: disk, left: writes, lands: lands}
			for _, keys := range [][]string{nil, {carol}, nil, {carol}, {dora}} {
				n, err := openNode(m)
				if err == nil {
					err = n.Revoke(keys...)
				}
				if err != nil && !errors.Is(err, errCut) {
					t.Fatal(err)
				}
				if err == nil && (!n.Forgets() || !n.Revoked(bob) || slices.ContainsFunc(keys, func(key string) bool { return !n.Revoked(key) })) {
					t.Errorf("writes=%d: it is told of %v, and forgets: %v, %v", writes, keys, n.Forgets(), n.RevokedKeys())
				}
			}
			n, err := openNode(&memoryFiles{disk: disk, left: 1000})
			if err != nil || !n.Forgets() || !n.Revoked(bob) || writes >= 4 && (!n.Revoked(carol) || !n.Revoked(dora)) {
				t.Errorf("writes=%d: at the next start: %v, %v", writes, err, n.RevokedKeys())
			}
			if writes >= 4 && (disk[durable.AsideName(revokedName, 1)] != junk || disk[durable.AsideName(revokedName, 2)] != "") {
				t.Errorf("writes=%d: aside lie %q", writes, slices.Sorted(maps.Keys(disk)))
			}
			if err := n.RevokeAll(); err != nil || n.Forgets() || n.Problem() != nil || !n.Revoked(bob) {
				t.Errorf("writes=%d: %v, %v", writes, err, n.Problem())
			}
			if n, err = openNode(&memoryFiles{disk: disk}); err != nil || n.Forgets() || n.Problem() != nil {
				t.Errorf("writes=%d: at the start after that: %v, %v", writes, err, n.Problem())
			}
		}
	}
}

// TestRevokedByLater: keys are revoked also where a later release has written the list, which stays as it
// is, and the node says what mends that.
func TestRevokedByLater(t *testing.T) {
	bob, carol := fleet.KeyID([]byte("bob")), fleet.KeyID([]byte("carol"))
	later := `{"version": 9, "keys": [{"key": "` + bob + `"}]}`
	m := &memoryFiles{disk: map[string]string{revokedName: later, toldName: later, membershipName: later, enrolmentName: later}, left: 1000}
	for _, keys := range [][]string{nil, {carol}, nil} {
		n, err := openNode(m)
		if err == nil {
			err = n.Revoke(keys...)
		}
		if err != nil || !n.Forgets() || !n.Revoked(bob) || m.disk[revokedName] != later || n.RevokeAll() == nil {
			t.Errorf("it is told of %v: %v, %v", keys, err, n.RevokedKeys())
		}
		for line := range strings.Lines(n.Problem().Error()) {
			if !strings.HasSuffix(strings.TrimSpace(line), newerMend) {
				t.Errorf("it advises: %s", line)
			}
		}
	}
	if n, err := openNode(m); err != nil || !n.Revoked(carol) || !n.Revoked(bob) {
		t.Errorf("at the next start: %v, %v", err, n.RevokedKeys())
	}
	m.disk[revokedName] = `{"version": 1, "keys": ["` + bob + `"]}` // as that release would leave it
	n, err := openNode(m)
	if err != nil || n.Forgets() || !n.Revoked(carol) || !n.Revoked(bob) {
		t.Errorf("in that release: %v, %v", err, n.RevokedKeys())
	}
	m.disk[addedName] = "junk"
	if n, err = openNode(m); err != nil || !n.Forgets() {
		t.Errorf("it knows all: %v", err)
	}
	if err := n.RevokeAll(carol); err != nil || n.Forgets() {
		t.Errorf("it forgets: %v", err)
	}
	if n, err = openNode(m); err != nil || n.Forgets() || !n.Revoked(carol) || !n.Revoked(bob) {
		t.Errorf("at the next start: %v, %v", err, n.RevokedKeys())
	}
}

// TestWrapDamaged: another key takes the place of a damaged one, at a cut too, and what was there
// lies beside it.
func TestWrapDamaged(t *testing.T) {
	id, seat := document.HashOf([]byte("fleet")), ledgertest.Key(t, "n1")
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	before := ledgertest.Must[*Custody](t)(openCustody(m, id, seat)).Says(1).Key
	for _, junk := range []string{"{}", m.disk[wrapName][:20], "\x00"} {
		for writes := range 3 {
			disk := map[string]string{wrapName: junk}
			_, err := openCustody(&memoryFiles{disk: disk, left: writes}, id, seat)
			if err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			now, err := openCustody(&memoryFiles{disk: disk, left: 100}, id, seat)
			if err != nil || disk[durable.AsideName(wrapName, 1)] != junk || string(now.Says(1).Key) == string(before) || (writes < 2) != (now.Problem() != nil) {
				t.Errorf("%q, writes=%d: %v, %q", junk, writes, err, disk)
			}
		}
	}
	disk := map[string]string{wrapName: `{"version": 2}`}
	if _, err := openCustody(&memoryFiles{disk: disk, left: 100}, id, seat); !errors.Is(err, document.ErrNewer) {
		t.Errorf("a later release's: %v", err)
	}
}

// TestSeatDecays: no byte of the file of a seat's key can become another one unseen.
func TestSeatDecays(t *testing.T) {
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	if _, err := openSeat(m); err != nil {
		t.Fatal(err)
	}
	good := m.disk[seatName]
	for i := range good {
		for _, bit := range []byte{1, 2, 16} {
			b := []byte(good)
			b[i] ^= bit
			m.disk[seatName] = string(b)
			if s, err := openSeat(m); err == nil {
				t.Errorf("byte %d: it is read as %s", i, s)
			}
		}
	}
}
