package blank

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// sparse makes an image of blocks with some that are not zero.
func sparse(blocks int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	image := make([]byte, blocks*BlockSize)
	for range blocks / 4 {
		image[r.IntN(len(image))] = byte(1 + r.IntN(255))
	}
	return image
}

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(20) {
		image := sparse(64, seed)
		encoded, err := Encode(bytes.NewReader(image))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(image))
		err = Decode(bytes.NewReader(encoded), int64(len(image)), func(n uint32, block []byte) error {
			copy(got[int(n)*BlockSize:], block)
			return nil
		})
		if err != nil || !bytes.Equal(got, image) {
			t.Errorf("seed %d: %v, equal %v", seed, err, bytes.Equal(got, image))
		}
	}
	if _, err := Encode(bytes.NewReader(make([]byte, BlockSize+1))); err == nil {
		t.Error("an image that ends inside a block")
	}
}

// FuzzDecode never calls back outside the size, whatever the bytes.
func FuzzDecode(f *testing.F) {
	good, err := Encode(bytes.NewReader(sparse(16, 1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		const size = 16 * BlockSize
		last := -1
		_ = Decode(bytes.NewReader(data), size, func(n uint32, block []byte) error {
			if int(n) <= last || int(n) >= size/BlockSize || len(block) != BlockSize {
				t.Fatalf("block %d of %d bytes behind %d", n, len(block), last)
			}
			last = int(n)
			return nil
		})
	})
}
