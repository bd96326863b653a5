package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestMachineOf: serials that tell machines apart, and what firmware writes instead.
func TestMachineOf(t *testing.T) {
	for _, c := range []struct {
		files map[string]string
		want  string
	}{
		{nil, ""},
		{map[string]string{"product_uuid": "4c4c4544-0038-4a10-8058-b7c04f4d5932\n", "product_serial": " 8XJ  MY2 \n"}, `product_uuid="4c4c4544-0038-4a10-8058-b7c04f4d5932" product_serial="8XJ MY2"`},
		{map[string]string{"product_uuid": "00000000-0000-0000-0000-000000000000\n", "product_serial": "\n", "board_serial": "FFFFFFFF\n"}, ""},
		{map[string]string{"serial-number": "10000000b1a2c3d4\x00"}, `serial-number="10000000b1a2c3d4"`},
		{map[string]string{"board_serial": "a\x1b[2Jb\nc"}, `board_serial="a\x1b[2Jb c"`},
	} {
		root := t.TempDir()
		for _, name := range serials {
			if text, ok := c.files[filepath.Base(name)]; ok {
				path := filepath.Join(root, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := machineOf(root); got != c.want {
			t.Errorf("%q: %s, want %s", c.files, got, c.want)
		}
	}
}

// TestMoved: a disk that comes to another machine says so there, for one boot.
func TestMoved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "machine")
	for n, step := range []struct {
		now  string
		want error
	}{{"", nil}, {"a", nil}, {"a", nil}, {"", nil}, {"b", errMoved}, {"b", nil}, {"a", errMoved}} {
		if err := compareMachine(file, step.now); !errors.Is(err, step.want) || err != nil && step.want == nil {
			t.Errorf("boot %d in %q: %v", n, step.now, err)
		}
	}
	if err := compareMachine(filepath.Join(file, "none"), "a"); err == nil {
		t.Error("a record that cannot be read is no problem")
	}
}
