package tarball

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// entry is a file of a tar, or what its type says.
type entry struct {
	name, text string
	kind       byte
}

// packed is a tar of these files.
func packed(t testing.TB, all ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range all {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.text)), Typeflag: max(e.kind, tar.TypeReg)}
		if h.Typeflag == tar.TypeSymlink {
			h.Linkname = e.name
		}
		err := w.WriteHeader(h)
		if err == nil {
			_, err = io.WriteString(w, e.text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestWatch: a tar that costs much memory ends where it does, and one that is no archive of
// images says what it is instead.
func TestWatch(t *testing.T) {
	links := make([]entry, 80_000)
	for n := range links {
		links[n] = entry{name: fmt.Sprintf("%090d", n), kind: tar.TypeSymlink}
	}
	unread := errors.New("somebody makes no images of it")
	const plain = "it has neither an oci-layout nor a manifest.json"
	for what, c := range map[string]struct {
		tar   []byte
		read  string // why it is not read to its end
		wrong string // what is wrong with it, if nobody can make images of it
	}{
		"docker save":            {packed(t, entry{name: "a.tar", text: "x"}, entry{name: "manifest.json", text: "[{}]"}), "", ""},
		"a layout":               {packed(t, entry{name: "./oci-layout", text: "{}"}, entry{name: "./index.json", text: "{}"}), "", ""},
		"a layout in a folder":   {packed(t, entry{name: "web/", kind: tar.TypeDir}, entry{name: "web/oci-layout", text: "{}"}), "", `the layout of its images lies in its folder "web": pack what is in there`},
		"deeper":                 {packed(t, entry{name: "a/b/oci-layout", text: "{}"}, entry{name: "a/c"}), "", `folder "a/b"`},
		"a file system":          {packed(t, entry{name: "etc/passwd", text: "root"}, entry{name: "bin", kind: tar.TypeSymlink}), "", plain + ": docker export writes the files of a container alone, docker save NAME:TAG an image"},
		"a manifest in a system": {packed(t, entry{name: "usr/share/app/manifest.json", text: "{}"}, entry{name: "etc/passwd"}), "", plain},
		"nothing":                {packed(t), "", "it is an empty tar"},
		"no tar":                 {[]byte(strings.Repeat("FROM debian\n", 100)), "", ""},
		"half":                   {packed(t, entry{name: "manifest.json", text: "[{}]"})[:700], "", ""},
		"many links":             {packed(t, links...), "it has more files than an archive of images", ""},
		"long names":             {packed(t, entry{name: strings.Repeat("n", 900_000)}, entry{name: strings.Repeat("m", 900_000)}, entry{name: "manifest.json", text: "[]"}), "", ""},
		"many images":            {packed(t, entry{name: "manifest.json", text: "[{}" + strings.Repeat(",{}", MaxParts+1) + "]"}), "manifest.json has more than 100000 parts", ""},
		"a long manifest.json":   {packed(t, entry{name: "./manifest.json", text: strings.Repeat(" ", MaxDocument+1)}), "manifest.json has 8388609 bytes", ""},
		"a long oci-layout":      {packed(t, entry{name: "oci-layout", text: strings.Repeat(" ", MaxDocument+1)}), "oci-layout has 8388609 bytes", ""},
	} {
		in, end := Watch(bytes.NewReader(c.tar))
		n, err := io.Copy(io.Discard, in)
		wrong := end(unread)
		if c.read == "" && (err != nil || n != int64(len(c.tar))) || c.read != "" && (err == nil || !strings.Contains(err.Error(), c.read)) {
			t.Errorf("%s: %d of %d bytes read, %v, want %q", what, n, len(c.tar), err, c.read)
		}
		if c.read != "" {
			c.wrong = c.read
		}
		if errors.Is(wrong, unread) != (c.wrong == "") || !strings.Contains(wrong.Error(), c.wrong) || Refused(wrong) != (c.wrong != "") {
			t.Errorf("%s: it is wrong: %v, want %q", what, wrong, c.wrong)
		}
	}
	broken := errors.New("the line is dead")
	for what, r := range map[string]io.Reader{
		"nothing but an error": errReader{broken},
		"a whole file":         io.MultiReader(bytes.NewReader(packed(t, entry{name: "etc/passwd"})[:1024]), errReader{broken}),
		"half a manifest.json": io.MultiReader(bytes.NewReader(packed(t, entry{name: "manifest.json", text: "[{}]"})[:514]), errReader{broken}),
	} {
		in, end := Watch(r)
		if _, err := io.Copy(io.Discard, in); !errors.Is(err, broken) || end(unread) != unread {
			t.Errorf("%s: %v", what, err)
		}
	}
	// One who reads no further, for reasons of his own, is told nothing else.
	for _, name := range []string{"etc/passwd", "manifest.json", "oci-layout"} {
		in, end := Watch(bytes.NewReader(packed(t, entry{name: name, text: strings.Repeat("x", 1000)})))
		if _, err := io.ReadFull(in, make([]byte, 600)); err != nil || end(unread) != unread {
			t.Errorf("%s: what was not read is judged", name)
		}
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestWatchEnds: what reading ended with is told in the words of those who make such files.
func TestWatchEnds(t *testing.T) {
	for _, c := range []struct {
		failed error
		want   string
	}{
		{tar.ErrHeader, "it is not a tar, as docker save writes one"},
		{io.ErrUnexpectedEOF, "it is only a part of a tar, or none: unexpected EOF"},
		{errors.New("the disk is full"), "the disk is full"},
		{nil, "<nil>"},
	} {
		_, end := Watch(strings.NewReader("x"))
		if got := end(c.failed); fmt.Sprint(got) != c.want || Refused(got) != (c.failed == tar.ErrHeader) {
			t.Errorf("%v: %v, want %s", c.failed, got, c.want)
		}
	}
}

// FuzzWatch: no bytes make it panic or hang, and all of them arrive unless it says why not.
func FuzzWatch(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(packed(f, entry{name: "manifest.json", text: "[{}]"}))
	f.Add(packed(f, entry{name: "web/oci-layout", text: "{}"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, end := Watch(bytes.NewReader(data))
		got, err := io.ReadAll(in)
		if _ = end(err); err == nil && !bytes.Equal(got, data) {
			t.Errorf("%d bytes of %d", len(got), len(data))
		}
	})
}
