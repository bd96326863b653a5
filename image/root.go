package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"kogge.example/image/debian"
	"kogge.example/image/disk"
	"kogge.example/image/kernel"
	"kogge.example/image/program"
	"kogge.example/image/rootfs"
	"kogge.example/update/blank"
	"kogge.example/update/fat"
	"kogge.example/update/osrelease"
	"kogge.example/update/verity"
)

// slotRoot is a root file system with its verity tree behind it.
type slotRoot struct {
	File   string // path
	Verity verity.Params
}

// buildRoot makes the root file system and its verity tree.
func (r release) buildRoot(ctx context.Context, o Options, k *kernel.Kernel, programs program.Set) (slotRoot, error) {
	entries, err := r.rootEntries(o, k, programs)
	if err != nil {
		return slotRoot{}, err
	}
	for _, b := range []struct {
		path     string
		features disk.Features
	}{{blank.File, disk.QuotaState}, {blank.PlainFile, disk.PlainState}} {
		file, err := r.blankState(ctx, o, b.features)
		if err != nil {
			return slotRoot{}, err
		}
		entries = append(entries, rootfs.Entry{Path: b.path, File: file})
	}
	if entries, err = r.addContents(ctx, o, k, entries); err != nil {
		return slotRoot{}, err
	}
	id := uuid(o.Board.Name+" "+o.Version, "root")
	digest, err := rootfs.Digest(entries, o.When, id)
	if err != nil {
		return slotRoot{}, err
	}
	// The salt need not be secret, only the same on every build.
	salt := sha256.Sum256([]byte("kogge/verity-salt/v1 " + o.Board.Name + " " + o.Version))
	name := fmt.Sprintf("root-%x", digest[:16])
	file, err := cached(o, name+".erofs", func(out string) error {
		o.Say("root file system")
		if err := rootfs.Build(ctx, r.tools, entries, o.When, id, out); err != nil {
			return err
		}
		return appendTree(out, salt)
	})
	if err != nil {
		return slotRoot{}, err
	}
	p, err := readParams(file, salt)
	return slotRoot{File: file, Verity: p}, err
}

// trailer is how the cached file ends, behind the tree: the parameters as text in
// one block, so that a cached result needs no second hashing.
const trailer = 4096

// appendTree puts the hash tree and the parameters behind the file system in name.
func appendTree(name string, salt [32]byte) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("verity tree: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("verity tree: %w", err)
	}
	if st.Size()%verity.BlockSize != 0 {
		return fmt.Errorf("verity tree: %s has %d bytes, which is not a whole number of blocks", filepath.Base(name), st.Size())
	}
	blocks := uint64(st.Size() / verity.BlockSize)
	tree, root, err := verity.HashTree(f, blocks, salt)
	if err != nil {
		return fmt.Errorf("verity tree: %w", err)
	}
	p := make([]byte, trailer)
	copy(p, verity.Params{Root: root, Salt: salt, Blocks: blocks}.String())
	if _, err := f.WriteAt(append(tree, p...), st.Size()); err != nil {
		return fmt.Errorf("verity tree: %w", err)
	}
	return f.Close()
}

// readParams reads the parameters back and checks that they lead to the tree.
func readParams(name string, salt [32]byte) (verity.Params, error) {
	f, err := os.Open(name)
	if err != nil {
		return verity.Params{}, fmt.Errorf("verity tree: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return verity.Params{}, fmt.Errorf("verity tree: %w", err)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, st.Size()-trailer, trailer))
	if err != nil {
		return verity.Params{}, fmt.Errorf("verity tree: %w", err)
	}
	p, err := verity.ParseParams(string(bytes.TrimRight(text, "\x00")))
	if err != nil {
		return verity.Params{}, fmt.Errorf("verity tree of %s: %w", name, err)
	}
	if ok, err := verity.Leads(f, p); err != nil || !ok || p.Salt != salt {
		return verity.Params{}, fmt.Errorf("verity tree: the cached file %s is damaged; remove it and build again (%v)", name, err)
	}
	return p, nil
}

// rootEntries lists every file of the root file system.
func (r release) rootEntries(o Options, k *kernel.Kernel, programs program.Set) ([]rootfs.Entry, error) {
	of := r.facts(o)
	of.Kernel = k.Release
	facts, err := of.Text()
	if err != nil {
		return nil, err
	}
	certificates, err := caBundle(r.files)
	if err != nil {
		return nil, err
	}
	e2fsck, err := packageFile(r.files, "usr/sbin/e2fsck.static")
	if err != nil {
		return nil, err
	}
	entries := []rootfs.Entry{
		{Path: "/init", File: programs.Path(program.Init), Mode: 0o755},
		{Path: "/bin/agent", File: programs.Path(program.Agent), Mode: 0o755},
		{Path: "/bin/containerd-shim-runc-v2", File: programs.Path(program.Shim), Mode: 0o755},
		{Path: "/bin/runc", File: programs.Path(program.Runc), Mode: 0o755},
		{Path: "/bin/e2fsck", File: e2fsck, Mode: 0o755},
		// The kernel calls these by name.
		{Path: "/sbin/modprobe", Link: "/init"},
		{Path: "/sbin/poweroff", Link: "/init"},
		{Path: "/sbin/reboot", Link: "/init"},
		{Path: "/etc/os-release", Link: "../usr/lib/os-release"},
		{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/:/none\nnobody:x:65534:65534:nobody:/:/none\n")},
		{Path: "/etc/group", Data: []byte("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")},
		{Path: "/etc/ssl/certs/ca-certificates.crt", Data: certificates},
		{Path: "/usr/lib/os-release", Data: osRelease(o)},
		{Path: osrelease.File, Data: facts},
	}
	if o.Trust != nil {
		entries = append(entries, rootfs.Entry{Path: TrustFile, Data: o.Trust})
	}
	for _, name := range []string{"resolv.conf", "hostname", "hosts", "machine-id"} {
		entries = append(entries, rootfs.Entry{Path: "/etc/" + name, Link: "../run/kogge/etc/" + name})
	}
	for _, dir := range []string{"/boot", "/dev", "/proc", "/run", "/state", "/sys", "/tmp"} {
		entries = append(entries, rootfs.Entry{Path: dir, Dir: true})
	}
	entries = append(entries, rootfs.Entry{Path: "/var", Link: "run/kogge/var"})
	modules, err := k.Select(slices.Concat(o.Board.Watchdog.Modules, o.Board.Root, o.Board.Drivers, o.Board.Modules), o.Board.Without)
	if err != nil {
		return nil, fmt.Errorf("board %s: %w", o.Board.Name, err)
	}
	if err := noAccelerator(modules); err != nil {
		return nil, fmt.Errorf("board %s: %w", o.Board.Name, err)
	}
	dir := "/lib/modules/" + k.Release
	for _, m := range modules {
		entries = append(entries, rootfs.Entry{Path: dir + "/" + m.Path, File: m.File})
	}
	index := kernel.Depmod(modules)
	return append(entries,
		rootfs.Entry{Path: dir + "/modules.dep", Data: index.Dep},
		rootfs.Entry{Path: dir + "/modules.alias", Data: index.Alias},
		rootfs.Entry{Path: dir + "/modules.softdep", Data: index.Softdep},
	), nil
}

// osRelease is the file of os-release(5).
func osRelease(o Options) []byte {
	return fmt.Appendf(nil, "ID=kogge\nNAME=Kogge\nPRETTY_NAME=\"Kogge %[1]s\"\nVERSION_ID=%[1]q\nIMAGE_ID=kogge-%[2]s\nIMAGE_VERSION=%[1]q\n", o.Version, o.Board.Name)
}

// caBundle joins the certificate authorities of the ca-certificates package.
func caBundle(files []debian.File) ([]byte, error) {
	for _, f := range files {
		names, _ := filepath.Glob(filepath.Join(f.Dir, "usr/share/ca-certificates/*/*.crt"))
		if len(names) == 0 {
			continue
		}
		sort.Strings(names)
		var b bytes.Buffer
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("certificate authorities: %w", err)
			}
			b.WriteString(strings.TrimSpace(string(data)) + "\n")
		}
		return b.Bytes(), nil
	}
	return nil, fmt.Errorf("certificate authorities: none of the board's packages contains them")
}

// packageFile returns the path of a file in one of the packages.
func packageFile(files []debian.File, name string) (string, error) {
	for _, f := range files {
		path := filepath.Join(f.Dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("none of the board's packages contains the file %s", name)
}

func readPackageFile(files []debian.File, name string) ([]byte, error) {
	path, err := packageFile(files, name)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func hashFile(name string) (sum [32]byte, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, 0, err
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return sum, 0, err
	}
	h.Sum(sum[:0])
	return sum, size, nil
}

// file is a boot partition file with the given content.
func file(path string, data []byte) fat.File {
	return fat.File{Path: path, Size: int64(len(data)), Data: bytes.NewReader(data)}
}
