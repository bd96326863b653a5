package tarball

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is how far back in what was unpacked a zstd frame may refer, and so what it
// takes of memory: that of zstd's levels up to 19, and what every decoder is to support
// (RFC 8878, 3.1.1.1.2).
const maxWindow = 8 << 20

// packings are those of which an archive is not unpacked, by the first bytes of a file.
var packings = []struct{ name, magic, tool string }{
	{"xz", "\xfd7zXZ\x00", "xz -dc"},
	{"bzip2", "BZh", "bzip2 -dc"},
	{"lz4", "\x04\x22\x4d\x18", "lz4 -dc"},
	{"zip", "PK\x03\x04", "unzip -p"},
}

// Plain reads what is packed with gzip or zstd, and what is not packed at all. The caller
// closes it.
func Plain(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReader(r)
	head, err := b.Peek(8)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for _, p := range packings {
		if bytes.HasPrefix(head, []byte(p.magic)) {
			return nil, fmt.Errorf("it is packed with %s, which no node unpacks: send it plain (%s FILE | kogge images load -), or with gzip or zstd", p.name, p.tool)
		}
	}
	switch {
	case len(head) == 0:
		return nil, errors.New("it is empty")
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return z, nil
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")), skippable(head):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return &framed{z.IOReadCloser()}, nil
	}
	return io.NopCloser(b), nil
}

// skippable says that a file begins with a frame of zstd without content: pzstd writes one
// before each of the others (RFC 8878, 3.1.2).
func skippable(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.HasPrefix(head[1:], []byte("\x2a\x4d\x18"))
}

// framed is what zstd unpacks, with words for what takes too much memory.
type framed struct{ io.ReadCloser }

func (f *framed) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = fmt.Errorf("it was packed with zstd so that unpacking takes more than %d MiB of memory: pack it with zstd -19 or less, and without --long", maxWindow>>20)
	}
	return n, err
}
