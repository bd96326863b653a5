package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/cmd/kogge/keyring"
)

// TestRenew loads fleets that were made a while ago.
func TestRenew(t *testing.T) {
	root := t.TempDir()
	t.Setenv("KOGGE_CONFIG", root)
	now := time.Now()
	for _, c := range []struct {
		name, passphrase string
		age              int // months
		renewed          bool
		says             string
	}{
		{"young", "", 7, false, "renewed: your certificate for fleet young is good until"},
		{"open", "", 10, true, "good until"},
		{"over", "", 30, true, "good until"},
		{"locked", "correct horse", 10, false, "; to renew it with the passphrase: kogge fleet renew locked"},
	} {
		made, err := keyring.Create(c.name, "ada", now.AddDate(0, -c.age, 0))
		if err != nil {
			t.Fatal(err)
		}
		if err := made.Save(filepath.Join(root, c.name), c.passphrase); err != nil {
			t.Fatal(err)
		}
		f, err := loadFleet(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if renewed := f.Certificate().Leaf.NotAfter.After(now.AddDate(0, 11, 0)); renewed != c.renewed {
			t.Errorf("%s: renewed %v, want %v", c.name, renewed, c.renewed)
		}
		if said := renew(f); !strings.Contains(said, c.says) {
			t.Errorf("%s: says %q", c.name, said)
		}
	}
}

// TestConfigDir looks where the fleets are kept.
func TestConfigDir(t *testing.T) {
	for _, c := range []struct{ kogge, xdg, want string }{
		{"/a", "/b", "/a"}, {"", "/b", "/b/kogge"}, {"", "", "/home/ada/.config/kogge"}, {"", "b", "/home/ada/.config/kogge"},
	} {
		t.Setenv("HOME", "/home/ada")
		t.Setenv("KOGGE_CONFIG", c.kogge)
		t.Setenv("XDG_CONFIG_HOME", c.xdg)
		if got, err := configDir(); err != nil || got != c.want {
			t.Errorf("KOGGE_CONFIG=%q XDG_CONFIG_HOME=%q: %q, %v, want %q", c.kogge, c.xdg, got, err, c.want)
		}
	}
}
