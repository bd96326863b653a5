package document

import "unicode/utf8"

// Printable says whether text in a document may have a character: one that a terminal shows and does not
// obey. What a fleet has decided may quote such text, so the answer is the same in each release for ever, and does
// not come from tables that grow with Unicode: a character that nobody has assigned yet may be there.
func Printable(r rune) bool {
	if r == utf8.RuneError || r < ' ' {
		return false
	}
	for _, f := range unprintable {
		if f.first <= r && r <= f.last {
			return false
		}
	}
	return true
}

// unprintable are, of the characters from the space on, controls, spaces and ends of lines other than the
// space, what changes the direction or has no look of its own, what each may use as he likes, and what is no character.
var unprintable = []struct{ first, last rune }{
	{0x7f, 0xa0}, {0xad, 0xad}, {0x600, 0x605}, {0x61c, 0x61c}, {0x6dd, 0x6dd}, {0x70f, 0x70f}, {0x890, 0x891}, {0x8e2, 0x8e2},
	{0x1680, 0x1680}, {0x180e, 0x180e}, {0x2000, 0x200f}, {0x2028, 0x202f}, {0x205f, 0x206f}, {0x3000, 0x3000},
	{0xd800, 0xf8ff}, {0xfdd0, 0xfdef}, {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xfffe, 0xffff},
	{0x110bd, 0x110bd}, {0x110cd, 0x110cd}, {0x13430, 0x1343f}, {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a},
	{0x1fffe, 0x1ffff}, {0x2fffe, 0x2ffff}, {0x3fffe, 0x3ffff}, {0x4fffe, 0x4ffff}, {0x5fffe, 0x5ffff}, {0x6fffe, 0x6ffff},
	{0x7fffe, 0x7ffff}, {0x8fffe, 0x8ffff}, {0x9fffe, 0x9ffff}, {0xafffe, 0xaffff}, {0xbfffe, 0xbffff}, {0xcfffe, 0xcffff},
	{0xdfffe, utf8.MaxRune}, // with tags, and all for private use
}
