package debian

import (
	"errors"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

// versions are some whose order is easy to get wrong, and some that are none.
var versions = []string{
	"0", "1", "1.0", "1.00", "1.1", "1.10", "1.9", "1-0", "1-1", "1.0-1", "1.0-1~bpo12+1", "1.0~rc1-1", "1.0~~", "1.0~", "1.0a", "1.0+b1", "1.0+",
	"0:1", "1:0.1", "2:0", "00001:1", "2147483647:1", "257.7-1", "257.13-1~deb13u2", "257.13-1~deb13u10", "257.13-1", "6.12.117-1", "6.12.9-1",
	"2025.02-8+deb13u1", "1.47.2-3+b10", "1.47.2-3+b9", "1-2-3", "1-2-", "1:1:1", "1:1-1:1", "18446744073709551616", "18446744073709551617",
	"99999999999999999999999999-1", "1.0.", "1..0", "0a", "0A", "0~a", "0~1", "0.a", "0:0-0", "00",
	"", ":1", "1:", "a1", "~1", "1_2", "1é", "-1", "1-", "2147483648:1", "99999999999:1", "-1:1", "x:1", "1 2", "1\x00",
}

// TestVersionOrder holds the order against dpkg's, for pairs of all those versions and
// for pairs that chance makes.
func TestVersionOrder(t *testing.T) {
	for _, a := range versions {
		likeDpkg(t, a, "1.0")
		likeDpkg(t, a, "1.0~rc1-1")
	}
	chance := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		var b strings.Builder
		for range 1 + chance.IntN(6) {
			b.WriteString([]string{"0", "1", "9", "10", "a", "Z", ".", "~", "+", "-", ":", "00"}[chance.IntN(12)])
		}
		return b.String()
	}
	for range 200 {
		a := "1" + word()
		likeDpkg(t, a, a+word())
		likeDpkg(t, a, "1"+word())
		likeDpkg(t, versions[chance.IntN(len(versions))], versions[chance.IntN(len(versions))])
	}
}

func FuzzVersionOrder(f *testing.F) {
	for i, a := range versions {
		f.Add(a, versions[len(versions)-1-i])
	}
	f.Fuzz(func(t *testing.T, a, b string) { likeDpkg(t, a, b) })
}

// likeDpkg asks dpkg, too, whether both are versions, and which one is the newer one.
func likeDpkg(t *testing.T, a, b string) {
	t.Helper()
	v, err := parseVersion(a)
	w, other := parseVersion(b)
	// dpkg forgives blanks around a version, and no argument has a zero byte in it.
	for text, err := range map[string]error{a: err, b: other} {
		if strings.TrimSpace(text) == text && !strings.ContainsRune(text, 0) && (err == nil) != dpkg(t, "--validate-version", text) {
			t.Fatalf("version %q: we say %v, dpkg says otherwise", text, err)
		}
	}
	if err != nil || other != nil {
		return
	}
	got := v.compare(w)
	if newer := dpkg(t, "--compare-versions", a, "gt", b); newer != (got > 0) {
		t.Fatalf("%q newer than %q: we say %d, dpkg says %v", a, b, got, newer)
	}
	if older := dpkg(t, "--compare-versions", a, "lt", b); older != (got < 0) {
		t.Fatalf("%q older than %q: we say %d, dpkg says %v", a, b, got, older)
	}
	if back := w.compare(v); back != -got {
		t.Fatalf("%q and %q: %d, and the other way round %d", a, b, got, back)
	}
}

func dpkg(t *testing.T, args ...string) bool {
	t.Helper()
	err := exec.Command("dpkg", args...).Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return err == nil
}
