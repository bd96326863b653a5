package locked

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
)

const quick = 10 // work

// foreign is a file that age makes, with no limit of ours.
func foreign(t *testing.T, plain []byte, passphrase string, work int) []byte {
	t.Helper()
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	recipient.SetWorkFactor(work)
	var text bytes.Buffer
	armored := armor.NewWriter(&text)
	w, err := age.Encrypt(armored, recipient)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), armored.Close()); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

// TestSize locks secrets up to the longest; one that is longer comes back whole or not
// at all, whoever has locked it.
func TestSize(t *testing.T) {
	for _, size := range []int{0, 1, maxPlain - 1, maxPlain} {
		plain := bytes.Repeat([]byte{'x'}, size)
		text, err := Lock(plain, "sesame", quick)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got, err := Unlock(text, "sesame"); err != nil || !bytes.Equal(got, plain) || !Is(text) {
			t.Errorf("%d bytes became %d, %v", size, len(got), err)
		}
		if _, err := Unlock(text, "Sesame"); !errors.Is(err, ErrPassphrase) {
			t.Errorf("a wrong passphrase: %v", err)
		}
	}
	long := make([]byte, maxPlain+1)
	if text, err := Lock(long, "sesame", quick); err == nil || text != nil {
		t.Errorf("Lock makes %d bytes of a secret that is too long", len(text))
	}
	got, err := Unlock(foreign(t, long, "sesame", quick), "sesame")
	if want := "not made by Kogge: the secret is longer than 65536 bytes"; err == nil || err.Error() != want || got != nil {
		t.Errorf("got %d bytes, %v\nwant %s", len(got), err, want)
	}
}

// TestWork has a file ask for more memory than Lock ever does. It is refused by what its
// header says, so nobody has to make one.
func TestWork(t *testing.T) {
	for _, work := range []int{-1, 0, maxWork + 1, 31} {
		if _, err := Lock(nil, "sesame", work); err == nil {
			t.Errorf("Lock with a work factor of %d", work)
		}
	}
	binary, err := io.ReadAll(armor.NewReader(bytes.NewReader(foreign(t, nil, "sesame", quick))))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := bytes.Cut(binary, []byte(" 10\n"))
	var text bytes.Buffer
	w := armor.NewWriter(&text)
	for _, part := range [][]byte{head, []byte(" 20\n"), rest} {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Unlock(text.Bytes(), "sesame")
	if err == nil || !strings.Contains(err.Error(), "work factor too large: 20") {
		t.Errorf("got %v", err)
	}
}
