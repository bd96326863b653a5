package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// An owner key on paper is four numbered lines of sixteen characters: eight bytes of
// the Ed25519 seed and two of check each, so that a slip of the pen is found in its
// line.
const (
	sheetLines = 4
	sheetData  = ed25519.SeedSize / sheetLines
	sheetCheck = 2
	sheetChars = (sheetData + sheetCheck) * 8 / 5
)

// ErrSheet is the error of parseSheet. What was read is never in the message.
var ErrSheet = errors.New("recovery sheet")

// sheetText writes the sheet of an owner key, to be printed.
func sheetText(g *fleet.Genesis, key ed25519.PrivateKey, made time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "KOGGE RECOVERY SHEET: owner key %d of %d\n\n", g.Owner(key.Public().(ed25519.PublicKey)), len(g.Owners))
	fmt.Fprintf(&b, "    fleet  %s\n    id     %s\n    made   %s\n\n", g.Name, g.ID(), made.UTC().Format(time.DateOnly))
	for i := range sheetLines {
		data := key.Seed()[i*sheetData : (i+1)*sheetData]
		text := base32.StdEncoding.EncodeToString(append(bytes.Clone(data), lineCheck(i, data)...))
		fmt.Fprintf(&b, "    %d:  %s %s %s %s\n", i+1, text[:4], text[4:8], text[8:12], text[12:])
	}
	fmt.Fprintf(&b, `
What it is    One of the %d owner keys of this fleet. Any %d of them together are the
              owner: they found the fleet, and with its voters admit, expel and change
              keys. One alone is of no use to anybody.
What to do    Print it, or copy the four lines by hand. Keep it where the others are
              not: whoever finds %d has your fleet; with fewer than %d you have lost it.
              Then delete the file. Nobody can make it again.
To use it     Type the four lines, with their numbers, into a file, and:
                  kogge fleet recover %s --sheet FILE
              They have only the letters A to Z and the digits 2 to 7, and each line
              ends with a checksum. Add --check to check the sheet and do no more.
`, len(g.Owners), g.Threshold, g.Threshold, g.Threshold, g.Name)
	return b.Bytes()
}

// lineCheck is what ends line i, from 0, of a sheet.
func lineCheck(i int, data []byte) []byte {
	sum := sha256.Sum256(document.Message("kogge/recovery/v1", []byte{byte(i + 1)}, data))
	return sum[:sheetCheck]
}

// parseSheet reads the key from a recovery sheet, or from its four numbered lines as
// somebody typed them: capitals or not, with or without spaces. Other lines are
// passed over. [Keyring.Recover] says whether the key is one of a fleet's. The error
// wraps [ErrSheet] and names the line.
func parseSheet(text []byte) (ed25519.PrivateKey, error) {
	if len(text) > fleet.MaxGenesis {
		return nil, fmt.Errorf("%w: %d bytes: is this the right file?", ErrSheet, len(text))
	}
	var seed [sheetLines][]byte
	for line := range strings.Lines(string(text)) {
		number, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		i := strings.Index("1234", number)
		if !ok || len(number) != 1 || i < 0 {
			continue
		}
		if seed[i] != nil {
			return nil, fmt.Errorf("%w: line %s appears twice", ErrSheet, number)
		}
		data, err := sheetLine(i, rest)
		if err != nil {
			return nil, fmt.Errorf("%w: line %s: %w", ErrSheet, number, err)
		}
		seed[i] = data
	}
	for i, data := range seed {
		if data == nil {
			return nil, fmt.Errorf("%w: line %d is missing (it starts with %q)", ErrSheet, i+1, fmt.Sprintf("%d:", i+1))
		}
	}
	return ed25519.NewKeyFromSeed(bytes.Join(seed[:], nil)), nil
}

// misread brings what people read for a letter back to it.
var misread = strings.NewReplacer(" ", "", "\t", "", "-", "", "0", "O", "1", "I", "8", "B")

func sheetLine(i int, text string) ([]byte, error) {
	chars := misread.Replace(strings.ToUpper(text))
	if n := len([]rune(chars)); n != sheetChars {
		return nil, fmt.Errorf("%d characters, %d wanted", n, sheetChars)
	}
	raw, err := base32.StdEncoding.DecodeString(chars)
	if err != nil || len(raw) != sheetData+sheetCheck {
		return nil, errors.New("it has only the letters A to Z and the digits 2 to 7")
	}
	data := raw[:sheetData]
	if !bytes.Equal(raw[sheetData:], lineCheck(i, data)) {
		return nil, errors.New("a character is wrong")
	}
	return data, nil
}
