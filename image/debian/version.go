package debian

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// version is a version of a Debian package: [EPOCH:]UPSTREAM[-REVISION].
type version struct {
	epoch              int32
	upstream, revision string
}

// parseVersion reads a version, and refuses those that dpkg --validate-version does.
//
// Source: deb-version(7); parseversion in dpkg's lib/dpkg/parsehelp.c
func parseVersion(text string) (version, error) {
	var v version
	bad := func(why string) (version, error) { return version{}, fmt.Errorf("version %q: %s", text, why) }
	rest := text
	if epoch, after, ok := strings.Cut(text, ":"); ok {
		n, err := strconv.ParseUint(epoch, 10, 31)
		if err != nil {
			return bad("the epoch is not a number")
		}
		v.epoch, rest = int32(n), after
	}
	v.upstream = rest
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		v.upstream, v.revision = rest[:i], rest[i+1:]
		if v.revision == "" {
			return bad("the revision is empty")
		}
	}
	switch {
	case v.upstream == "" || !digit(v.upstream[0]):
		return bad("it does not begin with a digit")
	case !madeOf(v.upstream, ".-+~:") || !madeOf(v.revision, ".+~"):
		return bad("it has a character that no version has")
	}
	return v, nil
}

// compare is negative if v is older than w, 0 if they are equal, and positive if v is
// newer. Different texts may be equal: 1.0 and 1.00, or 1 and 1-0.
func (v version) compare(w version) int {
	return cmp.Or(cmp.Compare(v.epoch, w.epoch), compareParts(v.upstream, w.upstream), compareParts(v.revision, w.revision))
}

// compareParts compares two upstream versions or two revisions: by turns what comes
// before the next digit, character by character, and the digits, as a number.
func compareParts(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !digit(a[0]) || b != "" && !digit(b[0]) {
			if c := cmp.Compare(weight(a), weight(b)); c != 0 {
				return c
			}
			a, b = a[1:], b[1:] // neither ends here: only equal characters get this far
		}
		var x, y string
		x, a = number(a)
		y, b = number(b)
		if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
			return c
		}
	}
	return 0
}

// weight orders the first characters of two parts: ~ is before the end and before a
// digit, which are equal; then come the letters, and then all else.
func weight(part string) int {
	switch {
	case part == "" || digit(part[0]):
		return 0
	case part[0] == '~':
		return -1
	case letter(part[0]):
		return int(part[0])
	}
	return int(part[0]) + 256
}

// number cuts the digits off the front, and the zeros off their front.
func number(part string) (digits, rest string) {
	rest = strings.TrimLeft(part, "0123456789")
	return strings.TrimLeft(part[:len(part)-len(rest)], "0"), rest
}

func digit(c byte) bool  { return c >= '0' && c <= '9' }
func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// madeOf says whether text has digits, letters and these characters alone.
func madeOf(text, others string) bool {
	for i := range len(text) {
		if c := text[i]; !digit(c) && !letter(c) && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}
