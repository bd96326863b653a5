package release

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestMissingBoard: a release out of which somebody took a board, with all that only it has,
// is not whole for those who make, check and carry releases, even if each of the others is
// as its signatures say; and neither is one with a board more.
func TestMissingBoard(t *testing.T) {
	whole := bundle(t, "1.1", 7, "targets-1", "targets-2")
	for _, c := range []struct {
		name, want string
		edit       func(*Bundle)
	}{
		{"whole", "", func(*Bundle) {}},
		{"a board less", "board pc-x86_64: the signatures are for it, and the release does not have it", func(b *Bundle) {
			b.boards = slices.DeleteFunc(b.boards, func(one board) bool { return one.Facts.Board == "pc-x86_64" })
		}},
		{"a board more", "board rock65: the release has it, and no signature is for it", func(b *Bundle) {
			more, err := newBoard(content(t, "rock65", "1.1", 7))
			must(t, err)
			b.boards = append(b.boards, more)
		}},
		{"a board less, and nobody has signed", "", func(b *Bundle) {
			b.boards = b.boards[1:]
			b.tuf = metadataFiles{"1.root.json": b.tuf["1.root.json"]}
		}},
	} {
		edited := &Bundle{boards: slices.Clone(whole.boards), tuf: whole.tuf}
		c.edit(edited)
		must(t, edited.finish())
		src := openArchive(t, archive(t, edited))
		must(t, src.Check(t.Context())) // nothing else is wrong with it
		_, err := Read(t.Context(), src)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}
