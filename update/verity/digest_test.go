package verity

import (
	"slices"
	"testing"
)

// TestDigests has the lines that matter of real machines' /proc/cpuinfo.
func TestDigests(t *testing.T) {
	const tcg = "processor\t: 0\nmodel name\t: QEMU TCG CPU version 2.5+\nflags\t\t: fpu sse2 ssse3 avx avx2"
	for _, test := range []struct {
		name, cpuinfo string
		want          []string
	}{
		{"emulated, as QEMU 7.2 shows it", tcg + " bmi2\n", []string{"sha256-ssse3", "sha256"}},
		{"two of them", tcg + " bmi2\n\n" + tcg + " bmi2\n\n", []string{"sha256-ssse3", "sha256"}},
		{"emulated, with SHA instructions", tcg + " sha_ni\n", []string{"sha256"}},
		{"emulated without AVX2", "model name\t: QEMU TCG CPU version 2.5+\nflags\t\t: fpu sse2 ssse3\n", []string{"sha256"}},
		{"a real processor", "model name\t: Intel(R) N100\nflags\t\t: ssse3 avx avx2 sha_ni\n", []string{"sha256"}},
		{"under KVM", "model name\t: QEMU Virtual CPU version 2.5+\nflags\t\t: ssse3 avx2\n", []string{"sha256"}},
		{"arm64", "processor\t: 0\nBogoMIPS\t: 125.00\nFeatures\t: fp asimd sha2\n", []string{"sha256"}},
		{"nothing", "", []string{"sha256"}},
		{"no lines", "\x00:::::\nflags", []string{"sha256"}},
	} {
		if got := digests(test.cpuinfo); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
