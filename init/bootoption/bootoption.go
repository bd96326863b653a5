// Package bootoption has UEFI firmware know both slots of a disk, for the day on which
// the boot loader cannot start the one that it should: a loader that fails returns to
// the firmware, and the firmware goes on with its next boot option. Without one of ours
// a machine ends in the firmware's setup, and nobody is there to choose.
//
// In come the EFI variables and the boot partition; out go two boot options, each with
// the unified kernel image of one slot, right behind the option that led to us. What
// else the firmware starts, and in which order, is left alone.
//
// The code is our own, and not that of foxboron/go-uefi, because PID 1 links it: go-uefi
// reads boot options and writes none, and ends the program at a damaged device path.
package bootoption

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unicode/utf16"

	"kogge.example/update/bootloader"
	"kogge.example/update/gpt"
)

// global is the vendor GUID of the variables that the UEFI specification names.
const global = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// attributes of what we write: it persists, and firmware and kernel may read it.
const attributes = 0x7

// none is no number of a boot option.
const none = -1

// Options are the boot options of a machine.
type Options struct {
	Boot    map[int][]byte // content of Boot0000 to BootFFFF
	Order   []int          // in which the firmware tries them
	Current int            // the one that this boot came from; none where the firmware does not say
}

// Keep has the firmware know the slots of the disk with that boot partition. The slot
// that runs comes first: it is the one that has proven itself most lately. kernels are the
// paths of the slots' unified kernel images, dir is where efivarfs is mounted. It writes only what has to change: the first option, the order,
// the second option. After a cut it goes on at the next boot, for an option is missing
// until the order is there.
func Keep(dir string, esp gpt.Partition, running bootloader.Slot, kernels map[bootloader.Slot]string) (changed bool, err error) {
	have, err := read(dir)
	if err != nil {
		return false, err
	}
	var want []Option
	for _, slot := range []bootloader.Slot{running, running.Other()} {
		want = append(want, Option{Name: "Kogge slot " + string(slot), ESP: esp, Path: kernels[slot]})
	}
	set, order, err := plan(have, want)
	if err != nil {
		return false, err
	}
	numbers := slices.Sorted(maps.Keys(set))
	for i, number := range numbers {
		if i == len(numbers)-1 {
			break // the last one comes behind the order
		}
		if err := write(dir, name(number), set[number]); err != nil {
			return true, err
		}
	}
	if !slices.Equal(order, have.Order) {
		changed = true
		content := make([]byte, 0, 2*len(order))
		for _, number := range order {
			content = binary.LittleEndian.AppendUint16(content, uint16(number))
		}
		if err := write(dir, "BootOrder", content); err != nil {
			return true, err
		}
	}
	if len(numbers) > 0 {
		last := numbers[len(numbers)-1]
		return true, write(dir, name(last), set[last])
	}
	return changed, nil
}

// plan returns the boot options that are missing or differ, and the order with those
// wanted behind the option that this boot came from. An option is ours by its name.
//
// Where it is not certain that something of the order leads to the boot loader, ours stay
// out of it: in front of the loader, or alone, they would keep every update from starting.
// Once they are there and somebody has taken them out of the order, they stay out.
func plan(have Options, want []Option) (set map[int][]byte, order []int, err error) {
	set = map[int][]byte{}
	var ours []int
	complete := true
	for _, w := range want {
		number := none
		for n, content := range have.Boot {
			if called(content) == w.Name && (number == none || n < number) {
				number = n
			}
		}
		complete = complete && number != none
		for n := 0; number == none; n++ {
			if n > 0xffff {
				return nil, nil, errors.New("the firmware has no number left for a boot option")
			}
			if have.Boot[n] == nil && set[n] == nil && !slices.Contains(have.Order, n) {
				number = n
			}
		}
		if content := w.encode(); !bytes.Equal(have.Boot[number], content) {
			set[number] = content
		}
		ours = append(ours, number)
	}
	var others []int
	for _, n := range have.Order {
		if !slices.Contains(ours, n) {
			others = append(others, n)
		}
	}
	listed := len(others) < len(have.Order)
	at := slices.Index(others, have.Current)
	switch {
	case at >= 0 && (listed || !complete):
		return set, slices.Insert(others, at+1, ours...), nil
	case listed && slices.Contains(ours, have.Order[0]):
		return set, others, nil // the firmware has put them first
	case !listed && !complete:
		return nil, have.Order, nil
	}
	return set, have.Order, nil
}

// Option is a boot option that starts a file of a boot partition.
type Option struct {
	Name string // as the firmware's menus show it
	ESP  gpt.Partition
	Path string // with slashes
}

// encode returns the option as the firmware keeps it: an EFI_LOAD_OPTION whose device
// path names the partition by its GUID, so that it holds wherever the disk is plugged in.
//
// Source: UEFI specification 2.10, sections 3.1.3, 10.3.5.1 and 10.3.5.4.
func (o Option) encode() []byte {
	le := binary.LittleEndian
	// Hard drive media device path.
	path := []byte{4, 1, 42, 0}
	path = le.AppendUint32(path, uint32(o.ESP.Number))
	path = le.AppendUint64(path, o.ESP.First)
	path = le.AppendUint64(path, o.ESP.Last-o.ESP.First+1)
	g := o.ESP.GUID // its first three fields are little-endian here
	path = append(path, g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6])
	path = append(path, g[8:]...)
	path = append(path, 2, 2) // GPT, named by GUID
	// File path media device path.
	file := text("/" + o.Path)
	for i := 0; i < len(file); i += 2 {
		if file[i] == '/' && file[i+1] == 0 {
			file[i] = '\\'
		}
	}
	path = le.AppendUint16(append(path, 4, 4), uint16(4+len(file)))
	path = append(path, file...)
	path = append(path, 0x7f, 0xff, 4, 0) // end

	b := le.AppendUint32(nil, 1) // active
	b = le.AppendUint16(b, uint16(len(path)))
	b = append(b, text(o.Name)...)
	return append(b, path...)
}

// text is UTF-16 with a final zero.
func text(s string) []byte {
	var b []byte
	for _, unit := range append(utf16.Encode([]rune(s)), 0) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

// called returns the name in a boot option, "" where it has none.
func called(option []byte) string {
	const head = 6
	var units []uint16
	for i := head; i+1 < len(option); i += 2 {
		unit := binary.LittleEndian.Uint16(option[i:])
		if unit == 0 {
			return string(utf16.Decode(units))
		}
		units = append(units, unit)
	}
	return ""
}

func name(number int) string { return fmt.Sprintf("Boot%04X", number) }

// read reads the options from efivarfs.
func read(dir string) (Options, error) {
	o := Options{Boot: map[int][]byte{}, Current: none}
	files, err := filepath.Glob(filepath.Join(dir, "Boot????-"+global))
	if err != nil {
		return o, err
	}
	for _, f := range files {
		number, err := strconv.ParseUint(filepath.Base(f)[len("Boot"):len("Boot0000")], 16, 16)
		if err != nil {
			continue // BootNext
		}
		content, err := variable(f)
		if err != nil {
			return o, err
		}
		o.Boot[int(number)] = content
	}
	order, err := numbers(dir, "BootOrder")
	if err != nil {
		return o, err
	}
	o.Order = order
	current, err := numbers(dir, "BootCurrent")
	if len(current) == 1 {
		o.Current = current[0]
	}
	return o, err
}

// numbers reads a variable of numbers of boot options. One that is not set has none.
func numbers(dir, name string) (list []int, err error) {
	content, err := variable(filepath.Join(dir, name+"-"+global))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for i := 0; i+1 < len(content); i += 2 {
		list = append(list, int(binary.LittleEndian.Uint16(content[i:])))
	}
	return list, err
}

// maxVariable is the longest variable that is read, in bytes.
const maxVariable = 64 << 10

// variable reads a variable without its attributes.
func variable(file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("EFI variable: %w", err)
	}
	if len(content) < 4 || len(content) > maxVariable {
		return nil, fmt.Errorf("EFI variable %s has %d bytes", filepath.Base(file), len(content))
	}
	return content[4:], nil
}

// write sets a variable. The firmware takes it whole, in one call, or not at all.
func write(dir, name string, content []byte) error {
	f, err := os.OpenFile(filepath.Join(dir, name+"-"+global), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err == nil {
		_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), content...))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("EFI variable %s: %w; without it the firmware does not start the other slot if the boot loader fails", name, err)
	}
	return nil
}
