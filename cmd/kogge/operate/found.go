package operate

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Wish is what the founders want of a fleet's first roster.
type Wish struct {
	Members []string          // of the founders, that run etcd; none: as many as can be, 1, 3 or 5
	Spares  []string          // of them, that run etcd when a member is lost
	Domains map[string]string // of a node, by name: what fails together with it
}

// Applicant is a node that proved the key of its seat.
type Applicant struct {
	Name    string
	Key     signed.Key
	TLSKey  document.Hash // of its certificate
	Journal roster.ID
	Arch    string
	Reached netip.Addr    // where it answered; it may be a router's
	Own     []netip.Addr  // that it names itself
	Height  int64         // of its ledger; 0: it knows of no founding
	Head    document.Hash // of the record of that height
	Problem string        // why it says that its ledger is not to be relied on; "": it is
	Unfit   string        // why its disk is none for etcd, with figures; "": it is, or was not asked
	Request []byte        // what it has signed of itself: whoever proposes a seat for it hands it along
}

// ErrUnsound is of a node that says that its ledger is damaged, or has a second history.
var ErrUnsound = errors.New("its ledger is not to be relied on")

func (a Applicant) sound() error {
	if a.Problem == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnsound, a.Problem)
}

// ErrFounding is of a founding that cannot be.
var ErrFounding = errors.New("the fleet cannot be founded like this")

// Applicants asks nodes for the keys of their seats, a few at a time, and returns them in the
// order of the names. Each has to be known here and to answer now; one that does not is the zero
// one, and in the error. What one answers is believed because it is signed, comes over a
// connection with the node's own certificate, and names that certificate's key.
func Applicants(ctx context.Context, k *keyring.Keyring, names []string, tell func(Notice)) ([]Applicant, error) {
	nodes, err := Nodes(k)
	if err != nil {
		return nil, err
	}
	all, failed := make([]Applicant, len(names)), make([]error, len(names))
	each(len(names), func(i int) {
		limited, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		n, ok := nodes[names[i]]
		if !ok {
			failed[i] = fmt.Errorf("node %s: %w", names[i], keyring.ErrNoNode)
			return
		}
		r := Remote{Keys: k, Name: names[i], Address: n.Address, Tell: tell}
		err := r.Call(limited, func(ctx context.Context, c *api.Client) error {
			a, err := applicant(ctx, k, c, r)
			if err == nil {
				err = a.sound()
			}
			if err == nil {
				all[i] = a
			}
			return err
		})
		if err != nil {
			failed[i] = fmt.Errorf("node %s: %w", names[i], err)
		}
	})
	return all, errors.Join(failed...)
}

func applicant(ctx context.Context, k *keyring.Keyring, c *api.Client, r Remote) (Applicant, error) {
	id, err := document.ParseHash(k.Genesis.ID())
	if err != nil {
		return Applicant{}, err
	}
	nonce := make([]byte, api.NonceSize)
	rand.Read(nonce) // never fails: it ends the program instead
	answer, err := c.Seat(ctx, connect.NewRequest(&apiv1.SeatRequest{Nonce: nonce}))
	if err != nil {
		return Applicant{}, err
	}
	key, request, err := roster.OpenRequest(answer.Msg.Envelope, id, nonce)
	if err != nil {
		return Applicant{}, err
	}
	if shown := c.Shown(); shown == nil || request.Name != r.Name || request.TLSKey.String() != keyOf(shown) {
		return Applicant{}, fmt.Errorf("%w: it is of another node", roster.ErrRequest)
	}
	a := Applicant{Name: r.Name, Key: key, TLSKey: request.TLSKey, Journal: request.Journal, Arch: request.Arch, Height: request.Height, Head: request.Head, Own: request.Addresses, Problem: request.Problem, Request: answer.Msg.Envelope}
	if at, err := net.ResolveTCPAddr("tcp", r.Address); err == nil { // it is a hint
		a.Reached = at.AddrPort().Addr().Unmap()
	}
	return a, nil
}

func keyOf(c *x509.Certificate) string { return fleet.KeyID(c.RawSubjectPublicKeyInfo) }

// Plan is the value of record 1 for applicants, which get seats in the order of their names.
// The error wraps [ErrFounding].
func Plan(g *fleet.Genesis, operators []ledger.Operator, applicants []Applicant, w Wish) (ledger.Value, error) {
	v, err := plan(g, operators, applicants, w)
	if err != nil {
		return ledger.Value{}, fmt.Errorf("%w: %w", ErrFounding, err)
	}
	return v, nil
}

func plan(g *fleet.Genesis, operators []ledger.Operator, applicants []Applicant, w Wish) (ledger.Value, error) {
	for _, a := range applicants {
		if a.Height > 0 { // it was founded between two questions
			return ledger.Value{}, fmt.Errorf("node %s has a first record already", a.Name)
		}
	}
	applicants = slices.SortedFunc(slices.Values(applicants), func(a, b Applicant) int { return strings.Compare(a.Name, b.Name) })
	members, err := chooseMembers(applicants, w)
	if err != nil {
		return ledger.Value{}, err
	}
	owner, err := ledger.OwnerOf(g)
	if err != nil {
		return ledger.Value{}, err
	}
	f := &ledger.Founding{Operators: operators, Roster: roster.Roster{
		Version: 1, Rule: roster.RuleFor(len(applicants)), Owners: []roster.Owner{owner}, Given: len(applicants),
	}}
	for i, a := range applicants {
		s := roster.Seat{
			Number: i + 1, Name: a.Name, Key: a.Key, Journal: a.Journal, Owner: owner.Name, Vote: true,
			Member: slices.Contains(members, a.Name), Spare: slices.Contains(w.Spares, a.Name), Domain: w.Domains[a.Name],
		}
		f.Roster.Seats = append(f.Roster.Seats, s)
		if s.Member {
			at, err := memberAddress(a, applicants)
			if err != nil {
				return ledger.Value{}, err
			}
			f.Cluster = append(f.Cluster, ledger.Address{Seat: s.Number, Address: netip.AddrPortFrom(at, api.MemberPort)})
		}
	}
	for name := range w.Domains {
		if !known(applicants, name) {
			return ledger.Value{}, fmt.Errorf("domain of node %s: it is none of the founders", name)
		}
	}
	return ledger.Value{Version: 1, Founding: f}, nil
}

// memberAddress is where other members reach a node: of the addresses that it names, and no
// other applicant does, the one at which it answered, or else the first.
func memberAddress(a Applicant, all []Applicant) (netip.Addr, error) {
	var own []netip.Addr
	for _, at := range a.Own {
		if !slices.ContainsFunc(all, func(b Applicant) bool { return b.Name != a.Name && slices.Contains(b.Own, at) }) {
			own = append(own, at)
		}
	}
	switch {
	case slices.Contains(own, a.Reached):
		return a.Reached, nil
	case len(own) > 0:
		return own[0], nil
	}
	return netip.Addr{}, fmt.Errorf("node %s cannot run etcd: it has no address at which the others reach it and no other node: %v", a.Name, a.Own)
}

func known(applicants []Applicant, name string) bool {
	return slices.ContainsFunc(applicants, func(a Applicant) bool { return a.Name == name })
}

// chooseMembers are the names of those who run etcd: as they are wished, or the first 5, 3 or
// 1 of those that can and are no spares, in domains of their own as far as it goes.
func chooseMembers(applicants []Applicant, w Wish) ([]string, error) {
	for _, name := range slices.Concat(w.Members, w.Spares) {
		i := slices.IndexFunc(applicants, func(a Applicant) bool { return a.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("node %s is none of the founders", name)
		}
		if !roster.MayBeMember(applicants[i].Arch) {
			return nil, fmt.Errorf("node %s cannot run etcd: its processor is %s, and etcd is tested on amd64 and arm64", name, applicants[i].Arch)
		}
		if why := applicants[i].Unfit; why != "" {
			return nil, fmt.Errorf("node %s cannot run etcd: %s", name, why)
		}
	}
	if len(w.Members) > 0 {
		if n := len(w.Members); n != 1 && n != 3 && n != 5 {
			return nil, fmt.Errorf("%d members: 1, 3 or 5 run etcd", n)
		}
		return w.Members, nil
	}
	var can, again []string
	taken := make(map[string]bool)
	for _, a := range applicants {
		if _, err := memberAddress(a, applicants); err != nil || !roster.MayBeMember(a.Arch) || a.Unfit != "" || slices.Contains(w.Spares, a.Name) {
			continue
		}
		domain := roster.Seat{Name: a.Name, Domain: w.Domains[a.Name]}.DomainOf()
		if taken[domain] {
			again = append(again, a.Name)
			continue
		}
		can, taken[domain] = append(can, a.Name), true
	}
	can = append(can, again...)
	switch n := len(can); {
	case n >= 5:
		return can[:5], nil
	case n >= 3:
		return can[:3], nil
	case n >= 1:
		return can[:1], nil
	}
	var slow error
	for _, a := range applicants {
		if a.Unfit != "" {
			slow = errors.Join(slow, fmt.Errorf("node %s: %s", a.Name, a.Unfit))
		}
	}
	return nil, errors.Join(errors.New("no node can run etcd: at least one is amd64 or arm64, no spare, and has an address and a good disk of its own"), slow)
}

// Operators are those of the fleet's folder who are not revoked, as record 1 lists them: by
// name, each with one key. The error wraps [ErrFounding] where somebody has two.
func Operators(k *keyring.Keyring) ([]ledger.Operator, error) {
	issued, err := k.Operators()
	if err != nil {
		return nil, err
	}
	live := slices.DeleteFunc(issued, func(o keyring.IssuedOperator) bool { return o.Revoked != nil })
	me := k.Operator()
	if !slices.ContainsFunc(live, func(o keyring.IssuedOperator) bool { return o.Key == me.Key }) {
		live = append(live, keyring.IssuedOperator{Name: me.Name, Role: me.Role, Key: me.Key})
	}
	slices.SortStableFunc(live, func(a, b keyring.IssuedOperator) int { return strings.Compare(a.Name, b.Name) })
	var all []ledger.Operator
	for i, o := range live {
		if i > 0 && live[i-1].Name == o.Name {
			err = errors.Join(err, fmt.Errorf("%w: operator %s has two keys that are not revoked, %s and %s, and a name has one", ErrFounding, o.Name, fleet.Short(live[i-1].Key), fleet.Short(o.Key)))
			continue
		}
		key, bad := document.ParseHash(o.Key)
		err = errors.Join(err, bad)
		all = append(all, ledger.Operator{Name: o.Name, Role: o.Role, Key: key})
	}
	return all, err
}

// ledgerFile lies in a fleet's folder: the ledger as this computer has it.
const ledgerFile = "ledger.txt"

// Ledger reads the ledger of the fleet's folder, verified. It is empty before the founding.
func Ledger(k *keyring.Keyring) (*ledger.Log, []ledger.Entry, error) {
	f, err := os.Open(filepath.Join(k.Dir, ledgerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ledger.New(k.Genesis), nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	l, entries, err := ledger.Read(f, k.Genesis)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", filepath.Join(k.Dir, ledgerFile), err)
	}
	return l, entries, nil
}

// Draft is the founding of a fleet with a value, which nobody has signed yet. The error wraps
// [ErrFounding].
func Draft(g *fleet.Genesis, v ledger.Value) (ledger.Draft, error) {
	d, err := ledger.NewDraft(g, v)
	if err != nil {
		return d, fmt.Errorf("%w: %w", ErrFounding, err)
	}
	return d, nil
}

// Fits wants a draft that was begun before to be what the same command would write now: seats
// for the nodes that are named, with the keys that they have today, as they are wished, and the
// operators of the folder. applicants are those of the nodes that answer. Where etcd answers may
// have changed. The error wraps [ErrFounding] and says all that differs.
func Fits(d ledger.Draft, names []string, applicants []Applicant, operators []ledger.Operator, w Wish) error {
	var wrong []error
	differs := func(format string, args ...any) {
		wrong = append(wrong, fmt.Errorf("%w: "+format, append([]any{ErrFounding}, args...)...))
	}
	f := d.Value.Founding
	for _, name := range names {
		if _, ok := f.Roster.ByName(name); !ok {
			differs("node %s is named, and gets no seat", name)
		}
	}
	for _, seat := range f.Roster.Seats {
		if !slices.Contains(names, seat.Name) {
			differs("node %s gets a seat, and is not named", seat.Name)
		}
		if len(w.Members) > 0 && slices.Contains(w.Members, seat.Name) != seat.Member {
			differs("node %s as member: wished %t, and it would be %t", seat.Name, !seat.Member, seat.Member)
		}
		if len(w.Spares) > 0 && slices.Contains(w.Spares, seat.Name) != seat.Spare {
			differs("node %s as spare: wished %t, and it would be %t", seat.Name, !seat.Spare, seat.Spare)
		}
		if domain, ok := w.Domains[seat.Name]; ok && domain != seat.Domain {
			differs("node %s gets domain %q, and %q was given", seat.Name, seat.DomainOf(), domain)
		}
	}
	for _, a := range applicants {
		if a.Height > 0 {
			differs("node %s has a first record already", a.Name)
		}
		if seat, ok := f.Roster.ByName(a.Name); ok && (seat.Key != a.Key || seat.Journal != a.Journal) {
			differs("node %s: its seat would be of key %s, and its key is %s", a.Name, seat.Key.ID().Short(), a.Key.ID().Short())
		}
	}
	for _, o := range f.Operators {
		if !slices.Contains(operators, o) {
			differs("operator %s (%s), key %s, is listed, and is none here", o.Name, o.Role, o.Key.Short())
		}
	}
	for _, o := range operators {
		if !slices.Contains(f.Operators, o) {
			differs("operator %s (%s), key %s, is not listed", o.Name, o.Role, o.Key.Short())
		}
	}
	return errors.Join(wrong...)
}

// SignDraft adds the signatures of owner keys to a draft, as far as they are missing. That they
// sign this record is noted before in the fleet's folder, which signs no other: instead is the
// one that is given up for it; see [keyring.Keyring.NoteFirst], whose error it is.
func SignDraft(k *keyring.Keyring, d ledger.Draft, owner keyring.OwnerKeys, instead document.Hash) (ledger.Draft, error) {
	more := owner.Without(d.Signers()...).Sign(ledger.FoundingBytes(d.Record), max(0, d.State.Genesis.Threshold-len(d.Owners)))
	var by []int
	for _, s := range more {
		by = append(by, s.By)
	}
	if err := k.NoteFirst(d.State.Record, by, instead, time.Now()); err != nil {
		return d, err
	}
	return d.With(more...), nil
}

// Begin makes a draft record 1, and keeps it in the fleet's folder before anybody has it:
// whoever repeats this gives out the same record, because two foundings are two histories. The
// error wraps [ErrFounding] where the folder has another, or too few have signed.
//
//  1. the seats' keys in nodes.json
//  2. the ledger
func Begin(k *keyring.Keyring, d ledger.Draft) (ledger.Entry, error) {
	e := d.Entry()
	return e, k.Alone(func() error {
		l, _, err := Ledger(k)
		if err != nil {
			return err
		}
		first, err := k.First()
		if err != nil {
			return err
		}
		if l.State().Height > 0 || first.Record != d.State.Record {
			return fmt.Errorf("%w: fleet %s has another first record", ErrFounding, k.Genesis.Name)
		}
		if err := l.Append(e); err != nil {
			return fmt.Errorf("%w: %w", ErrFounding, err)
		}
		return writeLedger(k, l.State(), []ledger.Entry{e})
	})
}

// Give gives the entries of a ledger to nodes, from the first one, a few at a time, and
// returns how each took them. A node that has some of them gets the rest, unless it has
// another ledger: then it gets all, and sees for itself. One whose ledger is damaged gets those
// that it cannot read.
func Give(ctx context.Context, k *keyring.Keyring, names []string, entries []ledger.Entry, tell func(Notice)) ([]Told, error) {
	nodes, err := Nodes(k)
	if err != nil {
		return nil, err
	}
	all := make([]Told, len(names))
	each(len(names), func(i int) {
		limited, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		n, known := nodes[names[i]]
		if !known {
			all[i] = Told{Node: names[i], Err: keyring.ErrNoNode}
			return
		}
		r := Remote{Keys: k, Name: names[i], Address: n.Address, Tell: tell}
		all[i] = Told{Node: names[i], Err: r.Call(limited, func(ctx context.Context, c *api.Client) error {
			a, err := applicant(ctx, k, c, r)
			from := int64(1)
			if err == nil && has(entries, a.Height, a.Head) {
				from = a.Height + 1
			}
			if err := give(ctx, c, entries, from); err != nil || a.Problem == "" {
				return err
			}
			if a, err = applicant(ctx, k, c, r); err == nil { // what it lacked may have been all
				err = a.sound()
			}
			return err
		})}
	})
	return all, nil
}

// has says whether a record is the one of a height among entries.
func has(entries []ledger.Entry, height int64, record document.Hash) bool {
	if height < 1 || height > int64(len(entries)) {
		return height == 0
	}
	r, err := ledger.ParseRecord(entries[height-1].Record)
	return err == nil && r.Hash() == record
}

func give(ctx context.Context, c *api.Client, entries []ledger.Entry, from int64) error {
	for height := from; height <= int64(len(entries)); height++ {
		e := entries[height-1]
		_, err := c.Take(ctx, connect.NewRequest(&apiv1.TakeRequest{Entry: &apiv1.Entry{Height: height, Record: e.Record, Value: e.Value, Certificate: e.Certificate}}))
		if err != nil {
			return err
		}
	}
	return nil
}

// Fetch reads the ledger from a node and verifies it from the genesis on. At a record that is
// wrong it ends, with what was right before it. The error wraps [ErrUnsound] where the node says
// that it had other records than these.
func Fetch(ctx context.Context, k *keyring.Keyring, c *api.Client, node string) (*ledger.Log, []ledger.Entry, error) {
	l, entries, err := fetch(ctx, k, c)
	if err == nil {
		var a Applicant
		if a, err = applicant(ctx, k, c, Remote{Keys: k, Name: node}); err == nil {
			err = a.sound()
		}
	}
	return l, entries, err
}

func fetch(ctx context.Context, k *keyring.Keyring, c *api.Client) (*ledger.Log, []ledger.Entry, error) {
	l := ledger.New(k.Genesis)
	stream, err := c.Records(ctx, connect.NewRequest(&apiv1.RecordsRequest{From: 1}))
	if err != nil {
		return l, nil, err
	}
	defer stream.Close()
	var entries []ledger.Entry
	for stream.Receive() {
		m := stream.Msg()
		e := ledger.Entry{Record: m.Record, Value: m.Value, Certificate: m.Certificate}
		if err := l.AppendBroken(e); err != nil { // the node has waited, if there was something to wait for
			return l, entries, err
		}
		entries = append(entries, e)
	}
	return l, entries, stream.Err()
}

// Export writes a ledger as a file.
func Export(w io.Writer, g *fleet.Genesis, entries []ledger.Entry) error {
	err := ledger.WriteFile(w, g)
	for i, e := range entries {
		err = errors.Join(err, ledger.WriteEntry(w, int64(i+1), e))
	}
	return err
}

// Permit is the owner's leave, signed, for a node to arm the release of a digest next. slots is
// what the node says of its slots, and a what it says of itself: if it has a seat, its key has
// to be the seat's.
func Permit(s ledger.State, a Applicant, digest string, slots *apiv1.ListSlotsResponse, owner keyring.OwnerKeys) ([]byte, error) {
	node := a.Name
	if seat, ok := s.Roster.ByName(node); ok && seat.Key != a.Key {
		return nil, fmt.Errorf("node %s has lost the key of its seat: key %s has the seat, and it shows key %s", node, seat.Key.ID().Short(), a.Key.ID().Short())
	}
	p := ledger.Permit{Version: 1, Node: a.Key, Release: digest, Arming: slots.NextArming, Height: s.Height}
	if p.Arming < 1 {
		return nil, fmt.Errorf("node %s does not know how often it was armed: a permit could be used twice there", node)
	}
	if _, err := ledger.ParsePermit(p.Encode()); err != nil { // before it is signed
		return nil, fmt.Errorf("node %s: %w", node, err)
	}
	by, err := s.OwnerFor(a.Key)
	if err != nil {
		return nil, err
	}
	p.Owners = owner.Sign(p.Bytes(s.Fleet()), by.Threshold)
	return p.Encode(), nil
}
