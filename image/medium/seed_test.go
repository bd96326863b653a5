package medium

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"kogge.example/image/disk"
	"kogge.example/update/crashdisk"
)

func TestSeed(t *testing.T) {
	path := file(t, "image", testImage(t, "1.0"))
	for i, text := range []string{"hostname: one\n", "hostname: two\nntp: []\n"} {
		s, err := Seed(path, Files{Node: []byte(text)}, when)
		if err != nil {
			t.Fatal(err)
		}
		if s.Replaced != (i > 0) || !s.Repaired.Clean() {
			t.Errorf("seed %d: %+v", i, s)
		}
		f, c, err := OpenImage(path) // still a whole image
		if err != nil {
			t.Fatal(err)
		}
		v, err := disk.Boot(f, c.Table)
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.ReadFile(nodeYAML)
		f.Close()
		if err != nil || string(got) != text {
			t.Errorf("node.yaml: %q, %v", got, err)
		}
	}
}

func TestSeedRefuses(t *testing.T) {
	qcow2 := append([]byte("QFI\xfb"), make([]byte, disk.MiB)...)
	for name, want := range map[string]error{
		file(t, "qcow2", qcow2):                          disk.ErrQcow2,
		file(t, "text", []byte("text\n")):                disk.ErrNoImage,
		file(t, "cut", testImage(t, "1.0")[:2*disk.MiB]): nil,
		t.TempDir():  disk.ErrNoImage,
		"/dev/null":  disk.ErrNoImage,
		"/no/such/f": os.ErrNotExist,
	} {
		_, err := Seed(name, Files{Node: []byte("hostname: x\n")}, when)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
}

// TestSeedPowerCut cuts the power at every write: the node has its old settings, or
// the new ones.
func TestSeedPowerCut(t *testing.T) {
	image := testImage(t, "1.0")
	before, after := []byte("hostname: before\n"), bytes.Repeat([]byte("# long\n"), 2000)
	if _, err := seedDevice(memory(image), int64(len(image)), Files{Node: before, Join: before}, when); err != nil {
		t.Fatal(err)
	}
	for writes := 0; ; writes++ {
		d := crashdisk.New(image, writes)
		_, err := seedDevice(d, int64(len(image)), Files{Node: after, Join: after}, when)
		for seed := range uint64(6) {
			data := d.AfterCut(seed)
			c := inspect(t, data)
			v, openErr := disk.Boot(memory(data), c.Table)
			if openErr != nil {
				t.Fatal(openErr)
			}
			for _, name := range []string{nodeYAML, joinYAML} {
				got, readErr := v.ReadFile(name)
				if readErr != nil || !bytes.Equal(got, before) && !bytes.Equal(got, after) {
					t.Fatalf("writes=%d seed=%d: %s has %d bytes, %v", writes, seed, name, len(got), readErr)
				}
			}
		}
		if err == nil {
			return
		}
	}
}
