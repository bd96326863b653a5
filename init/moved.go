package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kogge.example/update/durable"
)

// machineRecord says which machine STATE was last used in.
const machineRecord = ownDir + "/machine"

// serials are the files in which firmware says which machine this is: of PCs, and of
// boards with a device tree. Many leave some of them empty.
//
// Source: Documentation/ABI/testing/sysfs-firmware-dmi-tables and
// devicetree/bindings in the kernel tree.
var serials = []string{
	"sys/class/dmi/id/product_uuid", "sys/class/dmi/id/product_serial", "sys/class/dmi/id/board_serial",
	"proc/device-tree/serial-number",
}

// machineOf is what the files below root say of the machine, on one line; "" where they say
// nothing that tells it from others.
func machineOf(root string) string {
	var all []string
	for _, name := range serials {
		data, err := os.ReadFile(filepath.Join(root, name))
		text := strings.Join(strings.Fields(strings.Trim(string(data), "\x00")), " ")
		if err != nil || strings.Trim(text, "0-fF .") == "" {
			continue
		}
		all = append(all, fmt.Sprintf("%s=%.100q", filepath.Base(name), text))
	}
	return strings.Join(all, " ")
}

// errMoved is said of a STATE that comes from another machine. A copied card and one that
// was moved look the same, so nothing is decided.
var errMoved = errors.New("this disk was last used in another machine: if it is a copy, and the other one still runs, both are the same node to everybody; kogge node reset makes this one a new node")

// compareMachine compares this machine with the one that STATE was last used in, as file says, and
// notes this one: so it is said during one boot. No record, or no serial, is no other
// machine. After a cut the old record is there, or the new one.
func compareMachine(file, now string) error {
	if now == "" {
		return nil
	}
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("which machine this is: %w", err)
	}
	if string(before) == now+"\n" {
		return nil
	}
	if err := durable.Replace(file, []byte(now+"\n"), 0o600); err != nil {
		return fmt.Errorf("which machine this is: %w", err)
	}
	if len(before) > 0 {
		return errMoved
	}
	return nil
}
