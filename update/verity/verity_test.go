package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	dmverity "github.com/containerd/go-dmverity/pkg/verity"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"kogge.example/update/golden"
)

var salt = sha256.Sum256([]byte("salt"))

// image returns so many blocks, no two alike.
func image(blocks int) []byte {
	b := make([]byte, blocks*BlockSize)
	rand.NewChaCha8(sha256.Sum256([]byte("image"))).Read(b)
	return b
}

// slot returns data with its tree behind it, as a partition holds them.
func slot(t *testing.T, blocks int) ([]byte, Params) {
	t.Helper()
	data := image(blocks)
	tree, root, err := HashTree(bytes.NewReader(data), uint64(blocks), salt)
	if err != nil {
		t.Fatal(err)
	}
	return append(data, tree...), Params{Root: root, Salt: salt, Blocks: uint64(blocks)}
}

func veritysetup(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("veritysetup")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/veritysetup")
	}
	if err != nil {
		t.Fatal("veritysetup is missing: apt-get install cryptsetup-bin")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestHashTree compares the tree with those of cryptsetup and containerd, around each
// size at which it gets a hash block or a level more.
func TestHashTree(t *testing.T) {
	for _, blocks := range []int{1, 2, 127, 128, 129, 300, 128*128 - 1, 128 * 128, 128*128 + 1} {
		t.Run(fmt.Sprint(blocks), func(t *testing.T) {
			dir := t.TempDir()
			data := image(blocks)
			tree, root, err := HashTree(bytes.NewReader(data), uint64(blocks), salt)
			if err != nil {
				t.Fatal(err)
			}
			if got := TreeSize(uint64(blocks)); got != uint64(len(tree)) {
				t.Errorf("TreeSize is %d, the tree has %d bytes", got, len(tree))
			}
			dataPath := filepath.Join(dir, "data")
			if err := os.WriteFile(dataPath, data, 0o644); err != nil {
				t.Fatal(err)
			}

			treePath := filepath.Join(dir, "cryptsetup")
			out := veritysetup(t, "format", "--no-superblock", "--hash=sha256", "--data-block-size=4096",
				"--hash-block-size=4096", "--salt="+hex.EncodeToString(salt[:]), dataPath, treePath)
			if !strings.Contains(out, hex.EncodeToString(root[:])) {
				t.Errorf("our root hash is %x, veritysetup says:\n%s", root, out)
			}
			sameFile(t, treePath, tree)

			slotPath := filepath.Join(dir, "slot")
			if err := os.WriteFile(slotPath, append(bytes.Clone(data), tree...), 0o644); err != nil {
				t.Fatal(err)
			}
			veritysetup(t, "verify", "--no-superblock", "--hash=sha256", "--data-block-size=4096", "--hash-block-size=4096",
				"--salt="+hex.EncodeToString(salt[:]), fmt.Sprintf("--data-blocks=%d", blocks),
				fmt.Sprintf("--hash-offset=%d", len(data)), slotPath, slotPath, hex.EncodeToString(root[:]))

			params := dmverity.DefaultParams()
			params.DataBlockSize, params.HashBlockSize = BlockSize, BlockSize
			params.DataBlocks, params.NoSuperblock = uint64(blocks), true
			params.Salt, params.SaltSize = salt[:], sha256.Size
			treePath = filepath.Join(dir, "containerd")
			if err := os.WriteFile(treePath, make([]byte, len(tree)), 0o644); err != nil {
				t.Fatal(err)
			}
			theirs, err := dmverity.Create(&params, dataPath, treePath)
			if err != nil || !bytes.Equal(theirs, root[:]) {
				t.Errorf("our root hash is %x, go-dmverity's %x, %v", root, theirs, err)
			}
			sameFile(t, treePath, tree)
		})
	}
}

func sameFile(t *testing.T, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: not our tree: %d bytes, want %d, %v", filepath.Base(path), len(got), len(want), err)
	}
}

func TestHashTreeRefuses(t *testing.T) {
	data := image(10)
	for blocks, want := range map[uint64]string{
		0:             "hash tree: 0 blocks: want 1 to 33554432",
		11:            "hash tree: read 1 blocks from 10: EOF",
		maxBlocks:     "hash tree: read 1 blocks from 33554431: EOF",
		maxBlocks + 1: "hash tree: 33554433 blocks: want 1 to 33554432",
	} {
		if _, _, err := HashTree(bytes.NewReader(data), blocks, salt); err == nil || err.Error() != want {
			t.Errorf("%d blocks: got %v\nwant %s", blocks, err, want)
		}
	}
}

// TestVerify damages one byte at a time.
func TestVerify(t *testing.T) {
	const blocks = 128*128 + 300
	sound, p := slot(t, blocks)
	if err := Verify(bytes.NewReader(sound), p); err != nil {
		t.Fatal(err)
	}
	counts := levels(blocks)
	if !cmp.Equal(counts, []uint64{131, 2, 1}) {
		t.Fatalf("levels: %v", counts)
	}
	for _, test := range []struct {
		name  string
		at    []int // blocks of data and tree
		leads bool
		want  string
	}{
		{"first", []int{0}, false, "data block 0 does not match its hash"},
		{"last", []int{blocks - 1}, true, "data block 16683 does not match its hash"},
		{"several", []int{16000, 300, 301, 9000}, true, "data block 300 does not match its hash"},
		{"top", []int{blocks}, false, "hash tree does not lead to the root hash"},
		{"level 1", []int{blocks + 2}, true, "hash tree does not lead to the root hash: block 1 of level 1 does not match its hash"},
		{"level 1, on the way to the first block", []int{blocks + 1}, false, "hash tree does not lead to the root hash: block 0 of level 1 does not match its hash"},
		{"level 0", []int{blocks + 3 + 130}, true, "hash tree does not lead to the root hash: block 130 of level 0 does not match its hash"},
	} {
		for _, at := range test.at {
			sound[at*BlockSize+4095] ^= 1
		}
		leads, err := Leads(bytes.NewReader(sound), p)
		if err != nil || leads != test.leads {
			t.Errorf("%s: Leads: %v, %v", test.name, leads, err)
		}
		err = Verify(bytes.NewReader(sound), p)
		if want := "verify 16684 blocks: " + test.want; err == nil || err.Error() != want {
			t.Errorf("%s: got %v\nwant %s", test.name, err, want)
		}
		var block BlockError
		if errors.Is(err, ErrTree) == errors.As(err, &block) {
			t.Errorf("%s: neither or both of ErrTree and BlockError: %v", test.name, err)
		}
		for _, at := range test.at {
			sound[at*BlockSize+4095] ^= 1
		}
	}
}

// brokenDisk cannot read what lies behind good bytes.
type brokenDisk struct {
	content []byte
	good    int64
}

var errMedium = errors.New("medium error")

func (d brokenDisk) ReadAt(p []byte, offset int64) (int, error) {
	if offset+int64(len(p)) > d.good {
		return 0, errMedium
	}
	return bytes.NewReader(d.content).ReadAt(p, offset)
}

func TestVerifyReadErrors(t *testing.T) {
	content, p := slot(t, 1000)
	if _, err := Leads(brokenDisk{content, 1000 * BlockSize}, p); !errors.Is(err, errMedium) {
		t.Errorf("Leads: %v", err)
	}
	if err := Verify(brokenDisk{content, 1002 * BlockSize}, p); !errors.Is(err, errMedium) || errors.Is(err, ErrTree) {
		t.Errorf("Verify: %v", err)
	}
	for _, short := range [][]byte{nil, content[:1000*BlockSize], content[:1000*BlockSize+100]} {
		if leads, err := Leads(bytes.NewReader(short), p); leads || err != nil {
			t.Errorf("Leads in %d bytes: %v, %v", len(short), leads, err)
		}
	}
	if err := Verify(bytes.NewReader(content[:1001*BlockSize]), p); !errors.Is(err, io.EOF) {
		t.Errorf("half a tree: %v", err)
	}
	p.Blocks = 0
	if leads, err := Leads(bytes.NewReader(content), p); leads || err != nil {
		t.Errorf("Leads without blocks: %v, %v", leads, err)
	}
}

func TestOneBlock(t *testing.T) {
	content, p := slot(t, 1)
	if err := Verify(bytes.NewReader(content), p); err != nil {
		t.Error(err)
	}
	content[0] ^= 1
	if err := Verify(bytes.NewReader(content), p); !errors.Is(err, ErrTree) {
		t.Error(err)
	}
}

func TestParams(t *testing.T) {
	p := Params{Root: sha256.Sum256([]byte("root")), Salt: salt, Blocks: 4882}
	text := p.String()
	if got, err := ParseParams(text); err != nil || got != p {
		t.Errorf("ParseParams(%q) = %v, %v", text, got, err)
	}
	parts := strings.Split(text, ":")
	for _, bad := range []string{
		"", "::", text + ":", parts[0] + ":" + parts[1], text[1:], strings.ToUpper(text),
		parts[0] + ":" + parts[1] + ":0", parts[0] + ":" + parts[1] + ":+1", parts[0] + ":" + parts[1] + ":01",
		parts[0] + ":" + parts[1] + ":33554433", parts[0] + ":" + parts[1] + ":18446744073709551616",
		"x" + text[1:], parts[0] + ":" + parts[1] + ":1 ",
	} {
		if got, err := ParseParams(bad); err == nil {
			t.Errorf("ParseParams(%q) = %v", bad, got)
		}
	}
}

func FuzzParseParams(f *testing.F) {
	f.Add(Params{Root: salt, Salt: salt, Blocks: 1}.String())
	f.Add("::")
	f.Add(strings.Repeat("0", 64) + ":" + strings.Repeat("F", 64) + ":18446744073709551615")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ParseParams(text); err == nil && p.String() != text {
			t.Errorf("%q is read as %q", text, p)
		}
	})
}

// TestRequests shows the bytes of each device-mapper call, as every machine that we
// build for, little-endian all of them, gives them to its kernel. None is asked here.
func TestRequests(t *testing.T) {
	p := Params{Root: sha256.Sum256([]byte("root")), Salt: salt, Blocks: 4882}
	var got strings.Builder
	for _, test := range []struct {
		name string
		on   OnCorruption
		dev  uint64
	}{{"root", EIO, unix.Mkdev(254, 2)}, {"trial", Restart, unix.Mkdev(259, 1048575)}} {
		load := encodeTable(test.name, p, "sha256", test.dev, test.on)
		fmt.Fprintf(&got, "create, remove, resume %s\n%s", test.name, dump(encodeRequest(test.name)))
		fmt.Fprintf(&got, "load %s\n%s", test.name, dump(load))
	}
	fmt.Fprintf(&got, "calls: create %#x, remove %#x, resume %#x, load %#x\n",
		uint32(callBase|devCreate), uint32(callBase|devRemove), uint32(callBase|devSuspend), uint32(callBase|tableLoad))
	golden.Compare(t, "requests.txt", got.String())
}

// dump is hex.Dump without the lines of zeros.
func dump(b []byte) string {
	var kept strings.Builder
	for line := range strings.Lines(hex.Dump(b)) {
		if strings.Trim(line[8:58], " 0") != "" {
			kept.WriteString(line)
		}
	}
	return fmt.Sprintf("%d bytes, those that are not zero:\n%s", len(b), kept.String())
}

func TestOpenRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := Params{Blocks: 1}
	for _, bad := range []string{"", ".", "..", "a/b", "/", "a\x00b", strings.Repeat("x", nameSize)} {
		if _, err := Open(bad, path, p, EIO); err == nil || !strings.Contains(err.Error(), "is not a name for a mapping") {
			t.Errorf("Open as %q: %v", bad, err)
		}
	}
	want := "open " + path + " through verity: not a block device"
	if _, err := Open("root", path, p, EIO); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if _, err := Open("root", path+"x", p, EIO); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkHashTree(b *testing.B) {
	data := image(10_000)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, _, err := HashTree(bytes.NewReader(data), 10_000, salt); err != nil {
			b.Fatal(err)
		}
	}
}
