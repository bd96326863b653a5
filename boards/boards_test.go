package boards

import (
	"regexp"
	"slices"
	"testing"
)

// TestAll wants facts that make sense of every board.
func TestAll(t *testing.T) {
	name := regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	seen := map[string]bool{}
	for _, b := range All {
		wrong := func(format string, args ...any) { t.Helper(); t.Errorf("board "+b.Name+": "+format, args...) }
		if !name.MatchString(b.Name) || seen[b.Name] {
			wrong("the name is odd, or there twice")
		}
		seen[b.Name] = true
		if found, err := Find(b.Name); err != nil || found.Name != b.Name {
			wrong("not found: %v", err)
		}
		if b.Description == "" || b.Arch == "" || b.Kernel == "" || len(b.Consoles) == 0 || len(b.Root) == 0 || b.MinMemoryMiB < 64 {
			wrong("a fact is missing: %+v", b)
		}
		if !slices.Contains(Bootloaders, b.Bootloader) {
			wrong("boot loader %q is in no list", b.Bootloader)
		}
		if b.Tried != "" && !slices.Contains(TriedAll, b.Tried) {
			wrong("tried %q is none", b.Tried)
		}
		if !slices.Contains([]Table{"", GPT, Hybrid, MBR}, b.Table) {
			wrong("partition table %q is none", b.Table)
		}
		if b.FirstPartition < 0 || b.FirstPartition%MiB != 0 {
			wrong("the first partition begins at byte %d", b.FirstPartition)
		}
		for _, f := range b.Firmware {
			if f.Package == "" || f.File == "" || f.Offset < Sector || f.Offset%Sector != 0 || f.Max < 0 {
				wrong("firmware %+v", f)
			}
		}
		if w := b.Watchdog; len(w.Modules) == 0 || w.Timeout <= 0 || w.From == "" {
			wrong("watchdog %+v", w)
		}
	}
	if len(seen) != len(All) || len(seen) < 4 {
		t.Errorf("%d boards", len(seen))
	}
}
