package trial

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTakePstore takes a panic out of the firmware's hands, once it is on STATE.
func TestTakePstore(t *testing.T) {
	fill := func(dir string) {
		t.Helper()
		for name, text := range map[string]string{
			"dmesg-efi_pstore-1": "Kernel panic - not syncing: one\n", "dmesg-efi_pstore-2": "before it\n",
			"console-ramoops-0": "not a panic\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir, state := t.TempDir(), t.TempDir()
	saved := filepath.Join(state, "update", "panic.txt")
	if text, err := takePstore(dir, saved, true); text != "" || err != nil {
		t.Errorf("nothing there: %q, %v", text, err)
	}
	const want = "before it\nKernel panic - not syncing: one\n"
	fill(dir)
	if text, err := takePstore(dir, saved, false); text != want || err != nil {
		t.Errorf("without STATE: %q, %v", text, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 3 {
		t.Errorf("without STATE, and yet only %q are left", left)
	}
	// STATE takes nothing: the words stay where they are.
	blocked := filepath.Join(state, "blocked")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := takePstore(dir, filepath.Join(blocked, "panic.txt"), true); text != want || err == nil {
		t.Errorf("a full STATE: %q, %v", text, err)
	}
	if text, err := takePstore(dir, saved, true); text != want || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 || filepath.Base(left[0]) != "console-ramoops-0" {
		t.Errorf("left: %q", left)
	}
	if text, err := os.ReadFile(saved); string(text) != want || err != nil {
		t.Errorf("saved: %q, %v", text, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dmesg-efi_pstore-3"), make([]byte, 2*maxPstore), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := takePstore(dir, saved, true); len(text) != maxPstore || err != nil {
		t.Errorf("%d bytes of an endless panic, %v", len(text), err)
	}
}

// TestTrialLog: the end of a log is on the disk, whatever comes, in two files at most.
func TestTrialLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trial.log")
	w, err := openLog(path, true)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		w.add("agent", []byte(strings.Repeat("x", 900)+"\nshort\n"))
	}
	w.add("kernel", kernelLine([]byte("6,339,5140900,-"), []byte("the last line")))
	w.sync()
	text := string(readLog(path))
	if len(text) > 2*logHalf+2048 || len(text) < logHalf || !strings.HasSuffix(text, "agent: short\nkernel: [5.140900] the last line\n") {
		t.Errorf("%d bytes, at the end %q", len(text), text[max(0, len(text)-100):])
	}
	// The next try goes on, another trial begins anew.
	if w, err = openLog(path, false); err != nil {
		t.Fatal(err)
	}
	w.add("init", []byte("again\n"))
	if text := string(readLog(path)); !strings.HasSuffix(text, "the last line\ninit: again\n") {
		t.Errorf("the next try: %q", text[max(0, len(text)-100):])
	}
	if w, err = openLog(path, true); err != nil {
		t.Fatal(err)
	}
	w.add("init", []byte("new"))
	if text := string(readLog(path)); text != "init: new\n" {
		t.Errorf("another trial: %.100q", text)
	}
	// A disk that fails is told once, and costs nothing else.
	w.file.Close()
	w.add("init", []byte("lost\n"))
	w.add("init", []byte("lost\n"))
	if w.sync(); w.failed == nil {
		t.Error("nobody noticed that the disk is gone")
	}
	var none *trialLog
	none.add("init", []byte("nobody listens"))
	none.sync()
}
