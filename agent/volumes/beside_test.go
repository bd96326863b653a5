package volumes

import (
	"os"
	"path/filepath"
	"testing"

	"kogge.example/agent/trees"
)

// TestBesideBin: what is to become a volume is not taken for one that is being removed,
// whatever the name of the volume.
func TestBesideBin(t *testing.T) {
	folder := t.TempDir()
	bin := trees.OpenBin(folder, nil)
	defer bin.Close()
	var all []string
	for _, name := range []string{"removed-data", "removed-shop.data", "removed-A"} {
		all = append(all, Beside(filepath.Join(folder, name))...)
	}
	for _, one := range all {
		must(t, os.Mkdir(one, 0o700))
	}
	thrown := filepath.Join(folder, "data")
	must(t, os.Mkdir(thrown, 0o700), bin.Discard(thrown))
	bin.Empty(t.Context())
	for _, one := range all {
		must(t, os.Remove(one))
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
