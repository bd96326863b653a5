package initramfs

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"kogge.example/image/kernel"
)

var time1990 = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)

// unpack reads an archive as another program would.
func unpack(t *testing.T, data []byte) map[string]string {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var archive bytes.Buffer
	if _, err := archive.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	inodes := map[uint64]string{}
	for _, r := range records {
		if r.MTime != 0 || r.UID != 0 || r.GID != 0 {
			t.Errorf("%s has time %d, owner %d:%d", r.Name, r.MTime, r.UID, r.GID)
		}
		if other, ok := inodes[r.Ino]; ok {
			t.Errorf("%s and %s have one inode number: the kernel takes them for hard links", r.Name, other)
		}
		inodes[r.Ino] = r.Name
		if r.Mode&cpio.S_IFMT == cpio.S_IFREG {
			content, err := io.ReadAll(io.NewSectionReader(r.ReaderAt, 0, int64(r.FileSize)))
			if err != nil {
				t.Fatal(err)
			}
			files[r.Name] = string(content)
		} else {
			files[r.Name] = ""
		}
	}
	return files
}

func TestBuild(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	module := func(name string) kernel.Module {
		return kernel.Module{Name: name, Path: "kernel/drivers/" + name + ".ko", File: put(name+".ko", "module "+name)}
	}
	init := put("init", strings.Repeat("program", 1000))
	shared, disk := module("shared"), module("disk")
	disk.Depends, disk.Aliases, disk.Softdeps = []string{"shared"}, []string{"pci:v*"}, []string{"crc"}
	build := func() []byte {
		data, err := Build(init, []kernel.Module{shared, disk})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	data := build()
	want := map[string]string{
		"dev": "", "dev/console": "", "modules": "", "proc": "", "root": "", "sys": "",
		"modules/shared.ko": "module shared", "modules/disk.ko": "module disk",
		"modules/modules.dep":   "disk.ko: shared.ko\nshared.ko:\n",
		"modules/modules.alias": "alias pci:v* disk\n", "modules/modules.softdep": "softdep disk pre: crc\n",
		"init": strings.Repeat("program", 1000),
	}
	if diff := cmp.Diff(want, unpack(t, data)); diff != "" {
		t.Error(diff)
	}
	// A later time and other file times change nothing.
	if err := os.Chtimes(init, time1990, time1990); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, build()) {
		t.Error("the second build has other bytes")
	}
	if _, err := Build(filepath.Join(dir, "none"), nil); err == nil {
		t.Error("an initramfs without init")
	}
	if _, err := Build(init, []kernel.Module{{Path: "x.ko", File: filepath.Join(dir, "none")}}); err == nil {
		t.Error("an initramfs without its module")
	}
}
