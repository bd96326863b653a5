package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// TestOperatorAfterAbsence renews bob's certificate a year and a half after it was
// over, by the two files that go between him and ada.
func TestOperatorAfterAbsence(t *testing.T) {
	ada, bob, letters := t.TempDir(), t.TempDir(), t.TempDir()
	then := time.Now().AddDate(0, -30, 0)
	f, err := keyring.Create("hanse", "ada", then)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Save(filepath.Join(ada, "hanse"), ""); err != nil {
		t.Fatal(err)
	}
	i, err := f.Invite("bob", fleet.RoleReader, 0, then)
	if err != nil {
		t.Fatal(err)
	}
	j, err := keyring.Accept(bob, "hanse", i, then)
	if err != nil {
		t.Fatal(err)
	}
	der, err := f.SignRequest(j.Request, then)
	if err != nil {
		t.Fatal(err)
	}
	old, err := keyring.DecodeCertificate(keyring.EncodeCertificate(der))
	if err != nil {
		t.Fatal(err)
	}
	folder, err := keyring.InstallOperator(bob, old, then)
	if err != nil {
		t.Fatal(err)
	}
	if said := renew(folder); !strings.Contains(said, "to ask for a new one: kogge operator renew --fleet hanse") {
		t.Errorf("says %q", said)
	}

	request, certificate := filepath.Join(letters, "request"), filepath.Join(letters, "certificate")
	for _, step := range []struct {
		config string
		args   []string
	}{
		{bob, []string{"renew", "-o", request}},
		{ada, []string{"sign", request, "-o", certificate}},
		{bob, []string{"install", certificate}},
	} {
		t.Setenv("KOGGE_CONFIG", step.config)
		if err := kogge(t, quietly(operatorCommand()), step.args...); err != nil {
			t.Fatalf("%v: %v", step.args, err)
		}
	}
	renewed, err := keyring.Load(folder.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if until := renewed.Certificate().Leaf.NotAfter; until.Before(time.Now().AddDate(0, 11, 0)) || renewed.Operator() != folder.Operator() {
		t.Errorf("%s until %s", renewed.Operator(), until)
	}
}

// quietly keeps what a command says out of the test's output.
func quietly(cmd *cobra.Command) *cobra.Command {
	cmd.SetOut(new(strings.Builder))
	return cmd
}

// TestFingerprint has as many bits as nobody tries out.
func TestFingerprint(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	if got := fingerprint(id); got != "0123 4567 89ab cdef 0123 4567 89ab cdef" {
		t.Error(got)
	}
}
