package wrapped_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/wrapped"
	"kogge.example/update/golden"
)

// ca is a CA with its key.
func ca(t testing.TB) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	der, key, err := fleet.NewCA("hanse", fleet.KindNode, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ledgertest.Must[*x509.Certificate](t)(x509.ParseCertificate(der)), key
}

// TestWrap opens for one seat of one fleet, and for one CA.
func TestWrap(t *testing.T) {
	cert, key := ca(t)
	other, _ := ca(t)
	own, foreign := ledgertest.Must[*ecdh.PrivateKey](t)(wrapped.NewKey()), ledgertest.Must[*ecdh.PrivateKey](t)(wrapped.NewKey())
	whom := wrapped.For{Fleet: document.HashOf([]byte("fleet")), Seat: ledgertest.Key(t, "n1"), CA: wrapped.CAOf(cert)}
	sealed, err := wrapped.Wrap(key, own.PublicKey().Bytes(), whom)
	if err != nil || len(sealed) != wrapped.Size {
		t.Fatalf("%d bytes, %v", len(sealed), err)
	}
	if got, err := wrapped.Open(sealed, own, whom); err != nil || !got.Equal(key) {
		t.Errorf("%v", err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, wrapped.ErrWrapped) {
			t.Errorf("%s: %v", what, err)
		}
	}
	open := func(sealed []byte, whom wrapped.For) error { _, err := wrapped.Open(sealed, own, whom); return err }
	_, err = wrapped.Open(sealed, foreign, whom)
	refused("another node", err)
	fleets, seats, cas := whom, whom, whom
	fleets.Fleet[0] ^= 1
	seats.Seat = ledgertest.Key(t, "n2")
	cas.CA = wrapped.CAOf(other)
	refused("another fleet", open(sealed, fleets))
	refused("another seat", open(sealed, seats))
	refused("another CA", open(sealed, cas))
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		refused("a byte changed", open(bad, whom))
	}
	refused("cut", open(sealed[:len(sealed)-1], whom))
	refused("nothing", open(nil, whom))
	// Somebody who does not know the CA's key wraps one of his own.
	_, mine := ca(t)
	forged := ledgertest.Must[[]byte](t)(wrapped.Wrap(mine, own.PublicKey().Bytes(), whom))
	refused("another key", open(forged, whom))
	for what, to := range map[string][]byte{"a point of small order": make([]byte, 32), "no key": nil} {
		if _, err := wrapped.Wrap(key, to, whom); err == nil {
			t.Errorf("wrapped for %s", what)
		}
	}
}

// TestGolden opens what was wrapped once.
func TestGolden(t *testing.T) {
	own := ledgertest.Must[*ecdh.PrivateKey](t)(wrapped.ParseKey(bytes.Repeat([]byte{7}, wrapped.KeySize)))
	const file = "testdata/v1.hex"
	if _, err := os.Stat(file); golden.Updating() && errors.Is(err, os.ErrNotExist) {
		cert, key := ca(t)
		whom := wrapped.For{Fleet: document.HashOf([]byte("fleet")), Seat: ledgertest.Key(t, "n1"), CA: wrapped.CAOf(cert)}
		sealed := ledgertest.Must[[]byte](t)(wrapped.Wrap(key, own.PublicKey().Bytes(), whom))
		golden.Compare(t, "v1.hex", hex.EncodeToString(sealed)+"\n"+whom.CA.String()+"\n")
	}
	lines := strings.Fields(string(ledgertest.Must[[]byte](t)(os.ReadFile(file))))
	whom := wrapped.For{Fleet: document.HashOf([]byte("fleet")), Seat: ledgertest.Key(t, "n1"), CA: ledgertest.Must[document.Hash](t)(document.ParseHash(lines[1]))}
	if _, err := wrapped.Open(ledgertest.Must[[]byte](t)(hex.DecodeString(lines[0])), own, whom); err != nil {
		t.Error(err)
	}
}

// FuzzOpen has bytes of strangers.
func FuzzOpen(f *testing.F) {
	own, err := wrapped.ParseKey(bytes.Repeat([]byte{7}, wrapped.KeySize))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(make([]byte, wrapped.Size))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if key, err := wrapped.Open(raw, own, wrapped.For{}); err == nil {
			t.Errorf("%x holds %v", raw, key.PublicKey)
		}
	})
}
