package bootloader

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/cmdline"
	"kogge.example/update/gpt"
)

// TestBootScript has U-Boot's own tool judge the wrapping.
func TestBootScript(t *testing.T) {
	script := BootScript()
	if !bytes.Equal(script, BootScript()) {
		t.Error("other bytes the second time")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, ScriptFile)
	if err := os.WriteFile(file, script, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mkimage", "-l", file).CombinedOutput()
	if err != nil {
		t.Fatalf("mkimage: %v (apt-get install u-boot-tools)\n%s", err, out)
	}
	for _, want := range []string{"Kogge boot script", "AArch64 Linux Script (uncompressed)", fmt.Sprintf("Image 0: %d Bytes", len(uBootScript))} {
		if !strings.Contains(string(out), want) {
			t.Errorf("mkimage -l says nothing of %q:\n%s", want, out)
		}
	}
	// Damage is found by the checksums.
	for _, at := range []int{4, 12, 40, 70, len(script) - 1} {
		bad := bytes.Clone(script)
		bad[at] ^= 1
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("mkimage", "-l", file).CombinedOutput(); err == nil && strings.Contains(string(out), "Linux Script") {
			t.Errorf("byte %d changed, and mkimage takes it for a script:\n%s", at, out)
		}
	}
}

// TestScriptSays: what the script puts on the kernel command line is what stage 0 reads there.
func TestScriptSays(t *testing.T) {
	words := regexp.MustCompile(`kogge\.\w+=[\w-]*`).FindAllString(uBootScript, -1)
	if len(words) == 0 {
		t.Fatal("it says nothing")
	}
	own := strings.Fields(cmdline.Words{Trial: true, BootPart: gpt.EFISystem}.String())
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		if !slices.ContainsFunc(own, func(o string) bool { return o == word || value == "" && strings.HasPrefix(o, key+"=") }) {
			t.Errorf("%q is none of %q", word, own)
		}
	}
}

// TestScriptWords holds the script to what every U-Boot can do.
func TestScriptWords(t *testing.T) {
	for n, line := range strings.Split(uBootScript, "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, word := range []string{"setexpr", "itest", "for ", "while ", "\t", "\r"} {
			if strings.Contains(line, word) {
				t.Errorf("line %d: %q is not for every board", n+1, word)
			}
		}
		if len(line) > 500 {
			t.Errorf("line %d has %d characters, more than many a console buffer", n+1, len(line))
		}
	}
}
