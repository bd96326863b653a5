// Package votes is what an operator and an owner say before their fleet decides: they propose, answer, and
// look at what waits. It needs no terminal.
//
// In come a keyring, the names of nodes, and what the nodes have; out go proposals and answers that are signed,
// an agenda ([agenda.Agenda]), and calls that bring and fetch them. What counts is the ledger's to say.
package votes

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/admission"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/cmd/kogge/votes/agenda"
	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/signed"
)

// Why nothing is proposed or answered.
var (
	// ErrFounded is of a fleet without a ledger: nobody votes there.
	ErrFounded = errors.New("the fleet is not founded: nobody votes yet")
	// ErrSilent is of nodes none of which says what waits.
	ErrSilent = errors.New("no node has told what waits to be decided")
	// ErrNowhere is of objects that no node has taken.
	ErrNowhere = errors.New("no node has taken it")
)

// Limits of a call to one node, and of what one may say.
const (
	callLimit = 10 * time.Second
	// asked is how many nodes are asked, and are given what is said. All seats pass it on.
	asked = 16
	// maxObjects is more than a docket and the opinions of all voters are.
	maxObjects = 16 << 10
)

// Board is what nodes say that waits.
type Board struct {
	agenda.Agenda
	Entries []ledger.Entry
	Told    []operate.Told // how each node answered that was asked
}

// Here is the ledger's state as the fleet's folder has it, without the operators who were revoked here. The error
// wraps [ErrFounded].
func Here(k *keyring.Keyring) (ledger.State, []ledger.Entry, error) {
	l, entries, err := operate.Ledger(k)
	if err != nil {
		return ledger.State{}, nil, err
	}
	if l.State().Height == 0 {
		return l.State(), nil, fmt.Errorf("fleet %s: %w", k.Genesis.Name, ErrFounded)
	}
	revoked, err := k.RevokedKeys()
	return l.State().Without(func(key string) bool { return slices.Contains(revoked, key) }), entries, err
}

// Look asks nodes what waits, takes the records of the ledger that they have more, and verifies everything by
// them. The error wraps [ErrFounded], [ErrSilent] or [operate.ErrFork].
func Look(ctx context.Context, k *keyring.Keyring, tell func(operate.Notice)) (Board, error) {
	s, _, err := Here(k)
	if err != nil {
		return Board{}, err
	}
	names, err := nodes(k, s)
	if err != nil {
		return Board{}, err
	}
	b := Board{}
	all := make([][][]byte, len(names))
	b.Told, err = calls(ctx, k, names, tell, func(ctx context.Context, c *api.Client, i int) (err error) {
		all[i], err = read(ctx, c)
		return err
	})
	if err != nil {
		return Board{}, err
	}
	var answered []string
	var failed error
	for _, n := range b.Told {
		if n.Err == nil {
			answered = append(answered, n.Node)
		}
		failed = errors.Join(failed, named(n))
	}
	if len(answered) == 0 {
		return b, errors.Join(fmt.Errorf("fleet %s: %w", k.Genesis.Name, ErrSilent), failed)
	}
	if _, err := operate.Gather(ctx, k, answered, tell); err != nil {
		return b, err
	}
	if s, b.Entries, err = Here(k); err != nil {
		return b, err
	}
	b.Agenda = agenda.Read(s, slices.Concat(all...))
	return b, nil
}

func named(n operate.Told) error {
	if n.Err == nil {
		return nil
	}
	return fmt.Errorf("node %s: %w", n.Node, n.Err)
}

// nodes are those who are asked: first those that let nodes in.
func nodes(k *keyring.Keyring, s ledger.State) ([]string, error) {
	names, err := admission.Tellers(k, s)
	return names[:min(len(names), asked)], err
}

// calls calls nodes, one beside the other.
func calls(ctx context.Context, k *keyring.Keyring, names []string, tell func(operate.Notice), do func(context.Context, *api.Client, int) error) ([]operate.Told, error) {
	known, err := operate.Nodes(k)
	if err != nil {
		return nil, err
	}
	told := make([]operate.Told, len(names))
	var done sync.WaitGroup
	for i, name := range names {
		done.Go(func() {
			limited, cancel := context.WithTimeout(ctx, callLimit)
			defer cancel()
			told[i] = operate.Told{Node: name, Err: operate.Remote{Keys: k, Name: name, Address: known[name].Address, Tell: tell}.Call(limited, func(ctx context.Context, c *api.Client) error {
				return do(ctx, c, i)
			})}
		})
	}
	done.Wait()
	return told, ctx.Err()
}

// read hears what one node has.
func read(ctx context.Context, c *api.Client) (all [][]byte, err error) {
	stream, err := c.Docket(ctx, connect.NewRequest(&apiv1.DocketRequest{}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for stream.Receive() {
		if all = append(all, stream.Msg().Objects...); len(all) > maxObjects {
			return nil, fmt.Errorf("it says that more than %d objects wait", maxObjects)
		}
	}
	return all, stream.Err()
}

// Submit brings objects to nodes, and returns how each took them: those that one has taken travel to the others.
// An object that is about another comes behind it. The error says that none has taken all, and wraps [ErrNowhere],
// and [docket.ErrGone] where that is why.
func Submit(ctx context.Context, k *keyring.Keyring, objects [][]byte, tell func(operate.Notice)) ([]operate.Told, error) {
	s, _, err := Here(k)
	if err != nil {
		return nil, err
	}
	names, err := nodes(k, s)
	if err != nil {
		return nil, err
	}
	told, err := calls(ctx, k, names, tell, func(ctx context.Context, c *api.Client, _ int) error {
		answer, err := c.Submit(ctx, connect.NewRequest(&apiv1.SubmitRequest{Objects: objects}))
		if err != nil {
			return err
		}
		if len(answer.Msg.Objects) != len(objects) {
			return fmt.Errorf("it answers about %d objects, and got %d", len(answer.Msg.Objects), len(objects))
		}
		for _, one := range answer.Msg.Objects {
			if one.Error != "" {
				return refused(one.Error)
			}
		}
		return nil
	})
	if err != nil {
		return told, err
	}
	var failed error
	for _, n := range told {
		if n.Err == nil {
			return told, nil
		}
		failed = errors.Join(failed, named(n))
	}
	return told, errors.Join(fmt.Errorf("fleet %s: %w", k.Genesis.Name, ErrNowhere), failed)
}

// refused is why a node has not taken an object, in its words.
type refused string

func (r refused) Error() string { return string(r) }

// Is says whether the node's words are those of an object that was decided, or left the queue.
func (r refused) Is(target error) bool {
	return target == docket.ErrGone && strings.Contains(string(r), docket.ErrGone.Error())
}

// Draft is a proposal that is not signed yet, or is.
type Draft struct {
	Value ledger.Value
	Why   string
	With  [][]byte // what goes along: requests for seats

	Envelope signed.Envelope // once it is sealed
	Number   uint64
	Lacks    error // what it needs besides votes; nil: nothing
}

// Seal signs a proposal with the operator's key and a number, after it was checked as the voters will: the error is
// theirs.
func (d *Draft) Seal(k *keyring.Keyring, b Board, number uint64) error {
	key, ok := k.Certificate().PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return errors.New("the operator's key is none that signs proposals")
	}
	d.Value.Version = 1
	e, err := proposal.Seal(b.State.Fleet(), key, number, proposal.Proposal{Height: b.State.Height, Value: d.Value.Encode(), Why: d.Why})
	if err == nil {
		_, _, err = b.State.Proposed(e)
	}
	switch {
	case errors.Is(err, ledger.ErrWithdrawn):
		return err
	case err != nil:
		return fmt.Errorf("%w: %s", agenda.ErrWish, agenda.Plain(err))
	}
	d.Envelope, d.Number, d.Lacks = e, number, b.Lacking(e, d.With...)
	return nil
}

// again is how often another number is tried, where a proposal of the same words and number was here before.
const again = 8

// Propose seals a proposal and gives it to nodes.
func Propose(ctx context.Context, k *keyring.Keyring, b Board, d *Draft, tell func(operate.Notice)) ([]operate.Told, error) {
	number := b.Number(b.Entries)
	for try := 0; ; try++ {
		if err := d.Seal(k, b, number); err != nil {
			return nil, err
		}
		told, err := Submit(ctx, k, append([][]byte{d.Envelope.Bytes()}, d.With...), tell)
		if !errors.Is(err, docket.ErrGone) || try == again {
			return told, err
		}
		number++
	}
}

// Answer is an owner's answer to an item, that nobody has signed. Its number is above that of the answer in whose
// place it comes.
func Answer(i agenda.Item, owner string, yes bool, why string, now time.Time) proposal.Answer {
	a := proposal.Answer{Version: 1, Proposal: i.ID, Owner: owner, Yes: yes, Number: now.Unix(), Why: why}
	for _, o := range i.Owners {
		if o.Name == owner && o.Answer != nil {
			a.Number = max(a.Number, o.Answer.Number+1)
		}
	}
	return a
}

// Paper is an answer on its way from owner to owner, with what it is about: each adds signatures, until they are
// enough. There is no secret in it.
type Paper struct {
	Version  int             `json:"version"`  // of this document: 1
	Proposal []byte          `json:"proposal"` // the envelope
	Answer   proposal.Answer `json:"answer"`
}

// ErrPaper is of a file that is no answer on its way.
var ErrPaper = errors.New("not an answer that travels")

// MaxPaper is the bytes of a paper, at most.
const MaxPaper = 256 << 10

// Encode writes a paper.
func (p Paper) Encode() ([]byte, error) {
	p.Version = 1
	return document.Encode(p)
}

// ParsePaper reads a paper, and verifies it by the ledger's state: what it is about, and each of the signatures that
// are there. The item has nothing that others have said. The error wraps [ErrPaper].
func ParsePaper(raw []byte, s ledger.State) (Paper, agenda.Item, error) {
	p, i, err := parsePaper(raw, s)
	if err != nil {
		return Paper{}, agenda.Item{}, fmt.Errorf("%w: %w", ErrPaper, err)
	}
	return p, i, nil
}

func parsePaper(raw []byte, s ledger.State) (p Paper, i agenda.Item, err error) {
	if len(raw) > MaxPaper {
		return p, i, fmt.Errorf("more than %d bytes", MaxPaper)
	}
	if p, err = document.DecodeExact[Paper](raw, 1); err != nil {
		return p, i, err
	}
	if p.Answer, err = proposal.ParseAnswer(p.Answer.Encode()); err != nil {
		return p, i, err
	}
	a := agenda.Read(s, [][]byte{p.Proposal})
	if len(a.Items) != 1 {
		return p, i, errors.New("field proposal: it is none that waits: it was decided, or is of another fleet, or of nobody who may propose")
	}
	if i = a.Items[0]; i.ID != p.Answer.Proposal {
		return p, i, errors.New("field answer.proposal: it is about another one")
	}
	owner, there := s.Roster.Owner(p.Answer.Owner)
	if !there {
		return p, i, fmt.Errorf("field answer.owner: the fleet has no owner %s", p.Answer.Owner)
	}
	return p, i, p.Answer.Verify(s.Fleet(), owner, 1)
}

// Sign adds an owner's signatures to an answer, up to as many as are needed, and says whether they are enough, and
// how many are new.
func Sign(s ledger.State, a *proposal.Answer, keys keyring.OwnerKeys, needed int) (news int) {
	var have []int
	for _, one := range a.Signatures {
		have = append(have, one.By)
	}
	more := keys.Without(have...).Sign(a.Bytes(s.Fleet()), max(0, needed-len(have)))
	a.Signatures = append(slices.Clip(a.Signatures), more...)
	slices.SortFunc(a.Signatures, func(x, y signed.Signature) int { return x.By - y.By })
	return len(more)
}
