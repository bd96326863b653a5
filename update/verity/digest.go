package verity

import (
	"os"
	"slices"
	"strings"
)

// digests are the kernel's names for SHA-256 on a machine whose /proc/cpuinfo is
// given, the one to try first in front.
//
// "sha256" alone leaves the choice to the kernel, which ranks AVX2 over SSSE3, and
// that is right for every real processor. QEMU's emulation runs wide vectors in
// pieces: there AVX2 is the slow way, by half a second of a boot, which hashes
// some 30 MB of programs.
//
// Source: arch/x86/crypto/sha256_ssse3_glue.c in the kernel tree for names and
// ranks; crypto_alloc_shash in dm-verity takes the name of any driver.
func digests(cpuinfo string) []string {
	facts := map[string]string{} // of the first processor; all of them are alike
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		key = strings.TrimSpace(key)
		if _, known := facts[key]; !known {
			facts[key] = strings.TrimSpace(value)
		}
	}
	flags := strings.Fields(facts["flags"])
	emulated := strings.HasPrefix(facts["model name"], "QEMU TCG CPU")
	if emulated && slices.Contains(flags, "avx2") && !slices.Contains(flags, "sha_ni") {
		return []string{"sha256-ssse3", "sha256"}
	}
	return []string{"sha256"}
}

// readDigests asks this machine.
func readDigests() []string {
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo") // without it: the kernel's choice
	return digests(string(cpuinfo))
}
