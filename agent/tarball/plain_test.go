package tarball

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// gzipped and zstded are text, packed.
func gzipped(t testing.TB, text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zstded(t testing.TB, text string, how ...zstd.EOption) string {
	z, err := zstd.NewWriter(nil, how...)
	if err != nil {
		t.Fatal(err)
	}
	return string(z.EncodeAll([]byte(text), nil))
}

// zstdedStream is text, packed by one who did not know how long it would be.
func zstdedStream(t testing.TB, text string, how ...zstd.EOption) string {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, how...)
	if err == nil {
		_, err = io.WriteString(z, text)
	}
	if err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPlain: an archive may be packed as people pack it; what no node unpacks says so.
func TestPlain(t *testing.T) {
	tar := "manifest.json" + strings.Repeat("\x00", 2000)
	for _, c := range []struct{ name, packed, want, err string }{
		{"plain", tar, tar, ""},
		{"gzip", gzipped(t, tar), tar, ""},
		{"two of gzip", gzipped(t, tar[:100]) + gzipped(t, tar[100:]), tar, ""},
		{"zstd", zstded(t, tar), tar, ""},
		{"short", "x", "x", ""},
		{"empty", "", "", "it is empty"},
		{"half of gzip", gzipped(t, tar)[:30], "", "unexpected EOF"},
		{"gzip of nothing", "\x1f\x8b", "", "gzip"},
		{"half of zstd", zstded(t, tar)[:10], "", "unexpected EOF"},
		{"a zstd that wants 16 MiB of memory", zstded(t, strings.Repeat(tar, 5_000), zstd.WithWindowSize(16<<20)), "", "it was packed with zstd so that unpacking takes more than 8 MiB of memory: pack it with zstd -19 or less, and without --long"},
		{"zstd behind a frame to skip, as pzstd packs", "\x50\x2a\x4d\x18\x04\x00\x00\x00\x01\x02\x03\x04" + zstded(t, tar), tar, ""},
		{"zstd behind the last kind of such a frame", "\x5f\x2a\x4d\x18\x00\x00\x00\x00" + zstded(t, tar), tar, ""},
		{"a window of zstd --ultra", zstdedStream(t, strings.Repeat(tar, 20_000), zstd.WithWindowSize(32<<20)), "", "more than 8 MiB of memory"},
		{"xz", "\xfd7zXZ\x00\x00\x04", "", "packed with xz, which no node unpacks: send it plain (xz -dc FILE | kogge images load -), or with gzip or zstd"},
		{"bzip2", "BZh91AY&SY", "", "packed with bzip2"},
		{"lz4", "\x04\x22\x4d\x18....", "", "packed with lz4"},
		{"zip", "PK\x03\x04....", "", "packed with zip"},
	} {
		var got []byte
		r, err := Plain(iotest.OneByteReader(strings.NewReader(c.packed)))
		if err == nil {
			got, err = io.ReadAll(r)
			r.Close()
		}
		if c.err == "" && (err != nil || string(got) != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %d bytes, %v; want %d bytes, %q", c.name, len(got), err, len(c.want), c.err)
		}
	}
	broken := errors.New("the line is dead")
	if _, err := Plain(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// FuzzPlain: no bytes make it panic, and what is packed comes back.
func FuzzPlain(f *testing.F) {
	for _, s := range []string{"", "x", gzipped(f, "text"), zstded(f, "text"), "BZh9", "\x1f\x8b", "\x28\xb5\x2f\xfd"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := Plain(bytes.NewReader(data)); err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
			r.Close()
		}
		for _, packed := range []string{gzipped(t, string(data)), zstded(t, string(data))} {
			r, err := Plain(strings.NewReader(packed))
			if err != nil && len(data) == 0 {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%q, %v, want %q", got, err, data)
			}
		}
	})
}
