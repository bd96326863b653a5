package identity

import (
	"fmt"
	"net/netip"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/token"
)

// Enrolment is what a node needs to come into its fleet by itself: a token, what an operator has
// said of it, and where members may answer.
type Enrolment struct {
	Token   fleet.Token
	Record  token.Paper
	Members []netip.AddrPort
}

const (
	enrolmentName    = "enrolment.json"
	enrolmentVersion = 1
	maxMembers       = 16
)

// enrolmentFile has no secret in it, and stays when the node is in: it tells how it came.
type enrolmentFile struct {
	Version int              `json:"version"`
	Record  []byte           `json:"record,omitempty"` // of the token; none: an operator's computer takes the node in
	Members []netip.AddrPort `json:"members,omitempty"`
	Came    bool             `json:"came,omitempty"` // the node came by the token, and by nobody's hand
	Use     []byte           `json:"use,omitempty"`  // of the token: the proof of that
}

// readEnrolment reads how the node is to come into its fleet, or came. One that cannot be read
// may have said that the node is new, so it is.
func (n *Node) readEnrolment() {
	n.read(enrolmentName, func(raw []byte) (err error) {
		n.enrolment, err = parseEnrolment(raw)
		return err
	})
	if n.damaged.has(enrolmentName) {
		n.enrolment = enrolmentFile{Version: enrolmentVersion, Came: true}
	}
}

func parseEnrolment(raw []byte) (enrolmentFile, error) {
	if len(raw) > fleet.MaxGenesis {
		return enrolmentFile{}, fmt.Errorf("%d bytes: %d at most", len(raw), fleet.MaxGenesis)
	}
	f, err := document.DecodeExact[enrolmentFile](raw, enrolmentVersion)
	if err == nil && len(f.Record) > 0 {
		_, err = token.ParsePaper(f.Record)
	}
	if err == nil && len(f.Use) > 0 {
		_, err = token.OpenUse(f.Use)
	}
	return f, err
}

// enrols writes how the node is to come into its fleet, if that is something else than before.
// n.mu is held.
func (n *Node) enrols(f enrolmentFile) error {
	f.Version = enrolmentVersion
	raw, err := document.Encode(f)
	if err != nil {
		return err
	}
	whole := !n.damaged.has(enrolmentName)
	if before, err := document.Encode(n.enrolment); whole && err == nil && string(before) == string(raw) {
		return nil
	}
	if n.enrolment.Version == 0 && len(f.Record) == 0 && !f.Came {
		return nil // there is no file, and none is needed
	}
	if err := n.damaged.aside(n.files, enrolmentName); err != nil {
		return err
	}
	if err := n.files.Replace(enrolmentName, raw); err != nil {
		return err
	}
	delete(n.damaged, enrolmentName)
	n.enrolment = f
	return nil
}

// Enrolment is what the node comes into its fleet by; false: it is in, or waits for an operator.
func (n *Node) Enrolment() (Enrolment, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.m.chain != nil || n.m.token.IsZero() || len(n.enrolment.Record) == 0 {
		return Enrolment{}, false
	}
	record, err := token.ParsePaper(n.enrolment.Record)
	if err != nil {
		return Enrolment{}, false // it was read before
	}
	return Enrolment{n.m.token, record, n.enrolment.Members}, true
}

// Came says whether the node came into its fleet by a token alone: until an operator accepts it,
// it is new there.
func (n *Node) Came() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.m.chain != nil && n.enrolment.Came
}

// Use is the proof that the node came by its token, which it shows until it is accepted: who let it in
// may have told nobody. nil: there is none.
func (n *Node) Use() []byte {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.m.chain == nil || !n.enrolment.Came {
		return nil
	}
	return n.enrolment.Use
}

// Members are where members of the fleet answered when the token was given out.
func (n *Node) Members() []netip.AddrPort {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.enrolment.Members
}

// Enrol takes the certificate that a member has signed for the token, in DER, and forgets the
// token. After a power cut the node has the token or the certificate, and never the certificate
// without the note that it is new:
//
//  1. check the certificate
//  2. note that the node came by its token
//  3. take the certificate, and forget the token
func (n *Node) Enrol(certDER []byte, chain ...[]byte) error {
	return n.EnrolKnowing(nil, nil, certDER, chain...)
}

// EnrolKnowing is [Node.Enrol] by a member that calls keys revoked, which are noted first: see
// [Node.Told]. use is the proof of the token, which is kept with the note.
func (n *Node) EnrolKnowing(told []string, use, certDER []byte, chain ...[]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m.chain != nil {
		return fmt.Errorf("enrol: %w", ErrAdopted)
	}
	if n.m.genesis == nil || len(n.enrolment.Record) == 0 {
		return fmt.Errorf("enrol: %w", ErrNoJoin)
	}
	m := n.m.with(certDER, chain)
	if _, err := n.verify(m); err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	if err := n.tell(told); err != nil { // another one may have told it others, before a cut
		return fmt.Errorf("enrol: %w", err)
	}
	f := n.enrolment
	f.Came, f.Use = true, use
	err := n.enrols(f)
	if err == nil {
		err = n.change(m)
	}
	if err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	return nil
}
