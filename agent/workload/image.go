package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
)

// FromImage is what a container gets of its image's configuration and files besides its
// root file system.
type FromImage struct {
	Volumes []Volume // see [VolumesOf]
	IDs     []uint32 // of its users, groups and files beyond [IDs], in any order
}

// With is c as it is started from its image. Its [Container.Hash] stays that of what was
// wanted.
func (c Container) With(i FromImage) Container {
	c.hash = c.Hash()
	c.Volumes = slices.Concat(c.Volumes, i.Volumes)
	c.ids = slices.Concat(c.ids, i.IDs)
	return c
}

// MaxImageVolumes is how many volumes an image declares at most.
const MaxImageVolumes = 64

// VolumesOf are the volumes for the paths that c's image declares as such (VOLUME), but
// for those on which c has something else mounted, and for those that lie in a volume or a
// folder of the node: what is there is kept already, and one more mount would hide it. They
// are called SERVICE+PATH, in c's project, which is the name of no volume in a file. cannot
// are the paths that cannot be kept.
func VolumesOf(c Container, paths []string) (all []Volume, cannot []string) {
	project, service := Split(c.ID)
	for _, p := range slices.Sorted(slices.Values(paths)) {
		target := path.Join("/", p)
		switch {
		case c.mounts(target) || c.keeps(target) || slices.ContainsFunc(all, func(v Volume) bool { return v.Target == target }):
		case strings.ContainsRune(p, 0) || Reserved(target) || len(target) > maxTarget:
			cannot = append(cannot, p)
		default:
			all = append(all, Volume{Name: Join(project, service+"+"+volumeName(target)), Target: target})
		}
	}
	return all, cannot
}

// maxTarget is the longest path that is mounted on: the kernel's PATH_MAX without its zero.
const maxTarget = 4095

// Reserved says that target, a clean path, is none to mount on: the node fills it.
func Reserved(target string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(target, "/"), "/")
	return target == "/" || first == "proc" || first == "sys" || target == "/dev" ||
		target == "/etc/hosts" || target == "/etc/resolv.conf" || target == "/etc/hostname"
}

// mounts says whether c has something mounted on target.
func (c Container) mounts(target string) bool {
	at := func(other string) bool { return path.Clean(other) == target }
	return slices.ContainsFunc(c.Volumes, func(v Volume) bool { return at(v.Target) }) ||
		slices.ContainsFunc(c.Tmpfs, func(t Tmpfs) bool { return at(t.Target) }) ||
		slices.ContainsFunc(c.Files, func(f File) bool { return at(f.Target) }) ||
		slices.ContainsFunc(c.Rights.Binds, func(b Bind) bool { return at(b.Target) })
}

// keeps says whether target lies in one of c's volumes, or in a folder of the node that is
// mounted into it.
func (c Container) keeps(target string) bool {
	below := func(other string) bool {
		return strings.HasPrefix(target, strings.TrimSuffix(path.Clean(other), "/")+"/")
	}
	return slices.ContainsFunc(c.Volumes, func(v Volume) bool { return below(v.Target) }) ||
		slices.ContainsFunc(c.Rights.Binds, func(b Bind) bool { return below(b.Target) })
}

// volumeName is a path as part of a volume's name: /var/lib/db is var-lib-db. What cannot
// be told from another path so has some of its SHA-256 behind it.
func volumeName(target string) string {
	plain := true
	name := strings.Map(func(r rune) rune {
		switch {
		case r == '/':
			return '-'
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '_', r == '.':
			return r
		}
		plain = false
		return '-'
	}, strings.TrimPrefix(target, "/"))
	const longest = 40
	if plain && len(name) <= longest {
		return name
	}
	sum := sha256.Sum256([]byte(target))
	return fmt.Sprintf("%s-%s", strings.Trim(name[:min(len(name), longest)], "-"), hex.EncodeToString(sum[:4]))
}

// defaultPath is where programs are looked for when neither the image nor the file says.
//
// Source: DefaultPathEnvUnix in github.com/moby/moby/v2/daemon/pkg/oci.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environment is the image's environment, over what every container has, below c's own. A
// name without a value takes it away, as with Docker.
func (c Container) Environment(image []string) []string {
	all := []string{"PATH=" + defaultPath, "HOSTNAME=" + c.Hostname}
	for _, one := range slices.Concat(image, c.Env) {
		name, _, given := strings.Cut(one, "=")
		at := slices.IndexFunc(all, func(s string) bool { return strings.HasPrefix(s, name+"=") })
		switch {
		case at >= 0 && given:
			all[at] = one
		case at >= 0:
			all = slices.Delete(all, at, at+1)
		case given:
			all = append(all, one)
		}
	}
	return all
}
