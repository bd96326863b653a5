package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/ulikunitz/xz"
	"golang.org/x/sync/errgroup"
)

// Module is one kernel module and what its .modinfo section says.
type Module struct {
	Name string // as the kernel writes it, with underscores
	Path string // below /lib/modules/RELEASE, ends in .ko
	File string // decompressed file in the cache, without its signature
	Size int64  // bytes of File

	Depends  []string // names; must be loaded before
	Softdeps []string // names or aliases; better loaded before
	Aliases  []string // patterns in the form of MODALIAS
	Firmware []string // files that it may ask for
}

// prepare decompresses the named modules side by side; dependencies that are
// found later come one at a time.
func (k *Kernel) prepare(names []string) error {
	if err := os.MkdirAll(k.cache, 0o755); err != nil {
		return fmt.Errorf("kernel %s: %w", k.Release, err)
	}
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for _, name := range names {
		if _, ok := k.paths[name]; ok {
			g.Go(func() error { _, err := k.unpack(name); return err })
		}
	}
	return g.Wait()
}

// load reads one module's facts.
func (k *Kernel) load(name string) (Module, error) {
	file, err := k.unpack(name)
	if err != nil {
		return Module{}, err
	}
	m := Module{Name: name, File: file, Path: strings.TrimSuffix(strings.TrimSuffix(k.paths[name], ".xz"), ".zst")}
	data, err := os.ReadFile(file)
	if err != nil {
		return Module{}, fmt.Errorf("module %s: %w", name, err)
	}
	m.Size = int64(len(data))
	if err := m.parse(data); err != nil {
		return Module{}, fmt.Errorf("module %s of kernel %s: %w", name, k.Release, err)
	}
	return m, nil
}

// parse reads the .modinfo section: key=value strings that end in a zero byte.
func (m *Module) parse(data []byte) error {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return errors.New("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return err
	}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "depends":
			for dep := range strings.SplitSeq(value, ",") {
				if dep != "" {
					m.Depends = append(m.Depends, normal(dep))
				}
			}
		case "softdep":
			m.Softdeps = append(m.Softdeps, preDependencies(value)...)
		case "alias":
			m.Aliases = append(m.Aliases, value)
		case "firmware":
			m.Firmware = append(m.Firmware, value)
		}
	}
	return nil
}

// preDependencies reads "pre: a b post: c" and returns what comes before.
func preDependencies(softdep string) []string {
	var names []string
	pre := false
	for _, word := range strings.Fields(softdep) {
		if strings.HasSuffix(word, ":") {
			pre = word == "pre:"
		} else if pre {
			names = append(names, word)
		}
	}
	return names
}

// unpack returns the decompressed file of a module; it appears by rename, so a
// second build beside this one sees a whole file or none.
func (k *Kernel) unpack(name string) (string, error) {
	file := filepath.Join(k.cache, name+".ko")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := k.unpackTo(file, filepath.Join(k.modules, k.paths[name])); err != nil {
		return "", fmt.Errorf("module %s of kernel %s: %w", name, k.Release, err)
	}
	return file, nil
}

func (k *Kernel) unpackTo(file, source string) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	var r io.Reader = in
	switch filepath.Ext(source) {
	case ".xz":
		if r, err = xz.NewReader(in); err != nil {
			return err
		}
	case ".zst":
		return fmt.Errorf("the compression of %s is not supported", filepath.Base(source))
	}
	tmp, err := os.CreateTemp(k.cache, ".module-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	data, err := io.ReadAll(r)
	if err == nil {
		data, err = withoutSignature(data)
	}
	if err == nil {
		_, err = tmp.Write(data)
	}
	if err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

// signed ends a module with a signature behind it.
//
// Source: MODULE_SIG_STRING in include/linux/module_signature.h of the kernel.
const signed = "~Module signature appended~\n"

// withoutSignature cuts off the signature, where there is one. It is checked for each
// module of each boot, which costs an emulated node 0.8 of 9.3 CPU seconds, and tells
// nothing: dm-verity checks the modules of the root and the initramfs is in one file with
// the kernel, so whoever can change a module can change what would check it. The kernel
// notes the taint E and loads it.
//
// Under Secure Boot this has to go: a kernel that is locked down refuses a module without
// a signature.
func withoutSignature(data []byte) ([]byte, error) {
	rest, ok := bytes.CutSuffix(data, []byte(signed))
	if !ok {
		return data, nil
	}
	// struct module_signature: five bytes, of which the last two are lengths of names,
	// three of nothing, and the length of the signature, big endian.
	const size = 12
	if len(rest) < size {
		return nil, errors.New("signature: cut short")
	}
	end := len(rest) - size
	s := rest[end:]
	behind := uint64(s[3]) + uint64(s[4]) + uint64(binary.BigEndian.Uint32(s[8:]))
	if behind > uint64(end) {
		return nil, fmt.Errorf("signature: %d bytes of %d", behind, end)
	}
	return rest[:uint64(end)-behind], nil
}
