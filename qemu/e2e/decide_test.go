package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// decide is the command of the scripts in which the fleet decides that somebody is an operator: all
// nodes of the script sign, with the keys of their seats. A node takes the record, and the others
// hear of it.
func decide(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: decide OPERATOR NODE")
	}
	b := ts.Value(benchKey{}).(*bench)
	ctx, cancel := context.WithTimeoutCause(b.ctx, b.limit, fmt.Errorf("nothing within %s", b.limit))
	defer cancel()
	dir := filepath.Join(ts.Getenv("KOGGE_CONFIG"), ts.Getenv("KOGGE_FLEET"))
	state, err := stateOf(filepath.Join(dir, "ledger.txt"))
	ts.Check(err)
	entry, err := b.decided(ctx, state, args[0])
	ts.Check(err)
	ada, err := operatorOf(dir)
	ts.Check(err)
	request, err := json.Marshal(map[string]any{"entry": map[string]any{
		"height": fmt.Sprint(state.Height + 1), "record": entry.Record, "value": entry.Value, "certificate": entry.Certificate,
	}})
	ts.Check(err)
	_, err = ada.api(ctx, ts.Getenv(args[1]+"_7443"), "FleetService/Take", string(request))
	ts.Check(err)
}

// operatorOf is the operator whose fleet's folder this is.
func operatorOf(dir string) (visit, error) {
	text, err := os.ReadFile(filepath.Join(dir, "operator.key"))
	if err != nil {
		return visit{}, err
	}
	key, err := document.DecodeKey[*ecdsa.PrivateKey](text)
	if err != nil {
		return visit{}, err
	}
	if text, err = os.ReadFile(filepath.Join(dir, "operator.crt")); err != nil {
		return visit{}, err
	}
	der, err := document.DecodePEM(document.CertificateBlock, text)
	if err != nil {
		return visit{}, err
	}
	return visitBy("ada", [][]byte{der}, key)
}

// stateOf is what a ledger in a file has decided.
func stateOf(file string) (ledger.State, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return ledger.State{}, err
	}
	f, err := ledger.OpenFile(bytes.NewReader(raw))
	if err != nil {
		return ledger.State{}, err
	}
	l, _, err := ledger.Read(bytes.NewReader(raw), f.Genesis)
	return l.State(), err
}

// decided is the record that follows, by the votes of all seats whose VMs run.
func (b *bench) decided(ctx context.Context, s ledger.State, operator string) (ledger.Entry, error) {
	key, err := fleet.NewKey()
	if err != nil {
		return ledger.Entry{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return ledger.Entry{}, err
	}
	v := ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{{Name: operator, Role: fleet.RoleReader, Key: document.HashOf(spki)}}}}
	r, err := s.Next(v)
	if err != nil {
		return ledger.Entry{}, err
	}
	c := ledger.Certificate{Version: 1}
	for _, seat := range s.Roster.Seats {
		n := b.vms[seat.Name]
		if n == nil || n.vm == nil || !n.vm.Running() || !seat.Vote {
			continue
		}
		text, err := n.ask(ctx, command{Op: "read", Args: []string{"/state/identity/seat.json"}})
		if err != nil {
			return ledger.Entry{}, err
		}
		var own struct {
			Key []byte `json:"key"` // the seed
		}
		if err := json.Unmarshal([]byte(text), &own); err != nil {
			return ledger.Entry{}, err
		}
		c.Seats = append(c.Seats, signed.Sign(seat.Number, ed25519.NewKeyFromSeed(own.Key), ledger.PrecommitBytes(r, c.Round, s.Tree)))
	}
	return ledger.Entry{Record: r.Encode(), Value: v.Encode(), Certificate: c.Encode()}, nil
}
