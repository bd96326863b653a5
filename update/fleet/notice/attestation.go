package notice

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// Attestation is an operator's word for labels of a node. It is for the node's key, so no
// other node can wear it.
type Attestation struct {
	Labels    Labels `json:"labels"`
	Issuer    []byte `json:"issuer"`    // the operator's public key: P-256 SubjectPublicKeyInfo in DER
	Signature []byte `json:"signature"` // ECDSA in ASN.1 over the SHA-256 of what it says
}

// ErrAttestation is of labels that nobody has attested who may.
var ErrAttestation = errors.New("the labels are not attested")

const (
	maxIssuer    = 128 // bytes; one of P-256 has 91
	maxSignature = 80  // bytes; 72 at most on P-256
)

// Check says what is wrong with an attestation by itself: not who has signed it.
func (a Attestation) Check() error {
	if len(a.Labels) == 0 {
		return errors.New("field attested.labels: there are none")
	}
	if len(a.Issuer) > maxIssuer || len(a.Signature) > maxSignature {
		return fmt.Errorf("field attested: a key of %d bytes, a signature of %d", len(a.Issuer), len(a.Signature))
	}
	return a.Labels.Check("attested.labels")
}

// bytes are what an operator signs.
func (a Attestation) bytes(fleet document.Hash, node signed.Key) []byte {
	fields := [][]byte{fleet[:], []byte(node)}
	for _, name := range slices.Sorted(maps.Keys(a.Labels)) {
		fields = append(fields, []byte(name), []byte(a.Labels[name]))
	}
	sum := sha256.Sum256(document.Message("kogge/labels/v1", fields...))
	return sum[:]
}

// Attest signs labels for the node of a key with an operator's key.
func Attest(fleetID document.Hash, node signed.Key, labels Labels, operator *ecdsa.PrivateKey) (*Attestation, error) {
	a := &Attestation{Labels: labels}
	_, err := fleet.P256(&operator.PublicKey)
	if err == nil {
		a.Issuer, err = x509.MarshalPKIXPublicKey(&operator.PublicKey)
	}
	if err == nil {
		a.Signature, err = ecdsa.SignASN1(rand.Reader, operator, a.bytes(fleetID, node))
	}
	if err == nil {
		err = a.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("attest labels: %w", err)
	}
	return a, nil
}

// Verify says by which operator the labels of a node are attested: one whom the ledger lists
// today as an admin. The error wraps [ErrAttestation].
func (a Attestation) Verify(s ledger.State, node signed.Key) (ledger.Operator, error) {
	operator, ok := s.Operator(document.HashOf(a.Issuer))
	if !ok || !operator.Role.AtLeast(fleet.RoleAdmin) {
		return ledger.Operator{}, fmt.Errorf("%w: key %s is no admin of the fleet's ledger", ErrAttestation, document.HashOf(a.Issuer).Short())
	}
	key, err := x509.ParsePKIXPublicKey(a.Issuer)
	if err != nil {
		return ledger.Operator{}, fmt.Errorf("%w: the key of %s: %w", ErrAttestation, operator.Name, err)
	}
	p256, err := fleet.P256(key)
	if err != nil {
		return ledger.Operator{}, fmt.Errorf("%w: the key of %s: %w", ErrAttestation, operator.Name, err)
	}
	if !ecdsa.VerifyASN1(p256, a.bytes(s.Fleet(), node), a.Signature) {
		return ledger.Operator{}, fmt.Errorf("%w: the signature is not that of %s for this node", ErrAttestation, operator.Name)
	}
	return operator, nil
}
