// Package admission is what an operator does about nodes that come into a founded fleet by
// themselves: he gives out tokens, gives members the key of the node CA, sees who came, and accepts
// it. It needs no terminal.
//
// In come an operator's keyring and names of nodes; out go files that let nodes in, papers that he
// has signed, and what nodes of the fleet have of such. What counts is update/fleet/token's to say.
package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
	"kogge.example/update/fleet/wrapped"
)

// Limits of what is answered at once, of nodes that are asked one beside the other, and of one that
// a person waits for.
const (
	callLimit = 30 * time.Second
	seeLimit  = 5 * time.Second
	atOnce    = 16
)

// Invite makes a token, and the join.yaml with which a node comes in by it: in a founded fleet by
// itself, at any member, and else when an operator adopts it.
func Invite(k *keyring.Keyring, terms keyring.Terms, now time.Time) (*fleet.JoinFile, keyring.IssuedToken, error) {
	l, entries, err := operate.Ledger(k)
	if err != nil {
		return nil, keyring.IssuedToken{}, err
	}
	s := l.State()
	terms.Founded = s.Height > 0
	t, err := k.NewToken(terms, now)
	if err != nil {
		return nil, t, err
	}
	j := &fleet.JoinFile{Genesis: k.Genesis, Token: t.Token}
	if !terms.Founded {
		return j, t, nil
	}
	record, err := k.TokenRecord(t, terms.Labels, s)
	if err == nil {
		_, err = record.Verify(s) // before somebody walks to a machine with it
	}
	if err == nil {
		j.Members, err = membersAt(k, s, entries)
	}
	j.Record = record.Bytes()
	return j, t, err
}

// maxMembersAt is how many addresses of members stand in a join.yaml.
const maxMembersAt = 16

// membersAt are where the nodes that run etcd, or may, answer others: as this computer reaches
// them, and where they did when the fleet was founded.
func membersAt(k *keyring.Keyring, s ledger.State, entries []ledger.Entry) (all []netip.AddrPort, err error) {
	nodes, err := operate.Nodes(k)
	if err != nil {
		return nil, err
	}
	add := func(a netip.AddrPort) {
		if roster.CheckAddress(a.Addr()) == nil && !slices.Contains(all, a) && len(all) < maxMembersAt {
			all = append(all, a)
		}
	}
	for _, seat := range s.Roster.Custodians() {
		if a, err := netip.ParseAddrPort(nodes[seat.Name].Address); err == nil {
			add(a)
		}
	}
	v, err := ledger.ParseValue(entries[0].Value)
	if err != nil {
		return nil, err
	}
	for _, a := range v.Founding.Cluster {
		add(netip.AddrPortFrom(a.Address.Addr(), api.Port))
	}
	return all, nil
}

// Arrivals is what nodes have of papers: who came by which token, and who was accepted.
type Arrivals struct {
	Set     *token.Set
	Asked   []string          // nodes that answered
	Refused map[string]uint64 // of who came, in words, by all of them
}

// None is what is known of nobody.
func None() Arrivals {
	return Arrivals{Set: token.NewSet(), Refused: make(map[string]uint64)}
}

// askedForPapers is how many nodes have to answer when they are asked for papers: seats tell each other.
const askedForPapers = 5

// Tellers are the nodes that have all papers, and pass on new ones, as far as this computer knows
// where they are: those with a seat, and first of all those that let nodes in. The others have papers
// about themselves alone.
func Tellers(k *keyring.Keyring, s ledger.State) (names []string, err error) {
	nodes, err := operate.Nodes(k)
	if err != nil {
		return nil, err
	}
	for _, seat := range slices.Concat(s.Roster.Custodians(), s.Roster.Seats) {
		if _, known := nodes[seat.Name]; known && !slices.Contains(names, seat.Name) {
			names = append(names, seat.Name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("this computer knows the address of no node that has a seat")
	}
	return names, nil
}

// Why a node's papers are not waited for. Those that came before count.
var (
	errSilent = fmt.Errorf("it said nothing for %v", seeLimit)
	errSlow   = fmt.Errorf("it did not tell all papers in %v", callLimit)
)

// Papers asks [Tellers] for papers, in their order, until some have answered, and verifies each by the
// ledger of the fleet's folder. The error says that none answered, or is of this computer's files.
func Papers(ctx context.Context, k *keyring.Keyring, names []string, tell func(operate.Notice)) (Arrivals, error) {
	a := None()
	l, _, err := operate.Ledger(k)
	if err != nil {
		return a, err
	}
	nodes, err := operate.Nodes(k)
	if err != nil {
		return a, err
	}
	var mu sync.Mutex // guards a and failed
	var failed error
	revoked, err := k.RevokedKeys()
	if err != nil {
		return a, err
	}
	state := l.State() // also what a revoked key has signed is shown
	a.Set.Withdraw(state.Without(func(key string) bool { return slices.Contains(revoked, key) }))
	ask := func(names []string, i int) {
		limited, end := context.WithCancelCause(ctx)
		defer end(nil)
		silent := time.AfterFunc(seeLimit, func() { end(errSilent) })
		defer silent.Stop()
		whole := time.AfterFunc(callLimit, func() { end(errSlow) })
		defer whole.Stop()
		err := operate.Remote{Keys: k, Name: names[i], Address: nodes[names[i]].Address, Tell: tell}.Call(limited, func(ctx context.Context, c *api.Client) error {
			return read(ctx, c, func(answer *apiv1.PapersResponse) {
				silent.Reset(seeLimit)
				mu.Lock()
				defer mu.Unlock()
				for _, raw := range answer.Papers {
					_, _ = a.Set.Put(raw, state) // what does not count here is no paper
				}
				for why, n := range answer.Refused {
					a.Refused[why] += n
				}
			})
		})
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			if why := context.Cause(limited); why != nil {
				err = why
			}
			failed = errors.Join(failed, fmt.Errorf("node %s: %w", names[i], err))
			return
		}
		a.Asked = append(a.Asked, names[i])
	}
	for most := askedForPapers; len(names) > 0 && len(a.Asked) < askedForPapers; most *= 2 {
		some := names[:min(len(names), most)]
		each(len(some), func(i int) { ask(some, i) })
		names = names[len(some):]
	}
	if len(a.Asked) == 0 {
		return a, errors.Join(errors.New("no node of the fleet has told who came and who was accepted"), failed)
	}
	return a, nil
}

// read hears the papers of one node, no more than a set has.
func read(ctx context.Context, c *api.Client, take func(*apiv1.PapersResponse)) error {
	stream, err := c.Papers(ctx, connect.NewRequest(&apiv1.PapersRequest{}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for n := 0; stream.Receive(); {
		answer := stream.Msg()
		if n > 0 {
			answer.Refused = nil // they are in the first one
		}
		if n += max(1, len(answer.Papers)); n > token.MaxSet+1 {
			return fmt.Errorf("it sends more than %d papers", token.MaxSet)
		}
		take(answer)
	}
	return stream.Err()
}

// GivePapers gives papers to nodes, a few at a time, and returns how each took them. Those that
// have seats pass them on.
func GivePapers(ctx context.Context, k *keyring.Keyring, names []string, papers [][]byte, tell func(operate.Notice)) ([]operate.Told, error) {
	nodes, err := operate.Nodes(k)
	if err != nil {
		return nil, err
	}
	all := make([]operate.Told, len(names))
	each(len(names), func(i int) {
		limited, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		all[i] = operate.Told{Node: names[i], Err: operate.Remote{Keys: k, Name: names[i], Address: nodes[names[i]].Address, Tell: tell}.Call(limited, func(ctx context.Context, c *api.Client) error {
			_, err := c.GivePapers(ctx, connect.NewRequest(&apiv1.GivePapersRequest{Papers: papers}))
			return err
		})}
	})
	return all, nil
}

// ErrNoSuchNode is of a name under which no node came.
var ErrNoSuchNode = errors.New("no node of that name came by a token")

// Waiting is the use by which the node of a name came that waits to be accepted; if none waits, of the
// one that was, and then of one that was before it. A token for that very name counts before one for any,
// and whoever had the name before one whom a revoked key has accepted. The error wraps [ErrNoSuchNode].
func (a Arrivals) Waiting(name string) (token.Use, error) {
	var named, others, robbed, accepted, displaced []token.Use
	for _, key := range a.Set.Tokens() {
		for _, u := range a.Set.Uses(key) {
			_, is := a.Set.Accepted(u.Node)
			was, withdrawn := a.Set.Displaced(u.Node)
			switch {
			case u.Name != name:
			case was && withdrawn:
				robbed = append(robbed, u)
			case was:
				displaced = append(displaced, u)
			case is:
				accepted = append(accepted, u)
			case !a.Set.Waits(u):
			case u.Record.Node != "":
				named = append(named, u)
			default:
				others = append(others, u)
			}
		}
	}
	for _, found := range [][]token.Use{named, others, robbed, accepted, displaced} {
		switch {
		case len(found) == 1 || len(found) > 1 && sameNode(found):
			return found[0], nil
		case len(found) > 1:
			var all []string
			for _, u := range found {
				all = append(all, fmt.Sprintf("%s by token %s", u.Node.ID().Short(), u.Record.Key.ID().Short()))
			}
			return token.Use{}, fmt.Errorf("node %s: %d nodes came under that name: %s", name, len(found), strings.Join(all, ", "))
		}
	}
	return token.Use{}, fmt.Errorf("node %s: %w", name, ErrNoSuchNode)
}

func sameNode(all []token.Use) bool {
	return !slices.ContainsFunc(all, func(u token.Use) bool { return u.Node != all[0].Node })
}

// Hand gives the key of the node CA to the nodes of the seats that are to hold it, as this
// computer has it, and returns how each took it. Each gets it encrypted to a key that its seat has
// certified. The error wraps [keyring.ErrNoKey] where this computer has it not.
func Hand(ctx context.Context, k *keyring.Keyring, s ledger.State, tell func(operate.Notice)) ([]operate.Told, error) {
	ca, err := k.NodeCA()
	if err != nil {
		return nil, err
	}
	nodes, err := operate.Nodes(k)
	if err != nil {
		return nil, err
	}
	seats, is := s.Roster.Custodians(), wrapped.CAOf(s.Genesis.NodeCA)
	all := make([]operate.Told, len(seats))
	each(len(seats), func(i int) {
		seat := seats[i]
		n, known := nodes[seat.Name]
		if !known {
			all[i] = operate.Told{Node: seat.Name, Err: keyring.ErrNoNode}
			return
		}
		limited, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		all[i] = operate.Told{Node: seat.Name, Err: operate.Remote{Keys: k, Name: seat.Name, Address: n.Address, Tell: tell}.Call(limited, func(ctx context.Context, c *api.Client) error {
			answer, err := c.Custody(ctx, connect.NewRequest(&apiv1.CustodyRequest{}))
			if err != nil {
				return err
			}
			w, err := wrapKeyOf(answer.Msg.Envelope, s, seat)
			if err != nil || w.Holds == is {
				return err
			}
			sealed, err := wrapped.Wrap(ca, w.Key, wrapped.For{Fleet: s.Fleet(), Seat: seat.Key, CA: is})
			if err != nil {
				return err
			}
			_, err = c.Custody(ctx, connect.NewRequest(&apiv1.CustodyRequest{Sealed: sealed}))
			return err
		})}
	})
	return all, nil
}

// wrapKeyOf is the key for secrets that a seat has certified.
func wrapKeyOf(envelope []byte, s ledger.State, seat roster.Seat) (notice.WrapKey, error) {
	e, err := signed.Open(envelope)
	if err != nil {
		return notice.WrapKey{}, err
	}
	if e.By != seat.Key || e.Fleet != s.Fleet() {
		return notice.WrapKey{}, fmt.Errorf("%w: the key for its secrets is certified by key %s", operate.ErrNotTheSeat, e.By.ID().Short())
	}
	w, err := notice.OpenWrapKey(e)
	if err == nil && w.Seat != seat.Number {
		err = fmt.Errorf("%w: it says that it has seat %d", operate.ErrNotTheSeat, w.Seat)
	}
	return w, err
}

// How a node came to be one of its fleet, as operate.NodeHealth has it.
const (
	Seat     = "seat"     // it has one
	Accepted = "accepted" // an operator has accepted it
	New      = "new"      // it came by a token, and counts nowhere
	Adopted  = "adopted"  // an operator's computer took it in
)

// Note notes how each node came into the fleet. Those that are new are shown and counted nowhere:
// what is wrong with them is no problem of the fleet's. Who is accepted by a revoked key alone, stays: but
// fewer and fewer nodes know it, and the TLS key that it came with counts beside the one it was accepted with.
func (a Arrivals) Note(h *operate.Health) {
	standing, again := make(map[string]string), make(map[string]bool)
	for _, key := range a.Set.Nodes() {
		if accepted, ok := a.Set.Accepted(key); ok {
			standing[accepted.Name] = Accepted
			again[accepted.Name] = a.Set.ByRevoked(key)
		} else if u, ok := a.Set.CameBy(key); ok && standing[u.Name] == "" && a.Set.Waits(u) {
			standing[u.Name] = New
		}
	}
	fresh := make(map[string]bool)
	for i, n := range h.Nodes {
		switch is := standing[n.Node]; {
		case n.Seat.Number > 0:
			h.Nodes[i].Admitted, again[n.Node] = Seat, false
		case is != "":
			h.Nodes[i].Admitted, fresh[n.Node] = is, is == New
		default:
			h.Nodes[i].Admitted = Adopted
		}
		delete(standing, n.Node)
	}
	for _, name := range slices.Sorted(maps.Keys(standing)) {
		h.Nodes = append(h.Nodes, operate.NodeHealth{Node: name, Standing: operate.StandingSilent, Admitted: standing[name]})
	}
	h.Problems = slices.DeleteFunc(h.Problems, func(p operate.Problem) bool { return fresh[p.Node] })
	for _, name := range slices.Sorted(maps.Keys(again)) {
		if again[name] {
			h.Problems = append(h.Problems, operate.Problem{Node: name, What: "the key was revoked of the operator who accepted it: nodes that come later do not know it", Do: "kogge fleet accept " + name + " accepts it anew"})
		}
	}
}

// Waits are the nodes of a fleet that wait to be accepted.
func Waits(h operate.Health) (names []string) {
	for _, n := range h.Nodes {
		if n.Admitted == New {
			names = append(names, n.Node)
		}
	}
	return names
}

// each does something for every number below n, a few at a time.
func each(n int, do func(i int)) {
	limit := make(chan struct{}, atOnce)
	var done sync.WaitGroup
	for i := range n {
		limit <- struct{}{}
		done.Go(func() {
			defer func() { <-limit }()
			do(i)
		})
	}
	done.Wait()
}
