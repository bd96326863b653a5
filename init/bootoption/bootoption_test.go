package bootoption

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/bootloader"
	"kogge.example/update/golden"
	"kogge.example/update/gpt"
)

var esp = gpt.Partition{Number: 1, First: 2048, Last: 1050623, GUID: gpt.DeriveGUID("test", "esp")}

var kernels = map[bootloader.Slot]string{"A": "EFI/kogge/a.efi", "B": "EFI/kogge/b.efi"}

// machine is an efivarfs: variables by name, without their attributes.
func machine(t *testing.T, variables map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range variables {
		if err := os.WriteFile(filepath.Join(dir, name+"-"+global), append([]byte{7, 0, 0, 0}, content...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// other is a boot option of somebody else.
func other(name string) []byte {
	return Option{Name: name, ESP: gpt.Partition{Number: 3, First: 1 << 20, Last: 1<<21 - 1}, Path: "EFI/BOOT/BOOTX64.EFI"}.encode()
}

func order(numbers ...uint16) []byte {
	var b []byte
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint16(b, n)
	}
	return b
}

// show is what a machine's firmware has, as people read it.
func show(t *testing.T, dir string) string {
	t.Helper()
	o, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(o.Boot)) {
		fmt.Fprintf(&b, "    %s %q\n", name(n), called(o.Boot[n]))
	}
	fmt.Fprintf(&b, "    order %04x, this boot from %04x\n", o.Order, o.Current)
	return b.String()
}

// TestKeep shows what becomes of the boot options of several machines.
func TestKeep(t *testing.T) {
	var out strings.Builder
	for _, c := range []struct {
		name      string
		variables map[string][]byte
	}{
		{"fresh", map[string][]byte{"Boot0000": other("Setup"), "Boot0001": other("Disk"), "Boot0002": other("Shell"), "BootOrder": order(0, 1, 2), "BootCurrent": order(1)}},
		{"firmware that keeps nothing", nil},
		{"chosen by hand, not in the order", map[string][]byte{"Boot0007": other("Stick"), "Boot0001": other("Disk"), "BootOrder": order(1), "BootCurrent": order(7)}},
		{"taken out of the order", map[string][]byte{"Boot0001": other("Disk"), "Boot0002": other("Kogge slot A"), "Boot0003": other("Kogge slot B"), "BootOrder": order(1), "BootCurrent": order(1)}},
		{"cut before the order", map[string][]byte{"Boot0001": other("Disk"), "Boot0000": other("Kogge slot A"), "BootOrder": order(1), "BootCurrent": order(1)}},
		{"put first by the firmware", map[string][]byte{"Boot0001": other("Disk"), "Boot0002": other("Kogge slot A"), "Boot0003": other("Kogge slot B"), "BootOrder": order(2, 3, 1), "BootCurrent": order(2)}},
		{"of another disk", map[string][]byte{"Boot0001": other("Disk"), "Boot0003": other("Kogge slot B"), "BootOrder": order(3, 1), "BootCurrent": order(1)}},
		{"an order that names what is not there", map[string][]byte{"BootOrder": order(9, 8), "BootCurrent": order(8)}},
	} {
		dir := machine(t, c.variables)
		for _, running := range []bootloader.Slot{"A", "A", "B"} {
			changed, err := Keep(dir, esp, running, kernels)
			fmt.Fprintf(&out, "%s: slot %s runs: changed %v, %v\n%s", c.name, running, changed, err, show(t, dir))
		}
		out.WriteString("\n")
	}
	// The loader has failed, and the firmware started a slot by itself.
	dir := machine(t, map[string][]byte{"Boot0001": other("Disk"), "BootOrder": order(1), "BootCurrent": order(1)})
	if _, err := Keep(dir, esp, "B", kernels); err != nil {
		t.Fatal(err)
	}
	if err := write(dir, "BootCurrent", order(2)); err != nil {
		t.Fatal(err)
	}
	changed, err := Keep(dir, esp, "A", kernels)
	fmt.Fprintf(&out, "the firmware came by itself: slot A runs: changed %v, %v\n%s", changed, err, show(t, dir))
	golden.Compare(t, "keep.txt", out.String())
}

// TestEncode holds the bytes: attributes, length of the path, name,
// HD(1,GPT,…,0x800,0x100000)/File(\EFI\kogge\a.efi), end. Real firmware judges them in
// the boot matrix of qemu/e2e.
func TestEncode(t *testing.T) {
	golden.Compare(t, "option.txt", fmt.Sprintf("% x\n", Option{Name: "Kogge slot A", ESP: esp, Path: kernels["A"]}.encode()))
}

// TestRefused says what it means that the firmware takes no variable.
func TestRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	if err := write(dir, "BootOrder", order(1)); err == nil || !strings.Contains(err.Error(), "does not start the other slot if the boot loader fails") {
		t.Errorf("error %v", err)
	}
}

func FuzzCalled(f *testing.F) {
	f.Add(other("Disk"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, option []byte) {
		n := called(option)
		if len(n) > 2*len(option) {
			t.Errorf("%d bytes have the name %q", len(option), n)
		}
		if bytes.Equal(option, other("Disk")) && n != "Disk" {
			t.Errorf("name %q", n)
		}
	})
}
