package image

import (
	"slices"
	"strings"
	"testing"

	"kogge.example/boards"
	"kogge.example/image/kernel"
	"kogge.example/update/cmdline"
)

// TestKernelLine reads the line of each board: each word once.
func TestKernelLine(t *testing.T) {
	for _, b := range boards.All {
		words := strings.Fields(kernelLine(b, cmdline.Words{Board: b.Name, Version: "v1"}))
		for _, want := range []string{"quiet", "loglevel=4", "panic=10", "oops=panic", "softlockup_panic=1", "transparent_hugepage=never", "gpt", "cryptomgr.notests", "kogge.board=" + b.Name, "kogge.version=v1"} {
			if n := len(slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w != want })); n != 1 {
				t.Errorf("%s: %s is there %d times: %s", b.Name, want, n, words)
			}
		}
	}
}

func TestNoAccelerator(t *testing.T) {
	ours := []kernel.Module{{Name: "sha256_ssse3", Path: "kernel/arch/x86/crypto/sha256-ssse3.ko"}, {Name: "veth", Path: "kernel/drivers/net/veth.ko"}}
	if err := noAccelerator(ours); err != nil {
		t.Error(err)
	}
	err := noAccelerator(append(ours, kernel.Module{Name: "ccp", Path: "kernel/drivers/crypto/ccp/ccp.ko"}))
	if err == nil || !strings.Contains(err.Error(), "module ccp") {
		t.Errorf("an accelerator: %v", err)
	}
}
