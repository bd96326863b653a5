package keyring

import (
	"cmp"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// TokenLife is how long a token is good if nobody says otherwise.
const TokenLife = 30 * 24 * time.Hour

// keepTokens is how long an expired token stays in the list.
const keepTokens = 90 * 24 * time.Hour

// Why a token does not let a node in.
var (
	ErrTokenUnknown = errors.New("no token of this fleet matches")
	ErrTokenUsed    = errors.New("token is used up")
	ErrTokenExpired = errors.New("token has expired")
	ErrTokenNode    = errors.New("token is for another node")
)

// Terms are what a token is good for.
type Terms struct {
	Node  string        // the one node name that it lets in; "": any
	Count int           // how many nodes it lets in; 0: one
	Life  time.Duration // from now; 0: TokenLife
	// Labels are attested of the nodes that come in by it, in a founded fleet.
	Labels notice.Labels
	// Founded says that members of the fleet can let nodes in: the node CA's key need not be here.
	Founded bool
}

// IssuedToken is a token that the fleet gave out.
type IssuedToken struct {
	ID      string
	Token   fleet.Token
	Node    string
	Count   int
	Issued  time.Time
	Expires time.Time
	Used    []Use // in order; at most Count
}

// Use is one node that came in by a token.
type Use struct {
	Node string    `json:"node"`
	Key  string    `json:"key"` // as in Peer.Key
	At   time.Time `json:"at"`
}

// tokensFile is tokens.json.
type tokensFile struct {
	Version int           `json:"version"`
	Tokens  []tokenRecord `json:"tokens"`
}

const tokensVersion = 1

type tokenRecord struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Node    string    `json:"node,omitempty"`
	Count   int       `json:"count"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	Used    []Use     `json:"used,omitempty"`
}

// State says in a word where the token stands: open, used or expired.
func (t IssuedToken) State(now time.Time) string {
	switch {
	case len(t.Used) >= t.Count:
		return "used"
	case now.After(t.Expires):
		return "expired"
	}
	return "open"
}

// admits says whether the token lets a node with this name and key in. A node that came
// in by it may come again: its certificate may have been lost on the way.
func (t IssuedToken) admits(node, key string, now time.Time) error {
	if t.Node != "" && t.Node != node {
		return fmt.Errorf("token %s: %w: it is for %s", t.ID, ErrTokenNode, t.Node)
	}
	if slices.ContainsFunc(t.Used, func(u Use) bool { return u.Key == key }) {
		return nil
	}
	if len(t.Used) >= t.Count {
		last := t.Used[len(t.Used)-1]
		return fmt.Errorf("token %s: %w: node %s used it on %s", t.ID, ErrTokenUsed, last.Node, last.At.Format(time.DateOnly))
	}
	if now.After(t.Expires) {
		return fmt.Errorf("token %s: %w on %s", t.ID, ErrTokenExpired, t.Expires.Format(time.DateOnly))
	}
	return nil
}

// NewToken makes a token and notes it in the fleet's folder, durably, before it tells.
func (k *Keyring) NewToken(terms Terms, now time.Time) (IssuedToken, error) {
	t := IssuedToken{Token: fleet.NewToken(), Node: terms.Node, Count: terms.Count, Issued: now.UTC().Truncate(time.Second)}
	t.ID = t.Token.ID()
	if t.Count == 0 {
		t.Count = 1
	}
	if terms.Life == 0 {
		terms.Life = TokenLife
	}
	t.Expires = t.Issued.Add(terms.Life)
	err := terms.check()
	if err == nil && k.nodeCA == nil && !terms.Founded {
		err = fmt.Errorf("node CA: %w", ErrNoKey) // nobody here could keep the promise
	}
	if err == nil {
		err = tokenList.edit(k, func(all []IssuedToken) ([]IssuedToken, error) {
			all = slices.DeleteFunc(all, func(old IssuedToken) bool { return now.Sub(old.Expires) > keepTokens })
			return append(all, t), nil
		})
	}
	if err != nil {
		return IssuedToken{}, fmt.Errorf("fleet %s: new token: %w", k.Genesis.Name, err)
	}
	return t, nil
}

func (t Terms) check() error {
	if t.Node != "" {
		if err := fleet.CheckName(t.Node); err != nil {
			return err
		}
		if t.Count > 1 {
			return fmt.Errorf("a token for node %s lets in one node, not %d", t.Node, t.Count)
		}
	}
	if t.Count < 0 || t.Count > 10_000 {
		return fmt.Errorf("a token for %d nodes: 1 to 10000", t.Count)
	}
	if t.Life < 0 {
		return fmt.Errorf("a token that expired %v ago", -t.Life)
	}
	if t.Founded && t.Count > token.MaxCount {
		return fmt.Errorf("a token for %d nodes: %d at most, in a founded fleet", t.Count, token.MaxCount)
	}
	if !t.Founded && len(t.Labels) > 0 {
		return errors.New("labels are attested in a founded fleet: the fleet is not, as far as this computer knows")
	}
	return t.Labels.Check("labels")
}

// Key is the token's public key, by which a founded fleet calls it.
func (t IssuedToken) Key() (signed.Key, error) { return token.KeyOf(t.Token) }

// TokenRecord is what this operator says of a token that he has given out, in a founded fleet:
// with it any member can let the node in. The error is also of a key that is not here.
func (k *Keyring) TokenRecord(t IssuedToken, labels notice.Labels, s ledger.State) (token.Paper, error) {
	key, err := t.Key()
	if err != nil {
		return token.Paper{}, err
	}
	own, id, err := k.signer()
	if err != nil {
		return token.Paper{}, err
	}
	return token.Issue(id, token.Record{
		Version: 1, Key: key, Node: t.Node, Count: t.Count, Labels: labels, Height: s.Height, Root: s.Tree, Expires: t.Expires.UTC().Truncate(time.Second),
	}, own)
}

// EndToken is the end of a token, signed by this operator. expires is when it would have been over by
// itself; zero: nobody knows.
func (k *Keyring) EndToken(key signed.Key, expires time.Time) (token.Paper, error) {
	own, id, err := k.signer()
	if err != nil {
		return token.Paper{}, err
	}
	if !expires.IsZero() {
		expires = expires.UTC().Truncate(time.Second)
	}
	return token.Revoke(id, key, expires, own)
}

// AcceptNode is the acceptance of a node, by the key that it has for its seat and the one of its
// certificate, signed by this operator. labels are attested of it; none: nothing is.
func (k *Keyring) AcceptNode(node signed.Key, tlsKey document.Hash, name string, labels notice.Labels, now time.Time) (token.Paper, error) {
	own, id, err := k.signer()
	if err != nil {
		return token.Paper{}, err
	}
	a := token.Accept{Version: 1, Node: node, Name: name, TLSKey: tlsKey, Number: now.Unix()}
	if len(labels) > 0 {
		if a.Attested, err = notice.Attest(id, node, labels, own); err != nil {
			return token.Paper{}, err
		}
	}
	return token.SignAccept(id, a, own)
}

// signer is this operator's key, and the fleet's id.
func (k *Keyring) signer() (*ecdsa.PrivateKey, document.Hash, error) {
	id, err := document.ParseHash(k.Genesis.ID())
	key, ok := k.me.PrivateKey.(*ecdsa.PrivateKey)
	if err == nil && !ok {
		err = ErrNoKey
	}
	return key, id, err
}

// NodeCA is the key of the node CA, for those who are to hold it. The error wraps [ErrNoKey].
func (k *Keyring) NodeCA() (*ecdsa.PrivateKey, error) {
	if k.nodeCA == nil {
		return nil, fmt.Errorf("node CA: %w", ErrNoKey)
	}
	return k.nodeCA, nil
}

// Tokens are the tokens that were given out, the oldest first.
func (k *Keyring) Tokens() ([]IssuedToken, error) { return tokenList.all(k) }

// findToken returns the token that a node proved with mac. The error wraps
// [ErrTokenUnknown].
func (k *Keyring) findToken(spki, nonce, mac []byte) (IssuedToken, error) {
	all, err := k.Tokens()
	if err != nil {
		return IssuedToken{}, err
	}
	for _, t := range all {
		if fleet.CheckMac(t.Token, k.Genesis.ID(), spki, nonce, mac) {
			return t, nil
		}
	}
	return IssuedToken{}, fmt.Errorf("fleet %s: %w", k.Genesis.Name, ErrTokenUnknown)
}

// useToken notes, durably, that a node came in by the token called id. The same key
// may come again. The error wraps ErrToken… where the token does not let it in.
func (k *Keyring) useToken(id, node, key string, now time.Time) error {
	err := tokenList.edit(k, func(all []IssuedToken) ([]IssuedToken, error) {
		i := slices.IndexFunc(all, func(t IssuedToken) bool { return t.ID == id })
		if i < 0 {
			return nil, ErrTokenUnknown
		}
		if err := all[i].admits(node, key, now); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all[i].Used, func(u Use) bool { return u.Key == key }) {
			all[i].Used = append(all[i].Used, Use{Node: node, Key: key, At: now.UTC().Truncate(time.Second)})
		}
		return all, nil
	})
	if err != nil {
		return fmt.Errorf("fleet %s: node %s: %w", k.Genesis.Name, node, err)
	}
	return nil
}

// AdoptNode takes a node's answer to nonce: it finds the token that mac proves, signs
// the request's key as name and notes the use before it returns the certificate in
// DER. A name of "" is that of the token, or else the node's own, hostname. That the
// answer came from who holds the key is for the connection to show: the key of the TLS
// certificate has to be the request's, see [fleet.RequestKey].
func (k *Keyring) AdoptNode(csr, nonce, mac []byte, name, hostname string, now time.Time) ([]byte, error) {
	_, spki, err := fleet.RequestKey(csr)
	if err != nil {
		return nil, fmt.Errorf("fleet %s: certificate of a node: %w", k.Genesis.Name, err)
	}
	t, err := k.findToken(spki, nonce, mac)
	if err != nil {
		return nil, err
	}
	name = cmp.Or(name, t.Node, hostname)
	der, err := k.SignNode(csr, name, now)
	if err != nil {
		return nil, err
	}
	if err := k.useToken(t.ID, name, fleet.KeyID(spki), now); err != nil {
		return nil, err
	}
	return der, nil
}

// tokenList is tokens.json.
var tokenList = list[IssuedToken]{name: tokensName, most: 16 << 20, parse: parseTokens, file: func(all []IssuedToken) any {
	file := tokensFile{Version: tokensVersion, Tokens: []tokenRecord{}}
	for _, t := range all {
		file.Tokens = append(file.Tokens, tokenRecord{t.ID, t.Token.Text(), t.Node, t.Count, t.Issued, t.Expires, t.Used})
	}
	return file
}}

func parseTokens(raw []byte) ([]IssuedToken, error) {
	var file tokensFile
	if err := document.Decode(raw, tokensVersion, &file); err != nil {
		return nil, err
	}
	var all []IssuedToken
	for _, r := range file.Tokens {
		secret, err := fleet.ParseToken(r.Token)
		if err != nil {
			return nil, fmt.Errorf("token %s: %w", r.ID, err)
		}
		if r.ID != secret.ID() {
			return nil, fmt.Errorf("token %s: its id should be %s", r.ID, secret.ID())
		}
		if r.Count < 1 || len(r.Used) > r.Count {
			return nil, fmt.Errorf("token %s: used %d times of %d", r.ID, len(r.Used), r.Count)
		}
		all = append(all, IssuedToken{r.ID, secret, r.Node, r.Count, r.Issued, r.Expires, r.Used})
	}
	return all, nil
}
