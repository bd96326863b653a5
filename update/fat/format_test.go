package fat

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kogge.example/update/golden"
)

var when = time.Date(2026, 11, 22, 10, 20, 30, 0, time.UTC)

// tool runs a reference tool; its exit status has to be zero.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Fatalf("%s is missing: apt-get install dosfstools mtools", name)
	}
	c := exec.Command(path, args...)
	c.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C.UTF-8", "MTOOLS_SKIP_CHECK=0")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// content is what a file of that name and size holds.
func content(name string, size int) []byte {
	sum := sha256.Sum256([]byte(name))
	b := make([]byte, size)
	rand.NewChaCha8(sum).Read(b)
	return b
}

func file(name string, size int) File {
	return File{Path: name, Size: int64(size), Data: bytes.NewReader(content(name, size))}
}

// bootFiles is what a boot partition holds, and names that are harder.
func bootFiles() map[string]int {
	files := map[string]int{
		"EFI/BOOT/BOOTX64.EFI":              90_000,
		"EFI/kogge/a.efi":                   3_000_000,
		"loader/entries/kogge-a+3-0.conf":   120,
		"loader/loader.conf":                80,
		"loader/random-seed.very.long.name": 0,
		"seed/node.yaml":                    700,
		"seed/NODE.YAM":                     10,
		"seed/Ünïcødé – 名前 😀.txt":           4096,
		"seed/" + strings.Repeat("x", 255):  1,
		"empty":                             0,
		"UPPER.TXT":                         512,
		"a b.c d":                           513,
		".hidden":                           1,
	}
	for i := range 150 { // a directory of many clusters, with many ~N
		files[fmt.Sprintf("many/similar file name %03d.conf", i)] = i
	}
	return files
}

func formatFile(t *testing.T, path string, size int64, names map[string]int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	files := []File{{Path: "hollow/deep/"}}
	for name, size := range names { // in another order each time
		files = append(files, file(name, size))
	}
	if err := Format(f, Spec{Size: size, Label: "KOGGE", Serial: 0x1234abcd, When: when}, files); err != nil {
		t.Fatal(err)
	}
}

// TestFormat has volumes of the usual sizes judged by fsck.fat and read by mtools.
func TestFormat(t *testing.T) {
	for _, mib := range []int64{34, 64, 128, 512, 32 << 10} {
		t.Run(fmt.Sprintf("%dMiB", mib), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "volume")
			names := bootFiles()
			formatFile(t, path, mib<<20, names)
			out := tool(t, "fsck.fat", "-n", "-v", path)
			for _, bad := range []string{"differ", "Wrong", "wrong", "Invalid", "invalid", "unset", "FSINFO"} {
				if strings.Contains(out, bad) {
					t.Errorf("fsck.fat complains:\n%s", out)
					break
				}
			}
			for name, size := range names {
				if strings.Contains(name, "😀") {
					continue // mtools has no surrogates; TestEdit reads it
				}
				if got := tool(t, "mtype", "-i", path, "::"+name); got != string(content(name, size)) {
					t.Errorf("%s: mtype shows %d bytes, want %d", name, len(got), size)
				}
			}
			if mib == 64 {
				var shown strings.Builder // the entries; the totals are another version's other words
				for line := range strings.Lines(tool(t, "mdir", "-i", path, "::", "::EFI", "::EFI/kogge", "::loader/entries", "::seed")) {
					if strings.Contains(line, " 2026-11-22  10:20 ") || strings.HasPrefix(line, "Directory") {
						shown.WriteString(line)
					}
				}
				golden.Compare(t, "mdir.txt", shown.String())
			}
			tool(t, "mcopy", "-s", "-i", path, "::EFI", "::many", "::hollow", dir)
			for name, size := range names {
				if strings.HasPrefix(name, "EFI/") || strings.HasPrefix(name, "many/") {
					got, err := os.ReadFile(filepath.Join(dir, name))
					if err != nil || !bytes.Equal(got, content(name, size)) {
						t.Errorf("%s: mcopy gives %d bytes, want %d, %v", name, len(got), size, err)
					}
				}
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 4<<20 {
				t.Errorf("the file takes %d bytes of its disk: not sparse", used)
			}
		})
	}
}

// TestFormatSame wants equal bytes from two runs.
func TestFormatSame(t *testing.T) {
	dir := t.TempDir()
	var sums [2][]byte
	for i := range sums {
		path := filepath.Join(dir, fmt.Sprint(i))
		formatFile(t, path, 64<<20, bootFiles())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		sums[i] = sum[:]
	}
	if !bytes.Equal(sums[0], sums[1]) {
		t.Error("two volumes of the same files differ")
	}
}

type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func TestFormatRefuses(t *testing.T) {
	spec := Spec{Size: 34 << 20, Label: "KOGGE", When: when}
	tests := []struct {
		name  string
		edit  func(*Spec)
		files []File
		want  string
	}{
		{"too small", func(s *Spec) { s.Size = 32 << 20 }, nil, "33554432 bytes are too few for FAT32"},
		{"tiny", func(s *Spec) { s.Size = 512 }, nil, "512 bytes do not make a FAT32 volume"},
		{"too large", func(s *Spec) { s.Size = 2<<40 + 512 }, nil, "2199023256064 bytes do not make a FAT32 volume"},
		{"label", func(s *Spec) { s.Label = "Kogge" }, nil, `label "Kogge": only A-Z, 0-9, -, _ and space`},
		{"long label", func(s *Spec) { s.Label = "KOGGE KOGGE1" }, nil, `label "KOGGE KOGGE1" is longer than 11 bytes`},
		{"full", nil, []File{{Path: "big", Size: 34 << 20, Data: bytes.NewReader(nil)}},
			"big: no space left on the volume: 35651584 bytes more than fit"},
		{"short data", nil, []File{{Path: "a/b", Size: 3, Data: strings.NewReader("ab")}},
			"a: b: read byte 0 of 3: unexpected EOF"},
		{"long data", nil, []File{{Path: "b", Size: 1, Data: strings.NewReader("ab")}},
			"b: data is longer than the 1 bytes announced"},
		{"no data", nil, []File{{Path: "b", Size: 1}}, "b: 1 bytes without data"},
		{"twice", nil, []File{{Path: "a/b"}, {Path: "a/B"}}, `a/B: a file or directory "b" exists already`},
		{"file and directory", nil, []File{{Path: "a"}, {Path: "a/b"}}, `a/b: a file or directory "a" exists already`},
		{"two spellings", nil, []File{{Path: "a/b"}, {Path: "A/c"}}, `A/c: "A" is spelled "a" elsewhere`},
		{"up", nil, []File{{Path: "a/../b"}}, `a/../b: name "..": not a name`},
		{"no name", nil, []File{{Path: "/"}}, `/: name "": not a name`},
		{"colon", nil, []File{{Path: "a:b"}}, `a:b: name "a:b": FAT does not allow ':'`},
		{"dot", nil, []File{{Path: "a."}}, `a.: name "a.": begins with a space, or ends in a space or dot`},
		{"long name", nil, []File{{Path: strings.Repeat("x", 256)}},
			strings.Repeat("x", 256) + `: name "` + strings.Repeat("x", 256) + `": longer than 255 UTF-16 units`},
		{"too large a file", nil, []File{{Path: "a", Size: 1 << 32}}, "a: 4294967296 bytes: FAT holds at most 4 GiB - 1"},
	}
	for _, test := range tests {
		s := spec
		if test.edit != nil {
			test.edit(&s)
		}
		err := Format(nowhere{}, s, test.files)
		if err == nil || err.Error() != "format FAT volume: "+test.want {
			t.Errorf("%s: got %v\nwant format FAT volume: %s", test.name, err, test.want)
		}
		if test.name == "full" && !errors.Is(err, ErrFull) {
			t.Errorf("%s: not ErrFull", test.name)
		}
	}
	broken := errors.New("broken")
	err := Format(nowhere{}, spec, []File{{Path: "a", Size: 1, Data: io.MultiReader(strings.NewReader("a"), errReader{broken})}})
	if !errors.Is(err, broken) {
		t.Errorf("error at the end of the data: %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
