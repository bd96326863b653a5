package keyring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestOwnerKeys opens owner keys from sheets and from the folder: a passphrase is asked for
// once, if at all, and not before it is of use.
func TestOwnerKeys(t *testing.T) {
	const passphrase = "correct horse battery staple"
	for name, folder := range map[string]string{"open": "", "encrypted": passphrase} {
		k, err := Create("hanse", "ada", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Save(filepath.Join(t.TempDir(), "hanse"), folder); err != nil {
			t.Fatal(err)
		}
		var sheets [][]byte
		for _, name := range k.Sheets() {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			sheets = append(sheets, text)
		}
		other, err := Create("hanse", "ada", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Save(filepath.Join(t.TempDir(), "hanse"), ""); err != nil {
			t.Fatal(err)
		}
		foreign, err := os.ReadFile(other.Sheets()[0])
		if err != nil {
			t.Fatal(err)
		}
		errAsked := errors.New("nobody knows it")
		for _, c := range []struct {
			name   string
			sheets [][]byte
			say    string
			refuse error // what the passphrase's prompt comes to
			asked  int   // of an encrypted folder
			keys   string
			want   error // of both
			closed error // of an encrypted folder
		}{
			{name: "no sheet", say: passphrase, want: ErrOwners},
			{name: "one sheet", sheets: sheets[:1], say: passphrase, asked: 1, keys: "owner keys [1 2]"},
			{name: "the other one", sheets: sheets[1:], say: passphrase, asked: 1, keys: "owner keys [1 3]"},
			{name: "one sheet twice", sheets: [][]byte{sheets[0], sheets[0]}, say: passphrase, asked: 1, keys: "owner keys [1 2]"},
			{name: "both sheets", sheets: sheets, say: "forgotten", keys: "owner keys [2 3]"},
			{name: "a wrong passphrase", sheets: sheets[:1], say: "forgotten", asked: 1, keys: "owner keys [1 2]", closed: ErrPassphrase},
			{name: "no passphrase", sheets: sheets[:1], refuse: errAsked, asked: 1, keys: "owner keys [1 2]", closed: errAsked},
			{name: "no sheet at all", sheets: [][]byte{[]byte("x")}, say: passphrase, want: ErrSheet},
			{name: "another fleet's sheet", sheets: [][]byte{foreign}, say: passphrase, want: ErrNotOwner},
		} {
			asked, want, times := 0, c.want, 0
			if folder != "" {
				times = c.asked
				if want == nil {
					want = c.closed
				}
			}
			o, err := k.OwnerKeys(func() (string, error) { asked++; return c.say, c.refuse }, c.sheets...)
			if !errors.Is(err, want) || asked != times || err == nil && fmt.Sprint(o) != c.keys {
				t.Errorf("%s, %s: %v, %v, asked %d times", name, c.name, o, err, asked)
			}
		}
	}
}
