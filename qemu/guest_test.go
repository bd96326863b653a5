package qemu_test

import (
	"os"
	"path/filepath"
	"testing"

	"kogge.example/qemu/bootsector"
)

// guestImage writes the disk of our own small guest and returns its path.
func guestImage(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts virtual machines: left out by -short")
	}
	path := filepath.Join(t.TempDir(), "guest.img")
	if err := os.WriteFile(path, bootsector.Disk(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
