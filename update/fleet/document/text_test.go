package document

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestPrintable has text hold no character that this release of Unicode calls a control, a format, a line or a
// private one, and each that it calls a letter, a number, a mark or a sign. And the answer is today's for ever: what
// is decided with a text is read by all later releases.
func TestPrintable(t *testing.T) {
	all := make([]byte, utf8.MaxRune+1)
	for r := range rune(len(all)) {
		is := Printable(r)
		if is {
			all[r] = 1
		}
		switch {
		case is && r != ' ' && (unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp, unicode.Zs, unicode.Noncharacter_Code_Point)):
			t.Errorf("%U is printable", r)
		case !is && unicode.IsPrint(r) && r != utf8.RuneError && r < 0xe0000:
			t.Errorf("%U is not printable", r)
		}
	}
	sum := sha256.Sum256(all)
	if got, want := hex.EncodeToString(sum[:]), "8d2a9ebd5dd902bdb812bd95b86dd796f37a6225dc515a7529cd1ca5d4db22c2"; got != want {
		t.Errorf("the rule is another one: %s", got)
	}
	if !Printable(0x378) || Printable(-1) { // nobody has assigned it yet
		t.Error("what may be a character one day is refused, or what never will be is not")
	}
}
