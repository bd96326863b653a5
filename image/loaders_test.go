package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/image/debian"
	"kogge.example/image/disk"
	"kogge.example/image/firmware"
	"kogge.example/image/loader"
	"kogge.example/image/program"
	"kogge.example/update/bootloader"
)

// TestThirdLoader adds a boot loader that nobody knows to the list, and asks everything
// that depends on the boot loader: each says that it does not know it, and none takes it
// for another one.
func TestThirdLoader(t *testing.T) {
	const third boards.Bootloader = "third"
	known := boards.Bootloaders
	boards.Bootloaders = append(slices.Clone(known), third)
	defer func() { boards.Bootloaders = known }()
	board := boards.All[0]
	board.Bootloader = third
	o := Options{
		Board: board, Version: "1.0", When: time.Unix(0, 0), Source: t.TempDir(), Cache: t.TempDir(),
		Packages: debian.Cache{Dir: t.TempDir()}, Say: func(string, ...any) {},
	}
	empty := filepath.Join(t.TempDir(), "empty.img")
	f, err := os.Create(empty)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := filepath.Join(t.TempDir(), "part")
	if err := os.WriteFile(part, make([]byte, disk.MiB), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := disk.Write(f, disk.Spec{Seed: "seed", Root: part, State: part, SlotSize: disk.MiB}); err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for place, ask := range map[string]func() error{
		"the node's verbs":                 func() error { _, err := bootloader.For(third); return err },
		"the builder's":                    func() error { _, err := loader.For(third); return err },
		"the packages of firmware":         func() error { _, err := loader.FirmwarePackages(); return err },
		"the locks of the boards":          func() error { _, err := debian.Sets([]boards.Board{board}); return err },
		"the firmware of virtual machines": func() error { _, err := firmware.Fetch(t.Context(), o.Packages, board); return err },
		"an image":                         func() error { _, err := Build(t.Context(), o, filepath.Join(t.TempDir(), "x.img")); return err },
		"a release":                        func() error { _, err := Parts(t.Context(), o); return err },
		"what an image says of itself":     func() error { _, err := disk.Inspect(f, st.Size()); return err },
	} {
		if err := ask(); err == nil || !strings.Contains(err.Error(), `boot loader "third" is unknown`) {
			t.Errorf("%s: %v", place, err)
		}
	}
}

// TestLoadersByName holds the source to it that only the two packages with a file per boot
// loader, and the boards, call one by its name: elsewhere a question would have a silent
// answer for the next one.
func TestLoadersByName(t *testing.T) {
	source, err := program.Source(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byName := regexp.MustCompile(`\bboards\.(SystemdBoot|UBoot)\b|boards\.Bootloader\("|== "(systemd-boot|u-boot)"`)
	looked := 0
	err = filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(source, path)
		if err = errors.Join(err, relErr); err != nil {
			return err
		}
		switch {
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata") && rel != ".":
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		switch filepath.ToSlash(filepath.Dir(rel)) {
		case "update/bootloader", "image/loader", "boards":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		looked++
		for n, line := range strings.Split(string(text), "\n") {
			if byName.MatchString(line) {
				t.Errorf("%s:%d: %s: let update/bootloader or image/loader say it", rel, n+1, strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil || looked < 200 {
		t.Errorf("%d files, %v", looked, err)
	}
}
