package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// shortName is the 8+3 bytes of a directory entry, upper case, padded with spaces.
type shortName [11]byte

const (
	longUnits = 13  // UTF-16 units of a long name in one slot
	maxName   = 255 // UTF-16 units
)

// unitAt is where in a slot of a long name each of its 13 units lies.
var unitAt = [longUnits]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}

// checkName says what FAT has against a name.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("name %q: not a name", name)
	case !utf8.ValidString(name):
		return fmt.Errorf("name %q: not UTF-8", name)
	case len(utf16.Encode([]rune(name))) > maxName:
		return fmt.Errorf("name %q: longer than %d UTF-16 units", name, maxName)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") || name[0] == ' ':
		return fmt.Errorf("name %q: begins with a space, or ends in a space or dot", name)
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || strings.ContainsRune(`"*/:<>?\|`, r) {
			return fmt.Errorf("name %q: FAT does not allow %q", name, r)
		}
	}
	return nil
}

// folded is what two names have in common that FAT holds for one.
func folded(name string) string {
	return strings.Map(func(r rune) rune { return unicode.ToUpper(r) }, name)
}

// newShortName makes the short name of a long one, other than those taken, and tells
// whether the long name is needed beside it. Like Windows and Linux it gives a number
// (NODE~1.YAM) only to names that lose more than their case.
func newShortName(name string, taken map[shortName]bool) (short shortName, long bool, err error) {
	base, ext := name, ""
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		base, ext = name[:i], name[i+1:]
	}
	b, lostBase := shortened(base, 8)
	e, lostExt := shortened(ext, 3)
	if b == "" {
		b, lostBase = "_", true
	}
	short = compose(b, e)
	if !lostBase && !lostExt && !taken[short] {
		return short, name != short.String(), nil
	}
	for i := 1; i < 1_000_000; i++ {
		tail := fmt.Sprintf("~%d", i)
		short = compose(b[:min(len(b), 8-len(tail))]+tail, e)
		if !taken[short] {
			return short, true, nil
		}
	}
	return short, true, fmt.Errorf("name %q: no short name left", name)
}

// shortened keeps what a short name can hold, and tells whether that is less than s.
func shortened(s string, most int) (string, bool) {
	var b strings.Builder
	lost := false
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z':
			r += 'A' - 'a'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r < utf8.RuneSelf && strings.ContainsRune("!#$%&'()-@^_`{}~", r):
		case r == ' ' || r == '.':
			lost = true
			continue
		default:
			r, lost = '_', true
		}
		if b.Len() == most {
			return b.String(), true
		}
		b.WriteRune(r)
	}
	return b.String(), lost
}

func compose(base, ext string) shortName {
	return shortName(fmt.Appendf(nil, "%-8s%-3s", base, ext))
}

// String is the name as a person writes it. Bytes above 0x7f belong to a code page
// that the volume does not name; they are shown as Latin-1.
func (s shortName) String() string {
	if s[0] == 0x05 {
		s[0] = deleted // which would mean something else on disk
	}
	base, ext := latin1(s[:8]), latin1(s[8:])
	if ext == "" {
		return base
	}
	return base + "." + ext
}

func latin1(b []byte) string {
	var s strings.Builder
	for _, c := range bytes.TrimRight(b, " ") {
		s.WriteRune(rune(c))
	}
	return s.String()
}

// sum ties the slots of a long name to the short name they stand before.
func (s shortName) sum() byte {
	var sum byte
	for _, c := range s {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

// longSlots encodes a long name into the slots in front of its short entry, in their
// order on disk: the end of the name first.
func longSlots(name string, short shortName) []byte {
	units := utf16.Encode([]rune(name))
	count := (len(units) + longUnits - 1) / longUnits
	if len(units)%longUnits != 0 {
		units = append(units, 0)
	}
	for len(units) < count*longUnits {
		units = append(units, 0xffff)
	}
	slots := make([]byte, count*entrySize)
	for i := range count {
		number := count - i // from the end of the name
		slot := slots[i*entrySize:][:entrySize]
		slot[0] = byte(number)
		if i == 0 {
			slot[0] |= 0x40
		}
		slot[11] = attrLong
		slot[13] = short.sum()
		for u, at := range unitAt {
			binary.LittleEndian.PutUint16(slot[at:], units[(number-1)*longUnits+u])
		}
	}
	return slots
}
