package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLayout(t *testing.T) {
	text := func(entries []Entry) string {
		var words []string
		for _, e := range entries {
			kind := "file"
			if e.Dir {
				kind = "dir"
			} else if e.Link != "" {
				kind = "link"
			}
			words = append(words, fmt.Sprintf("%s:%s:%o", e.Path, kind, e.Mode))
		}
		return strings.Join(words, " ")
	}
	for _, c := range []struct {
		entries   []Entry
		want, err string
	}{
		{nil, "", ""},
		{[]Entry{{Path: "/a/b/c", Data: []byte{}}}, "/a:dir:755 /a/b:dir:755 /a/b/c:file:644", ""},
		{[]Entry{{Path: "/b", Dir: true, Mode: 0o700}, {Path: "/b/x", Link: "y"}, {Path: "/a", Data: []byte{}, Mode: 0o755}}, "/a:file:755 /b:dir:700 /b/x:link:644", ""},
		{[]Entry{{Path: "/d", Dir: true}, {Path: "/d", Dir: true}}, "/d:dir:755", ""},
		{[]Entry{{Path: "/a", Data: []byte{}}, {Path: "/a", Data: []byte{}}}, "", "/a is there twice"},
		{[]Entry{{Path: "/a", Data: []byte{}}, {Path: "/a", Dir: true}}, "", "/a is there twice"},
		{[]Entry{{Path: "/a", Data: []byte{}}, {Path: "/a/b", Data: []byte{}}}, "", "/a/b is below /a, which is not a folder"},
		{[]Entry{{Path: "/l", Link: "x"}, {Path: "/l/b", Dir: true}}, "", "/l/b is below /l, which is not a folder"},
		{[]Entry{{Path: "a", Dir: true}}, "", `"a" is not a clean absolute path`},
		{[]Entry{{Path: "/a/../b", Dir: true}}, "", `"/a/../b" is not a clean absolute path`},
		{[]Entry{{Path: "/a/", Dir: true}}, "", `"/a/" is not a clean absolute path`},
		{[]Entry{{Path: "", Dir: true}}, "", `"" is not a clean absolute path`},
	} {
		got, err := Layout(c.entries)
		if c.err != "" {
			if err == nil || !strings.HasSuffix(err.Error(), c.err) {
				t.Errorf("%+v: error %v, want %s", c.entries, err, c.err)
			}
			continue
		}
		if err != nil || text(got) != c.want {
			t.Errorf("%+v:\n got %s, %v\nwant %s", c.entries, text(got), err, c.want)
		}
	}
}

// TestDigest changes one thing at a time: each has to change the digest, and the
// order of the entries must not.
func TestDigest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	when := time.Unix(1_700_000_000, 0)
	digest := func(id string, when time.Time, entries ...Entry) [32]byte {
		d, err := Digest(entries, when, id)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	a, b := Entry{Path: "/a", File: file}, Entry{Path: "/b", Data: []byte("x")}
	base := digest("id", when, a, b)
	if digest("id", when.In(time.FixedZone("", 3600)), b, a) != base {
		t.Error("order or time zone changes the digest")
	}
	for what, d := range map[string][32]byte{
		"id": digest("other", when, a, b), "time": digest("id", when.Add(time.Second), a, b), "fewer": digest("id", when, a),
		"mode": digest("id", when, Entry{Path: "/a", File: file, Mode: 0o755}, b), "path": digest("id", when, Entry{Path: "/c", File: file}, b),
		"data": digest("id", when, a, Entry{Path: "/b", Data: []byte("y")}), "link": digest("id", when, a, Entry{Path: "/b", Link: "x"}),
		"dir": digest("id", when, a, Entry{Path: "/b", Dir: true}),
	} {
		if d == base {
			t.Errorf("another %s, the same digest", what)
		}
	}
	if _, err := Digest([]Entry{{Path: "/x", File: file + "none"}}, when, "id"); err == nil {
		t.Error("the digest of a missing file")
	}
}
