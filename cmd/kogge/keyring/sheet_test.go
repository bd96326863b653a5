package keyring

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

// knownKey is the key of 32 bytes 0, 1, 2 ….
func knownKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

// TestSheet shows a sheet as it is printed; its four lines stay as first released.
func TestSheet(t *testing.T) {
	key := knownKey()
	g := &fleet.Genesis{Name: "dev", Threshold: 2, Owners: []ed25519.PublicKey{nil, key.Public().(ed25519.PublicKey), nil}}
	text := sheetText(g, key, today)
	// A genesis of no bytes has no id; one is put in for the reader.
	golden.Compare(t, "sheet.txt", strings.Replace(string(text), "    id     \n", "    id     "+strings.Repeat("0123456789abcdef", 4)+"\n", 1))
	lines := fourLines(text)
	for name, typed := range map[string]string{
		"printed": string(text), "the four lines": lines, "small letters": strings.ToLower(lines),
		"no spaces": strings.ReplaceAll(lines, " ", ""), "hyphens": strings.ReplaceAll(lines, " ", "-"), "another order": reverse(lines),
		"Windows": strings.ReplaceAll(lines, "\n", "\r\n"), "digits for letters": strings.NewReplacer("O", "0", "I", "1", "B", "8").Replace(lines),
	} {
		got, err := parseSheet([]byte(typed))
		if err != nil || !got.Equal(key) {
			t.Errorf("%s: %v\n%s", name, err, typed)
		}
	}
}

// fourLines are the numbered lines of a sheet.
func fourLines(text []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if s := strings.TrimSpace(line); len(s) > 2 && s[1] == ':' {
			b.WriteString(s + "\n")
		}
	}
	return b.String()
}

func reverse(lines string) string {
	all := strings.Split(strings.TrimSpace(lines), "\n")
	return strings.Join([]string{all[3], all[2], all[1], all[0]}, "\n")
}

// TestSheetTypos wants that a slip of the pen is found in its line.
func TestSheetTypos(t *testing.T) {
	key := knownKey()
	g := &fleet.Genesis{Name: "dev", Owners: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, Threshold: 1}
	lines := strings.Split(strings.TrimSpace(fourLines(sheetText(g, key, today))), "\n")
	with := func(i int, line string) string {
		all := append([]string(nil), lines...)
		all[i] = line
		return strings.Join(all, "\n")
	}
	missed, tries := 0, 0
	for at := 3; at < len(lines[1]); at++ {
		if lines[1][at] == ' ' {
			continue
		}
		for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" {
			if byte(c) == lines[1][at] {
				continue
			}
			tries++
			_, err := parseSheet([]byte(with(1, lines[1][:at]+string(c)+lines[1][at+1:])))
			if err == nil {
				missed++
			} else if !errors.Is(err, ErrSheet) || !strings.Contains(err.Error(), "line 2: a character is wrong") {
				t.Fatal(err)
			}
		}
	}
	if missed > 0 {
		t.Errorf("%d of %d slips were missed", missed, tries)
	}
	var b strings.Builder
	for _, c := range []struct{ title, text string }{
		{"an empty file", ""},
		{"a line less", strings.Join(lines[:3], "\n")},
		{"a line twice", with(2, lines[1])},
		{"two lines swapped, numbers not", with(0, "1:"+lines[1][2:])},
		{"a group less", with(3, lines[3][:len(lines[3])-5])},
		{"a character more", with(3, lines[3]+"A")},
		{"a digit that is never there", with(0, lines[0][:5]+"9"+lines[0][6:])},
		{"not our letters", with(0, "1: äöüß ÄÖÜß äöüß ÄÖÜß")},
		{"another file", strings.Repeat("x", fleet.MaxGenesis+1)},
	} {
		_, err := parseSheet([]byte(c.text))
		if !errors.Is(err, ErrSheet) {
			t.Fatalf("%s: %v", c.title, err)
		}
		b.WriteString(c.title + "\n    " + err.Error() + "\n")
	}
	golden.Compare(t, "sheet-errors.txt", b.String())
}

// FuzzSheet reads what somebody typed from paper.
func FuzzSheet(f *testing.F) {
	key := knownKey()
	g := &fleet.Genesis{Name: "dev", Owners: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, Threshold: 1}
	f.Add(sheetText(g, key, today))
	f.Add([]byte("1: AAAA\n2:\n3:\n4:"))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := parseSheet(text)
		if err != nil {
			return
		}
		g := &fleet.Genesis{Name: "x", Owners: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, Threshold: 1}
		if again, err := parseSheet(sheetText(g, key, today)); err != nil || !bytes.Equal(again, key) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
