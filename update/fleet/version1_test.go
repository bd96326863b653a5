package fleet

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"kogge.example/update/fleet/document"
)

// TestVersion1 reads what the first release wrote, once: a genesis, and the
// certificate of the operator who founded the fleet. They are never written again.
func TestVersion1(t *testing.T) {
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join("testdata", "v1", name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	g, err := ParseGenesis(read("genesis.json"))
	if err != nil {
		t.Fatal(err)
	}
	if g.ID() != "c5f338aa5c19c864c684ec762caa7e582c923de90ed828c3856e104a84e60454" {
		t.Errorf("fleet id is %s", g.ID())
	}
	der, err := document.DecodePEM(document.CertificateBlock, read("operator.crt"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if peer, err := g.VerifyPeer(cert, nil, today, true, nil); err != nil || peer.String() != "operator ada (admin)" {
		t.Errorf("%v, %v", peer, err)
	}
	if !g.FirstOperator.Equal(cert.PublicKey) {
		t.Error("the genesis names another founder")
	}
}
