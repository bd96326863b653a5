package keyring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// TestKeysOf opens the keys of an owner as the ledger has him, who has others than the genesis, in another order.
func TestKeysOf(t *testing.T) {
	k, err := Create("hanse", "ada", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Save(filepath.Join(t.TempDir(), "hanse"), ""); err != nil {
		t.Fatal(err)
	}
	first, err := ledger.OwnerOf(k.Genesis)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(k.Sheets()[0]) // of key 2
	if err != nil {
		t.Fatal(err)
	}
	turned := roster.Owner{Name: "hanse", Threshold: 2, Keys: []signed.Key{first.Keys[2], first.Keys[1], first.Keys[0]}}
	gone := roster.Owner{Name: "hanse", Threshold: 1, Keys: []signed.Key{first.Keys[1]}}
	for _, c := range []struct {
		name   string
		owner  roster.Owner
		needed int
		sheets [][]byte
		keys   string
		want   error
	}{
		{"as in the genesis", first, 2, nil, "owner keys [1]", nil},
		{"with a sheet", first, 2, [][]byte{text}, "owner keys [1 2]", nil},
		{"one is enough", first, 1, [][]byte{text}, "owner keys [2]", nil},
		{"in another order", turned, 2, [][]byte{text}, "owner keys [2 3]", nil},
		{"the folder's key is his no more", gone, 1, nil, "owner keys []", ErrOwners},
		{"his only key is on a sheet", gone, 1, [][]byte{text}, "owner keys [1]", nil},
		{"the sheet is of another", roster.Owner{Name: "bob", Keys: first.Keys[:1]}, 1, [][]byte{text}, "owner keys []", ErrNotOwner},
	} {
		keys, err := k.KeysOf(c.owner, c.needed, nil, c.sheets...)
		if !errors.Is(err, c.want) || fmt.Sprint(keys) != c.keys {
			t.Errorf("%s: %s, %v", c.name, fmt.Sprint(keys), err)
		}
		for _, s := range keys.Sign([]byte("message"), 2) {
			if !c.owner.Keys[s.By-1].Verify([]byte("message"), s.Signature) {
				t.Errorf("%s: the signature of key %d does not fit", c.name, s.By)
			}
		}
	}
}
