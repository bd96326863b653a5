package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// TestUpgradeOnce: a fleet has one successor, whether a folder here says so or a node.
func TestUpgradeOnce(t *testing.T) {
	config := t.TempDir()
	t.Setenv("KOGGE_CONFIG", config)
	old := oldFleet(t, filepath.Join(config, "hanse"))
	bad := func(as string, want ...string) {
		t.Helper()
		out, err := upgradeTo(t, old, as)
		for _, text := range want {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("--as %s: %s, %v: want %s", as, out, err, text)
			}
		}
		if _, err := os.Stat(filepath.Join(config, as)); err == nil && as != "one" {
			t.Errorf("--as %s: there is a second successor", as)
		}
	}
	if out, err := upgradeTo(t, old, "one"); err != nil || !strings.Contains(out, "0 nodes are in it") {
		t.Fatal(out, err)
	}
	one, err := keyring.Load(filepath.Join(config, "one"))
	must(t, err)
	bad("two", "has a successor already", "fleet one, "+one.Genesis.ID())
	// The successor was made on another computer.
	must(t, os.Rename(one.Dir, filepath.Join(t.TempDir(), "one")))
	address, stop := shows(t, one, "n1")
	must(t, operate.RememberNode(old, "n1", operate.Node{Address: address, Adopted: time.Now(), Until: time.Now().AddDate(1, 0, 0)}))
	bad("two", "has a successor already", old.Genesis.ID(), one.Genesis.ID())
	stop()
	bad("two", "none of its nodes answers")
	// Two folders came from two computers: nodes of the other one are named.
	nodes := filepath.Join(old.Dir, "nodes.json")
	must(t, os.Rename(nodes, nodes+".away"))
	if out, err := upgradeTo(t, old, "two"); err != nil {
		t.Fatal(out, err)
	}
	address, _ = shows(t, one, "n1")
	must(t, operate.RememberNode(old, "n1", operate.Node{Address: address, Adopted: time.Now(), Until: time.Now().AddDate(1, 0, 0)}))
	must(t, operate.RememberNode(old, "n2", operate.Node{Address: "127.0.0.1:1"}))
	out, err := upgradeTo(t, old, "two")
	if err == nil || !strings.Contains(err.Error(), "fleet two: 0 nodes are in it, 1 are in another successor: n1, and 1 have not come over: n2") || !strings.Contains(out, one.Genesis.ID()) {
		t.Errorf("%s, %v", out, err)
	}
}

// oldFleet is the folder of a fleet of version 1.
func oldFleet(t *testing.T, dir string) *keyring.Keyring {
	t.Helper()
	k, err := keyring.Create("hanse", "ada", time.Now())
	must(t, err)
	must(t, k.Save(dir, ""))
	old := *k
	old.Genesis = ledgertest.Version1(t, k.Genesis)
	csr, err := fleet.NewRequest(k.Certificate().PrivateKey.(*ecdsa.PrivateKey))
	must(t, err)
	der, err := old.SignOperator(csr, "ada", fleet.RoleAdmin, time.Now())
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "genesis.json"), old.Genesis.Bytes(), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "operator.crt"), keyring.EncodeCertificate(der), 0o600))
	loaded, err := keyring.Load(dir)
	must(t, err)
	return loaded
}

func upgradeTo(t *testing.T, old *keyring.Keyring, as string) (string, error) {
	t.Helper()
	root := rootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs([]string{"fleet", "upgrade", "hanse", "--as", as, "--sheet", old.Sheets()[0]})
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// shows answers with a certificate of a fleet for a node, and nothing more.
func shows(t *testing.T, k *keyring.Keyring, name string) (address string, stop func()) {
	t.Helper()
	key, err := fleet.NewKey()
	must(t, err)
	csr, err := fleet.NewRequest(key)
	must(t, err)
	der, err := k.SignNode(csr, name, time.Now())
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			c.(*tls.Conn).HandshakeContext(t.Context())
			c.Close()
		}
	}()
	stop = func() { server.Close(); <-over }
	t.Cleanup(stop)
	return l.Addr().String(), stop
}
