package signed

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"

	"kogge.example/update/fleet/document"
)

func operator(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestOperator seals with an operator's key: the envelope is read as any other, by its bytes
// alone, and passes for no seat's.
func TestOperator(t *testing.T) {
	key := operator(t, elliptic.P256())
	e, err := SealByOperator("kogge/test/v1", fleetID, key, 7, []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(e.Bytes())
	if err != nil || got.Verify() != nil || got.By != e.By || string(got.Body) != "body" {
		t.Fatalf("%+v, %v, %v", got, err, got.Verify())
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := got.By.Operator(); !ok || id != document.HashOf(spki) {
		t.Errorf("the ledger would not find the key: %v, %v", id, ok)
	}
	if _, err := Open(e.Bytes()); !errors.Is(err, ErrKey) {
		t.Errorf("taken for a seat's: %v", err)
	}
	if _, err := ParseKey([]byte(e.By)); !errors.Is(err, ErrKey) {
		t.Errorf("taken for the key of a seat or an owner: %v", err)
	}
	if _, ok := seal(t, nil).By.Operator(); ok {
		t.Error("a seat's key is taken for an operator's")
	}
	for i := range e.Bytes() {
		bad := bytes.Clone(e.Bytes())
		bad[i] ^= 1
		if other, err := Parse(bad); err == nil && other.Verify() == nil {
			t.Errorf("byte %d changed: taken", i)
		}
	}
	if _, err := SealByOperator("kogge/test/v1", fleetID, operator(t, elliptic.P384()), 7, nil); !errors.Is(err, ErrKey) {
		t.Errorf("a key on P-384: %v", err)
	}
}

// TestOperatorTwice: whoever has a signature can make a second one of the same message. It is the
// same object.
func TestOperatorTwice(t *testing.T) {
	e, err := SealByOperator("kogge/test/v1", fleetID, operator(t, elliptic.P256()), 7, []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	s := new(big.Int).SetBytes(e.Signature()[scalarSize:])
	second := bytes.Clone(e.Signature())
	s.Sub(elliptic.P256().Params().N, s).FillBytes(second[scalarSize:])
	again := e.Again(7, second)
	if again.Verify() != nil || bytes.Equal(again.Bytes(), e.Bytes()) || !bytes.Equal(again.Message(), e.Message()) {
		t.Errorf("%v", again.Verify())
	}
}
